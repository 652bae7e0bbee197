"""Non-overlapping pooling by reshape: its gradient needs no scatter."""

import jax.numpy as jnp

from codesign.kernels.named_op import named_op
from codesign.types import Array


def max_pool(x: Array, size: int = 2) -> Array:
    """Largest value of each `size` x `size` window: [B, H, W, C] -> [B, H', W', C].

    H' = H // size: an odd border is dropped, as PyTorch does. Where values tie, the
    gradient is shared among them. A map smaller than the window comes back unchanged,
    so deep networks accept small images.
    """
    if min(x.shape[1:3]) < size:
        return x
    return named_op("pool", _max_pool, x, variant="max", window=size * size, size=size)


def global_average_pool(x: Array) -> Array:
    """Mean over the map: [B, H, W, C] -> [B, C]."""
    window = x.shape[1] * x.shape[2]
    return named_op("pool", _mean, x, variant="global_average", window=window)


def _max_pool(x, *, size):
    batch, height, width, channels = x.shape
    out_h, out_w = height // size, width // size
    x = x[:, : out_h * size, : out_w * size]
    return x.reshape(batch, out_h, size, out_w, size, channels).max((2, 4))


def _mean(x):
    return jnp.mean(x, axis=(1, 2))
