"""Dense layers as one named op."""

import jax.numpy as jnp

from codesign.kernels.named_op import named_op
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

    return named_op("dense", _dot, x, kernel)


def _dot(x, kernel):
    dtype = jnp.result_type(x, kernel, jnp.float32)
    return jnp.dot(x, kernel, preferred_element_type=dtype)
