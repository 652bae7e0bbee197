import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.search import bqp, cpu, sdp

_BATCH = 200
_minimise = jax.jit(sdp._minimise)
_FAMILIES = {
    "dense": lambda rng, c: (rng.normal(size=(c, c)), rng.normal(size=c)),
    "sparse": lambda rng, c: (
        rng.normal(size=(c, c)) * (rng.random((c, c)) < 0.15),
        rng.normal(size=c) * (rng.random(c) < 0.5),
    ),
    "integer": lambda rng, c: (rng.integers(-2, 3, (c, c)), rng.integers(-3, 4, c)),
    "heavy": lambda rng, c: (rng.standard_cauchy((c, c)), rng.standard_cauchy(c)),
    "small": lambda rng, c: (1e-6 * rng.normal(size=(c, c)), 1e-6 * rng.normal(size=c)),
    "large": lambda rng, c: (1e6 * rng.normal(size=(c, c)), 1e6 * rng.normal(size=c)),
    "linear": lambda rng, c: (1e-9 * rng.normal(size=(c, c)), rng.normal(size=c)),
    "convex": lambda rng, c: (_gram(rng, c), rng.normal(size=c)),
    "concave": lambda rng, c: (-_gram(rng, c), rng.normal(size=c)),
    "equal": lambda rng, c: (np.ones((c, c)), -rng.integers(0, c + 1) * np.ones(c)),
    "zero": lambda rng, c: (np.zeros((c, c)), np.zeros(c)),
}


def _gram(rng, num_variables):
    root = rng.normal(size=(num_variables, num_variables))
    return root @ root.T


def _all_points(num_variables):
    return np.array(list(itertools.product((0, 1), repeat=num_variables)), float)


def _batch(num_variables, seed, num=_BATCH):
    """`num` instances [S, C, C] and [S, C], the families in turn."""
    rng = np.random.default_rng(seed)
    drawn = [
        family(rng, num_variables)
        for _, family in zip(
            range(num), itertools.cycle(_FAMILIES.values()), strict=False
        )
    ]
    a, b = zip(*drawn, strict=True)
    return np.array(a, float), np.array(b, float)


def _values(a, b, x):
    return np.einsum("ni,ij,nj->n", x, a, x, optimize=True) + x @ b


# Few sizes, since each compiles. 12 examples of 200 instances.
@settings(max_examples=12, deadline=None)
@given(st.sampled_from((1, 2, 5, 12)), st.integers(0, 2**32 - 1))
@pytest.mark.slow
def test_bound_and_value_enclose_the_minimum(num_variables, seed):
    a, b = _batch(num_variables, seed)
    points = _all_points(num_variables)
    num_optimal = 0
    for a_s, b_s in zip(a, b, strict=True):
        result = bqp.solve(a_s, b_s, method="sdp")
        least = _values(a_s, b_s, points).min()
        size = np.abs(a_s).sum() + np.abs(b_s).sum()
        # `least` is itself rounded: by 1e-14 of what was added at most.
        assert result.bound <= least + 1e-14 * size
        assert result.value >= least - 1e-14 * size
        assert result.gap >= 0
        assert result.x.shape == (num_variables,)
        assert result.x.dtype == np.int8
        assert set(result.x.tolist()) <= {0, 1}
        x = result.x.astype(float)
        assert result.value == pytest.approx(x @ a_s @ x + b_s @ x, abs=1e-14 * size)
        num_optimal += result.value <= least + 1e-12 * size
    assert num_optimal >= 0.99 * len(a)


def test_bound_is_that_of_the_relaxation_where_it_is_known():
    # x1 x2 + x2 x3 + x1 x3 doubled, less 2 |x|_1: the odd cycle. With s = 2x - 1 it is
    # half the sum of s_i s_j, less a constant of 3/2, and unit vectors at 120 degrees
    # make that sum -3/2, where signs make it -1: -9/4 against -2.
    a = np.triu(np.full((3, 3), 2.0), 1)
    result = bqp.solve(a, np.full(3, -2.0), method="sdp")
    assert result.bound == pytest.approx(-2.25, abs=1e-6)
    assert result.value == -2.0
    assert result.gap == pytest.approx(0.25, abs=1e-6)
    # Without interaction the relaxation is tight: the sum of the negative entries.
    b = np.array([3.0, -1.0, -2.5, 0.5, 0.0])
    result = bqp.solve(np.zeros((5, 5)), b, method="sdp")
    assert result.x[:4].tolist() == [0, 1, 1, 0]
    assert result.value == -3.5
    assert result.bound == pytest.approx(-3.5, abs=1e-6)


