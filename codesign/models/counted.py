"""Ten small networks whose MACs are known by hand, to hold counters against."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from codesign.types import Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counted:
    """A network for one example, and the MACs of its layers worked out from shapes.

    Attributes:
        module: Called with arrays of the shapes in `inputs`.
        inputs: Shape of each input, with a batch of 1.
        products: MACs of each convolution, dense layer or product of two maps.
        first: MACs of those whose input has no gradient, as nothing below is trained.
        spare: MACs of JAX's gradient that it does not need: what `remat` runs forward
            once more, and in a `scan`, whose steps are all alike, the gradient of a
            first state that nobody trains.
    """

    module: nn.Module
    inputs: tuple[tuple[int, ...], ...]
    products: tuple[int, ...]
    first: int = 0
    spare: int = 0

    @property
    def forward(self) -> int:
        """MACs of the network."""
        return sum(self.products)

    @property
    def backward(self) -> int:
        """MACs that its gradient needs: both sides of each product."""
        return 2 * self.forward - self.first

    def args(self) -> tuple[Any, ...]:
        """Shapes of variables and inputs, as `apply` takes them."""
        inputs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in self.inputs]
        return jax.eval_shape(self.module.init, jax.random.key(0), *inputs), *inputs

    def apply(self, variables: Any, *inputs: Array) -> Array:
        """The network's output."""
        return self.module.apply(variables, *inputs, mutable=["batch_stats"])[0]

    def loss(self, variables: Any, *inputs: Array) -> Array:
        """A scalar to differentiate by the variables."""
        return jnp.sum(self.apply(variables, *inputs) ** 2)


def _conv(
    taps: int, c_in: int, c_out: int, given: int, made: int, groups: int = 1
) -> int:
    """MACs of a convolution from `given` positions to `made`, as of its gradients."""
    return taps * c_in * c_out // groups * min(given, made)


def _attention(length: int, width: int) -> tuple[int, ...]:
    """Four projections, scores, and the weighted sum of values."""
    return (*[length * width**2] * 4, length**2 * width, length**2 * width)


def _pool(x: Array) -> Array:
    return nn.max_pool(x, (2, 2), (2, 2))


def _mean(x: Array) -> Array:
    return x.mean((1, 2))


def vgg11() -> Counted:
    """Simonyan & Zisserman, for images of 32x32."""
    layers, products, c_in = [], [], 3
    for depth, c_out, size in zip(
        (1, 1, 2, 2, 2), (64, 128, 256, 512, 512), (32, 16, 8, 4, 2), strict=True
    ):
        for _ in range(depth):
            layers += [nn.Conv(c_out, (3, 3)), nn.relu]
            products.append(_conv(9, c_in, c_out, size**2, size**2))
            c_in = c_out
        layers.append(_pool)
    module = nn.Sequential([*layers, _mean, nn.Dense(10)])
    return Counted(
        module=module,
        inputs=((1, 32, 32, 3),),
        products=(*products, 512 * 10),
        first=products[0],
    )


class _ResNet18(nn.Module):
    @nn.compact
    def __call__(self, x):
        def conv(x, c_out, taps=3, stride=1):
            x = nn.Conv(c_out, (taps, taps), (stride, stride), use_bias=False)(x)
            return nn.BatchNorm(use_running_average=False)(x)

        x = nn.relu(conv(x, 64))
        for c_out in (64, 64, 128, 128, 256, 256, 512, 512):
            stride = 1 + (c_out != x.shape[-1])
            y = conv(nn.relu(conv(x, c_out, 3, stride)), c_out)
            x = nn.relu(y + (conv(x, c_out, 1, stride) if stride > 1 else x))
        return nn.Dense(10)(x.mean((1, 2)))


