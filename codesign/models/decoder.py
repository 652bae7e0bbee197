"""A causal language model of today's shape: rotary positions, grouped queries, SwiGLU."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from codesign.kernels.einsum import einsum
from codesign.kernels.named_op import named_op
from codesign.models.attention import CONTEXT, SCORES, attention_weights, check_heads
from codesign.models.layers import Dense
from codesign.models.tokens import check_tokens
from codesign.types import Array


class Decoder(nn.Module):
    """Touvron et al., 2023: Llama-2-7B by default; no layer has a bias.

    Each layer adds attention and then SwiGLU (Shazeer, 2020) to what it gets, each behind
    an RMS norm. With fewer `num_kv_heads` than `num_heads`, groups of query heads share a
    key and a value (Ainslie et al., EMNLP 2023). A tap [B, T, H] stands behind each layer.
    """

    vocabulary_size: int = 32000  # number of different tokens
    hidden: int = 4096  # width of a vector
    num_layers: int = 32
    num_heads: int = 32  # of queries; divides `hidden` into even widths
    num_kv_heads: int = 32  # of keys and values; divides `num_heads`
    inner: int = 11008  # width inside SwiGLU
    base: float = 10_000.0  # of the rotary positions
    initialisation: str = "xavier"  # or `pytorch`, `kaiming`

    def __post_init__(self):
        """Raises ValueError unless the heads fit the width and each other."""
        check_heads(self.hidden, self.num_heads)
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"`num_heads` (={self.num_heads}) must be a multiple of `num_kv_heads` "
                f"(={self.num_kv_heads})."
            )
        if self.hidden // self.num_heads % 2:
            raise ValueError(
                f"`hidden` / `num_heads` (={self.hidden // self.num_heads}) must be even, "
                "since rotary positions turn pairs."
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Tokens [B, T] int32 -> logits [B, T, vocabulary_size] of each next token.

        Output t sees the tokens 0..t. A token beyond the vocabulary makes NaN.

        Raises:
            ValueError: If `x` is not [B, T] of whole numbers.
        """
        check_tokens(x)
        small = nn.initializers.normal(0.02)
        embed = nn.Embed(
            self.vocabulary_size, self.hidden, embedding_init=small, name="tokens"
        )
        y = embed(x)  # [B, T, H]
        for number in range(1, self.num_layers + 1):
            name = f"layer{number}"
            attention = GroupedQueryAttention(
                *(self.num_heads, self.num_kv_heads, self.base, self.initialisation),
                name=f"{name}_attention",
            )
            y = y + attention(RMSNorm(name=f"{name}_attention_norm")(y))
            swiglu = SwiGLU(self.inner, self.initialisation, name=f"{name}_swiglu")
            y = y + swiglu(RMSNorm(name=f"{name}_swiglu_norm")(y))
            self.sow("intermediates", "tap", y)
        y = RMSNorm(name="norm")(y)
        return _dense(self.vocabulary_size, self.initialisation, "head")(y)


class GroupedQueryAttention(nn.Module):
    """Causal attention with rotary positions, whose query heads share keys and values."""

    num_heads: int
    num_kv_heads: int
    base: float = 10_000.0
    initialisation: str = "xavier"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, T, H] -> [B, T, H]."""
        batch, length, hidden = x.shape
        width = hidden // self.num_heads

        def heads(name: str, num_heads: int) -> Array:
            y = _dense(num_heads * width, self.initialisation, name)(x)
            return y.reshape(batch, length, num_heads, width)

        query, key = heads("query", self.num_heads), heads("key", self.num_kv_heads)
        value = heads("value", self.num_kv_heads)
        with jax.named_scope("rotary"):
            query, key = rotate(query, self.base), rotate(key, self.base)
        query = query.reshape(batch, length, self.num_kv_heads, -1, width)
        with jax.named_scope("scores"):
            scores = einsum("btkgw,bskw->bkgts", query, key, SCORES)
        weights = attention_weights(scores, scale=1 / math.sqrt(width), causal=True)
        with jax.named_scope("context"):
            context = einsum("bkgts,bskw->btkgw", weights, value, CONTEXT)
        context = context.reshape(batch, length, hidden)
        return _dense(hidden, self.initialisation, "output")(context)


def rotate(x: Array, base: float = 10_000.0) -> Array:
    """Rotary positions (Su et al., 2021): [B, T, N, W] -> [B, T, N, W].

    Channels i and i + W / 2 of position t are turned by the angle t base^(-2 i / W), so
    that the product of two vectors knows how far apart their positions are, and no more.
    """
    length, half = x.shape[1], x.shape[-1] // 2
    frequencies = base ** (-jnp.arange(half) / half)
    angles = jnp.arange(length)[:, None] * frequencies[None]
    cos, sin = (f(angles)[None, :, None, :] for f in (jnp.cos, jnp.sin))
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], -1)


class RMSNorm(nn.Module):
    """Zhang & Sennrich, NeurIPS 2019: divides each vector by its root mean square."""

    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[..., C] -> [..., C]."""
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        return named_op(
            "norm", _rms_norm, x, scale, variant="rms", epsilon=self.epsilon
        )


def _rms_norm(x, scale, *, epsilon):
    square = jnp.mean(jnp.square(x), -1, keepdims=True)
    return x / jnp.sqrt(square + epsilon) * scale.reshape((1,) * (x.ndim - 1) + (-1,))


class SwiGLU(nn.Module):
    """Shazeer, 2020: a dense layer whose values another one gates, and one behind."""

    inner: int
    initialisation: str = "xavier"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[..., H] -> [..., H]."""
        gate = _dense(self.inner, self.initialisation, "gate")(x)
        value = _dense(self.inner, self.initialisation, "value")(x)
        y = nn.silu(gate) * value
        return _dense(x.shape[-1], self.initialisation, "outer")(y)


def _dense(features: int, initialisation: str, name: str) -> Dense:
    return Dense(features, initialisation, use_bias=False, name=name)
