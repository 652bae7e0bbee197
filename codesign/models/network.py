"""An image classifier with batch-norm sites, as every other package knows it."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from codesign.types import Array, PyTree


@dataclasses.dataclass(frozen=True)
class Network:
    """A Flax module with BN sites, and the shapes it works on.

    The module is called as `module(x, bn_mask, train=...)` and holds `params` and
    `batch_stats`.
    """

    module: Any
    num_sites: int  # C, the length of `bn_mask`
    image_shape: tuple[int, int, int]  # (H, W, C) of one input
    num_classes: int  # width of the logits
    paper_sites: tuple[int, ...] = ()  # of the published placement, numbered from 1

    def init(self, key: Array) -> PyTree:
        """Variables `{"params", "batch_stats"}` drawn from `key`."""
        images = jnp.zeros((1, *self.image_shape), jnp.float32)
        return self.module.init(
            key, images, jnp.ones(self.num_sites, jnp.float32), train=True
        )

    def apply(
        self, variables: PyTree, images: Array, bn_mask: Array, *, train: bool
    ) -> tuple[Array, PyTree]:
        """Logits [B, num_classes] of images [B, H, W, C], and the batch statistics.

        With `train` the statistics are updated, otherwise they come back unchanged.

        Raises:
            ValueError: If `bn_mask` is not [num_sites].
        """
        if jnp.shape(bn_mask) != (self.num_sites,):
            raise ValueError(
                f"`bn_mask` has shape {jnp.shape(bn_mask)}; this network has "
                f"{self.num_sites} batch-norm sites, so pass ({self.num_sites},)."
            )
        if not train:
            logits = self.module.apply(variables, images, bn_mask, train=False)
            return logits, variables["batch_stats"]
        logits, updates = self.module.apply(
            variables, images, bn_mask, train=True, mutable=["batch_stats"]
        )
        return logits, updates["batch_stats"]

    def trace_args(self) -> tuple[Any, ...]:
        """`(fn, *shapes)` for `workload.trace`: one image through the whole network."""

        def forward(variables, images, bn_mask):
            return self.apply(variables, images, bn_mask, train=False)[0]

        variables = jax.eval_shape(self.init, jax.random.key(0))
        image = jax.ShapeDtypeStruct((1, *self.image_shape), jnp.float32)
        bn_mask = jax.ShapeDtypeStruct((self.num_sites,), jnp.float32)
        return forward, variables, image, bn_mask

    def mask(self, sites: tuple[int, ...]) -> Array:
        """Mask [num_sites] with ones at `sites`, numbered from 1."""
        for site in sites:
            if not 1 <= site <= self.num_sites:
                raise ValueError(
                    f"`sites` (={sites}) must lie in 1..{self.num_sites}, got {site}."
                )
        return (
            jnp.zeros(self.num_sites, jnp.float32)
            .at[jnp.array(sites, int) - 1]
            .set(1.0)
        )
