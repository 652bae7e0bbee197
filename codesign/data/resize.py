"""Brings square images to a size, bit for bit alike on every machine."""

import functools

import numpy as np

_WEIGHT_STEPS = 2**14  # weights are multiples of 1/16384
_BLOCK = 2048  # images at a time, for memory


def pad(images: np.ndarray, size: int) -> np.ndarray:
    """Puts images in the middle of a black square; exact.

    Args:
        images: `[N, H, W, C]` uint8, not larger than `size`.
        size: Pixels on each side of the result.
    """
    spare = [size - length for length in images.shape[1:3]]
    border = [(s // 2, s - s // 2) for s in spare]
    return np.pad(images, ((0, 0), *border, (0, 0)))


def bilinear(images: np.ndarray, size: int) -> np.ndarray:
    """Scales images to `size` by `size` pixels; when shrinking, averages (triangle).

    Weights are rounded to multiples of 2^-14 which sum to one exactly. Pixels being
    bytes, all sums are exact in float64, so neither their order nor the machine changes
    the result, and a plain surface stays as it is.

    Args:
        images: `[N, H, W, C]` uint8.
        size: Pixels on each side of the result.

    Returns:
        `[N, size, size, C]` uint8, rounded to nearest, ties to even.
    """
    height, width = images.shape[1:3]
    if (height, width) == (size, size):
        return images
    rows, columns = _weights(height, size), _weights(width, size)
    result = np.empty((len(images), size, size, images.shape[3]), np.uint8)
    for start in range(0, len(images), _BLOCK):
        x = images[start : start + _BLOCK].transpose(0, 3, 1, 2).astype(np.float64)
        x = rows @ x @ columns.T  # [N, C, size, size]
        result[start : start + _BLOCK] = np.rint(x).transpose(0, 2, 3, 1)
    return result


@functools.lru_cache(64)  # folders hold images of few sizes
def _weights(old: int, new: int) -> np.ndarray:
    """`[new, old]`: how much each old pixel adds to each new one; pixel centres fit."""
    scale = old / new
    reach = max(scale, 1.0)  # of the triangle, in old pixels
    centres = (np.arange(new) + 0.5) * scale - 0.5
    centres = np.clip(centres, 0, old - 1) if scale < 1 else centres  # repeat the edge
    weights = np.maximum(
        0.0, 1 - np.abs(np.arange(old)[None, :] - centres[:, None]) / reach
    )
    steps = np.rint(weights / weights.sum(axis=1, keepdims=True) * _WEIGHT_STEPS)
    largest = steps.argmax(axis=1)
    steps[np.arange(new), largest] += _WEIGHT_STEPS - steps.sum(axis=1)
    return steps / _WEIGHT_STEPS
