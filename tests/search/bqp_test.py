import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.search import bqp


def _all_points(num_variables):
    return np.array(list(itertools.product((0, 1), repeat=num_variables)))


def _instance(num_variables, seed):
    rng = np.random.default_rng(seed)
    shape = (num_variables, num_variables)
    return rng.normal(size=shape), rng.normal(size=num_variables)


def test_hand_worked_case():
    # Values of 00, 01, 10, 11: 0, -1, -2, -1 - 2 + 4 = 1 (A_01 + A_10 = 4).
    result = bqp.solve([[0.0, 3.0], [1.0, 0.0]], [-2.0, -1.0])
    assert result.x.tolist() == [1, 0]
    assert result.x.dtype == np.int8
    assert (result.value, result.bound, result.method) == (-2.0, -2.0, "exact")


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 11), st.integers(0, 2**32 - 1))
def test_is_the_minimum_over_all_points(num_variables, seed):
    a, b = _instance(num_variables, seed)
    x = _all_points(num_variables)
    values = np.einsum("ni,ij,nj->n", x, a, x) + x @ b
    result = bqp.solve(a, b)
    assert result.value == pytest.approx(values.min(), rel=1e-12, abs=1e-12)
    np.testing.assert_array_equal(result.x, x[np.argmin(values)])
    assert result.bound == result.value


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_exclusion_walks_through_all_points_by_value(num_variables, seed):
    a, b = _instance(num_variables, seed)
    x = _all_points(num_variables)
    values = np.einsum("ni,ij,nj->n", x, a, x) + x @ b
    found = []
    for _ in x:
        found.append(bqp.solve(a, b, exclude=found).x)
    np.testing.assert_array_equal(found, x[np.argsort(values)])
    with pytest.raises(ValueError, match=r"`exclude` holds all 2\^\d+ points"):
        bqp.solve(a, b, exclude=found)


def test_ties_go_to_the_lexicographically_least():
    # Whole numbers, so that equal values are computed equal.
    assert bqp.solve(np.zeros((5, 5)), np.zeros(5)).x.tolist() == [0, 0, 0, 0, 0]
    assert bqp.solve(np.zeros((3, 3)), [0.0, -1.0, 0.0]).x.tolist() == [0, 1, 0]
    a = np.array([[0.0, 5.0, 5.0], [0.0, 0.0, 5.0], [0.0, 0.0, 0.0]])
    assert bqp.solve(a, -np.ones(3)).x.tolist() == [0, 0, 1]
    assert bqp.solve(a, -np.ones(3), exclude=[[0, 0, 1]]).x.tolist() == [0, 1, 0]


def test_diagonal_counts_as_linear():
    a, b = _instance(6, 3)
    moved = bqp.solve(a - np.diag(np.diag(a)), b + np.diag(a))
    np.testing.assert_array_equal(moved.x, bqp.solve(a, b).x)


def test_largest_size_with_a_known_answer():
    # (x - t)'Q(x - t) with Q positive definite is least, 0, at the planted t.
    rng = np.random.default_rng(5)
    root = rng.normal(size=(20, 20))
    q, t = root @ root.T + np.eye(20), rng.integers(0, 2, 20)
    result = bqp.solve(q, -2 * q @ t)
    np.testing.assert_array_equal(result.x, t)
    assert result.value == pytest.approx(-t @ q @ t)


@pytest.mark.parametrize(
    ("quadratic", "linear", "kwargs", "message"),
    [
        (np.zeros((3, 2)), np.zeros(3), {}, r"`quadratic` must be \[C, C\]"),
        (np.zeros((2, 2)), np.zeros(3), {}, r"`quadratic` must be \[C, C\] with C = 3"),
        (np.zeros((0, 0)), np.zeros(0), {}, r"`linear` must be a vector"),
        (np.zeros((2, 2)), np.zeros((2, 1)), {}, r"`linear` must be a vector"),
        (np.full((2, 2), np.nan), np.zeros(2), {}, r"`quadratic` must be finite.*nan"),
        (np.zeros((2, 2)), [0.0, np.inf], {}, r"`linear` must be finite.*inf"),
        (
            np.zeros((21, 21)),
            np.zeros(21),
            {"method": "exact"},
            r'`linear` has C = 21 .*at most 20; take `method="sdp"`',
        ),
        (
            np.zeros((2, 2)),
            np.zeros(2),
            {"method": "lp"},
            r"`method`.*exact.*sdp.*'lp'",
        ),
        (np.zeros((2, 2)), np.zeros(2), {"exclude": [[0, 2]]}, r"`exclude`.*0 and 1"),
        (np.zeros((2, 2)), np.zeros(2), {"exclude": [[0, 0, 0]]}, r"`exclude`.*shape"),
        (np.zeros((2, 2)), np.zeros(2), {"exclude": [0, 1]}, r"`exclude`.*shape"),
    ],
)
def test_rejects(quadratic, linear, kwargs, message):
    with pytest.raises(ValueError, match=message):
        bqp.solve(quadratic, linear, **kwargs)


