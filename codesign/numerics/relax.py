"""Ceil and max, exact or smooth: one formula serves the report and the gradient."""

import math
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import struct
from jax.core import Tracer

from codesign.types import Array, Scalar, is_number

WINDOW = 1.5  # assumed: counts of a design move by such factors; range 1.1..2
_Tree = TypeVar("_Tree")


@struct.dataclass(kw_only=True)
class Relax:
    """The primitives of a cost model: `EXACT`, or `smooth(temperature)`.

    `temperature` is a leaf, so annealing it never recompiles; `is_exact` is static.
    """

    temperature: Scalar = 0.0  # [] dimensionless, in (0, 1] when smooth
    is_exact: bool = struct.field(pytree_node=False, default=True)

    def ceil(self, x: Array) -> Array:
        """Smallest integer not below `x`; the same when smooth, with another derivative.

        A staircase has no slope that a search could follow, and smoothed ones are wrong
        on the integers and small fractions that hardware models are full of. So the
        value stays exact, and the derivative is declared straight-through: the secant
        of the staircase from x / a to x a,

            (ceil(x a) - ceil(x / a)) / (x a - x / a),    a = 1.5,

        what half as much again, or two thirds, would change. It is the same at every
        temperature: with an ever narrower window it would be endless on integers.
        """
        x = jnp.asarray(x)
        if self.is_exact:
            return jnp.ceil(x)
        return _secant_ceil(x)

    def max(self, *xs: Array) -> Array:
        """Largest of several non-negative arrays of one shape; see `reduce_max`."""
        return self.reduce_max(jnp.stack([jnp.asarray(x) for x in xs]), axis=0)

    def reduce_max(self, x: Array, axis: int | None = None) -> Array:
        """Maximum of non-negative numbers, or their p-norm with p = 4 / T.

        The p-norm is homogeneous, so it treats 1e-6 s and 1e9 bytes alike. It is never
        below the maximum: of two equal numbers by 19 % at T = 1, by 1.7 % at 0.1.
        """
        x = jnp.asarray(x)
        x = x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(float)
        largest = jnp.max(x, axis=axis, keepdims=True)
        if self.is_exact:
            return jnp.squeeze(largest, axis) if axis is not None else largest.reshape()
        power = 4 / jnp.asarray(self.temperature, x.dtype)
        # The scale cancels analytically, so holding it fixed keeps gradients exact.
        scale = jax.lax.stop_gradient(jnp.where(largest > 0, largest, 1.0))
        ratio = x / scale
        # Below this a term adds nothing to the norm, and its log is not finite.
        counted = ~(ratio <= 1e-30)  # what is not a number shows
        log_ratio = jnp.log(jnp.where(counted, ratio, 1.0))
        powers = jnp.where(counted, jnp.exp(log_ratio * power), 0.0)
        total = jnp.sum(powers, axis=axis, keepdims=True)
        safe_total = jnp.where(total == 0, 1.0, total)
        # Where all are 0 the sum is, too, and its slope is theirs, not 0.
        none = jnp.sum(x, axis=axis, keepdims=True)
        norm = jnp.where(total == 0, none, scale * safe_total ** (1 / power))
        norm = jnp.where(jnp.isinf(largest), largest, norm)
        return jnp.squeeze(norm, axis) if axis is not None else norm.reshape()

    def secant(self, fn: Callable[..., _Tree], *counts: Scalar) -> _Tree:
        """Calls `fn(relax, *counts)`; when smooth, with another derivative by `counts`.

        Nothing near a design says what a tier more would change: the slowest of its
        stages may stop being the slowest on the way. So the derivative by a count is
        declared straight-through. Elasticities d log y / d log n are secants of the
        exact function,

            log(y(a n) / y(n / a)) / log(a^2),    a = 1.5.

        For example, y = ceil(8 / n) at n = 3 is 2 at 4.5 and 4 at 2: -0.85. All other
        derivatives, of what `fn` closes over, are those of `fn` itself.

        Args:
            fn: Returns a pytree of non-negative arrays; one that is 0 has no slope.
            *counts: [] positive each.
        """
        if self.is_exact:
            return fn(self, *counts)
        fixed = jax.lax.stop_gradient(
            jnp.stack([jnp.asarray(n) for n in counts])
        )  # [N]
        up = jnp.where(jnp.eye(len(counts), dtype=bool), WINDOW, 1.0)
        moved = fixed[None] * jnp.concatenate([up, 1 / up])  # [2 N, N]
        exact = jax.lax.stop_gradient(jax.vmap(lambda n: fn(EXACT, *n))(moved))
        logs = [jnp.log(jnp.asarray(n)) for n in counts]
        # [N] zeros with a derivative.
        change = jnp.stack([x - jax.lax.stop_gradient(x) for x in logs])

        def attach(value, ends):
            high, low = ends[: len(counts)], ends[len(counts) :]
            has_slope = (high > 0) & (low > 0)
            ratio = jnp.where(has_slope, high, 1) / jnp.where(has_slope, low, 1)
            elasticity = jnp.log(ratio) / (2 * math.log(WINDOW))  # [N, ...]
            return value * (1 + jnp.tensordot(change, elasticity, 1))

        return jax.tree.map(attach, fn(self, *fixed), exact)


@jax.custom_jvp
def _secant_ceil(x: Array) -> Array:
    return jnp.ceil(x)


@_secant_ceil.defjvp
def _secant_ceil_jvp(primals, tangents):
    (x,), (tangent,) = primals, tangents
    high, low = x * WINDOW, x / WINDOW
    width = jnp.where(high == low, 1.0, high - low)
    slope = (jnp.ceil(high) - jnp.ceil(low)) / width
    return jnp.ceil(x), slope * tangent


EXACT = Relax()


def smooth(temperature: Scalar) -> Relax:
    """Smooth primitives at a dimensionless `temperature`, exact in the limit of 0.

    Raises:
        ValueError: If a concrete `temperature` lies outside (0, 1].
    """
    is_traced = isinstance(temperature, Tracer)
    if not is_traced and not (is_number(temperature) and 0 < temperature <= 1):
        raise ValueError(
            f"`temperature` must lie in (0, 1], got {temperature!r}; "
            "use `EXACT` for the limit of 0."
        )
    return Relax(temperature=temperature, is_exact=False)
