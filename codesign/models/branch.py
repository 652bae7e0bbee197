"""Residual functions of a branch, which see a backbone's map beside their own stream."""

import flax.linen as nn
import jax.numpy as jnp

from codesign.models.attention import MultiHeadAttention
from codesign.models.layers import Conv, Dense
from codesign.models.norm import MaskedBatchNorm
from codesign.types import Array

JOINS = ("add", "concatenate")


def joined(x: Array, tap: Array | None, join: str) -> Array:
    """`x` with a tap of its shape added, or beside it along the channels.

    Without a tap it is x, beside itself where another branch would have the tap: layers
    then have as many parameters as with one.
    """
    if join == "add":
        return x if tap is None else x + tap
    return jnp.concatenate([x, x if tap is None else tap], -1)


class ConvResidual(nn.Module):
    """relu(norm(conv(x with its tap))), the norm absent at mask 0 (CAMEL, II-B and III-C).

    Attributes:
        site: Of its norm, in the mask of its block.
        join: How the tap comes in: `add`, or `concatenate`.
    """

    site: int
    join: str = "add"

    @nn.compact
    def __call__(
        self, x: Array, tap: Array | None, bn_mask: Array, *, train: bool
    ) -> Array:
        """[B, h, w, C], tap likewise or None -> [B, h, w, C]."""
        y = Conv(x.shape[-1], name="conv")(joined(x, tap, self.join))
        return nn.relu(MaskedBatchNorm(self.site, name="norm")(y, bn_mask, train=train))


class AttentionResidual(nn.Module):
    """Attention over a map's positions and two dense layers, after BERT's block.

    A reversible block holds two of these (CAMEL, VI-B). The norm behind the attention is
    absent at mask 0.

    Attributes:
        site: Of its norm, in the mask of its block.
        join: How the tap comes in: `add`, or `concatenate`.
        num_heads: Divides the width.
        expansion: Width between the dense layers over that of the stream.
    """

    site: int
    join: str = "add"
    num_heads: int = 4
    expansion: int = 2

    @nn.compact
    def __call__(
        self,
        x: Array,
        tap: Array | None,
        bn_mask: Array,
        *,
        train: bool,
        is_token: Array | None = None,
    ) -> Array:
        """[B, ..., C], tap likewise or None -> [B, ..., C].

        `is_token` [B, T] tells tokens from padding, which nothing attends to.
        """
        width = x.shape[-1]
        h = joined(x, tap, self.join)
        h = h.reshape(len(x), -1, h.shape[-1])
        if h.shape[-1] != width:
            h = Dense(width, name="narrow")(h)
        attention = MultiHeadAttention(self.num_heads, name="attention")
        mask = {} if is_token is None else {"is_key": is_token}
        h = h + attention(h, h, train=train, **mask)
        h = MaskedBatchNorm(self.site, name="norm")(h, bn_mask, train=train)
        h = nn.gelu(Dense(self.expansion * width, name="inner")(h))
        return Dense(width, name="outer")(h).reshape(x.shape)
