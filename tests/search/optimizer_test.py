"""Every optimiser proposes valid points, the same for a seed, and finds easy optima."""

import importlib.util

import numpy as np
import pytest

from codesign.search import optimizer as optimizers
from codesign.search import points
from codesign.studies.search_benchmark import problems
from codesign.studies.search_benchmark.benchmark import run_one
from codesign.studies.search_benchmark.benchmark_settings import Task

_HERE = [
    name
    for name in optimizers.OPTIMIZERS
    if name != "optuna_tpe" or importlib.util.find_spec("optuna")
]
_TASK = Task("bqp_10", 6, 10)


@pytest.mark.parametrize("name", _HERE)
def test_deterministic_and_within_budget(name):
    first, again = run_one(_TASK, 1, name), run_one(_TASK, 1, name)
    assert first.points == again.points
    assert first.objectives == again.objectives
    assert len(first.points) == 16
    problem = problems.BinaryQuadratic(1)
    for text, objective in zip(first.points, first.objectives, strict=True):
        assert len(text) == 10
        assert set(text) <= {"0", "1"}
        assert objective == problems.penalised(problem, points.decode(text))


def test_all_begin_with_the_same_points():
    starts = {run_one(_TASK, 2, name).points[:6] for name in _HERE}
    assert len(starts) == 1


@pytest.mark.parametrize("name", ["random", "local_search", "simulated_annealing"])
def test_points_are_met_once(name):
    run = run_one(Task("bqp_10", 20, 100), 0, name)
    assert len(set(run.points)) == 120


def _maximise(name, num_guided):
    """The most ones among 8 variables, each a gain of 1 less the penalty."""
    optimizer = optimizers.create(
        name, num_variables=8, sparsity_penalty=0.25, num_initial=3, seed=0
    )
    best = -np.inf
    for _ in range(3 + num_guided):
        x = optimizer.ask()
        optimizer.tell(x, float(x.sum()))
        best = max(best, 0.75 * x.sum())
    return best


@pytest.mark.parametrize(
    "name", [name for name in _HERE if name not in ("random", "codesign")]
)
def test_peers_climb(name):
    assert _maximise(name, 60) == 6


def test_penalty_is_seen():
    # A gain of 0.2 for a penalty of 0.25: no ones are best.
    optimizer = optimizers.create(
        "local_search", num_variables=6, sparsity_penalty=0.25, num_initial=1, seed=0
    )
    best = {}
    for _ in range(7 + 6 * 6):
        x = optimizer.ask()
        optimizer.tell(x, 0.2 * x.sum())
        best[points.encode(x)] = -0.05 * x.sum()
    assert max(best, key=lambda text: best[text]) == "000000"


def test_random_stops_when_no_point_is_left():
    run = run_one(Task("bqp_10", 1, 1023), 0, "random")
    assert len(set(run.points)) == 1024
    with pytest.raises(ValueError, match=r"2\^10 points"):
        run_one(Task("bqp_10", 1, 1024), 0, "random")


def test_rejects_unknown_and_missing(monkeypatch):
    with pytest.raises(ValueError, match="`optimizers`.*bocs.*codesign"):
        optimizers.check("bocs")
    monkeypatch.setattr(optimizers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs Optuna.*codesign\[benchmark\]"):
        optimizers.check("optuna_tpe")
