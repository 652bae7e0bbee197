"""Views: what reshapes, moves or repeats an array without computing anything."""

import dataclasses
import math
from typing import Any

import jax.numpy as jnp

from codesign.workload.op import Shape
from codesign.workload.tracing.node import Value

# Each output is a view of the operand in the same position. Sums over devices are, since
# only meshes of one device are traced.
VIEWS = (
    "bitcast_convert_type",
    "broadcast_in_dim",
    "convert_element_type",
    "copy",
    "copy_p",
    "device_put",
    "layout_constraint",
    "mesh_cast",
    "name",
    "optimization_barrier",
    "pbroadcast",
    "pcast",
    "pmax",
    "pmin",
    "psum",
    "psum_invariant",
    "pvary",
    "reduce_precision",
    "reshape",
    "reshard",
    "rev",
    "sharding_constraint",
    "squeeze",
    "stop_gradient",
    "tile",
    "transpose",
    "with_memory_space_constraint",
)


# Primitives whose derivative is zero wherever it is defined.
_FLAT = ("ceil", "floor", "is_finite", "round", "sign", "stop_gradient")


def detached(value: Value) -> Value:
    """A value that is read as a constant."""
    if value.elements:
        elements = tuple(detached(element) for element in value.elements)
        return dataclasses.replace(value, elements=elements)
    return dataclasses.replace(value, detached=value.is_data, trained=frozenset())


def stops(primitive: str, aval: Any) -> bool:
    """Whether no gradient flows back from what a primitive makes."""
    dtype = getattr(aval, "dtype", None)
    return primitive in _FLAT or not (dtype and jnp.issubdtype(dtype, jnp.inexact))


def view(name: str, params: dict[str, Any], value: Value, shape: Shape) -> Value | None:
    """A view of a value, or None if a stack would have to be put together for it."""
    if value.elements:
        return _of_stack(name, params, value, shape)
    if name == "pad":
        inner = value.inner or value.shape
        if math.prod(shape) == value.size:
            return value
        if shape[-1] != inner[-1]:  # channels of zeros, through which a product runs
            return dataclasses.replace(value, shape=shape, view="pad")
        return dataclasses.replace(value, shape=shape, view="pad", inner=inner)
    grown = "broadcast" if math.prod(shape) > value.size else ""
    same = value.shape == shape and name != "rev"
    return dataclasses.replace(
        value,
        shape=shape,
        view=value.view or grown,
        inner=value.inner if same else (),
    )


def cut(params: dict[str, Any], value: Value, shape: Shape) -> Value | None:
    """A slice of a stack that takes whole elements, or None."""
    strides = params["strides"] or (1,) * len(shape)
    axis = value.axis
    whole = all(
        before == after
        for i, (before, after) in enumerate(zip(value.shape, shape, strict=True))
        if i != axis
    )
    if not value.elements or not whole:
        return None
    start, stop = params["start_indices"][axis], params["limit_indices"][axis]
    kept = value.elements[start : stop : strides[axis]]
    return dataclasses.replace(value, shape=shape, elements=kept)


def joined(values: list[Value], axis: int, shape: Shape) -> Value | None:
    """Stacks that are concatenated along the axis of their elements, or None."""
    if not all(value.elements and value.axis == axis for value in values):
        return None
    elements = tuple(e for value in values for e in value.elements)
    return dataclasses.replace(values[0], shape=shape, elements=elements)


def _of_stack(name, params, value, shape) -> Value | None:
    elements, count = value.elements, len(value.elements)
    if count == 1 and name in ("squeeze", "reshape"):
        return dataclasses.replace(elements[0], shape=shape)
    axis = _moved(name, params, value, shape)
    if axis is None:
        return None
    if name == "rev" and axis in params["dimensions"]:
        elements = elements[::-1]
    rest = shape[:axis] + shape[axis + 1 :]
    elements = tuple(dataclasses.replace(e, shape=rest) for e in elements)
    return dataclasses.replace(value, shape=shape, elements=elements, axis=axis)


def _moved(name, params, value, shape) -> int | None:
    """Where the axis of a stack is after a view, or None if it is lost."""
    axis = value.axis
    if name == "transpose":
        return tuple(params["permutation"]).index(axis)
    if name == "broadcast_in_dim":
        axis = params["broadcast_dimensions"][axis]
        return axis if math.prod(shape) == value.size else None
    if name in ("reshape", "squeeze"):
        before = math.prod(value.shape[:axis])
        for i, length in enumerate(shape):
            if length == len(value.elements) and math.prod(shape[:i]) == before:
                return i
        return None
    return axis if shape == value.shape else None
