"""Hardware cost as a function of a design, to be differentiated inside the step."""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp

from codesign.hardware.cost import Cost
from codesign.numerics.bfp_format import Format
from codesign.numerics.relax import EXACT, Relax
from codesign.objective.design import Design
from codesign.types import Scalar
from codesign.workload.graph import Workload


def chip_costs(
    workload: Workload,
    estimate: Callable[..., Cost],
    *,
    batch_size: int,
    relax: Relax = EXACT,
    fmt: Format | None = None,
) -> Callable[[Design], dict[str, Scalar]]:
    """Returns `costs(design)`: `Cost.scalars` of `estimate` for the masked workload.

    The result goes to `training.step.make_step(chip_costs=...)`, whose jitted call then
    returns task loss, costs and the gradients of all of them.

    Args:
        workload: Ops of one example, unmasked.
        estimate: A chip's door, such as `hardware.reram_gpu.estimate`.
        batch_size: Inputs between two weight updates.
        relax: `EXACT`, whose counts have zero gradients, or `smooth(temperature)`.
        fmt: Block floating point of the network's numbers: a chip whose spec has a
            `value_bits` then stores as many as `design.mantissa_bits` says, a sign and a
            share of the exponent added; the mean of weights' and activations'.
    """

    def costs(design: Design) -> dict[str, Scalar]:
        chip = design.chip
        if fmt is not None and design.mantissa_bits is not None:
            beside = fmt.bits_per_number - fmt.mantissa_bits
            bits = jnp.mean(design.mantissa_bits) + beside
            chip = dataclasses.replace(chip, value_bits=bits)
        cost = estimate(
            chip,
            workload.masked(design.bn_mask),
            batch_size=batch_size,
            relax=relax,
        )
        scalars = cost.scalars()
        return {name: jnp.asarray(value) * 1.0 for name, value in scalars.items()}

    return costs