def resnet18() -> Counted:
    """He et al., with a stem of stride 1 for images of 32x32, and batch norms."""
    stem = _conv(9, 3, 64, 1024, 1024)
    products = [stem, *[_conv(9, 64, 64, 1024, 1024)] * 4]
    for c, made in ((128, 256), (256, 64), (512, 16)):
        products += [_conv(taps, c // 2, c, 4 * made, made) for taps in (9, 1)]
        products += [_conv(9, c, c, made, made)] * 3
    return Counted(
        module=_ResNet18(),
        inputs=((1, 32, 32, 3),),
        products=(*products, 512 * 10),
        first=stem,
    )


def lstm() -> Counted:
    """Twelve steps of a scan: four gates read 24 inputs and 32 values of the state."""
    read, kept = (12 * size * 4 * 32 for size in (24, 32))
    return Counted(
        module=nn.Sequential([nn.RNN(nn.LSTMCell(32)), nn.Dense(10)]),
        inputs=((1, 12, 24),),
        products=(read, kept, 12 * 32 * 10),
        first=read + kept // 12,  # the first state is zeros
        spare=kept // 12,
    )


class _Rotary(nn.Module):
    @nn.compact
    def __call__(self, x):
        length, width = x.shape[1:]
        heads, size = 4, width // 4
        angles = np.outer(np.arange(length), 1e4 ** (-np.arange(0, size, 2) / size))
        cos, sin = (
            np.concatenate([f(angles)] * 2, -1).astype("float32")[None, :, None]
            for f in (np.cos, np.sin)
        )

        def rotated(y):
            left, right = jnp.split(y, 2, -1)
            return y * cos + jnp.concatenate([-right, left], -1) * sin

        y = nn.RMSNorm()(x)
        q, k, v = (nn.DenseGeneral((heads, size), use_bias=False)(y) for _ in "qkv")
        scores = jnp.einsum("bqhd,bkhd->bhqk", rotated(q), rotated(k)) / size**0.5
        mask = np.where(np.tri(length), 0.0, -1e9).astype("float32")[None, None]
        y = jnp.einsum("bhqk,bkhd->bqhd", nn.softmax(scores + mask), v)
        x = x + nn.DenseGeneral(width, (-2, -1), use_bias=False)(y)
        y = nn.RMSNorm()(x)
        gate, up = (nn.Dense(2 * width, use_bias=False)(y) for _ in range(2))
        return x + nn.Dense(width, use_bias=False)(nn.silu(gate) * up)


def rotary() -> Counted:
    """A block as Llama's; NumPy makes the tables of positions and the causal mask."""
    return Counted(
        module=_Rotary(),
        inputs=((1, 16, 64),),
        products=(*_attention(16, 64), *[16 * 64 * 128] * 3),
    )  # the scale of the first norm is trained, so all inputs have gradients


class _UNet(nn.Module):
    @nn.compact
    def __call__(self, x, time):
        angles = time[:, None] * 2.0 ** jnp.arange(8.0)[None]
        time = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)
        time = nn.silu(nn.Dense(32)(nn.silu(nn.Dense(32)(time))))
        y = skip = nn.Conv(8, (3, 3))(x) + nn.Dense(8)(time)[:, None, None]
        y = nn.Conv(16, (3, 3), (2, 2))(nn.silu(y)) + nn.Dense(16)(time)[:, None, None]
        y = nn.ConvTranspose(8, (4, 4), (2, 2))(nn.silu(y))
        return nn.Conv(3, (3, 3))(jnp.concatenate([y, skip], -1))


def unet() -> Counted:
    """Of diffusion: the time step, of shape [1], goes through sines and two layers."""
    image, time = _conv(9, 3, 8, 256, 256), 16 * 32
    down, up = _conv(9, 8, 16, 256, 64), _conv(16, 16, 8, 64, 256)
    dense = (time, 32 * 32, 32 * 8, 32 * 16)
    return Counted(
        module=_UNet(),
        inputs=((1, 16, 16, 3), (1,)),
        products=(image, down, up, _conv(9, 16, 3, 256, 256), *dense),
        first=image + time,
    )


def dcgan() -> Counted:
    """A generator: transposed convolutions from 1x1 to 4x4, 8x8 and 16x16."""
    sizes, channels = (1, 4, 8, 16), (100, 64, 32, 3)
    layers = [nn.ConvTranspose(64, (4, 4), padding="VALID", use_bias=False)]
    for c_out in channels[2:]:
        layers += [nn.relu, nn.ConvTranspose(c_out, (4, 4), (2, 2), use_bias=False)]
    products = tuple(
        _conv(16, channels[i], channels[i + 1], sizes[i] ** 2, sizes[i + 1] ** 2)
        for i in range(3)
    )
    return Counted(
        module=nn.Sequential([*layers, nn.tanh]),
        inputs=((1, 1, 1, 100),),
        products=products,
        first=products[0],
    )


def mobile() -> Counted:
    """Depthwise convolutions, one of two channels each, and one in four groups."""
    layers = [
        nn.Conv(16, (3, 3), (2, 2)),
        nn.Conv(16, (3, 3), feature_group_count=16),
        nn.Conv(32, (1, 1)),
        nn.Conv(32, (3, 3), (2, 2), feature_group_count=4),
        nn.Conv(64, (3, 3), feature_group_count=32),
    ]
    products = (
        _conv(9, 3, 16, 1024, 256),
        _conv(9, 16, 16, 256, 256, groups=16),
        _conv(1, 16, 32, 256, 256),
        _conv(9, 32, 32, 256, 64, groups=4),
        _conv(9, 32, 64, 64, 64, groups=32),
    )
    module = nn.Sequential([f for conv in layers for f in (conv, nn.relu6)])
    return Counted(
        module=nn.Sequential([module, _mean, nn.Dense(10)]),
        inputs=((1, 32, 32, 3),),
        products=(*products, 64 * 10),
        first=products[0],
    )


def dilated() -> Counted:
    """Taps 1, 2 and 4 apart; the last is VALID and has one channel."""
    convs = [nn.Conv(16, (3, 3), kernel_dilation=apart) for apart in (1, 2, 4)]
    last = nn.Conv(1, (3, 3), kernel_dilation=4, padding="VALID")
    first, inner = _conv(9, 3, 16, 576, 576), _conv(9, 16, 16, 576, 576)
    return Counted(
        module=nn.Sequential([f for conv in (*convs, last) for f in (conv, nn.relu)]),
        inputs=((1, 24, 24, 3),),
        products=(first, inner, inner, _conv(9, 16, 1, 576, 256)),
        first=first,
    )


class _Block(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return x + nn.Dense(32)(nn.gelu(nn.Dense(128)(x))), None


class _Rematted(nn.Module):
    @nn.compact
    def __call__(self, x):
        blocks = nn.scan(
            nn.remat(_Block), {"params": 0}, split_rngs={"params": True}, length=4
        )
        return nn.Dense(10)(blocks()(nn.Dense(32)(x), None)[0])


def rematted() -> Counted:
    """Four blocks of an MLP under `nn.remat` in `nn.scan`."""
    return Counted(
        module=_Rematted(),
        inputs=((1, 8, 24),),
        products=(8 * 24 * 32, *[8 * 32 * 128] * 8, 8 * 32 * 10),
        first=8 * 24 * 32,
        spare=4 * 8 * 32 * 128,  # what the GELU reads; its block's sum is not
    )


class _ViT(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = jax.lax.conv_general_dilated_patches(
            x, (8, 8), (8, 8), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = nn.Dense(64)(x.reshape(x.shape[0], -1, x.shape[-1]))
        x = x + self.param("positions", nn.initializers.normal(), (1, *x.shape[1:]))
        x = x + nn.MultiHeadDotProductAttention(4)(nn.LayerNorm()(x))
        x = x + nn.Dense(64)(nn.gelu(nn.Dense(128)(nn.LayerNorm()(x))))
        return nn.Dense(10)(x.mean(1))


def vit() -> Counted:
    """A vision transformer of one block, over 16 patches cut by a convolution."""
    embedding = 16 * 8 * 8 * 3 * 64
    return Counted(
        module=_ViT(),
        inputs=((1, 32, 32, 3),),
        products=(embedding, *_attention(16, 64), *[16 * 64 * 128] * 2, 64 * 10),
        first=embedding,
    )


NETWORKS: dict[str, Callable[[], Counted]] = {
    make.__name__: make
    for make in (
        *(vgg11, resnet18, lstm, rotary, unet),
        *(dcgan, mobile, dilated, rematted, vit),
    )
}
