"""The order of training examples, and evaluation batches of one shape."""

import numbers

import jax
import numpy as np

from codesign.data.dataset import Split
from codesign.types import Array

# Apart from the steps and the initialisation, which fold numbers into the same root.
_ORDER_STREAM = 2**32 - 2


def epoch_order(seed: Array | int, epoch: int, num_examples: int) -> Array:
    """The order of one epoch's examples, from (seed, epoch) alone.

    A run that was interrupted finds the same order again without replaying the epochs
    before.

    Args:
        seed: Whole number below 2**32, or a key of `jax.random.key`.
        epoch: From 0.
        num_examples: N.

    Returns:
        `[N]` int32, a permutation of 0..N-1.

    Raises:
        ValueError: If a number is out of its range.
    """
    is_number = isinstance(seed, numbers.Integral)
    if is_number and not 0 <= int(seed) < 2**32:
        raise ValueError(f"`seed` must lie in 0..2**32-1, got {seed}.")
    for name, value, low in (("epoch", epoch, 0), ("num_examples", num_examples, 1)):
        if value < low:
            raise ValueError(f"`{name}` must be >= {low}, got {value}.")
    key = jax.random.key(np.uint32(seed)) if is_number else seed
    key = jax.random.fold_in(jax.random.fold_in(key, _ORDER_STREAM), epoch)
    return jax.random.permutation(key, num_examples)


def padded_batches(
    split: Split, batch_size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cuts a split into batches of one shape, in order, the last filled up with zeros.

    A filler is a black image, or a text of nothing but padding.

    Args:
        split: N labelled examples.
        batch_size: B.

    Returns:
        Images `[K, B, H, W, C]` or tokens `[K, B, T]`, labels `[K, B]`, each of the type
        it has in `split`, and weights `[K, B]` float32: 1 for an example, 0 for a
        filler. K = ceil(N / B), weights sum to N.

    Raises:
        ValueError: If `batch_size` is below 1 or `split` is empty.
    """
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be >= 1, got {batch_size}.")
    if not len(split):
        raise ValueError("`split` is empty: there is nothing to evaluate.")
    num_batches = -(-len(split) // batch_size)
    num_fillers = num_batches * batch_size - len(split)

    def cut(array: np.ndarray) -> np.ndarray:
        filler = np.zeros((num_fillers, *array.shape[1:]), array.dtype)
        whole = np.concatenate([array, filler]) if num_fillers else array
        return whole.reshape(num_batches, batch_size, *array.shape[1:])

    weights = np.ones(len(split), np.float32)
    return cut(split.images), cut(split.labels), cut(weights)
