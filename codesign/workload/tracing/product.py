"""Shapes and multiply-accumulates of convolutions and matrix products."""

import dataclasses
import math
from typing import Any

from codesign.workload.op import Shape, conv_pairs

PRODUCTS = ("conv_general_dilated", "dot_general", "ragged_dot_general")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Product:
    """A product with a weight, ordered channels last.

    Attributes:
        input_shape: [..., C] with the batch.
        output_shape: [..., K] with the batch.
        weight_shape: [*kernel, C / groups, K], or [fan_in, fan_out].
        macs: Multiply-accumulates.
        variant: `depthwise`, `grouped`, `transposed`, or empty.
    """

    input_shape: Shape
    output_shape: Shape
    weight_shape: Shape
    macs: int
    variant: str = ""


def product_macs(
    name: str,
    left: Shape,
    right: Shape,
    output: Shape,
    params: dict[str, Any],
    *,
    of_maps: bool = False,
) -> int:
    """MACs of one equation, exactly; of a convolution, see `op.conv_pairs`.

    Args:
        name: Of the primitive.
        left, right, output: Shapes.
        params: Of the equation.
        of_maps: Whether both operands are data, as in the gradient of a kernel.
    """
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        return math.prod(output) * math.prod(left[i] for i in contracted)
    if name == "ragged_dot_general":
        # A row meets the matrix of its own group only; where rows are summed, as for the
        # gradient of the matrices, it meets one of the outputs, which are groups first.
        numbers = params["ragged_dot_dimension_numbers"]
        (contracted, _), _ = numbers.dot_dimension_numbers
        if set(numbers.lhs_ragged_dimensions) <= set(contracted):
            output = output[1:]
        return math.prod(output) * math.prod(left[i] for i in contracted)
    numbers = params["dimension_numbers"]
    batch, features, *axes = numbers.out_spec
    channels = output[batch] * output[features] * right[numbers.rhs_spec[1]]
    given = [left[axis] for axis in numbers.lhs_spec[2:]]
    taps = [right[axis] for axis in numbers.rhs_spec[2:]]
    made = [output[axis] for axis in axes]
    if of_maps and numbers.lhs_spec[1] == 0:
        # The gradient of a kernel sums over the first axis, that of examples.
        taps, made = made, taps
    return channels * conv_pairs(given, made, taps)


def convolution(
    left: Shape, right: Shape, output: Shape, params: dict[str, Any]
) -> Product:
    """Orders a convolution of data by a kernel as [N, *spatial, C] x [*kernel, C/g, K]."""
    numbers = params["dimension_numbers"]
    groups = params["feature_group_count"]
    weight = _last(right, numbers.rhs_spec)[1:]
    channels = left[numbers.lhs_spec[1]]
    weight = (*weight, right[numbers.rhs_spec[0]])
    variant = ""
    if max(params["lhs_dilation"], default=1) > 1:
        variant = "transposed"
    elif groups > 1:
        variant = "depthwise" if groups == channels else "grouped"
    return Product(
        input_shape=_last(left, numbers.lhs_spec),
        output_shape=_last(output, numbers.out_spec),
        weight_shape=weight,
        macs=product_macs("conv_general_dilated", left, right, output, params),
        variant=variant,
    )


def dense(data: Shape, weight: Shape, axes: Any) -> Product:
    """Orders a product of data by a weight as [..., fan_in] x [fan_in, fan_out].

    Args:
        data: Shape of the data.
        weight: Shape of the weight.
        axes: ((contracted of data, of weight), (batch of data, of weight)). Batch axes
            that both have are groups that do not see each other, as in a grouped
            convolution: the weight is [fan_in, groups * fan_out].
    """
    (summed, weight_summed), (batch, weight_batch) = axes
    fan_in = math.prod(data[i] for i in summed)
    groups = math.prod(data[i] for i in batch)
    rows = tuple(n for i, n in enumerate(data) if i not in (*summed, *batch))
    fan_out = math.prod(
        n for i, n in enumerate(weight) if i not in (*weight_summed, *weight_batch)
    )
    return Product(
        input_shape=(*rows, groups * fan_in),
        output_shape=(*rows, groups * fan_out),
        weight_shape=(fan_in, groups * fan_out),
        macs=math.prod(rows) * groups * fan_in * fan_out,
        variant="grouped" if groups > 1 else "",
    )


def ragged(
    data: Shape, weight: Shape, output: Shape, params: dict[str, Any]
) -> Product | None:
    """Orders a product of rows by the weight of the group that each belongs to.

    Groups that are equally large are those of a grouped dense layer, `[rows / groups,
    groups * fan_in] x [fan_in, groups * fan_out]`; None where they cannot be.
    """
    numbers = params["ragged_dot_dimension_numbers"]
    (summed, _), (batch, _) = numbers.dot_dimension_numbers
    ragged_axes, group_axes = (
        numbers.lhs_ragged_dimensions,
        numbers.rhs_group_dimensions,
    )
    groups = math.prod(weight[i] for i in group_axes)
    fan_in = math.prod(data[i] for i in summed)
    rows = math.prod(data) // fan_in
    if batch or not group_axes or set(ragged_axes) & set(summed) or rows % groups:
        return None
    fan_out = math.prod(output) // rows
    return Product(
        input_shape=(rows // groups, groups * fan_in),
        output_shape=(rows // groups, groups * fan_out),
        weight_shape=(fan_in, groups * fan_out),
        macs=rows * fan_in * fan_out,
        variant="grouped",
    )


def _last(shape: Shape, spec: Any) -> Shape:
    """The first axis of a spec, its spatial axes, and its second axis at the end."""
    return (shape[spec[0]], *(shape[i] for i in spec[2:]), shape[spec[1]])
