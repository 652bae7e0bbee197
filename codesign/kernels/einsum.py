"""Products of two arrays of data, such as those of attention."""

import jax.numpy as jnp

from codesign.kernels.product import Axes, Product, multiply
from codesign.types import Array


def einsum(spec: str, x: Array, y: Array, axes: Axes) -> Array:
    """`jnp.einsum(spec, x, y)`, both of data.

    Args:
        spec: Such as `bqnd,bknd->bnqk`.
        x, y: Operands.
        axes: Along which it and its gradients add, y in the place of a weight.
    """
    static = (("spec", spec),)
    return multiply(Product("", _einsum, axes, static, has_weight=False), x, y)


def _einsum(x, y, *, spec):
    return jnp.einsum(spec, x, y)
