"""Equations on data, written down as nodes: products, pools, slices, points."""

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from codesign.kernels.equations import (
    Params,
    inner_jaxprs,
    is_copy,
    is_literal,
)
from codesign.kernels.named_op import FREE, OpName, parse_name
from codesign.workload.op import MATRIX_KINDS, conv_pairs
from codesign.workload.tracing import primitives as known
from codesign.workload.tracing import product
from codesign.workload.tracing.loops import holds_product
from codesign.workload.tracing.node import POINT, REDUCE, Place, Value, without_batch
from codesign.workload.tracing.place import is_library

if TYPE_CHECKING:
    from codesign.workload.tracing.walk import Walk


def step(walk: "Walk", eqn: Any, values: list[Value], place: Place) -> list[Value]:
    """Writes down an equation with data among its operands; returns its outputs.

    Raises:
        ValueError: For a primitive whose cost is not known.
    """
    name = eqn.primitive.name
    if name in known.POINTWISE:
        return [_point(walk, eqn, values, place)]
    if name in known.REDUCTIONS:
        return [_reduction(walk, eqn, values, place)]
    maker = _MAKERS.get(name)
    if maker is not None:
        return [maker(walk, eqn, values, place)]
    if name in known.POOLS:
        return _pool(walk, eqn, values, place)
    several = _SEVERAL.get(name)
    kind = "elementwise" if name in known.RUNNING else ""
    if name in known.SCATTERS:  # into a map, or into an empty one
        kind = "elementwise" if values[0].is_data else "resize"
    if several or kind:
        kind, variant = several or (kind, name.replace("dynamic_", ""))
        return [
            walk.emit(
                kind,
                eqn,
                place,
                values,
                shape=tuple(var.aval.shape),
                variant=variant,
            )
            for var in eqn.outvars
        ]
    if not eqn.outvars:
        return []  # a callback for debugging
    raise ValueError(
        f"The primitive `{name}` at {place.name!r} computes on data, and what it costs is "
        "not known; call it through `codesign.kernels.named_op.named_op`, which says "
        "what it is."
    )


def named_step(
    walk: "Walk", eqn: Any, name: str, values: list[Value], place: Place
) -> list[Value] | None:
    """Writes down a call that is one layer by its name; None if it is to be entered."""
    named = parse_name(name)
    if named is not None:
        if named.kind == FREE:
            return _passed(eqn, values)
        if not values[0].is_data:
            return None
        return _named(walk, eqn, named, values, place)
    data = [value for value in values if value.is_data]
    shapes = [tuple(var.aval.shape) for var in eqn.outvars]
    if len(data) != 1 or len(shapes) != 1:
        return None
    layer = known.LAYERS.get(name) if shapes[0] == data[0].shape else None
    if name == "_one_hot":
        layer = ("embedding", "one_hot")
    elif name == "_resize":
        layer = ("resize", _method(eqn))
    if layer is None or not _is_layer(eqn, layer[0]):
        return None
    data = [walk.whole(eqn, value, place) for value in values if value.is_data]
    rest = [value for value in values if not value.is_data]
    kind, variant = layer
    return [walk.emit(kind, eqn, place, (*data, *rest), variant=variant)]


def _passed(eqn: Any, values: list[Value]) -> list[Value]:
    """The first operand, for each output of its shape; a constant for any other."""
    shapes = [tuple(var.aval.shape) for var in eqn.outvars]
    return [
        values[0] if shape == values[0].shape else Value(shape=shape)
        for shape in shapes
    ]


def _is_layer(eqn: Any, kind: str) -> bool:
    """Whether a call is JAX's or Flax's layer, and not the user's of the same name."""
    inner = inner_jaxprs(eqn)
    # Libraries interpolate by products with constants.
    is_plain = kind == "resize" or not any(map(holds_product, inner))
    return is_plain and all(map(is_library, inner))


