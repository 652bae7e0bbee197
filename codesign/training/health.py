"""Gradient health: what a network's gradients look like before any training."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from codesign.models.network import Network
from codesign.training import task
from codesign.types import Array, PyTree


def make_gradient_health(network: Network) -> Callable[..., Array]:
    """Builds `health(variables, images, labels, bn_mask) -> [K]`; the caller jits it.

    For each of the K kernels, which have two axes or more, by sorted name the ratio of
    DeepTrain, Fig. 1,

        health_k = mean |dloss / dkernel_k| / mean |kernel_k|,                       (1)

    of one batch, `images` [B, H, W, C] float32 and `labels` [B] int32, with batch
    statistics. With all batch norms it is around 0.3 in the paper's first layers, with
    none a thousandth of that: gradients vanish.
    """

    def health(variables: PyTree, images: Array, labels: Array, bn_mask: Array):
        def task_loss(params):
            logits, _ = network.apply(
                {**variables, "params": params},
                images,
                bn_mask,
                train=True,
                key=jax.random.key(0),
            )
            return jnp.mean(task.losses(logits, labels))

        params = variables["params"]
        gradients = jax.grad(task_loss)(params)
        ratios = jax.tree.map(
            lambda g, w: jnp.mean(jnp.abs(g)) / jnp.mean(jnp.abs(w)), gradients, params
        )
        pairs = zip(jax.tree.leaves(ratios), jax.tree.leaves(params), strict=True)
        return jnp.stack([ratio for ratio, weights in pairs if weights.ndim > 1])

    return health
