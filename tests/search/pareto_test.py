import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.search import pareto


def test_hand_worked_front():
    # Accuracy up, latency down: (0.9, 5) loses to (0.9, 4); (0.8, 1) and (0.95, 9) stay.
    designs = [(0.9, 4.0), (0.9, 5.0), (0.8, 1.0), (0.95, 9.0), (0.8, 1.0)]
    front = pareto.pareto_front(designs, ("max", "min"))
    assert front.tolist() == [True, False, True, True, True]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=30))
def test_front_is_what_nothing_dominates(rows):
    front = pareto.pareto_front(rows, ("min", "max", "min"))
    signed = [(a, -b, c) for a, b, c in rows]

    def dominated(i):
        return any(
            all(p <= q for p, q in zip(other, signed[i], strict=True))
            and other != signed[i]
            for other in signed
        )

    assert front.tolist() == [not dominated(i) for i in range(len(rows))]


def test_one_objective_and_no_designs():
    assert pareto.pareto_front([[2.0], [1.0], [2.0]], ("max",)).tolist() == [1, 0, 1]
    assert pareto.pareto_front(np.zeros((0, 2)), ("max", "min")).shape == (0,)


def _choose(accuracy, latency_s, energy_j, **kwargs):
    settings = {"reference_accuracy": 0.9, "tolerance": 0.01, **kwargs}
    return pareto.choose(accuracy, latency_s, energy_j, **settings)


def test_least_latency_among_the_valid():
    choice = _choose([0.9, 0.88, 0.895], [5.0, 1.0, 3.0], [1.0, 1.0, 9.0])
    assert choice.valid.tolist() == [True, False, True]
    assert choice.index == 2


@pytest.mark.parametrize(
    ("accuracy", "energy_j", "index"),
    [
        ([0.9, 0.9, 0.9], [3.0, 1.0, 2.0], 1),  # then the least energy
        ([0.9, 0.9, 0.95], [1.0, 1.0, 1.0], 2),  # then the highest accuracy
        ([0.5, 0.9, 0.9], [1.0, 1.0, 1.0], 1),  # then the first
    ],
)
def test_ties(accuracy, energy_j, index):
    assert _choose(accuracy, [2.0, 2.0, 2.0], energy_j).index == index


def test_no_valid_design():
    choice = _choose([0.1, 0.2], [1.0, 1.0], [1.0, 1.0])
    assert choice.index is None
    assert not choice.valid.any()
    assert _choose([], [], []).index is None


def test_the_limit_itself_is_valid():
    choice = _choose([0.75], [1.0], [1.0], reference_accuracy=1.0, tolerance=0.25)
    assert choice.index == 0


@pytest.mark.parametrize(
    ("arguments", "kwargs", "message"),
    [
        (([0.9], [1.0, 2.0], [1.0]), {}, r"`latency_s` must be \[N\]"),
        (([[0.9]], [[1.0]], [[1.0]]), {}, r"`accuracy` must be \[N\]"),
        (([0.9], [np.nan], [1.0]), {}, r"`latency_s` must be finite, got nan"),
        (([0.9], [1.0], [np.inf]), {}, r"`energy_j` must be finite, got inf"),
        (([0.9], [1.0], [1.0]), {"tolerance": -0.1}, r"`tolerance`.*-0.1"),
        (([0.9], [1.0], [1.0]), {"reference_accuracy": np.nan}, "`reference_accuracy`"),
    ],
)
def test_choose_rejects(arguments, kwargs, message):
    with pytest.raises(ValueError, match=message):
        _choose(*arguments, **kwargs)


@pytest.mark.parametrize(
    ("objectives", "directions", "message"),
    [
        ([[1.0, 2.0]], ("max",), r"`objectives` must be \[N, K\] with K = 1"),
        ([1.0, 2.0], ("max", "max"), r"`objectives` must be \[N, K\]"),
        ([[1.0]], ("up",), r"`directions` must be 'max' or 'min', got 'up'"),
        ([[np.nan]], ("max",), r"`objectives` must not hold NaN"),
    ],
)
def test_front_rejects(objectives, directions, message):
    with pytest.raises(ValueError, match=message):
        pareto.pareto_front(objectives, directions)
