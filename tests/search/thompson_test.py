import itertools

import jax
import numpy as np
import pytest

from codesign.search import thompson

_POINTS = np.array(list(itertools.product((0, 1), repeat=5)), np.int8)


def _f(x):
    return 1.0 * x[:, 0] + 2.0 * x[:, 1] * x[:, 2] - 3.0 * x[:, 3] + 0.3 * x[:, 4]


def _propose(seed=0, **kwargs):
    return thompson.propose(jax.random.key(seed), _POINTS, _f(_POINTS), **kwargs)


def test_proposes_the_maximiser_where_the_data_leave_no_doubt():
    # All 32 points seen without noise: x_4 is worth 0.3, the rest more.
    assert _propose().tolist() == [[1, 1, 1, 0, 1]]


def test_penalty_is_in_the_units_of_y():
    assert _propose(sparsity_penalty=0.5).tolist() == [[1, 1, 1, 0, 0]]
    assert _propose(sparsity_penalty=0.95).tolist() == [[1, 1, 1, 0, 0]]
    assert _propose(sparsity_penalty=1.5).tolist() == [[0, 0, 0, 0, 0]]


def test_takes_the_next_best_of_the_same_draw():
    # Values 3.3, 3.0, 2.3 of the best three points.
    found = _propose(num_proposals=3)
    assert found.tolist() == [[1, 1, 1, 0, 1], [1, 1, 1, 0, 0], [0, 1, 1, 0, 1]]
    assert found.dtype == np.int8
    assert _propose(exclude=found).tolist() == [[0, 1, 1, 0, 0]]


def test_proposals_are_distinct_and_never_excluded():
    x = _POINTS[[0, 7, 21]]
    found = thompson.propose(
        jax.random.key(1), x, _f(x), num_proposals=29, exclude=x, num_warmup=5
    )
    both = np.concatenate([x, found])
    assert len(np.unique(both, axis=0)) == 32


def test_proposals_of_few_data_differ_between_chains_and_seeds():
    x = _POINTS[[0, 7, 21]]
    y = _f(x)
    first = [
        tuple(thompson.propose(jax.random.key(seed), x, y, exclude=x)[0])
        for seed in range(8)
    ]
    assert len(set(first)) > 2
    again = tuple(thompson.propose(jax.random.key(0), x, y, exclude=x)[0])
    assert again == first[0]


def test_a_batch_is_the_proposals_one_by_one():
    x = _POINTS[[0, 7, 21, 30]]
    key = jax.random.key(4)
    batch = thompson.propose(key, x, _f(x), num_proposals=4, exclude=x)
    first = thompson.propose(key, x, _f(x), num_proposals=1, exclude=x)
    np.testing.assert_array_equal(batch[:1], first)


@pytest.mark.parametrize("penalty", [-0.1, np.nan, np.inf])
def test_rejects_a_penalty(penalty):
    with pytest.raises(ValueError, match=r"`sparsity_penalty` must be finite"):
        _propose(sparsity_penalty=penalty)


def test_rejects_no_proposals():
    with pytest.raises(ValueError, match=r"`num_proposals` must be at least 1, got 0"):
        _propose(num_proposals=0)


def test_says_when_no_point_is_left():
    with pytest.raises(ValueError, match=r"`exclude` holds all 2\^5 points"):
        _propose(exclude=_POINTS)


def test_long_lower_tail_is_cut():
    # Median 0.98, best 0.99: 3 x 0.01 below the median is 0.95.
    y = [0.1, 0.1, 0.97, 0.98, 0.98, 0.985, 0.985, 0.99, 0.94]
    cut = thompson.without_long_tail(y)
    np.testing.assert_allclose(
        cut, [0.95, 0.95, 0.97, 0.98, 0.98, 0.985, 0.985, 0.99, 0.95]
    )


def test_values_without_a_long_tail_are_kept():
    rng = np.random.default_rng(0)
    for y in (rng.normal(size=30), rng.uniform(size=9), np.full(20, 0.3), [0.1, 5.0]):
        np.testing.assert_array_equal(thompson.without_long_tail(y), y)


def test_of_many_observations_of_many_variables_the_best_and_a_spread_matter():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 2, (1000, 32)), rng.permutation(1000).astype(float)
    np.testing.assert_array_equal(thompson.that_matter(x[:512], y[:512]), range(512))
    np.testing.assert_array_equal(thompson.that_matter(x[:, :31], y), range(1000))
    kept = thompson.that_matter(x, y)
    assert np.all(np.diff(kept) > 0)
    values = np.sort(y[kept])[::-1]
    np.testing.assert_array_equal(values[:256], np.arange(999, 743, -1))
    # 744 others at 256 places, 743 / 255 = 2.9 apart, the best and the worst included.
    assert values[256] == 743
    assert values[-1] == 0
    assert set(np.diff(values[256:])) == {-2.0, -3.0}


@pytest.mark.slow
def test_proposals_of_a_thousand_observations():
    def f(x):
        return (
            2.0 * x[:, 0]
            + 3.0 * x[:, 1] * x[:, 2]
            - 3.0 * x[:, 3]
            - 0.5 * x[:, 4:].sum(1)
        )

    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, (1000, 32))
    y = f(x) + 0.1 * rng.normal(size=1000)
    best = thompson.propose(jax.random.key(0), x, y)
    assert best.tolist() == [[1, 1, 1] + [0] * 29]
