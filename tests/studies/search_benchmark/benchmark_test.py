"""A whole benchmark on a small scale: what it writes, resumes, and refuses."""

import dataclasses
import math

import numpy as np
import pytest

from codesign.records.journal import JournalWarning
from codesign.report import Results
from codesign.studies.search_benchmark import ask_time as speed
from codesign.studies.search_benchmark import benchmark, targets
from codesign.studies.search_benchmark.ask_time import Speed
from codesign.studies.search_benchmark.benchmark_result import Outcome, Run

_TINY = benchmark.BenchmarkConfig(
    preset="tiny",
    num_seeds=2,
    tasks=(benchmark.Task("bqp_10", 4, 3), benchmark.Task("planted_20", 3, 3)),
    optimizers=("codesign", "random", "local_search"),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished")
    return workdir, benchmark.run(_TINY, workdir=workdir)


def _without_times(outcome):
    return [dataclasses.replace(run, ask_s=()) for run in outcome.runs]


def test_writes_everything(finished):
    workdir, outcome = finished
    assert len(outcome.runs) == 2 * 2 * 3
    results = Results.read(workdir / "results.json")
    assert results.experiment == "search_benchmark"
    runs = outcome.of("planted_20", "codesign")
    mean = np.mean([run.regret[-1] for run in runs])
    assert results["mean_regret[planted_20,codesign]"].value == pytest.approx(mean)
    for figure in results.figures:
        assert (workdir / figure).read_bytes().startswith(b"\x89PNG")
    page = (workdir / "report.html").read_text()
    assert "Planted quadratic, C = 20" in page
    assert "data:image/png" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_resumes_after_a_kill(finished, tmp_path):
    workdir, outcome = finished
    lines = (workdir / "journal.jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines) == 1 + 12
    # Seven runs were kept; the kill came while the eighth was written.
    (tmp_path / "journal.jsonl").write_bytes(b"".join(lines[:8]) + lines[8][:40])
    with pytest.warns(JournalWarning, match="unfinished"):
        again = benchmark.run(_TINY, workdir=tmp_path)
    assert _without_times(again) == _without_times(outcome)
    assert [run.ask_s for run in again.runs[:7]] == [r.ask_s for r in outcome.runs[:7]]
    before, after = (
        {
            quantity.name: quantity.value
            for quantity in Results.read(path / "results.json").quantities
            if not quantity.name.startswith("ask_s")
        }
        for path in (workdir, tmp_path)
    )
    assert before == after


def test_refuses_a_workdir_of_other_settings(finished):
    workdir, _ = finished
    with pytest.raises(ValueError, match="num_seeds"):
        benchmark.Benchmark(dataclasses.replace(_TINY, num_seeds=3), workdir=workdir)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_seeds": 0}, "`num_seeds`"),
        ({"seed": -1}, "`seed`"),
        ({"tasks": ()}, "`tasks` is empty"),
        ({"tasks": (benchmark.Task("knapsack", 1, 1),)}, "`problem`.*knapsack"),
        ({"tasks": (benchmark.Task("ising", 0, 1),)}, "`num_initial`"),
        ({"tasks": (benchmark.Task("ising", 1, 1),) * 2}, "twice"),
        ({"optimizers": ("codesign", "bocs")}, "`optimizers`.*bocs"),
        ({"optimizers": ("random",)}, "must hold 'codesign'"),
    ],
)
def test_rejects(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(_TINY, **change).checked()


def test_rejects_an_unknown_preset():
    with pytest.raises(ValueError, match=r"`preset` \(='fast'\).*quick.*full"):
        benchmark.preset("fast")


def _run(optimizer, objectives, seed=0, problem="bqp_10"):
    count = len(objectives)
    return Run(problem, seed, optimizer, 2, 1.0, ("0",) * count, objectives, (0.0,))


def test_regret_of_a_run():
    run = _run("codesign", (0.0, 0.5, 0.2, 1.0 - 1e-12, 0.7))
    np.testing.assert_allclose(run.regret, [1, 0.5, 0.5, 0, 0])
    assert run.evaluations_to_optimum == 2  # after the two initial ones
    assert run.guided_regret(1) == 0.5
    assert run.guided_regret(99) == 0
    assert _run("codesign", (1.0, 0.0, 0.0)).evaluations_to_optimum == 0
    assert _run("codesign", (0.5, 0.0)).evaluations_to_optimum == math.inf


def test_targets_compare_with_the_best_peer():
    late, soon, never = (0.0,) * 12 + (1.0,), (0.0,) * 4 + (1.0,), (0.0,) * 13
    config = benchmark.BenchmarkConfig(
        "tiny",
        num_seeds=2,
        tasks=(benchmark.Task("bqp_10", 2, 30),),
        optimizers=("codesign", "random", "local_search"),
    )
    curves = {
        "codesign": (soon, late),
        "random": (never, soon),
        "local_search": (late,),
    }
    runs = [
        _run(name, objectives, seed)
        for name, each in curves.items()
        for seed, objectives in enumerate(each)
    ]
    speeds = (Speed(20, 60, 0.02, 0.01, 0.04, 0.3), Speed(20, 20, 9.0, 9.0, 9.0, 9.0))
    rows = targets.results(Outcome(config, tuple(runs), speeds))
    found = {row.name: row for row in rows}
    median = found["median_evaluations[bqp_10]"]  # of 3 and 11
    assert (median.ours, median.peer, median.met) == (7, ("local search", 11), True)
    share = found["found_within_30[bqp_10]"]
    assert (share.ours, share.peer, share.met) == (100, ("local search", 100), True)
    assert found["ask_s[20,60]"].met
    assert not found["batch_ask_s[20,60]"].met
    assert len(found) == 4  # the ask after 20 observations has no target
    text = targets.table(rows, 2).to_text()
    assert "11 (local search)" in text


def test_target_that_is_never_reached():
    config = benchmark.BenchmarkConfig(
        "tiny", tasks=(benchmark.Task("bqp_10", 2, 30),), optimizers=("codesign",)
    )
    runs = tuple(_run("codesign", (0.0,) * 32, seed) for seed in range(2))
    row = targets.results(Outcome(config, runs, ()))[0]
    assert row.ours is None
    assert not row.met
    assert row.quantity().value is None
    assert "not found" in targets.table([row], 2).to_text()


def test_speed_splits_an_ask(monkeypatch):
    monkeypatch.setattr(speed, "_REPEATS", 2)
    found = speed.measure(6, 10)
    parts = found.posterior_s + found.acquisition_s
    assert 0 < parts < 3 * found.ask_s  # medians, each of its own
    assert found.ask_s < 10
    assert found.batch_ask_s > 0
