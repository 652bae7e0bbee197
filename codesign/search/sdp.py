"""Semidefinite relaxation of a binary quadratic programme, solved low-rank.

With s = (1, 2x - 1) in {-1, 1}^n and n = C + 1 the programme loses its linear part,

    x'Ax + b'x = s'Qs + constant,                                                    (1)

and with the Gram matrix of unit vectors v_i in R^k in place of ss' it becomes

    minimise <Q, VV'> over V [n, k] with unit rows.                                  (2)

From k(k + 1)/2 > n on, (2) is as good as the semidefinite programme, and hardly ever has
a local minimum that is not global (Burer & Monteiro, "A nonlinear programming algorithm
for solving semidefinite programs via low-rank factorization", 2003; Boumal, Voroninski &
Bandeira, "The non-convex Burer-Monteiro approach works on smooth semidefinite programs",
2016). Whether it was found is known afterwards: every y [n] bounds the programme below by

    s'Qs = sum(y) + s'(Q - Diag(y))s >= sum(y) + n lambda_min(Q - Diag(y)),          (3)

and at a global minimum y_i = (QV)_i'v_i makes lambda_min 0 and (3) the value of (2).

(2) is minimised by Riemannian trust regions with truncated conjugate gradients (Absil,
Baker & Gallivan, "Trust-region methods on Riemannian manifolds", 2007). The mixing method
(Wang, Chang & Kolter, "The Mixing method", 2017), which sets one row at a time to its
optimum, converges linearly, and in JAX on a CPU took longer to a worse bound.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from codesign.types import Array

NUM_CUTS = 192  # random hyperplanes
NUM_STARTS = 64  # random points
_MAX_STEPS = 100  # of the trust-region method; it takes about 15
_GRADIENT_TOLERANCE = 1e-8  # its norm, where the largest entry of Q is about 1
_FLIP_TOLERANCE = 1e-11  # a smaller gain may be rounding, and flips could go in circles


def relax(quadratic: Array, linear: Array) -> tuple[Array, Array]:
    """Bounds min x'Ax + b'x below, and rounds the relaxation to points.

    V is cut by random hyperplanes through the origin (Goemans & Williamson, "Improved
    approximation algorithms for maximum cut and satisfiability problems", 1995), s_i being
    the side of v_i. Random points are added, since all cuts of a V of nearly rank one
    are alike. From each, the entry that gains most is flipped for as long as any gains.
    All random numbers are the same on every call.

    Args:
        quadratic: A, `[C, C]` float64, with entries of at most about 1.
        linear: b, `[C]` likewise.

    Returns:
        The bound `[]`, (3) less a margin for the rounding of all that went into it, and
        the local optima, `[NUM_CUTS + NUM_STARTS, C]` bool.
    """
    # As a constant of the program, it would be drawn while compiling, slowly.
    return _relax(jax.random.key(0), quadratic, linear)


@jax.jit
def _relax(key: Array, quadratic: Array, linear: Array) -> tuple[Array, Array]:
    factor_key, cut_key, point_key = jax.random.split(key, 3)
    q, constant = _homogenise(quadratic, linear)
    v = _minimise(factor_key, q)
    y = jnp.sum((q @ v) * v, axis=1)  # [n]
    size = jnp.sum(jnp.abs(quadratic)) + jnp.sum(jnp.abs(linear))
    bound = constant + _dual_bound(q, y, size)
    normals = jax.random.normal(cut_key, (v.shape[1], NUM_CUTS))
    cuts = jnp.where(v @ normals >= 0, 1.0, -1.0).T  # [M, n]
    others = jax.random.rademacher(point_key, (NUM_STARTS, len(v)), v.dtype)
    s = jnp.concatenate([cuts, others])
    s = _local_search(q, s * s[:, :1])
    return bound, s[:, 1:] > 0


def _homogenise(a: Array, b: Array) -> tuple[Array, Array]:
    """Q [n, n], symmetric with a zero diagonal, and the constant of (1)."""
    a = (a + a.T) / 2
    half = (jnp.sum(a, axis=1) + b) / 4  # [C]
    inner = (a - jnp.diag(jnp.diag(a))) / 4
    top = jnp.concatenate([jnp.zeros(1), half])
    q = jnp.concatenate(
        [top[None, :], jnp.concatenate([half[:, None], inner], axis=1)], axis=0
    )
    return q, (jnp.sum(a) + jnp.trace(a)) / 4 + jnp.sum(b) / 2


def _dual_bound(q: Array, y: Array, size: Array) -> Array:
    """(3) for any y, less a margin.

    The margin takes each of at most n^2 terms of a sum to be wrong by 4 units in the last
    place of `size`, the sum of the programme's coefficients, or of what else was added,
    and lambda_min to be wrong by 4 n units in that of the matrix's norm.
    """
    n = len(y)
    slack = q - jnp.diag(y)
    least = jnp.linalg.eigvalsh(slack)[0]
    size += jnp.sum(jnp.abs(y)) + jnp.linalg.norm(slack)
    margin = 4 * n**2 * jnp.finfo(q.dtype).eps * size
    return jnp.sum(y) + n * least - margin


def _minimise(key: Array, q: Array) -> Array:
    """A minimiser V [n, k] of (2), from a random start."""
    n = len(q)
    rank = math.ceil(math.sqrt(2 * n)) + 1
    start = _unit_rows(jax.random.normal(key, (n, rank)))
    max_radius = jnp.sqrt(jnp.sum(_row_curvature(q @ start)))

    def step(state):
        count, v, qv, radius = state
        move, predicted, at_edge = _truncated_cg(q, v, qv, radius)
        new = _unit_rows(v + move)
        new_qv = q @ new
        change = jnp.vdot(new - v, new_qv + qv) / 2  # to more digits than by two values
        rounding = 1e-14 * jnp.linalg.norm(new - v) * jnp.linalg.norm(qv)
        ratio = (change - rounding) / (predicted - rounding)
        radius = jnp.where(
            ratio < 0.25,
            radius / 4,
            jnp.where(
                (ratio > 0.75) & at_edge, jnp.minimum(2 * radius, max_radius), radius
            ),
        )
        accept = ratio > 0.05
        v, qv = jnp.where(accept, new, v), jnp.where(accept, new_qv, qv)
        return count + 1, v, qv, radius

    def unfinished(state):
        count, v, qv, radius = state
        norm = jnp.linalg.norm(_gradient(v, qv)[0])
        return (count < _MAX_STEPS) & (radius > 1e-9) & (norm > _GRADIENT_TOLERANCE)

    return lax.while_loop(unfinished, step, (0, start, q @ start, max_radius / 4))[1]


def _gradient(v: Array, qv: Array) -> tuple[Array, Array]:
    """Half the Riemannian gradient of (2) [n, k], and y [n, 1]."""
    y = jnp.sum(qv * v, axis=1, keepdims=True)
    return qv - y * v, y


def _row_curvature(qv: Array) -> Array:
    """The curvature of (2) in each row alone, at that row's optimum, [n, 1]."""
    return jnp.maximum(jnp.linalg.norm(qv, axis=1, keepdims=True), 1e-3)


def _truncated_cg(
    q: Array, v: Array, qv: Array, radius: Array
) -> tuple[Array, Array, Array]:
    """Steihaug's conjugate gradients for the move [n, k] within the trust region.

    Rows of Q may be of very different size, as those of a sparse draw are, so each row is
    preconditioned by its own curvature, which also gives the norm of the region.

    Returns:
        The move, the change of the quadratic model of half of (2), and whether the move
        ends at the edge of the region.
    """
    max_iterations = len(q)
    tiny = jnp.finfo(q.dtype).tiny
    gradient, y = _gradient(v, qv)
    scale = _row_curvature(qv)
    start = -gradient / scale
    squared_norm = -jnp.vdot(gradient, start)
    target = squared_norm * jnp.minimum(squared_norm, 0.01)  # of the squared residual

    def hessian(u):
        image = q @ u - y * u
        return image - jnp.sum(image * v, axis=1, keepdims=True) * v

    def iteration(state):
        count, x, hx, residual, direction, old, _ = state
        image = hessian(direction)
        curvature = jnp.vdot(direction, image)
        xx, xd = jnp.vdot(x, scale * x), jnp.vdot(x, scale * direction)
        dd = jnp.vdot(direction, scale * direction)
        length = old / jnp.where(curvature > 0, curvature, 1.0)
        at_edge = (curvature <= 0) | (
            xx + 2 * length * xd + length**2 * dd >= radius**2
        )
        to_edge = jnp.sqrt(jnp.maximum(xd**2 + dd * (radius**2 - xx), 0.0)) - xd
        length = jnp.where(at_edge, to_edge / jnp.maximum(dd, tiny), length)
        x = x + length * direction
        hx = hx + length * image
        residual = residual + length * image
        new = jnp.vdot(residual, residual / scale)
        direction = new / jnp.maximum(old, tiny) * direction - residual / scale
        return count + 1, x, hx, residual, direction, new, at_edge

    def unfinished(state):
        count, *_, left, at_edge = state
        return (count < max_iterations) & ~at_edge & (left > target)

    zero = jnp.zeros_like(v)
    state = (0, zero, zero, gradient, start, squared_norm, jnp.asarray(False))
    state = lax.while_loop(unfinished, iteration, state)
    move, image, at_edge = state[1], state[2], state[-1]
    return move, jnp.vdot(move, gradient) + jnp.vdot(move, image) / 2, at_edge


def _unit_rows(v: Array) -> Array:
    return v / jnp.linalg.norm(v, axis=1, keepdims=True)


def _local_search(q: Array, s: Array) -> Array:
    """Flips of each s [M, n] the entry that gains most, never s_0, while any gains."""
    n = len(q)
    limit = 50 * n  # in practice below n; so that no programme takes exponential time

    def flip(state):
        count, s, qs, _ = state
        change = (-4 * s * qs).at[:, 0].set(jnp.inf)  # of s'Qs, [M, n]
        index = jnp.argmin(change, axis=1)  # [M]
        gains = jnp.min(change, axis=1) < -_FLIP_TOLERANCE
        chosen = jnp.take_along_axis(s, index[:, None], axis=1)  # [M, 1]
        chosen = jnp.where(gains[:, None], chosen, 0.0)
        s = s - 2 * chosen * jax.nn.one_hot(index, n, dtype=s.dtype)
        return count + 1, s, qs - 2 * chosen * q[index], jnp.any(gains)

    def unfinished(state):
        count, _, _, gained = state
        return gained & (count < limit)

    return lax.while_loop(unfinished, flip, (0, s, s @ q, jnp.asarray(True)))[1]
