"""Dense layers as one named op."""

import jax.numpy as jnp

from codesign.kernels.product import Axes, Product, multiply
from codesign.types import Array


def dense(x: Array, kernel: Array) -> Array:
    """Multiplies rows by a weight matrix: [..., C] x [C, K] -> [..., K].

    Raises:
        ValueError: If the inner sizes differ.
    """
    if kernel.ndim != 2 or x.shape[-1] != kernel.shape[0]:
        raise ValueError(
            f"`x` {x.shape} and `kernel` {kernel.shape} must be [..., C] and [C, K]."
        )

    return multiply(_DENSE, x, kernel)


def _dot(x, kernel):
    dtype = jnp.result_type(x, kernel, jnp.float32)
    return jnp.dot(x, kernel, preferred_element_type=dtype)


_DENSE = Product(
    "dense",
    _dot,
    Axes(forward=(-1, 0), input_gradient=(-1, 1), weight_gradient=(-2, -2)),
)
