"""Binary quadratic programmes: minimise x'Ax + b'x over x in {0, 1}^C."""

import dataclasses
import itertools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from codesign.search import cpu, points, sdp

MAX_EXACT_VARIABLES = 20  # 2^20 values, 8 MiB


@dataclasses.dataclass(frozen=True)
class BqpResult:
    """A point and what is known about it.

    Attributes:
        x: `[C]` int8 of 0 and 1.
        value: x'Ax + b'x.
        bound: A lower bound on the value of every point that was not excluded; equal to
            `value` where the method is exact. That of "sdp" holds for excluded points
            too.
        method: The method that found it.
    """

    x: np.ndarray
    value: float
    bound: float
    method: str

    @property
    def gap(self) -> float:
        """How much lower the minimum may be, at least 0."""
        return self.value - self.bound


def solve(
    quadratic: ArrayLike,
    linear: ArrayLike,
    method: str = "auto",
    *,
    exclude: ArrayLike | None = None,
) -> BqpResult:
    """Minimises x'Ax + b'x over the points of {0, 1}^C that are not excluded.

    "exact" computes all 2^C values by splitting x into halves u and v,

        value(u, v) = q_u(u) + q_v(v) + u'(A_uv + A_vu')v,                           (1)

    which is one rank-C/2 matrix product. Of points whose computed values are equal, the
    lexicographically least wins ("0011" before "0100").

    "sdp" bounds the minimum by the semidefinite relaxation, solved low-rank (Burer &
    Monteiro, 2003; see `sdp`),

        bound = sum(y) + (C + 1) lambda_min(Q - Diag(y)) + constant,                 (2)

    which holds whatever y is, less a margin for rounding errors, so that it is never above
    the minimum. The point is the best of 192 that were rounded from the relaxation by
    random hyperplanes (Goemans & Williamson, 1995) and 64 random ones, after flipping one
    entry at a time for as long as that helps. If it is excluded, the best point that is
    not is taken of the 256, of their neighbours at distance 1, and of its own at distance
    2; if those are all excluded, a free point near it. The same input gives the
    same output; the first call for a C compiles.

    Args:
        quadratic: A, `[C, C]`; need not be symmetric, and its diagonal counts as linear.
        linear: b, `[C]`.
        method: "exact", for C of at most 20, "sdp", or "auto": "exact" where it can.
        exclude: `[K, C]` points of 0 and 1 that may not be returned, or None.

    Returns:
        The best point found, its value and a lower bound.

    Raises:
        ValueError: If shapes disagree, an entry or the sum of all magnitudes is not
            finite, an excluded point is not
            binary, every point is excluded, or the method does not take so many
            variables.
    """
    b = _numbers("linear", linear)
    if b.ndim != 1 or b.size == 0:
        raise ValueError(
            f"`linear` must be a vector [C] with C > 0, got shape {b.shape}."
        )
    a = _numbers("quadratic", quadratic)
    if a.shape != (b.size, b.size):
        raise ValueError(
            f"`quadratic` must be [C, C] with C = {b.size}, the length of `linear`, got "
            f"shape {a.shape}."
        )
    for name, array in (("quadratic", a), ("linear", b)):
        if not np.all(np.isfinite(array)):
            raise ValueError(
                f"`{name}` must be finite, got {array[~np.isfinite(array)][0]}; mend the "
                "model that produced it."
            )
    with np.errstate(over="ignore"):
        total = np.abs(a).sum() + np.abs(b).sum()
    if np.isinf(total):
        raise ValueError(
            "`quadratic` and `linear` hold entries up to "
            f"{max(np.abs(a).max(), np.abs(b).max()):.3g}, whose sums are beyond the "
            "largest float; scale both down alike, which leaves the point as it is."
        )
    if not isinstance(method, str) or method not in ("auto", *_METHODS):
        raise ValueError(
            f"`method` must be 'auto' or one of {sorted(_METHODS)}, got {method!r}."
        )
    if method == "auto":
        method = "exact" if b.size <= MAX_EXACT_VARIABLES else "sdp"
    x, bound = _METHODS[method](a, b, _checked_points(exclude, b.size))
    value = float(x @ a @ x + b @ x)
    bound = value if bound is None else min(bound, value)
    return BqpResult(x.astype(np.int8), value, bound, method)


def _numbers(name: str, values: ArrayLike) -> np.ndarray:
    """`values` as float64; raises ValueError if they are no real numbers."""
    try:
        found = np.asarray(values)
        if found.dtype.kind in "iufbO":  # whole numbers beyond int64 are objects
            return found.astype(np.float64)
    except (OverflowError, TypeError, ValueError):
        pass
    raise ValueError(
        f"`{name}` must be real numbers that a float holds, got {values!r}."
    )


