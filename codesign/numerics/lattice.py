"""A lattice of multiples of 2^-fraction_bits, on which float32 adds without rounding."""

import jax.numpy as jnp
from jax import lax

from codesign.numerics.rounding import straight_through
from codesign.types import Array

_EXACT_INTEGERS = 2**24  # a float32 holds all whole numbers up to this one


def to_lattice(x: Array, fraction_bits: int) -> Array:
    """Nearest multiples of 2^-fraction_bits, with the gradient of `x`; 0 has no sign."""
    rounded = nearest(lax.stop_gradient(x), fraction_bits)
    return straight_through(x, jnp.where(rounded == 0, 0.0, rounded))


def nearest(x: Array, fraction_bits: int | None) -> Array:
    """Nearest multiples of 2^-fraction_bits; `x` itself where that is None."""
    if fraction_bits is None:
        return x
    return jnp.round(x * 2.0**fraction_bits) * 2.0**-fraction_bits


def largest(fraction_bits: int) -> float:
    """Magnitude up to which float32 holds every point, and so adds exactly."""
    return _EXACT_INTEGERS * 2.0**-fraction_bits


def num_beyond(*arrays: Array, fraction_bits: int | None) -> Array:
    """[] int32: values of `arrays` beyond the largest point, NaN too; 0 for None."""
    if fraction_bits is None:
        return jnp.int32(0)
    most = largest(fraction_bits)
    found = [jnp.sum(~(jnp.abs(a) <= most), dtype=jnp.int32) for a in arrays]
    return sum(found, jnp.int32(0))
