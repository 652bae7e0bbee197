"""Points of the search space as users give them, as arrays, and as the journal's text."""

import numpy as np
from numpy.typing import ArrayLike


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
