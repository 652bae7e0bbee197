"""Types that every package shares."""

import numbers
from typing import Any

import jax
import numpy as np

Array = jax.Array
Scalar = jax.Array | float  # A traced or concrete number of shape [].
PyTree = Any


def is_number(value: object) -> bool:
    """Whether it is one real number that a float holds; a bool is none.

    Of Python's, NumPy's or JAX's. NaN and infinity are numbers.
    """
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        kind = jax.numpy.result_type(value)
        is_real = not jax.numpy.issubdtype(kind, jax.numpy.complexfloating)
        return value.shape == () and jax.numpy.issubdtype(kind, np.number) and is_real
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False
    try:
        return isinstance(float(value), float)
    except OverflowError:  # of a whole number of 400 digits
        return False


def is_whole(value: object) -> bool:
    """Whether it is a whole number, of Python's or NumPy's; a bool is none."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)
