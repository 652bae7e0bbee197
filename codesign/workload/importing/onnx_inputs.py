"""Fixes the shapes of the inputs of an ONNX model."""

import numbers
from collections.abc import Mapping, Sequence
from typing import Any

from codesign.workload.importing.recorder import MOST_ELEMENTS

Dimensions = Mapping[str, int | Sequence[int]]


def fix_inputs(
    model: Any,
    initializers: set[str],
    dimensions: Dimensions,
    batch_size: int | None,
) -> None:
    """Sets the batch of each input to 1, and its other open axes to their sizes.

    Args:
        model: An `onnx.ModelProto`, changed in place.
        initializers: Names of the graph's inputs that are weights.
        dimensions: By the name of a symbolic axis its size, or by that of an input the
            sizes of all its axes, the first included.
        batch_size: What a first axis must be fixed to in order to be a batch.

    Raises:
        ValueError: If an axis stays open, a fixed first axis may be the batch or not, or
            `dimensions` names what there is not or contradicts the model.
    """
    inputs = [v for v in model.graph.input if v.name not in initializers]
    for value in inputs:
        if not value.type.tensor_type.HasField("shape"):
            raise ValueError(
                f"The input {value.name!r} has no shape; export it with one."
            )
    given = {v.name: v.type.tensor_type.shape.dim for v in inputs}
    symbols = {dim.dim_param for dims in given.values() for dim in dims} - {""}
    _check_dimensions(dimensions, symbols, given)
    firsts = [dims[0] for dims in given.values() if dims]
    fixed = {dim.dim_value for dim in firsts if dim.dim_value > 0}
    if batch_size not in (None, 1, *fixed):
        raise ValueError(
            f"`batch_size` (={batch_size}) must be 1 or the fixed first axis of an "
            f"input; these are {sorted(fixed)}."
        )
    batches = {dim.dim_param for dim in firsts}
    for name, dims in given.items():
        sizes = dimensions.get(name)
        if isinstance(sizes, Sequence):
            for dim, size in zip(dims, sizes, strict=True):
                dim.dim_value = size
            continue
        if dims and dims[0].dim_value > 1:
            _check_batch(name, dims, batch_size)
        first = dims[0].dim_param if dims else ""
        for axis, dim in enumerate(dims):
            symbol, size = dim.dim_param, dim.dim_value
            is_batch = axis == 0 and (size < 1 or size == batch_size)
            if symbol and symbol in dimensions:
                dim.dim_value = dimensions[symbol]
            elif is_batch or (symbol and symbol in batches):
                dim.dim_value = 1
            elif size < 1:
                raise _open_axis(name, dims, axis, first)


def _open_axis(name: str, dims: Any, axis: int, first: str) -> ValueError:
    """The error for an axis without a size; `first` is the symbol of the first one."""
    symbol = dims[axis].dim_param
    rest = (dim.dim_value if dim.dim_value > 0 else 224 for dim in dims[1:])
    way_out = f"pass the input's sizes, dimensions={{{name!r}: {(1, *rest)}}}"
    if symbol:
        way_out += f", or this one's, dimensions={{{symbol!r}: 224}}"
    else:
        way_out = f"name it, or {way_out}"
    return ValueError(
        f"Axis {axis} of the input {name!r} is open ({symbol!r}); {way_out}; or export "
        f"the model with fixed sizes. Its first axis ({first!r}) is the "
        "batch, unless `dimensions` gives its size too."
    )


def _check_dimensions(
    dimensions: Dimensions, symbols: set[str], given: Mapping[str, Any]
) -> None:
    """Raises ValueError for a name that the model does not have, or sizes that misfit."""
    for name, sizes in dimensions.items():
        told = f"`dimensions` ({name!r}: {sizes!r})"
        is_whole = isinstance(sizes, Sequence)
        if name not in (given if is_whole else symbols):
            raise ValueError(
                f"{told} must name an open axis, which are {sorted(symbols)}, with its "
                f"size, or an input, which are {sorted(given)}, with all its sizes."
            )
        listed = tuple(sizes) if isinstance(sizes, Sequence) else (sizes,)
        for size in listed:
            if not isinstance(size, numbers.Integral) or not 1 <= size <= MOST_ELEMENTS:
                raise ValueError(f"{told} must give whole sizes from 1 to 2^40.")
        dims = given[name] if is_whole else ()
        shape = tuple(dim.dim_param or dim.dim_value for dim in dims)
        fits = [
            dim.dim_value in (0, -1, s) for dim, s in zip(dims, listed, strict=False)
        ]
        if is_whole and (len(shape) != len(listed) or not all(fits)):
            raise ValueError(f"{told} must fit the shape {shape} of the input.")


def _check_batch(name: str, dims: Any, batch_size: int | None) -> None:
    """Raises ValueError unless it was said whether a fixed first axis is the batch."""
    if batch_size is None:
        shape = tuple(dim.dim_param or dim.dim_value for dim in dims)
        size = dims[0].dim_value
        raise ValueError(
            f"The input {name!r} has the shape {shape}: its first axis is fixed to "
            f"{size}. Pass batch_size={size} if it is the batch, to count one example; "
            "pass batch_size=1 if it is not, as where the sequence comes first; or "
            "export the model with a batch of 1."
        )
