"""A whole benchmark on a small scale: what it writes, resumes, extends, and refuses."""

import dataclasses
import math
import shutil

import numpy as np
import pytest

from codesign.records.journal import JournalWarning
from codesign.report import Results, comparison
from codesign.studies.published import quantities
from codesign.studies.search_benchmark import ask_time, benchmark, targets
from codesign.studies.search_benchmark.ask_time import Speed
from codesign.studies.search_benchmark.benchmark_result import (
    BenchmarkResult,
    Measured,
    Run,
    Unit,
)

_TINY = benchmark.BenchmarkConfig(
    preset="tiny",
    num_seeds=2,
    tasks=(benchmark.Task("bqp_10", 4, 3), benchmark.Task("placement_0.005", 3, 3)),
    optimizers=("codesign", "random", "local_search"),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished")
    return workdir, benchmark.run(_TINY, workdir=workdir)


@pytest.fixture
def copy(finished, tmp_path):
    """A workdir like the finished one, to be spoilt."""
    return shutil.copytree(finished[0], tmp_path / "copy")


@pytest.fixture
def ran(monkeypatch):
    """Collects the runs that a benchmark does, and does nothing else."""
    units = []

    def run_one(task, seed, optimizer, on_step):
        units.append((task.problem, seed, optimizer))
        objectives = (0.0,) * task.num_evaluations
        return dataclasses.replace(_run(objectives), num_initial=task.num_initial)

    monkeypatch.setattr(benchmark, "run_one", run_one)
    return units


def _runs(result):
    """All but the times, which differ from run to run."""
    return {
        unit: dataclasses.replace(each.run, ask_s=())
        for unit, each in result.found.items()
    }


def test_writes_everything(finished):
    workdir, result = finished
    assert len(result.found) == 2 * 2 * 3
    results = Results.read(workdir / "results.json")
    assert results.experiment == "search_benchmark"
    runs = result.of("placement_0.005", "codesign")
    mean = np.mean([run.regret[-1] for run in runs])
    assert results["mean_regret[placement_0.005,codesign]"].value == pytest.approx(mean)
    assert results.figures == ("regret_literature.png", "regret_placement.png")
    for figure in results.figures:
        assert (workdir / figure).read_bytes().startswith(b"\x89PNG")
    page = (workdir / "report.html").read_text()
    assert "Placements of VGG-11, lambda = 0.005" in page
    assert "data:image/png" in page


def test_resumes_after_a_kill(finished, copy):
    # Seven runs were kept; the kill came while the eighth was written.
    workdir, result = finished
    lines = (workdir / "finished.jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines) == 1 + 12
    (copy / "finished.jsonl").write_bytes(b"".join(lines[:8]) + lines[8][:40])
    with pytest.warns(JournalWarning, match="unfinished"):
        again = benchmark.run(_TINY, workdir=copy)
    assert _runs(again) == _runs(result)
    kept = [*result.found.values()][:7]
    assert [*again.found.values()][:7] == kept  # times, too: they were not run again
    before, after = (
        {
            quantity.key: quantity.value
            for quantity in Results.read(path / "results.json").quantities
            if quantity.name != "ask_s"
        }
        for path in (workdir, copy)
    )
    assert before == after


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"num_seeds": 3}, [("bqp_10", 2), ("placement_0.005", 2)]),
        ({"seed": 1}, [("bqp_10", 2), ("placement_0.005", 2)]),
        ({"tasks": (benchmark.Task("ising", 2, 3),)}, [("ising", 0), ("ising", 1)]),
        # The same problem on another budget is another run.
        ({"tasks": (benchmark.Task("bqp_10", 2, 3),)}, [("bqp_10", 0), ("bqp_10", 1)]),
    ],
)
def test_runs_only_what_is_new(copy, ran, change, expected):
    benchmark.run(dataclasses.replace(_TINY, **change), workdir=copy)
    assert ran == [(*unit, name) for unit in expected for name in _TINY.optimizers]


