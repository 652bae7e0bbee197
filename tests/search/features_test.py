import numpy as np

from codesign.search import features


def test_hand_worked_features():
    # x, then x_0 x_1, x_0 x_2, x_1 x_2.
    phi = features.second_order_features(np.array([[1, 0, 1], [1, 1, 1]]))
    np.testing.assert_array_equal(phi, [[1, 0, 1, 0, 1, 0], [1, 1, 1, 1, 1, 1]])
    assert features.num_features(3) == 6
    assert features.num_features(1) == 1


def test_split_coefficients_evaluate_to_the_same_function():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, (7, 5))
    coefficients = rng.normal(size=(2, features.num_features(5)))
    linear, pairwise = features.split_coefficients(coefficients, 5)
    assert not np.any(np.tril(pairwise))
    direct = np.einsum("ni,sij,nj->sn", x, pairwise, x) + linear @ x.T
    phi = features.second_order_features(x)
    np.testing.assert_allclose(coefficients @ phi.T, direct, atol=1e-12)
