"""Points of the search space as users give them, as arrays, and as the journal's text."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from codesign.types import Array

_NUM_DRAWS = 64  # random points looked at before the free ones are listed


def checked_point(x: ArrayLike, num_variables: int) -> np.ndarray:
    """`x` as `[C]` int8 of 0 and 1.

    Raises:
        ValueError: If it has another shape or an entry is neither 0 nor 1.
    """
    array = np.asarray(x)
    if array.shape != (num_variables,):
        raise ValueError(
            f"`x` must be one point [C] with C = {num_variables}, got shape "
            f"{array.shape}; `ask` returns [q, C], take one row at a time."
        )
    if array.dtype.kind not in "biuf" or not np.all((array == 0) | (array == 1)):
        raise ValueError(f"`x` must hold only 0 and 1, got {array.tolist()}; round it.")
    return array.astype(np.int8)


def encode(x: np.ndarray) -> str:
    """`[C]` of 0 and 1 as text such as "01011000"."""
    return "".join("1" if bit else "0" for bit in x)


def decode(text: str) -> np.ndarray:
    """The inverse of `encode`, `[C]` int8."""
    return np.array([int(character) for character in text], np.int8)


def all_points(num_variables: int) -> np.ndarray:
    """`[2^C, C]` int8: row i is i in binary, so the order is lexicographic."""
    index = np.arange(1 << num_variables)[:, None]
    shifts = np.arange(num_variables - 1, -1, -1)[None, :]
    return ((index >> shifts) & 1).astype(np.int8)


def random_point(key: Array, known: list[np.ndarray], num_variables: int) -> np.ndarray:
    """`[C]` int8, uniform over the points that are not known."""
    taken = {encode(x) for x in known}
    for x in np.asarray(_random_bits(key, num_variables)):
        if encode(x) not in taken:
            return x.astype(np.int8)
    texts = (format(i, f"0{num_variables}b") for i in range(2**num_variables))
    free = [text for text in texts if text not in taken]
    index = jax.random.randint(jax.random.fold_in(key, 1), (), 0, len(free))
    return decode(free[int(index)])


@functools.partial(jax.jit, static_argnums=1)
def _random_bits(key: Array, num_variables: int) -> Array:
    return jax.random.bits(key, (_NUM_DRAWS, num_variables), jnp.uint8) & jnp.uint8(1)
