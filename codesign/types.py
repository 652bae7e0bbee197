"""Types that every package shares."""

import numbers
from typing import Any

import jax
import numpy as np

Array = jax.Array
Scalar = jax.Array | float  # A traced or concrete number of shape [].
PyTree = Any


def is_number(value: object) -> bool:
    """Whether it is one real number, of Python's, NumPy's or JAX's; a bool is none."""
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        kind = jax.numpy.result_type(value)
        is_real = not jax.numpy.issubdtype(kind, jax.numpy.complexfloating)
        return value.shape == () and jax.numpy.issubdtype(kind, np.number) and is_real
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_whole(value: object) -> bool:
    """Whether it is a whole number, of Python's or NumPy's; a bool is none."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)