@pytest.mark.parametrize("family", ["dense", "sparse", "integer", "convex", "concave"])
def test_factor_is_optimal(family):
    # Primal and dual values agree: no better relaxation exists.
    a, b = _FAMILIES[family](np.random.default_rng(3), 40)
    size = max(np.abs(a).max(), np.abs(b).max())
    with cpu.float64_on_cpu():
        q, constant = sdp._homogenise(jnp.asarray(a / size), jnp.asarray(b / size))
        v = _minimise(jax.random.key(5), q)
        primal = float(jnp.vdot(v, q @ v) + constant)
        bound = float(sdp.relax(a / size, b / size)[0])
        assert q.dtype == jnp.float64
        np.testing.assert_allclose(np.linalg.norm(v, axis=1), 1.0, atol=1e-12)
    assert bound <= primal
    assert bound == pytest.approx(primal, abs=1e-6)


def test_dual_bound_holds_for_any_multipliers():
    rng = np.random.default_rng(0)
    signs = 2 * _all_points(8) - 1
    bound = jax.jit(sdp._dual_bound)
    with cpu.float64_on_cpu():
        for _ in range(200):
            q = rng.normal(size=(8, 8))
            q = q + q.T
            np.fill_diagonal(q, 0)
            y = 10 ** rng.uniform(-2, 2) * rng.normal(size=8)
            least = _values(q, np.zeros(8), signs).min()
            assert float(bound(q, y, np.abs(q).sum())) <= least


def test_points_are_local_optima():
    a, b = _FAMILIES["dense"](np.random.default_rng(1), 40)
    with cpu.float64_on_cpu():
        points = np.asarray(sdp.relax(a / 4, b / 4)[1]).astype(float)
    assert points.shape == (sdp.NUM_CUTS + sdp.NUM_STARTS, 40)
    values = _values(a, b, points)
    for i in range(40):
        flipped = points.copy()
        flipped[:, i] = 1 - flipped[:, i]
        assert np.all(_values(a, b, flipped) >= values - 1e-9)
    assert len(np.unique(points, axis=0)) > 1


@pytest.mark.parametrize("num_variables", [20, 40])
def test_bound_agrees_with_an_interior_point_solver(num_variables):
    cp = pytest.importorskip("cvxpy")
    rng = np.random.default_rng(2)
    for density in (0.05, 0.3, 1.0):
        mask = rng.random((num_variables, num_variables)) < density
        a = rng.normal(size=mask.shape) * mask
        b = rng.normal(size=num_variables)
        # The relaxation in x itself: X = xx', with diagonal x, bordered by x and 1.
        bordered = cp.Variable((num_variables + 1, num_variables + 1), PSD=True)
        gram, x = bordered[1:, 1:], bordered[0, 1:]
        problem = cp.Problem(
            cp.Minimize(cp.sum(cp.multiply(a, gram)) + b @ x),
            [bordered[0, 0] == 1, cp.diag(gram) == x],
        )
        problem.solve(solver=cp.CLARABEL)
        bound = bqp.solve(a, b, method="sdp").bound
        assert bound == pytest.approx(problem.value, abs=0.005)


def test_same_input_same_output():
    for a, b in zip(*_batch(12, 4, num=11), strict=True):
        result, again = (bqp.solve(a, b, method="sdp") for _ in range(2))
        np.testing.assert_array_equal(again.x, result.x)
        assert (again.value, again.bound) == (result.value, result.bound)


def test_a_power_of_two_scales_the_result():
    a, b = _FAMILIES["dense"](np.random.default_rng(8), 12)
    result = bqp.solve(a, b, method="sdp")
    for exponent in (-600, -20, 20, 600):
        scaled = bqp.solve(np.ldexp(a, exponent), np.ldexp(b, exponent), method="sdp")
        np.testing.assert_array_equal(scaled.x, result.x)
        assert scaled.value == np.ldexp(result.value, exponent)
        assert scaled.bound == np.ldexp(result.bound, exponent)


def test_compiles_once_per_size():
    a, b = _batch(5, 0, num=5)
    bqp.solve(a[0], b[0], method="sdp")
    before = sdp._relax._cache_size()  # pyright: ignore[reportAttributeAccessIssue]
    for a_s, b_s in zip(a, b, strict=True):
        bqp.solve(a_s, b_s, method="sdp")
    assert sdp._relax._cache_size() == before  # pyright: ignore[reportAttributeAccessIssue]
