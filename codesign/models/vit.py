"""Vision transformers, whose layers see an image as a sequence of patches."""

import functools

import flax.linen as nn
import jax.numpy as jnp

from codesign.models.attention import MultiHeadAttention, check_heads
from codesign.models.layers import Conv, Dense, Dropout
from codesign.models.norm import LayerNorm
from codesign.models.registry import register
from codesign.types import Array


class ViT(nn.Module):
    """Dosovitskiy et al., ICLR 2021: ViT-B/16 by default, with norms before each part.

    A class token stands in front of the patches, and the classifier reads it alone.
    Positions are learned, one for each patch of the image that `init` sees. There is no
    batch norm. A tap stands behind each layer: its patches as a map, without the token.
    """

    num_classes: int
    hidden: int = 768  # width of a vector
    num_layers: int = 12
    num_heads: int = 12  # divides `hidden`
    inner: int = 3072  # width between the two dense layers of a layer
    patch_size: int = 16  # of both sides, which it divides
    dropout_rate: float = 0.0  # fraction of the values that dropout zeroes
    initialisation: str = "xavier"  # or `pytorch`, `kaiming`

    def __post_init__(self):
        """Raises ValueError unless the heads share the hidden width evenly."""
        check_heads(self.hidden, self.num_heads)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, bn_mask: Array, *, train: bool) -> Array:
        """[B, H, W, C] -> logits [B, num_classes]; `bn_mask` is not read.

        Raises:
            ValueError: If `patch_size` does not divide the sides of the images.
        """
        side, (height, width) = self.patch_size, x.shape[1:3]
        if height % side or width % side:
            raise ValueError(
                f"`patch_size` (={side}) must divide the sides of the images, {height} "
                f"and {width}; resize them, or choose another size."
            )
        patches = (side, side)
        x = Conv(
            *(self.hidden, patches, patches, ((0, 0), (0, 0)), self.initialisation),
            name="patches",
        )(x)
        shape = x.shape  # [B, h, w, H]
        x = x.reshape(shape[0], -1, self.hidden)
        small = nn.initializers.normal(0.02)
        token = self.param("token", nn.initializers.zeros, (1, 1, self.hidden))
        token = jnp.broadcast_to(token, (shape[0], 1, self.hidden))
        x = jnp.concatenate([token, x], 1)  # [B, 1 + h w, H]
        x = x + self.param("positions", small, (1, *x.shape[1:]))
        x = Dropout(self.dropout_rate, name="dropout")(x, train=train)
        for number in range(1, self.num_layers + 1):
            layer = _Layer(
                *(self.num_heads, self.inner, self.dropout_rate, self.initialisation),
                name=f"layer{number}",
            )
            x = layer(x, train=train)
            self.sow("intermediates", "tap", x[:, 1:].reshape(shape))
        x = LayerNorm(name="norm")(x[:, 0])
        return Dense(self.num_classes, self.initialisation, name="classifier")(x)


class _Layer(nn.Module):
    num_heads: int
    inner: int
    dropout_rate: float
    initialisation: str

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        def dropout(name: str, x: Array) -> Array:
            return Dropout(self.dropout_rate, name=f"{name}_dropout")(x, train=train)

        attention = MultiHeadAttention(
            self.num_heads,
            self.dropout_rate,
            initialisation=self.initialisation,
            name="attention",
        )
        y = LayerNorm(name="attention_norm")(x)
        x = x + dropout("attention", attention(y, y, train=train))
        y = LayerNorm(name="dense_norm")(x)
        y = Dense(self.inner, self.initialisation, name="inner")(y)
        y = dropout("inner", nn.gelu(y, approximate=False))
        y = Dense(x.shape[-1], self.initialisation, name="outer")(y)
        return x + dropout("outer", y)


for _name, _num_layers in (("vit12", 12), ("vit16", 16)):
    register(_name, title=f"ViT-{_num_layers}", num_sites=0)(
        functools.partial(ViT, num_layers=_num_layers)
    )
