"""Binary quadratic programmes: minimise x'Ax + b'x over x in {0, 1}^C."""

import dataclasses
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

MAX_EXACT_VARIABLES = 20  # 2^20 values, 8 MiB


@dataclasses.dataclass(frozen=True)
class BqpResult:
    """A point and what is known about it.

    Attributes:
        x: `[C]` int8 of 0 and 1.
        value: x'Ax + b'x.
        bound: A lower bound on the value of every point that was not excluded; equal to
            `value` where the method is exact.
        method: The method that found it.
    """

    x: np.ndarray
    value: float
    bound: float
    method: str


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

    Args:
        quadratic: A, `[C, C]`; need not be symmetric, and its diagonal counts as linear.
        linear: b, `[C]`.
        method: "exact", or "auto": the best method for this C.
        exclude: `[K, C]` points of 0 and 1 that may not be returned, or None.

    Returns:
        The minimiser, its value and a lower bound.

    Raises:
        ValueError: If shapes disagree, an entry is not finite, an excluded point is not
            binary, every point is excluded, or no method takes so many variables.
    """
    a = np.asarray(quadratic, np.float64)
    b = np.asarray(linear, np.float64)
    if b.ndim != 1 or b.size == 0:
        raise ValueError(
            f"`linear` must be a vector [C] with C > 0, got shape {b.shape}."
        )
    if a.shape != (b.size, b.size):
        raise ValueError(
            f"`quadratic` must be [C, C] with C = {b.size}, the length of `linear`, got "
            f"shape {a.shape}."
        )
    for name, array in (("quadratic", a), ("linear", b)):
        if not np.all(np.isfinite(array)):
            raise ValueError(
                f"`{name}` must be finite, got {array[~np.isfinite(array)][0]}; mend "
                "the model that produced it."
            )
    if method == "auto":
        method = "exact"
    if method not in _METHODS:
        raise ValueError(
            f"`method` must be 'auto' or one of {sorted(_METHODS)}, got {method!r}."
        )
    forbidden = _checked_points(exclude, b.size)
    x = _METHODS[method](a, b, forbidden)
    value = float(x @ a @ x + b @ x)
    return BqpResult(x.astype(np.int8), value, value, method)


def _checked_points(points: ArrayLike | None, num_variables: int) -> np.ndarray:
    """`points` as `[K, C]` int8."""
    if points is None or np.size(points) == 0:
        return np.zeros((0, num_variables), np.int8)
    array = np.asarray(points)
    if array.ndim != 2 or array.shape[1] != num_variables:
        raise ValueError(
            f"`exclude` must be [K, C] with C = {num_variables}, got shape {array.shape}."
        )
    if not np.all((array == 0) | (array == 1)):
        raise ValueError("`exclude` must hold only 0 and 1; round the points first.")
    return array.astype(np.int8)


def _solve_exact(a: np.ndarray, b: np.ndarray, exclude: np.ndarray) -> np.ndarray:
    """The minimiser `[C]` as float64, by enumeration."""
    num_variables = b.size
    if num_variables > MAX_EXACT_VARIABLES:
        raise ValueError(
            f"`linear` has C = {num_variables} variables and the exact method takes at "
            f"most {MAX_EXACT_VARIABLES}; search over fewer variables, for instance by "
            "tying neighbouring sites."
        )
    half = num_variables // 2
    u, v = _all_points(half), _all_points(num_variables - half)
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
        raise ValueError(
            f"`exclude` holds all 2^{num_variables} points; there is none left to return."
        )
    return ((index & weights) > 0).astype(np.float64)


def _all_points(num_variables: int) -> np.ndarray:
    """`[2^n, n]` float64, in lexicographic order."""
    index = np.arange(1 << num_variables)[:, None]
    shifts = np.arange(num_variables - 1, -1, -1)[None, :]
    return ((index >> shifts) & 1).astype(np.float64)


_Method = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
_METHODS: dict[str, _Method] = {"exact": _solve_exact}
