"""Type aliases shared by every package."""

from typing import Any

import jax

Array = jax.Array
Scalar = jax.Array | float  # A traced or concrete number of shape [].
PyTree = Any
