"""Features of a binary vector: each site and each pair of sites."""

import numpy as np


def num_features(num_variables: int) -> int:
    """P = C + C(C - 1)/2."""
    return num_variables + num_variables * (num_variables - 1) // 2


def second_order_features(x: np.ndarray) -> np.ndarray:
    """x_i, then x_i x_j for i < j in row order: `[N, C]` of 0 and 1 to `[N, P]` float64.

    The square terms are left out since x_i^2 = x_i. The 0/1 coding is the one in which
    a sparse placement has few non-zero features.
    """
    x = np.asarray(x, np.float64)
    i, j = np.triu_indices(x.shape[1], k=1)
    return np.concatenate([x, x[:, i] * x[:, j]], axis=1)


def split_coefficients(
    coefficients: np.ndarray, num_variables: int
) -> tuple[np.ndarray, np.ndarray]:
    """The linear part `[..., C]` and the pairwise part `[..., C, C]`, upper triangular.

    Args:
        coefficients: `[..., P]` in the order of `second_order_features`.
        num_variables: C.
    """
    linear = coefficients[..., :num_variables]
    shape = (*coefficients.shape[:-1], num_variables, num_variables)
    pairwise = np.zeros(shape, coefficients.dtype)
    i, j = np.triu_indices(num_variables, k=1)
    pairwise[..., i, j] = coefficients[..., num_variables:]
    return linear, pairwise
