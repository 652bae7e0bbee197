"""Attention: weights from queries and keys, and several heads of it as one layer."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from codesign.kernels.einsum import einsum
from codesign.kernels.named_op import named_op
from codesign.kernels.product import Axes
from codesign.models.layers import Dense, Dropout
from codesign.types import Array

SCORES = Axes(forward=(-1, -1), input_gradient=(-1, 1), weight_gradient=(1, -2))
CONTEXT = Axes(forward=(-1, 1), input_gradient=(-1, -1), weight_gradient=(-2, 1))


def attention_weights(
    scores: Array,
    *,
    scale: float,
    causal: bool = False,
    key_mask: Array | None = None,
) -> Array:
    """Softmax over keys of `scale * scores`: [B, ..., Q, K] -> [B, ..., Q, K].

    Scaling and masking belong to the softmax, as in fused kernels: one op, which reads
    and writes the map once. With `causal`, query i sees the keys 0..i only; with
    `key_mask` [B, K] bool, the keys where it is True. A query that sees no key spreads
    evenly over all.
    """
    masks = () if key_mask is None else (key_mask,)
    return named_op("softmax", _softmax, scores, *masks, scale=scale, causal=causal)


def check_heads(hidden: int, num_heads: int) -> None:
    """Raises ValueError unless the heads share the hidden width evenly."""
    if hidden % num_heads:
        raise ValueError(
            f"`hidden` (={hidden}) must be a multiple of `num_heads` (={num_heads})."
        )


def _softmax(scores, key_mask=None, *, scale, causal):
    scores = scores * scale
    hidden = jnp.finfo(scores.dtype).min
    if causal:
        seen = jnp.tril(jnp.ones(scores.shape[-2:], bool))
        seen = seen.reshape((1,) * (scores.ndim - 2) + seen.shape)
        scores = jnp.where(seen, scores, hidden)
    if key_mask is not None:
        batch, keys = key_mask.shape
        seen = key_mask.reshape(batch, *(1,) * (scores.ndim - 2), keys)
        scores = jnp.where(seen, scores, hidden)
    return jax.nn.softmax(scores, -1)


class MultiHeadAttention(nn.Module):
    """Vaswani et al., NeurIPS 2017, Section 3.2, with dropout of the weights.

    With `activate_projections` a ReLU follows each of the four dense layers, as some
    libraries have it by default (keras-multi-head).
    """

    num_heads: int
    dropout_rate: float = 0.0
    causal: bool = False
    initialisation: str = "xavier"
    activate_projections: bool = False

    @nn.compact
    def __call__(
        self, x: Array, memory: Array, *, key_mask: Array | None = None, train: bool
    ) -> Array:
        """Queries from x [B, Q, H], keys and values from memory [B, K, H] -> [B, Q, H].

        Queries see the keys where `key_mask` [B, K] is True, or all without one.
        """
        hidden = x.shape[-1]
        width = hidden // self.num_heads

        def project(name, x):
            x = Dense(hidden, self.initialisation, name=name)(x)
            return nn.relu(x) if self.activate_projections else x

        def heads(name, x):
            x = project(name, x)
            return x.reshape(*x.shape[:2], self.num_heads, width)  # [B, T, N, H / N]

        query, key = heads("query", x), heads("key", memory)
        value = heads("value", memory)
        with jax.named_scope("scores"):
            scores = einsum("bqnd,bknd->bnqk", query, key, SCORES)
        weights = attention_weights(
            scores,
            scale=1 / math.sqrt(width),
            causal=self.causal,
            key_mask=key_mask,
        )
        weights = Dropout(self.dropout_rate, name="weight_dropout")(
            weights, train=train
        )
        with jax.named_scope("context"):
            context = einsum("bnqk,bknd->bqnd", weights, value, CONTEXT)
        context = context.reshape(*x.shape[:2], hidden)
        return project("output", context)
