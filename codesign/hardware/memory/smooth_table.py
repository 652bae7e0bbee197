"""Reads a table between its entries: linear from one to the next, with rounded corners.

Ramp i of a table rises from 0 to 1 between its knots i and i + 1:

    1 |                 .------
      |               /
      |             /                 table(x) = entry 0 + the sum over ramps i of
      |           /                              ramp i (x) x (entry i+1 - entry i)
    0 |--------.'
      +--------+--------+------- x
            knot i   knot i+1

Its corners are parabolas. At the temperature T each is as wide as the fraction T of the
shorter gap beside its knot, so that no two corners overlap.
"""

import jax
import jax.numpy as jnp

from codesign.types import Array, Scalar


def read(table: Array, weights: Array) -> Array:
    """Returns the row [...] of a table [C, ...] where its ramps have the values [C - 1]."""
    return table[0] + weights @ jnp.diff(table, axis=0)


def ramps(x: Scalar, knots: Array, temperature: Scalar) -> Array:
    """Returns the value of each ramp at `x`, [C - 1], in [0, 1].

    With knots 0, 1, 3 and at T = 0.1, `ramps(2.0, ...)` is [1, 0.5].

    Args:
        x: [] place on the axis of the knots.
        knots: [C] places of the table's entries, growing.
        temperature: [] T, in (0, 1].
    """
    gaps = jnp.diff(knots)
    before = jnp.minimum(gaps, jnp.concatenate([gaps[:1], gaps[:-1]])) / gaps
    behind = jnp.minimum(gaps, jnp.concatenate([gaps[1:], gaps[-1:]])) / gaps
    way = jnp.clip((x - knots[:-1]) / gaps, -1.0, 2.0)
    return _corner(way, before * temperature) - _corner(way - 1, behind * temperature)


@jax.custom_jvp
def _corner(x: Array, width: Array) -> Array:
    """Returns max(x, 0), with a parabola of that width around the corner at 0."""
    inside = jnp.clip(x / width + 0.5, 0.0, 1.0)
    return width / 2 * inside**2 + jnp.maximum(x - width / 2, 0.0)


@_corner.defjvp
def _corner_jvp(primals, tangents):
    (x, width), (dx, dwidth) = primals, tangents
    inside = jnp.clip(x / width + 0.5, 0.0, 1.0)  # autodiff takes 3 times as long
    tangent = inside * dx + inside * (1 - inside) / 2 * dwidth
    return _corner(x, width), tangent
