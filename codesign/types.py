"""Types that every package shares."""

import numbers
from typing import Any

import jax

Array = jax.Array
Scalar = jax.Array | float  # A traced or concrete number of shape [].
PyTree = Any


def is_whole(value: object) -> bool:
    """Whether it is a whole number, of Python's or NumPy's; a bool is none."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)
