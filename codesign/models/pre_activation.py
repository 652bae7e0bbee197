"""A small residual network of pre-activation blocks, and what it becomes reversible."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from codesign.kernels.pooling import global_average_pool
from codesign.models.layers import Conv, Dense
from codesign.models.norm import MaskedBatchNorm
from codesign.models.to_reversible import ReversibleResidual
from codesign.types import Array, PyTree

NUM_SITES = 3  # two in the residual functions, which share them, and one behind
PLAIN = "residual"


class PreActivation(nn.Module):
    """G(x): norm, ReLU, 3x3 convolution, and once more (He et al., ECCV 2016)."""

    @nn.compact
    def __call__(self, x: Array, *, bn_mask: Array, train: bool) -> Array:
        """[B, H, W, C] -> [B, H, W, C]."""
        channels = x.shape[-1]
        for site in (0, 1):
            norm = MaskedBatchNorm(site, name=f"norm{site + 1}")
            x = Conv(channels, name=f"conv{site + 1}")(
                nn.relu(norm(x, bn_mask, train=train))
            )
        return x


class _Block(nn.Module):
    @nn.compact
    def __call__(self, x: Array, bn_mask: Array, train: bool) -> tuple[Array, None]:
        return x + PreActivation(name="g")(x, bn_mask=bn_mask, train=train), None


class ResidualNet(nn.Module):
    """A convolution, `depth` blocks x <- x + G(x) of one shape, a norm, a classifier.

    Attributes:
        channels, depth, num_classes: Sizes.
        wiring: `residual`, or how `ReversibleResidual` wires the blocks.
    """

    channels: int
    depth: int
    num_classes: int
    wiring: str = PLAIN

    @nn.compact
    def __call__(self, x: Array, bn_mask: Array, *, train: bool) -> Array:
        """[B, H, W, C] and a mask [3] -> logits [B, num_classes]."""
        x = Conv(self.channels, name="stem")(x)
        if self.wiring == PLAIN:
            same: Any = nn.broadcast  # for all blocks
            blocks: Any = nn.scan(
                _Block,
                variable_axes={"params": 0, "batch_stats": 0},
                split_rngs={"params": True},
                in_axes=same,
                length=self.depth,
            )
            x, _ = blocks(name="blocks")(x, bn_mask, train)
        else:
            made = ReversibleResidual(
                PreActivation(), self.depth, self.wiring, name="made"
            )
            x = made(x, bn_mask=bn_mask, train=train)
        norm = MaskedBatchNorm(NUM_SITES - 1, name="norm")
        x = global_average_pool(nn.relu(norm(x, bn_mask, train=train)))
        return Dense(self.num_classes, name="classifier")(x)


def in_wiring(module: ResidualNet, trained: PyTree) -> PyTree:
    """Variables of `module`, made of those of the residual network of its sizes."""
    if module.wiring == PLAIN:
        return trained
    made = ReversibleResidual(PreActivation(), module.depth, module.wiring)
    blocks = {name: tree["blocks"]["g"] for name, tree in trained.items()}
    placed = made.from_trained(blocks)

    def exchanged(name: str, tree: PyTree) -> PyTree:
        rest = {place: found for place, found in tree.items() if place != "blocks"}
        return {**rest, "made": placed[name]}

    return {name: exchanged(name, tree) for name, tree in trained.items()}


def all_norms() -> Array:
    """The mask [3] that keeps every norm."""
    return jnp.ones(NUM_SITES)
