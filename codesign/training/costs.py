"""What a co-jitted step says of its design, as numbers that a run keeps."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from codesign.types import Array, PyTree

_KEPT = ("costs", "cost_gradients", "loss_mask_gradient")


@dataclasses.dataclass(frozen=True)
class StepCosts:
    """Costs of a design, their gradients and the loss's, of one step or of their mean.

    Attributes:
        costs: The chip's smooth totals by name, such as `energy_j`.
        cost_gradients: By the same names, the gradient with respect to the design: a
            pytree like the design, `cost_gradients["energy_j"].chip.gpu_clock_hz`.
        loss_mask_gradient: [C] of the task loss with respect to `bn_mask`.
    """

    costs: dict[str, Array]
    cost_gradients: dict[str, Any]
    loss_mask_gradient: Array


def flat(metrics: PyTree) -> Array:
    """[K] all of a step's metrics, the loss first; [1] without a chip."""
    rest = ravel_pytree({name: metrics[name] for name in _KEPT if name in metrics})[0]
    return jnp.append(metrics["loss"], rest)


def shapes(chip_costs: Callable | None, design: Any) -> PyTree:
    """Zeros of the shapes of all that `flat` takes but the loss."""
    if chip_costs is None:
        return {}
    costs = jax.tree.map(lambda _: jnp.zeros(()), jax.eval_shape(chip_costs, design))
    gradients = dict.fromkeys(costs, jax.tree.map(jnp.zeros_like, design))
    return dict(
        zip(_KEPT, (costs, gradients, jnp.zeros_like(design.bn_mask)), strict=True)
    )


def unflat(values: Array, like: PyTree) -> StepCosts | None:
    """Undoes `flat`, given `values` [K] and `shapes`; None without a chip."""
    if not like:
        return None
    return StepCosts(**ravel_pytree(like)[1](jnp.asarray(values)[1:]))
