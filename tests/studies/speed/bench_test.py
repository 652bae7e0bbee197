"""The benchmark of speed: its rows, its verdicts, and what a second run measures."""

import dataclasses
import shutil

import numpy as np
import pytest

from codesign.report import Results
from codesign.studies.speed import bench, timing


def _checked(found, workdir):
    """Rows of a run by key, and their values, after what holds for each."""
    rows = {q.key: q for q in Results.read(workdir / "results.json").quantities}
    values = {}
    assert len(rows) == sum(map(len, found.values()))
    for key, row in rows.items():
        if row.value is None:  # a peer that is not installed
            assert row.note.startswith("neural-cost: ModuleNotFoundError")
            continue
        assert isinstance(row.value, float)
        assert row.value > 0 or {"temperature", "counted"} & row.of.keys()
        values[key] = row.value
        assert row.title
        assert row.verdict in (("met", "missed") if row.asked is not None else ("",))
    assert (workdir / "bench.png").exists()
    return rows, values


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = dataclasses.replace(bench.PRESETS["smoke"], only=("memory",))
    workdir = tmp_path_factory.mktemp("bench")
    return config, workdir, bench.STUDY.run(config, workdir=workdir)


def test_rows_have_values_targets_and_peers(run):
    _, workdir, found = run
    rows, values = _checked(found, workdir)
    keys = ["capacity_sweep_s[resnet50]", "surrogate_design_s[resnet50]"]
    assert list(rows) == keys
    sweep = rows[keys[0]]
    assert sweep.asked == 0.025
    assert sweep.peer is not None
    assert sweep.peer[0] == "plain Python"
    assert sweep.peer[1] > 10 * values[keys[0]]
    assert "plain Python; ours is" in (workdir / "report.html").read_text()


def test_a_second_run_measures_nothing(run, capsys):
    config, workdir, found = run
    idle = dataclasses.replace(bench.STUDY, measure=lambda *_: pytest.fail("measured"))
    assert idle.run(config, workdir=workdir) == found
    assert "489 capacities, resnet50, 348 steps" in capsys.readouterr().out


def test_more_runs_or_groups_go_on_in_the_same_workdir(run, tmp_path):
    config, workdir, found = run
    workdir = shutil.copytree(workdir, tmp_path / "run")
    seen = []
    fake = dataclasses.replace(
        bench.STUDY,
        measure=lambda config, unit, job: (
            seen.append(unit[:4]) or found[next(iter(found))]
        ),
        report=lambda config, found: bench.report(config, dict([*found.items()][:1])),
    )
    fake.run(
        dataclasses.replace(config, only=("convolution", "memory")), workdir=workdir
    )
    fake.run(dataclasses.replace(config, repeats=4), workdir=workdir)
    assert seen == [
        ("convolution", "convolutions", 0.25, 3),
        ("memory", "capacities", "resnet50", 4),
        ("memory", "surrogate", "resnet50", 4),
    ]


def test_default_measures_every_piece_at_every_size():
    units = [unit[:3] for unit in bench.units(bench.PRESETS["full"])]
    assert units[0] == ("training", "training step", 0.25)
    assert [size for _, piece, size in units if piece == "ask"] == [20, 50, 100]
    assert [unit[2] for unit in units if unit[1] == "programmes"] == [20, 40, 60, 100]
    assert len(units) == 1 + 2 + 3 + 3 + 4 + 4 + 1 + 5 + 10 + 6


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"only": ("speed",)}, r"`only` \(='speed'\) must be one of \['training'"),
        ({"only": ()}, "`only` is empty"),
        ({"repeats": 2}, "`repeats` must be >= 3, got 2"),
    ],
)
def test_refuses(changes, match, tmp_path):
    config = dataclasses.replace(bench.PRESETS["smoke"], **changes)
    with pytest.raises(ValueError, match=match):
        bench.STUDY.run(config, workdir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_functions_run_in_turn_after_a_first_call():
    calls = []
    times = timing.interleaved(3, lambda: calls.append("a"), lambda: calls.append("b"))
    assert "".join(calls) == "ab" * 4
    assert times.shape == (2, 3)
    assert np.all(times >= 0)


@pytest.mark.slow
def test_every_piece_measures(tmp_path):
    found = bench.STUDY.run(bench.PRESETS["smoke"], workdir=tmp_path)
    rows, values = _checked(found, tmp_path)
    assert values["step_s[vgg11,0.25]"] > values["chip_costs_s[vgg11,0.25]"]
    assert values["ask_s[20,60]"] > values["posterior_s[20,60]"]
    for name in ("convolutions_s[vgg11,0.25]", "gibbs_sweep_s[20,60]", "exact_s[20]"):
        assert rows[name].unit == "s"
