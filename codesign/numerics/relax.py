"""Ceil and max, exact or smooth: one formula serves the report and the gradient."""

import jax
import jax.numpy as jnp
from flax import struct
from jax.core import Tracer

from codesign.types import Array, Scalar


@struct.dataclass(kw_only=True)
class Relax:
    """The primitives of a cost model: `EXACT`, or `smooth(temperature)`.

    `temperature` is a leaf, so annealing it never recompiles; `is_exact` is static.
    """

    temperature: Scalar = 0.0  # [] dimensionless, in (0, 1] when smooth
    is_exact: bool = struct.field(pytree_node=False, default=True)

    def ceil(self, x: Array) -> Array:
        """Smallest integer not below `x`, or a C1 staircase around it.

        With T the temperature, u = x - sqrt(T) / 2, k = round(u) and d = u - k,

            ceil_T(x) = k + 1/2 + tanh(d / 2T) / (2 tanh(1 / 4T)).

        At T = 1 it is x itself to within 0.01 (the usual relaxation); as T goes to 0 it
        tends to ceil(x) everywhere. The offset sqrt(T) / 2 moves each step off its
        integer and shrinks more slowly than the step's width T, so that integers, the
        common arguments of a hardware model, are reached from the right side.
        """
        x = jnp.asarray(x)
        if self.is_exact:
            return jnp.ceil(x)
        u = x - jnp.sqrt(self.temperature) / 2
        step = jax.lax.stop_gradient(jnp.round(u))
        slope = 1 / (2 * self.temperature)
        return step + 0.5 + jnp.tanh((u - step) * slope) / (2 * jnp.tanh(slope / 2))

    def max(self, *xs: Array) -> Array:
        """Largest of several non-negative arrays of one shape; see `reduce_max`."""
        return self.reduce_max(jnp.stack([jnp.asarray(x) for x in xs]), axis=0)

    def reduce_max(self, x: Array, axis: int | None = None) -> Array:
        """Maximum of non-negative numbers, or their p-norm with p = 1 / T.

        The p-norm is homogeneous, so it treats 1e-6 s and 1e9 bytes alike. It is never
        below the maximum; T = 1 gives the sum, T to 0 the maximum.
        """
        x = jnp.asarray(x)
        largest = jnp.max(x, axis=axis, keepdims=True)
        if self.is_exact:
            return jnp.squeeze(largest, axis) if axis is not None else largest.reshape()
        # The scale cancels analytically, so holding it fixed keeps gradients exact.
        scale = jax.lax.stop_gradient(jnp.where(largest > 0, largest, 1.0))
        ratio = x / scale
        # Below this a term adds nothing to the norm, and its log is not finite.
        counted = ratio > 1e-30
        log_ratio = jnp.log(jnp.where(counted, ratio, 1.0))
        powers = jnp.where(counted, jnp.exp(log_ratio / self.temperature), 0.0)
        total = jnp.sum(powers, axis=axis, keepdims=True)
        safe_total = jnp.where(total > 0, total, 1.0)
        norm = jnp.where(total > 0, scale * safe_total**self.temperature, 0.0)
        return jnp.squeeze(norm, axis) if axis is not None else norm.reshape()


EXACT = Relax()


def smooth(temperature: Scalar) -> Relax:
    """Smooth primitives at a dimensionless `temperature`, exact in the limit of 0.

    Raises:
        ValueError: If a concrete `temperature` lies outside (0, 1].
    """
    is_traced = isinstance(temperature, Tracer)
    if not is_traced and not 0 < temperature <= 1:
        raise ValueError(
            f"`temperature` must lie in (0, 1], got {temperature}; "
            "use `EXACT` for the limit of 0."
        )
    return Relax(temperature=temperature, is_exact=False)
