"""The Transformer of Vaswani et al., on sequences that are already embedded."""

from typing import Any

import flax.linen as nn

from codesign.models.attention import MultiHeadAttention, check_heads
from codesign.models.layers import Dense, Dropout
from codesign.models.norm import LayerNorm
from codesign.models.registry import register
from codesign.types import Array


@register("transformer", title="Transformer")
class Transformer(nn.Module):
    """Vaswani et al., NeurIPS 2017: encoder and decoder, norms after the additions.

    Inputs carry their positions; there is neither an embedding nor a projection on a
    vocabulary, but a dense layer of the hidden width at the end. Dropout stands on the
    output of each sub-layer, on attention weights and behind the ReLU. The authors take
    an `inner` of 4 * `hidden`.
    """

    hidden: int = 1024  # width of a vector
    num_layers: int = 6  # of the encoder, and of the decoder
    inner: int = 1024  # width between the two dense layers of a block
    num_heads: int = 16  # divides `hidden`
    dropout_rate: float = 0.1  # fraction of the values that dropout zeroes
    initialisation: str = "xavier"  # or `pytorch`, `kaiming`
    activate_projections: bool = False  # a ReLU behind each dense layer of an attention

    def __post_init__(self):
        """Raises ValueError unless the heads share the hidden width evenly."""
        check_heads(self.hidden, self.num_heads)
        super().__post_init__()

    @nn.compact
    def __call__(self, source: Array, target: Array, *, train: bool) -> Array:
        """Source [B, S, H] and target [B, T, H], shifted by one -> [B, T, H].

        Output t sees the whole source and the targets 0..t.
        """
        settings: dict[str, Any] = dict(
            inner=self.inner,
            num_heads=self.num_heads,
            dropout_rate=self.dropout_rate,
            initialisation=self.initialisation,
            activate_projections=self.activate_projections,
        )
        memory = source
        for i in range(self.num_layers):
            layer = _Layer(**settings, name=f"encoder{i + 1}")
            memory = layer(memory, None, train=train)
        x = target
        for i in range(self.num_layers):
            layer = _Layer(**settings, name=f"decoder{i + 1}")
            x = layer(x, memory, train=train)
        return Dense(self.hidden, self.initialisation, name="output")(x)


class _Layer(nn.Module):
    """One layer of the encoder, or of the decoder where there is a memory."""

    inner: int
    num_heads: int
    dropout_rate: float
    initialisation: str
    activate_projections: bool

    @nn.compact
    def __call__(self, x: Array, memory: Array | None, *, train: bool) -> Array:
        def dropout(name, x):
            return Dropout(self.dropout_rate, name=f"{name}_dropout")(x, train=train)

        def attend(name, x, memory, causal=False):
            attention = MultiHeadAttention(
                self.num_heads,
                self.dropout_rate,
                causal,
                self.initialisation,
                self.activate_projections,
                name=f"{name}_attention",
            )
            y = dropout(name, attention(x, memory, train=train))
            return LayerNorm(name=f"{name}_norm")(x + y)

        x = attend("self", x, x, causal=memory is not None)
        if memory is not None:
            x = attend("cross", x, memory)
        y = Dense(self.inner, self.initialisation, name="inner")(x)
        y = dropout("inner", nn.relu(y))
        y = Dense(x.shape[-1], self.initialisation, name="outer")(y)
        return LayerNorm(name="dense_norm")(x + dropout("outer", y))
