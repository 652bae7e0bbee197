"""What a little more of each knob changes: smooth slopes beside exact secants."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from codesign.hardware.chip import Chip
from codesign.hardware.cost import Cost
from codesign.hardware.spec import Knob, knobs
from codesign.objective.design import Design
from codesign.types import Array, Scalar
from codesign.workload.graph import Workload


@dataclasses.dataclass(frozen=True)
class Sensitivity:
    """How the costs answer to one knob, as elasticities d ln(cost) / d ln(knob).

    An elasticity of -0.5 says that 1 % more of the knob saves half a percent. It is 0 for
    a cost that is 0, such as the violation of limits that are all kept.

    Attributes:
        knob: Of the chip.
        smooth: By cost, of the smooth model: what a gradient step follows.
        exact: By cost, of the exact model: the secant over the knob's factor down and up;
            None where the model refuses an end of it.
    """

    knob: Knob
    smooth: dict[str, float]
    exact: dict[str, float | None]


def sensitivities(
    chip: Chip,
    workload: Workload,
    costs: Mapping[str, Scalar],
    gradients: Mapping[str, Design],
    *,
    batch_size: int,
    names: Sequence[str],
) -> list[Sensitivity]:
    """Holds a co-jitted step's gradients by the chip against the exact model.

    Args:
        chip: At the design that the gradients are of.
        workload: Ops of one example, masked by that design.
        costs, gradients: Of the smooth model, as `training.StepMetrics` has them.
        batch_size: Inputs between two weight updates.
        names: Costs to look at, such as `energy_j`.
    """
    found = []
    by_leaf = {name: jax.tree.leaves(gradients[name].chip) for name in names}
    for knob in knobs(chip.spec):
        at = [
            knob.set(chip.spec, knob.value * by)
            for by in (1 / knob.factor, knob.factor)
        ]
        try:
            ends = [
                chip.cost_at(spec, workload, batch_size=batch_size).scalars()
                for spec in at
            ]
        except ValueError:  # a model on the host looks at where it is
            ends = None
        found.append(
            Sensitivity(
                knob,
                {
                    name: _elasticity(
                        float(np.asarray(by_leaf[name][knob.leaf])[knob.index]),
                        knob.value,
                        float(costs[name]),
                    )
                    for name in names
                },
                {name: _secant(name, ends, knob.factor) for name in names},
            )
        )
    return found


def toggled(
    chip: Chip, workload: Workload, bn_mask: Array, *, batch_size: int
) -> list[Cost]:
    """[C] exact costs with each site's batch norm taken out, or put in where it is out."""
    found = []
    for site in range(len(bn_mask)):
        mask = jnp.asarray(bn_mask, jnp.float32)
        mask = mask.at[site].set(1 - mask[site])
        found.append(chip.cost(workload.masked(mask), batch_size=batch_size))
    return found


def _elasticity(slope: float, value: float, cost: float) -> float:
    return slope * value / cost if cost else 0.0


def _secant(name: str, ends: Any, factor: float) -> float | None:
    if ends is None:
        return None
    low, high = (float(end[name]) for end in ends)
    if not (low > 0 and high > 0):
        return 0.0
    return (math.log(high) - math.log(low)) / (2 * math.log(factor))
