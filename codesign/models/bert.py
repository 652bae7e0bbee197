"""An encoder of texts, and what it says of a whole text."""

import flax.linen as nn
import jax.numpy as jnp

from codesign.models.attention import MultiHeadAttention, check_heads
from codesign.models.layers import Dense, Dropout
from codesign.models.norm import LayerNorm
from codesign.models.registry import register
from codesign.models.tokens import check_tokens
from codesign.types import Array

_EPSILON = 1e-12  # of the norms, in the authors' code


@register("bert12", title="BERT-12", num_sites=0, reads_text=True)
class BERT(nn.Module):
    """Devlin et al., NAACL 2019: BERT-base by default, with a head of `num_classes`.

    Embeddings of tokens, positions and segments are added up. Norms stand behind the
    additions, and the head reads a dense layer of the first token, which is [CLS]. Token 0
    is padding, which no token attends to. Tokens behind the first separator are of segment
    1, others of segment 0. There is no batch norm. A tap [B, T, H] stands behind each
    layer, and the embedded text is the `input` of a branch beside them.
    """

    num_classes: int
    hidden: int = 768  # width of a vector
    num_layers: int = 12
    num_heads: int = 12  # divides `hidden`
    inner: int = 3072  # width between the two dense layers of a layer
    vocabulary_size: int = 30522  # number of different tokens
    max_length: int = 512  # tokens of the longest text
    separator: int = 102  # token between two texts, [SEP]
    dropout_rate: float = 0.1  # fraction of the values that dropout zeroes
    initialisation: str = "xavier"  # or `pytorch`, `kaiming`

    def __post_init__(self):
        """Raises ValueError unless the heads share the hidden width evenly."""
        check_heads(self.hidden, self.num_heads)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, bn_mask: Array, *, train: bool) -> Array:
        """Tokens [B, T] int32 -> logits [B, num_classes]; `bn_mask` is not read.

        A token beyond the vocabulary makes NaN.

        Raises:
            ValueError: If `x` is not [B, T] of whole numbers, or longer than `max_length`.
        """
        check_tokens(x)
        length = x.shape[1]
        if length > self.max_length:
            raise ValueError(
                f"`x` has {length} tokens, but `max_length` is {self.max_length}; cut the "
                "texts, or make it larger."
            )
        small = nn.initializers.normal(0.02)

        def embed(name: str, size: int, ids: Array) -> Array:
            return nn.Embed(size, self.hidden, embedding_init=small, name=name)(ids)

        is_token = x != 0  # [B, T]
        positions = self.param("positions", small, (self.max_length, self.hidden))
        y = embed("tokens", self.vocabulary_size, x)
        y = y + embed("segments", 2, self._segments(x)) + positions[None, :length]
        y = LayerNorm(_EPSILON, name="norm")(y)
        self.sow("intermediates", "input", y)
        y = Dropout(self.dropout_rate, name="dropout")(y, train=train)
        for number in range(1, self.num_layers + 1):
            layer = _Layer(
                *(self.num_heads, self.inner, self.dropout_rate, self.initialisation),
                name=f"layer{number}",
            )
            y = layer(y, is_token, train=train)  # [B, T, H]
            self.sow("intermediates", "tap", y)
        y = Dense(self.hidden, self.initialisation, name="pooler")(y[:, 0])
        y = Dropout(self.dropout_rate, name="pooler_dropout")(jnp.tanh(y), train=train)
        return Dense(self.num_classes, self.initialisation, name="classifier")(y)

    def _segments(self, x: Array) -> Array:
        is_separator = (x == self.separator).astype(jnp.int32)
        is_behind = jnp.cumsum(is_separator, 1) > is_separator
        return (is_behind & (x != 0)).astype(jnp.int32)


class _Layer(nn.Module):
    num_heads: int
    inner: int
    dropout_rate: float
    initialisation: str

    @nn.compact
    def __call__(self, x: Array, is_token: Array, *, train: bool) -> Array:
        def added(name: str, x: Array, y: Array) -> Array:
            y = Dropout(self.dropout_rate, name=f"{name}_dropout")(y, train=train)
            return LayerNorm(_EPSILON, name=f"{name}_norm")(x + y)

        attention = MultiHeadAttention(
            self.num_heads,
            self.dropout_rate,
            initialisation=self.initialisation,
            name="attention",
        )
        y = attention(x, x, key_mask=is_token, train=train)
        x = added("attention", x, y)
        y = Dense(self.inner, self.initialisation, name="inner")(x)
        y = nn.gelu(y, approximate=False)
        y = Dense(x.shape[-1], self.initialisation, name="outer")(y)
        return added("dense", x, y)