def _named(walk, eqn, named: OpName, values, place) -> list[Value]:
    """One of the package's own ops. Second operand of a norm with a site is its mask."""
    values = [walk.whole(eqn, value, place) for value in values]
    kind, variant = named.kind, named.variant
    shapes = [value.shape for value in values]
    output = tuple(eqn.outvars[0].aval.shape)
    weight, macs = (), 0
    if kind in MATRIX_KINDS and values[1].is_data:
        kind = "matmul"  # of two maps
        macs = math.prod(shapes[1][:-1]) * math.prod(output)
    elif kind == "dense":
        weight = shapes[1]
        macs = math.prod(weight[:-1]) * math.prod(output)
    elif kind == "conv":
        weight = shapes[1]
        spatial = (values[0].inner or shapes[0])[1:-1], output[1:-1], weight[:-2]
        macs = math.prod(weight[-2:]) * conv_pairs(*spatial)
        if not variant:
            groups = shapes[0][-1] // weight[-2]
            grouped = "depthwise" if groups == shapes[0][-1] else "grouped"
            variant = grouped if groups > 1 else ""
    elif kind == "matmul":
        macs = _inner_macs(eqn)
    operands = [values[0], *values[2:]] if named.site >= 0 else values
    made = walk.emit(
        kind,
        eqn,
        place,
        operands,
        input_shape=without_batch(values[0].inner or shapes[0]),
        variant=variant,
        weight_shape=weight,
        macs=macs,
        window=named.window,
        site=named.site if named.site < 0 else named.site + values[1].offset,
    )
    # A norm also returns its statistics; only the map feeds the next op.
    rest = [Value(shape=tuple(var.aval.shape)) for var in eqn.outvars[1:]]
    return [made, *rest]


def _inner_macs(eqn: Any) -> int:
    total = 0
    for jaxpr in inner_jaxprs(eqn):
        for inner in jaxpr.eqns:
            if inner.primitive.name in product.PRODUCTS:
                left, right = (tuple(atom.aval.shape) for atom in inner.invars[:2])
                output = tuple(inner.outvars[0].aval.shape)
                total += product.product_macs(
                    inner.primitive.name, left, right, output, Params(inner)
                )
            total += _inner_macs(inner)
    return total


def _method(eqn: Any) -> str:
    """How `jax.image.resize` interpolates, told by what it computes."""
    names, literals = set(), set()
    for jaxpr in inner_jaxprs(eqn):
        for inner in jaxpr.eqns:
            names.add(inner.primitive.name)
            scalars = [a.val for a in inner.invars if is_literal(a)]
            literals |= {float(x) for x in scalars if np.ndim(x) == 0}
    if "dot_general" not in names:
        return "nearest"
    if "sin" in names:
        return "lanczos"
    return "cubic" if 1.5 in literals else "bilinear"


def _point(walk, eqn, values, place) -> Value:
    aval = eqn.outvars[0].aval
    shape = tuple(aval.shape)
    data = [value for value in values if value.is_data]
    sources = {value.source for value in data}
    integers = (jnp.integer, jnp.bool_)
    dtypes = [aval.dtype, *(atom.aval.dtype for atom in eqn.invars)]
    if len(sources) == 1 and all(
        any(jnp.issubdtype(dtype, kind) for kind in integers) for dtype in dtypes
    ):
        source = data[0].source
        if source < 0 or walk.nodes[source].kind not in _COMPUTING:
            return Value(shape=shape, source=source, view="broadcast")  # an address
    if walk.is_cut(
        eqn.primitive.name, eqn.outvars[0]
    ):  # what it compares with is fixed
        values = [dataclasses.replace(v, trained=frozenset()) for v in values]
    cube = eqn.primitive.name == "integer_pow" and Params(eqn)["y"] == 3
    return walk.emit(POINT, eqn, place, values, cube=cube)


# Integers that these make are numbers; others are indices, whose arithmetic is free.
_COMPUTING = (POINT, "conv", "dense", "matmul", "add", "mul", "norm")


def _reduction(walk, eqn, values, place) -> Value:
    shape = tuple(eqn.outvars[0].aval.shape)
    axes = tuple(int(axis) for axis in Params(eqn)["axes"])
    name = eqn.primitive.name
    # Over axes of length 1 it is a view, unless it is a mean over examples: of a batch
    # norm behind a dense layer, all that there is to it.
    is_mean = name == "reduce_sum" and 0 in axes and len(shape) > 0
    if math.prod(shape) == values[0].size and not (name.startswith("arg") or is_mean):
        return dataclasses.replace(values[0], shape=shape, inner=())
    if name.startswith("arg"):
        return walk.emit("reduce", eqn, place, values, variant=name)
    return walk.emit(REDUCE, eqn, place, values, axes=axes)


