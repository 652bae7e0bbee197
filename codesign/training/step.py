"""One training step, pure: network, numbers, placement and, when given, the chip."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from codesign.models.network import Network
from codesign.training import task
from codesign.training.state import TrainState
from codesign.types import Array, PyTree, Scalar

_DROPOUT_STREAM = 2**32 - 3  # apart from what `preprocess` draws of the same key
_STORE_STREAM = 2**32 - 4
Preprocess = Callable[[Array, Array], Array]  # key, images -> float32 images


def make_step(
    network: Network,
    optimizer: optax.GradientTransformation,
    preprocess: Preprocess,
    *,
    chip_costs: Callable[[Any], Mapping[str, Scalar]] | None = None,
) -> Callable[[TrainState, tuple[Array, Array], Any], tuple[TrainState, PyTree]]:
    """Builds `step(state, batch, design) -> (state, metrics)`; the caller jits it.

    `batch` is images [B, H, W, C] or texts [B, T], and labels [B]. `design` is a pytree
    with a field `bn_mask` [C]; all of it is traced, so no placement and no chip
    recompiles.

    Metrics: `loss` and, with `chip_costs` (`objective.chip_costs`), also

    - `costs`: its named scalars for this design,
    - `cost_gradients`: the gradient of each of them with respect to `design`,
    - `loss_mask_gradient`: [C], of the task loss with respect to `bn_mask`; it comes
      from the same backward pass as the weights' gradients,

    and, of a design with `mantissa_bits`, `loss_bits_gradient`, likewise.

    A step whose loss or gradient is not finite changes nothing but `bad_step`.
    """

    def step(state: TrainState, batch: tuple[Array, Array], design: Any):
        images, labels = batch
        chex.assert_rank(labels, 1)
        x = preprocess(state.key(), images)
        dropout_key = jax.random.fold_in(state.key(), _DROPOUT_STREAM)

        def task_loss(params, knobs):
            variables = {"params": params, "batch_stats": state.batch_stats}
            logits, batch_stats = network.apply(
                variables, x, **knobs, train=True, key=dropout_key
            )
            chex.assert_shape(logits, (len(labels), network.num_classes))
            return jnp.mean(task.losses(logits, labels)), batch_stats

        knobs = network_knobs(design)
        wanted = (0,) if chip_costs is None and len(knobs) == 1 else (0, 1)
        (loss, batch_stats), gradients = jax.value_and_grad(
            task_loss, wanted, has_aux=True
        )(state.params, knobs)
        metrics = {"loss": loss}
        if "mantissa_bits" in knobs:
            metrics["loss_bits_gradient"] = gradients[1]["mantissa_bits"]
        if chip_costs is not None:
            metrics["costs"] = chip_costs(design)
            metrics["cost_gradients"] = jax.jacrev(chip_costs)(design)
            metrics["loss_mask_gradient"] = gradients[1]["bn_mask"]

        updates, opt_state = optimizer.update(
            gradients[0], state.opt_state, state.params
        )
        good = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(gradients[0]))
        new = dataclasses.replace(
            state,
            params=network.stored(
                optax.apply_updates(state.params, updates),
                jax.random.fold_in(state.key(), _STORE_STREAM),
            ),
            batch_stats=batch_stats,
            opt_state=opt_state,
        )
        new = jax.tree.map(lambda new, old: jnp.where(good, new, old), new, state)
        first_bad = jnp.where(good | (state.bad_step >= 0), state.bad_step, state.step)
        return dataclasses.replace(
            new, step=state.step + 1, bad_step=first_bad
        ), metrics

    return step


def network_knobs(design: Any) -> dict[str, Array]:
    """What a network takes of a design, by the names of `Network.apply`."""
    bits = getattr(design, "mantissa_bits", None)
    return {"bn_mask": design.bn_mask} | (
        {} if bits is None else {"mantissa_bits": bits}
    )


def make_evaluate(network: Network, normalise: Callable[[Array], Array]) -> Callable:
    """Builds `evaluate(state, design, images, labels) -> [B]` answers for jit.

    They are what `task.score` takes.
    """

    def evaluate(state: TrainState, design: Any, images: Array, labels: Array) -> Array:
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        knobs = network_knobs(design)
        logits, _ = network.apply(variables, normalise(images), **knobs, train=False)
        return task.answers(logits, labels)

    return evaluate
