"""Batch norm whose presence is data, one program for every placement; layer norm."""

import flax.linen as nn
import jax.numpy as jnp
from jax.core import Tracer

from codesign.kernels.named_op import named_op
from codesign.types import Array, is_whole

TRACED_TRAIN = (
    "`train` must be True or False, but JAX traces it. Under `nn.remat` give it by "
    "position and name its place in `static_argnums`, where the module itself is 0."
)


class MaskedBatchNorm(nn.Module):
    """y = m BN(x) + (1 - m) x, with m = bn_mask[site]: BN at 1, identity at 0.

    Both terms are affine in x for each channel, so the layer runs as one multiply-add,

        y = a x + b,  a = m s + 1 - m,  b = m (bias - mean s),  s = scale / sqrt(var + eps)

    (Ioffe & Szegedy, ICML 2015, with the mask folded in), and the gradient of m needs
    only the per-channel sums that the gradients of scale and bias need anyway.

    Placing this layer makes a network searchable: `site` is the index into the mask.
    Statistics are gathered at every site, also where the mask is 0; there they have no
    influence on the output or on any gradient but the mask's own.
    """

    site: int  # index into `bn_mask`, from 0
    momentum: float = 0.9  # weight of the old running statistics: 1 - PyTorch's
    epsilon: float = 1e-5  # added to the variance

    @nn.compact
    def __call__(self, x: Array, bn_mask: Array, *, train: bool) -> Array:
        """Normalises over all axes but the last.

        Args:
            x: [B, ..., C].
            bn_mask: [num_sites] in [0, 1].
            train: Use and record batch statistics, else the running ones.

        Returns:
            [B, ..., C].

        Raises:
            ValueError: If `site` is no number from 0, or the mask has no entry for it.
            TypeError: If `train` is a value that JAX traces, as under a careless
                `nn.remat`.
        """
        if isinstance(train, Tracer):
            raise TypeError(TRACED_TRAIN)
        if not is_whole(self.site) or self.site < 0:
            raise ValueError(
                f"`site` (={self.site!r}) must be a whole number; sites count from 0."
            )
        if bn_mask.ndim != 1 or bn_mask.shape[0] <= self.site:
            raise ValueError(
                f"`bn_mask` has shape {bn_mask.shape}, but there is a batch norm of "
                f"`site` {self.site}; pass one entry for each site."
            )
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,))
        y, mean, var = named_op(
            "norm",
            _masked_norm,
            x,
            bn_mask[self.site],
            scale,
            bias,
            running_mean.value,
            running_var.value,
            variant="batch",
            site=self.site,
            train=train,
            epsilon=self.epsilon,
        )
        if train and not self.is_initializing():
            keep = self.momentum
            running_mean.value = keep * running_mean.value + (1 - keep) * mean
            running_var.value = keep * running_var.value + (1 - keep) * var
        return y


def _masked_norm(x, mask, scale, bias, mean, var, *, train, epsilon):
    """The map, and the statistics that it was normalised with."""
    axes = tuple(range(x.ndim - 1))
    shape = (1,) * len(axes) + (-1,)
    if train:
        mean = jnp.mean(x, axes)
        var = jnp.mean(jnp.square(x - mean.reshape(shape)), axes)
    s = scale / jnp.sqrt(var + epsilon)
    a = mask * s + (1 - mask)
    b = mask * (bias - mean * s)
    return x * a.reshape(shape) + b.reshape(shape), mean, var


class LayerNorm(nn.Module):
    """Ba et al., 2016: normalises each vector, then scales and shifts it."""

    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[..., C] -> [..., C]."""
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        return named_op(
            "norm", _layer_norm, x, scale, bias, variant="layer", epsilon=self.epsilon
        )


def _layer_norm(x, scale, bias, *, epsilon):
    shape = (1,) * (x.ndim - 1) + (-1,)
    centred = x - jnp.mean(x, -1, keepdims=True)
    var = jnp.mean(jnp.square(centred), -1, keepdims=True)
    y = centred / jnp.sqrt(var + epsilon)
    return y * scale.reshape(shape) + bias.reshape(shape)
