"""Errors of a memory that reads a stored value as noise, as eDRAM past its retention."""

import functools

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax
from jax.core import Tracer
from jax.scipy.stats import norm
from jax.typing import ArrayLike

from codesign.numerics.rounding import random_bits, straight_through, uniform
from codesign.types import Array, Scalar

NOMINAL_RATE = 1e-3  # of reads at the retention time: CAMEL, VII-A, a yield of 99.9 %
# Deviation of the logarithm of a cell's retention time. At .3 accepting 1 % of wrong
# reads in place of .1 % buys 1.26 times the retention. # assumed, .1 to .6
SPREAD = 0.3


@struct.dataclass
class ReadErrors:
    """How often a stored value is read as random noise in its place (CAMEL, VI-B).

    Attributes:
        rate: [] or [depth] of the blocks of a stack: of what is read soon after it was
            written, inputs of residual functions and gradients of their outputs.
        kept_rate: Likewise of activations that wait for the backward pass, which an
            irreversible stack alone keeps; None for `rate`.
        of_streams: Whether the streams of a reversible stack are hit, too, at the end of
            each block, going forward and going back, as CAMEL has it; an error that is
            there before an inversion is amplified by it. False spares them (assumed).
    """

    rate: Scalar | tuple[float, ...]
    kept_rate: Scalar | tuple[float, ...] | None = None
    of_streams: bool = struct.field(pytree_node=False, default=True)

    def rates(self, depth: int) -> tuple[Array, Array]:
        """`rate` and `kept_rate`, float32 [depth].

        Raises:
            ValueError: If a rate is no probability, or there is not one for each block.
        """
        kept = self.rate if self.kept_rate is None else self.kept_rate
        found = []
        for name, rate in (("rate", self.rate), ("kept_rate", kept)):
            values = jnp.asarray(rate, jnp.float32)
            if values.shape not in ((), (depth,)):
                raise ValueError(
                    f"`{name}` has shape {values.shape}, but must be one number, or one "
                    f"for each of {depth} blocks."
                )
            is_known = not isinstance(values, Tracer)
            if is_known and not bool(jnp.all((values >= 0) & (values <= 1))):
                raise ValueError(f"`{name}` (={rate}) must be from 0 to 1.")
            found.append(jnp.broadcast_to(values, (depth,)))
        return found[0], found[1]


def read(x: Array, rate: Scalar, key: Array) -> Array:
    """What a memory returns of `x`: each value with probability `rate` noise instead.

    Noise is uniform between plus and minus the largest magnitude of `x` (assumed: the
    paper says "random noise" and no more). The gradient is that of x, since a datapath
    does not know what it read wrongly.

    Args:
        x: [...] float32.
        rate: [] from 0 to 1, may be traced.
        key: Key, or its words.
    """
    stored = lax.stop_gradient(x)
    # A read is wrong by 32 bits: the 24 of `uniform` would make rates multiples of 6e-8.
    limit = jnp.minimum(jnp.asarray(rate, jnp.float32) * 2.0**32, 2.0**32 - 2.0**8)
    is_wrong = random_bits(_word(key, 0), x.shape) < limit.astype(jnp.uint32)
    is_wrong |= jnp.asarray(rate) >= 1
    noise = 2 * uniform(_word(key, 1), x.shape) - 1
    noise = noise * jnp.max(jnp.abs(stored), initial=0.0)
    return straight_through(x, jnp.where(is_wrong, noise.astype(x.dtype), stored))


@functools.partial(jax.custom_vjp)
def read_gradient(x: Array, rate: Scalar, key: Array) -> Array:
    """`x` itself, whose gradient is read from a memory as `read` says."""
    del rate, key
    return x


def _read_gradient_forward(x, rate, key):
    return x, (rate, key)


def _read_gradient_backward(kept, gradient):
    rate, key = kept
    return (
        read(gradient, rate, key),
        jnp.zeros_like(jnp.asarray(rate, jnp.float32)),
        None,
    )


read_gradient.defvjp(_read_gradient_forward, _read_gradient_backward)


def rate_of(life: ArrayLike, retention: ArrayLike, *, spread: float = SPREAD) -> Array:
    """Rate of wrong reads of values that wait `life` s without a refresh.

        p = Phi(ln(life / retention) / spread + Phi^-1(.001))

    Retention times of cells are taken as lognormal (assumed), and `retention` is what all
    but one in a thousand keep.

    Args:
        life: [...] s.
        retention: [...] s, as `NOMINAL_RATE` defines it.
        spread: Deviation of the logarithm of a cell's retention.

    Returns:
        [...] from 0 to 1.
    """
    ratio = jnp.log(jnp.asarray(life, jnp.float32) / retention)
    return norm.cdf(ratio / spread + norm.ppf(NOMINAL_RATE))


def _word(key: Array, stream: int) -> Array:
    words = key if jnp.issubdtype(key.dtype, jnp.uint32) else jax.random.key_data(key)
    return jnp.append(jnp.ravel(words), jnp.uint32(stream))