def _checked_points(exclude: ArrayLike | None, num_variables: int) -> np.ndarray:
    """`exclude` as `[K, C]` int8."""
    if exclude is None or np.size(exclude) == 0:
        return np.zeros((0, num_variables), np.int8)
    array = np.asarray(exclude)
    if array.ndim != 2 or array.shape[1] != num_variables:
        raise ValueError(
            f"`exclude` must be [K, C] with C = {num_variables}, got shape {array.shape}."
        )
    if not np.all((array == 0) | (array == 1)):
        raise ValueError("`exclude` must hold only 0 and 1; round the points first.")
    return array.astype(np.int8)


def _none_left(num_variables: int) -> ValueError:
    return ValueError(
        f"`exclude` holds all 2^{num_variables} points; there is none left to return."
    )


def _solve_exact(
    a: np.ndarray, b: np.ndarray, exclude: np.ndarray
) -> tuple[np.ndarray, None]:
    """The minimiser `[C]` as float64, by enumeration."""
    num_variables = b.size
    if num_variables > MAX_EXACT_VARIABLES:
        raise ValueError(
            f"`linear` has C = {num_variables} variables and the exact method takes at "
            f'most {MAX_EXACT_VARIABLES}; take `method="sdp"`, which bounds how far its '
            "point is from the minimum."
        )
    half = num_variables // 2
    u = points.all_points(half).astype(np.float64)
    v = points.all_points(num_variables - half).astype(np.float64)
    value_u = np.sum((u @ a[:half, :half]) * u, axis=1) + u @ b[:half]
    value_v = np.sum((v @ a[half:, half:]) * v, axis=1) + v @ b[half:]
    cross = a[:half, half:] + a[half:, :half].T
    values = (u @ cross) @ v.T  # [2^half, 2^(C - half)]
    values += value_u[:, None]
    values += value_v[None, :]
    values = values.reshape(-1)  # the index, in binary, is x
    weights = 1 << np.arange(num_variables - 1, -1, -1)
    values[exclude @ weights] = np.inf
    index = int(np.argmin(values))
    if np.isinf(values[index]):
        raise _none_left(num_variables)
    return ((index & weights) > 0).astype(np.float64), None


def _solve_sdp(
    a: np.ndarray, b: np.ndarray, exclude: np.ndarray
) -> tuple[np.ndarray, float]:
    """A point `[C]` as float64 and a lower bound, by the semidefinite relaxation."""
    size = max(np.abs(a).max(), np.abs(b).max())
    exponent = np.frexp(size)[1]  # a power of two scales without rounding
    with cpu.float64_on_cpu():
        scaled = (jnp.asarray(np.ldexp(each, -exponent)) for each in (a, b))
        bound, optima = sdp.relax(*scaled)
    x = _best_allowed(a, b, np.asarray(optima).astype(np.int8), exclude)
    return x, float(np.ldexp(bound, exponent))


def _best_allowed(
    a: np.ndarray, b: np.ndarray, optima: np.ndarray, exclude: np.ndarray
) -> np.ndarray:
    """The best point `[C]` that is not excluded, around local optima `[M, C]`."""
    num_variables = b.size
    excluded = {point.tobytes() for point in exclude}
    optima = _by_value(a, b, optima)
    best = optima[0]
    near = [best] if best.tobytes() not in excluded else _neighbours(a, b, optima)
    # The first K + 1 points at a distance, if there are so many, are not all excluded.
    far = (
        point
        for distance in range(3, num_variables + 1)
        for point in _by_value(
            a, b, _at_distance(best, distance, most=len(excluded) + 1)
        )
    )
    for point in itertools.chain(near, far):
        if point.tobytes() not in excluded:
            return point.astype(np.float64)
    raise _none_left(num_variables)


def _neighbours(a: np.ndarray, b: np.ndarray, optima: np.ndarray) -> np.ndarray:
    """The optima, what is 1 away from any, and 2 away from the first, by value."""
    eye = np.eye(b.size, dtype=np.int8)
    single = (optima[:, None, :] ^ eye[None, :, :]).reshape(-1, b.size)
    pairs = _at_distance(optima[0], 2)
    return _by_value(a, b, np.concatenate([optima, single, pairs]))


def _at_distance(x: np.ndarray, distance: int, most: int | None = None) -> np.ndarray:
    """Points that differ from x `[C]` in so many entries, the first `most` of them."""
    flips = itertools.combinations(range(x.size), distance)
    index = np.array(list(itertools.islice(flips, most)), int).reshape(-1, distance)
    found = np.tile(x, (len(index), 1))
    found[np.arange(len(index))[:, None], index] ^= 1
    return found


def _by_value(a: np.ndarray, b: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """The candidates `[K, C]` sorted by value, and then lexicographically."""
    x = candidates.astype(np.float64)
    values = np.sum((x @ a) * x, axis=1) + x @ b
    keys = np.packbits(candidates, axis=1).T[::-1]  # the last key counts most
    return candidates[np.lexsort((*keys, values))]


_METHODS: dict[
    str,
    Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, float | None]],
] = {"exact": _solve_exact, "sdp": _solve_sdp}