def test_refuses_fewer_seeds_and_old_workdirs(copy, tmp_path):
    with pytest.raises(ValueError, match="num_seeds: 2 there, 1 now"):
        benchmark.run(dataclasses.replace(_TINY, num_seeds=1), workdir=copy)
    (tmp_path / "journal.jsonl").touch()
    with pytest.raises(ValueError, match=r"journal\.jsonl of an earlier version"):
        benchmark.run(_TINY, workdir=tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_seeds": 0}, "`num_seeds`"),
        ({"seed": -1}, "`seed`"),
        ({"tasks": ()}, "`tasks` is empty"),
        ({"tasks": (benchmark.Task("knapsack", 1, 1),)}, "`problem`.*knapsack"),
        ({"tasks": (benchmark.Task("ising", 0, 1),)}, "`num_initial`"),
        ({"tasks": (benchmark.Task("ising"), benchmark.Task("ising", 1))}, "twice"),
        ({"optimizers": ("codesign", "random", "random")}, "twice"),
        ({"optimizers": ("codesign", "bocs")}, "`optimizers`.*bocs"),
        ({"optimizers": ("random",)}, "must hold 'codesign'"),
    ],
)
def test_rejects(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(_TINY, **change).checked()


def _run(objectives):
    count = len(objectives)
    return Run(2, 1.0, ("00000000",) * count, objectives, (0.0,) * count)


def test_regret_of_a_run():
    run = _run((0.0, 0.5, 0.2, 1.0 - 1e-12, 0.7))
    np.testing.assert_allclose(run.regret, [1, 0.5, 0.5, 0, 0])
    assert run.evaluations_to_optimum == 2  # after the two initial ones
    assert run.guided_regret(1) == 0.5
    assert run.guided_regret(99) == 0
    assert _run((1.0, 0.0, 0.0)).evaluations_to_optimum == 0
    assert _run((0.5, 0.0)).evaluations_to_optimum == math.inf


def _reached(config, curves, speeds=()):
    """The targets, by key, that such objectives of each optimiser come to."""
    found: dict[Unit, Measured] = {
        (config.tasks[0], seed, name): Measured(run=_run(objectives))
        for name, each in curves.items()
        for seed, objectives in enumerate(each)
    }
    for speed in speeds:
        key = speed.num_variables, speed.num_observations
        found[key] = Measured(speed=speed)
    rows = quantities(targets.rows(config), BenchmarkResult(config, found))
    return {row.key: row for row in rows}


def test_targets_compare_with_the_best_peer():
    late, soon, never = (0.0,) * 12 + (1.0,), (0.0,) * 4 + (1.0,), (0.0,) * 13
    config = benchmark.BenchmarkConfig(
        num_seeds=2,
        tasks=(benchmark.Task("bqp_10", 2, 30),),
        optimizers=("codesign", "random", "local_search"),
        speed_variables=(20,),
        speed_observations=(20, 60),
    )
    curves = {
        "codesign": (soon, late),
        "random": (never, soon),
        "local_search": (late,),
    }
    speeds = (Speed(20, 60, 0.02, 0.01, 0.04, 0.3), Speed(20, 20, 9.0, 9.0, 9.0, 9.0))
    found = _reached(config, curves, speeds)
    median = found["median_evaluations[bqp_10]"]  # of 3 and 11
    assert (median.value, median.peer) == (7, ("local search", 11))
    assert (median.verdict, median.paper, median.source) == ("met", 8, "BOCS-SDP")
    share = found["found_within_30[bqp_10]"]
    assert (share.value, share.peer) == (100, ("local search", 100))
    assert share.verdict == "met"
    assert found["ask_s[20,60]"].verdict == "met"
    assert found["batch_ask_s[20,60]"].verdict == "missed"
    assert len(found) == 4  # the ask after 20 observations has no target
    text = comparison.table(found.values(), "Targets").to_text()
    assert "11 (local search)" in text
    curves["local_search"] = (never,)
    median = _reached(config, curves, speeds)["median_evaluations[bqp_10]"]
    assert comparison.peer(median) == "not reached (every peer)"


def test_target_that_is_never_reached():
    config = benchmark.BenchmarkConfig(
        tasks=(benchmark.Task("bqp_10", 2, 30),), optimizers=("codesign", "random")
    )
    never = [(0.0,) * 32] * 2
    found = _reached(config, {"codesign": never, "random": never})
    row = found["median_evaluations[bqp_10]"]
    assert (row.value, row.verdict, row.peer) == (
        None,
        "missed",
        ("random search", None),
    )
    assert "not reached" in row.note
    assert found["found_within_30[bqp_10]"].peer == ("random search", 0)


def test_small_budgets_decide_no_target():
    assert targets.rows(_TINY) == []


def test_speed_splits_an_ask(monkeypatch):
    monkeypatch.setattr(ask_time, "_REPEATS", 2)
    found = ask_time.measure(8, 10)
    parts = found.posterior_s + found.acquisition_s
    assert 0 < parts < 3 * found.ask_s  # medians, each of its own
    assert found.ask_s < 10
    assert found.batch_ask_s > 0