def test_auto_is_exact_while_it_can_be():
    for num_variables, method in ((1, "exact"), (20, "exact"), (21, "sdp")):
        a, b = _instance(num_variables, 0)
        assert bqp.solve(a, b).method == method


@settings(max_examples=12, deadline=None)
@given(st.sampled_from((1, 4)), st.integers(0, 2**32 - 1), st.booleans())
def test_sdp_exclusion_walks_through_all_points(num_variables, seed, constant):
    a, b = _instance(num_variables, seed)
    if constant:
        a, b = 0 * a, 0 * b
    x = _all_points(num_variables)
    least = np.min(np.einsum("ni,ij,nj->n", x, a, x) + x @ b)
    found = []
    for _ in x:
        result = bqp.solve(a, b, "sdp", exclude=found)
        assert result.bound <= least + 1e-12  # that of all points
        found.append(result.x)
    assert len(np.unique(found, axis=0)) == len(x)
    with pytest.raises(ValueError, match=r"`exclude` holds all 2\^\d+ points"):
        bqp.solve(a, b, "sdp", exclude=found)


def test_sdp_takes_the_next_best_point():
    # Without interaction the second best flips the cheapest entry, here that of 0.25,
    # and the third the next, of 0.5; the fourth flips both.
    b = np.array([-3.0, 0.5, 2.0, -0.25, 4.0] + [-7.0] * 16)
    a, found = np.zeros((21, 21)), []
    for expected in (0.0, 0.25, 0.5, 0.75):
        result = bqp.solve(a, b, exclude=found)
        assert result.value == b[b < 0].sum() + expected
        assert result.bound == pytest.approx(b[b < 0].sum(), abs=1e-6)
        found.append(result.x)


def test_sdp_looks_further_than_two_flips_where_it_must():
    # One local optimum, 0; it and all 1 + 21 + 210 points around it are excluded.
    eye = np.eye(21, dtype=int)
    pairs = [eye[i] + eye[j] for i, j in itertools.combinations(range(21), 2)]
    excluded = np.concatenate([np.zeros((1, 21), int), eye, pairs])
    result = bqp.solve(np.zeros((21, 21)), np.ones(21), exclude=excluded)
    assert result.value == 3.0
    assert result.bound <= 0


def test_sdp_finds_planted_point_of_many_variables():
    # As above: (x - t)'Q(x - t) is least, 0, at t, and the relaxation is tight there.
    rng = np.random.default_rng(5)
    root = rng.normal(size=(40, 40))
    q, t = root @ root.T + 40 * np.eye(40), rng.integers(0, 2, 40)
    result = bqp.solve(q, -2 * q @ t)
    np.testing.assert_array_equal(result.x, t)
    assert result.value == pytest.approx(-t @ q @ t)
    assert 0 <= result.gap < 1e-6 * abs(result.value)


@pytest.mark.parametrize("num_variables", [6, 24])
def test_entries_whose_sums_overflow_are_refused_and_smaller_ones_are_not(
    num_variables,
):
    # -1 everywhere is least where all are 1, at -C^2 (and one more b).
    a = np.full((num_variables, num_variables), -1.7e308)
    with pytest.raises(ValueError, match=r"up to 1\.7e\+308, whose sums are beyond"):
        bqp.solve(a, np.zeros(num_variables))
    with pytest.raises(ValueError, match="whose sums are beyond"):
        bqp.solve(np.zeros(a.shape), a[0])
    size = np.finfo(float).max / 2 / num_variables**2  # the sum is half the largest
    for scale in (size, 1.0, 5e-324):
        result = bqp.solve(np.sign(a) * scale, np.zeros(num_variables))
        assert result.x.all()
        assert result.value == pytest.approx(-(num_variables**2) * scale)
        assert result.bound <= result.value
        assert result.gap <= 1e-6 * abs(result.value)
