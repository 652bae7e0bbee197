"""Convolution, dense and dropout layers, and the initialisations the papers compare."""

import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax

from codesign.kernels.convolution import convolution
from codesign.kernels.dense import dense
from codesign.kernels.named_op import named_op
from codesign.types import Array


def _uniform(bound: float) -> Callable:
    def init(key, shape, dtype=jax.numpy.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


# From fan_in to the initialisations of a kernel and of a bias.
INITIALISATIONS: dict[str, Callable[[int], tuple[Callable, ...]]] = {
    # torch.nn.Conv2d and Linear: kaiming_uniform(a=sqrt(5)) is U(-1/sqrt(fan_in), ...).
    "pytorch": lambda fan_in: (_uniform(1 / math.sqrt(fan_in)),) * 2,
    # Glorot & Bengio, AISTATS 2010.
    "xavier": lambda _: (nn.initializers.xavier_uniform(), nn.initializers.zeros),
    # He et al., ICCV 2015, fan_in and ReLU.
    "kaiming": lambda _: (nn.initializers.kaiming_normal(), nn.initializers.zeros),
}


class Conv(nn.Module):
    """Convolution, with a bias by default: a network without its BN keeps an offset.

    With `groups` equal to the channels of the input it is a depthwise convolution.
    """

    features: int
    kernel_size: tuple[int, int] = (3, 3)
    strides: tuple[int, int] = (1, 1)
    padding: str | Sequence[tuple[int, int]] = ((1, 1), (1, 1))
    initialisation: str = "pytorch"
    groups: int = 1
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, C] -> [B, H', W', features]."""
        channels = x.shape[-1] // self.groups
        fan_in = math.prod(self.kernel_size) * channels
        kernel_init, bias_init = INITIALISATIONS[self.initialisation](fan_in)
        shape = (*self.kernel_size, channels, self.features)
        kernel = self.param("kernel", kernel_init, shape)
        y = convolution(
            x, kernel, strides=self.strides, padding=self.padding, groups=self.groups
        )
        if not self.use_bias:
            return y
        bias = self.param("bias", bias_init, (self.features,))
        return y + bias.reshape(1, 1, 1, -1)


class Dense(nn.Module):
    """Dense layer, with a bias by default."""

    features: int
    initialisation: str = "pytorch"
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, ..., C] -> [B, ..., features]."""
        fan_in = x.shape[-1]
        kernel_init, bias_init = INITIALISATIONS[self.initialisation](fan_in)
        kernel = self.param("kernel", kernel_init, (fan_in, self.features))
        if not self.use_bias:
            return dense(x, kernel)
        bias = self.param("bias", bias_init, (self.features,))
        return dense(x, kernel) + bias.reshape(*(1,) * (x.ndim - 1), -1)


class Dropout(nn.Module):
    """Zeroes a fraction `rate` of the values in training and scales the others up.

    Needs a random key named `dropout`, unless `rate` is 0. Srivastava et al., JMLR 2014.
    """

    rate: float

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """[...] -> [...]."""
        if not train or self.rate == 0:
            return x
        key = self.make_rng("dropout")
        return named_op("dropout", _dropout, x, key, rate=self.rate)


def _dropout(x, key, *, rate):
    kept = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jax.numpy.where(kept, x / (1 - rate), 0)
