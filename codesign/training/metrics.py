"""What a co-jitted step says of its design, as one vector that a run keeps."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.flatten_util import ravel_pytree

from codesign.types import Array, PyTree

_KEPT = ("costs", "cost_gradients", "loss_mask_gradient", "loss_bits_gradient")


@struct.dataclass
class StepMetrics:
    """Loss and costs of a step with their gradients, or the mean of several steps.

    Without a chip there is only the loss.

    Attributes:
        loss: [] of the task.
        costs: The chip's smooth totals by name, such as `energy_j`.
        cost_gradients: By the same names, the gradient with respect to the design: a
            pytree like the design, `cost_gradients["energy_j"].chip.gpu_clock_hz`.
        loss_mask_gradient: [C] of the loss with respect to `bn_mask`.
        loss_bits_gradient: Of the loss with respect to the design's `mantissa_bits`,
            with or without a chip.
    """

    loss: Array
    costs: dict[str, Array] = struct.field(default_factory=dict)
    cost_gradients: dict[str, Any] = struct.field(default_factory=dict)
    loss_mask_gradient: Array | None = None
    loss_bits_gradient: Array | None = None


def flat(metrics: PyTree) -> Array:
    """[K] all that `make_step` returns of a step, the loss first."""
    rest = {name: metrics[name] for name in _KEPT if name in metrics}
    return jnp.append(metrics["loss"], ravel_pytree(rest)[0])


def shapes(chip_costs: Callable | None, design: Any) -> PyTree:
    """Zeros of the shapes of all that `flat` takes but the loss."""
    kept = {}
    if chip_costs is not None:
        costs = jax.tree.map(
            lambda _: jnp.zeros(()), jax.eval_shape(chip_costs, design)
        )
        kept["costs"] = costs
        kept["cost_gradients"] = dict.fromkeys(
            costs, jax.tree.map(jnp.zeros_like, design)
        )
        kept["loss_mask_gradient"] = jnp.zeros_like(design.bn_mask)
    if getattr(design, "mantissa_bits", None) is not None:
        kept["loss_bits_gradient"] = jnp.zeros_like(design.mantissa_bits)
    return kept


def unflat(values: Array, like: PyTree) -> StepMetrics:
    """Undoes `flat`, given `values` [K] and `shapes`."""
    return StepMetrics(loss=values[0], **ravel_pytree(like)[1](values[1:]))