def _convolution(walk, eqn, values, place) -> Value:
    left, right = values[:2]
    shape = tuple(eqn.outvars[0].aval.shape)
    if is_copy(eqn):
        return walk.emit("resize", eqn, place, (left,), variant="patches")
    if right.is_data or not left.is_data:
        macs = product.product_macs(
            "conv_general_dilated",
            left.shape,
            right.shape,
            shape,
            Params(eqn),
            of_maps=left.is_data and right.is_data,
        )
        return walk.emit("matmul", eqn, place, values, macs=macs)
    # Padding written beside a convolution is part of it, as its own padding is.
    inner = left.inner or left.shape
    found = product.convolution(inner, right.shape, shape, Params(eqn))
    return walk.emit(
        "conv",
        eqn,
        place,
        values,
        variant=found.variant,
        input_shape=without_batch(found.input_shape),
        output_shape=without_batch(found.output_shape),
        weight_shape=found.weight_shape,
        macs=found.macs,
    )


def _matrix_product(walk, eqn, values, place) -> Value:
    left, right = values[:2]
    axes = Params(eqn)["dimension_numbers"]
    if left.is_data and right.is_data:
        shapes = (left.shape, right.shape, tuple(eqn.outvars[0].aval.shape))
        macs = product.product_macs("dot_general", *shapes, Params(eqn))
        return walk.emit("matmul", eqn, place, values, macs=macs)
    if not left.is_data:
        left, right = right, left
        axes = tuple(pair[::-1] for pair in axes)
    found = product.dense(left.shape, right.shape, axes)
    return _dense(walk, eqn, (left, right), place, found)


def _ragged_product(walk, eqn, values, place) -> Value:
    left, right = values[:2]
    shapes = (left.shape, right.shape, tuple(eqn.outvars[0].aval.shape))
    found = product.ragged(*shapes, Params(eqn))
    if found is not None and left.is_data and not right.is_data:
        return _dense(walk, eqn, values, place, found)
    macs = product.product_macs("ragged_dot_general", *shapes, Params(eqn))
    return walk.emit("matmul", eqn, place, values, variant="grouped", macs=macs)


def _dense(walk, eqn, operands, place, found) -> Value:
    return walk.emit(
        "dense",
        eqn,
        place,
        operands,
        variant=found.variant,
        input_shape=without_batch(found.input_shape),
        output_shape=without_batch(found.output_shape),
        weight_shape=found.weight_shape,
        macs=found.macs,
    )


def _selection(walk, eqn, values, place) -> Value:
    """A gather or a slice: of parameters an embedding, of data a slice."""
    if not values[0].is_data:
        return walk.emit("embedding", eqn, place, (*values[1:], values[0]))
    variant = "gather" if any(value.is_data for value in values[1:]) else ""
    return walk.emit("slice", eqn, place, values, variant=variant)


def _concatenation(walk, eqn, values, place) -> Value:
    values = [value for value in values if value.size]
    return walk.emit("concat", eqn, place, values)


def _pad(walk, eqn, values, place) -> Value:
    return walk.emit("resize", eqn, place, values, variant="pad")


def _pool(walk, eqn, values, place) -> list[Value]:
    window = math.prod(Params(eqn)["window_dimensions"])
    return [
        walk.emit(
            "pool",
            eqn,
            place,
            values,
            shape=tuple(var.aval.shape),
            window=window,
            variant=known.POOLS[eqn.primitive.name],
            input_shape=without_batch(values[0].inner or values[0].shape),
        )
        for var in eqn.outvars
    ]


_MAKERS = {
    "concatenate": _concatenation,
    "conv_general_dilated": _convolution,
    "dot_general": _matrix_product,
    "dynamic_slice": _selection,
    "gather": _selection,
    "pad": _pad,
    "ragged_dot_general": _ragged_product,
    "slice": _selection,
}
# Kind and variant of primitives with several outputs, each an op of its own.
_SEVERAL = {
    "sort": ("elementwise", "sort"),
    "split": ("slice", ""),
    "approx_top_k": ("reduce", "top_k"),
    "reduce": ("reduce", ""),
    "top_k": ("reduce", "top_k"),
    "unstack": ("slice", ""),
}
