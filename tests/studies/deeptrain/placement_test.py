"""The whole experiment on a small scale: what it writes, resumes, and refuses.

A network of three sites stands in for VGG-11, so that a run takes seconds.
"""

import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from absl import logging

from codesign import models
from codesign.records import workdir as folders
from codesign.report import Progress, Results
from codesign.search.study import Study
from codesign.studies import claims
from codesign.studies.deeptrain import placement, placement_search, stack_published
from codesign.training import TrainConfig, Trainer
from tests.conftest import tiny

_TINY = dataclasses.replace(
    placement.PRESETS["smoke"],
    preset="tiny",
    width=0.0625,
    image_size=8,
    train=TrainConfig(epochs=4, batch_size=32, learning_rate=0.1),
    num_evaluations=5,
    num_seeds=2,
    checkpoint_every_s=0.3,
)
_SHORT = dataclasses.replace(
    _TINY, train=dataclasses.replace(_TINY.train, epochs=1), num_seeds=1
)
_QUANTITIES = {
    *(f"accuracy[{row}]" for row in ("all_bn", "no_bn", "bo_n")),
    *("num_bn[all_bn]", "num_bn[bo_n]", "period_s[all_bn]", "period_s[bo_n]"),
    *("energy_j[all_bn]", "energy_j[bo_n]", "gpu_work_reduction"),
    *("num_evaluations", "train_step_traces", "surrogate_r_hat", "surrogate_ess"),
}
_ROOT = pathlib.Path(__file__).parents[3]
# Runs the tiny experiment in a process that a test may kill.
_SCRIPT = """
import json, sys
from codesign import models
from codesign.studies.deeptrain import placement
from codesign.training import TrainConfig
from tests.conftest import tiny
models.create = tiny
settings = json.loads(sys.argv[2])
settings["train"] = TrainConfig(**settings["train"])
settings["networks"] = tuple(settings["networks"])
placement.run(placement.PlacementConfig(**settings), workdir=sys.argv[1])
"""


def _run_in_process(config, workdir):
    settings = json.dumps(dataclasses.asdict(config))
    return subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, str(workdir), settings],
        cwd=_ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One uninterrupted run."""
    stack_published.placements()  # of the real networks, kept for the whole process
    workdir = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "create", tiny)
        return workdir, placement.run(_TINY, workdir=workdir)


@pytest.fixture
def three_sites(monkeypatch):
    stack_published.placements()
    monkeypatch.setattr(models, "create", tiny)


def _values(workdir):
    return {q.key: q.value for q in Results.read(workdir / "results.json").quantities}


def test_what_a_run_writes(finished, capsys):
    workdir, result = finished
    results = Results.read(workdir / "results.json")
    values = _values(workdir)
    assert values.keys() >= _QUANTITIES
    assert values["train_step_traces"] == 1
    assert values["num_evaluations"] == 5
    assert 0 <= values["accuracy[bo_n]"] <= 1
    assert values["num_bn[all_bn]"] == 3
    assert values["period_s[bo_n]"] <= values["period_s[all_bn]"]
    for figure in results.figures:
        assert (workdir / figure).read_bytes().startswith(b"\x89PNG")
    page = (workdir / "report.html").read_text()
    assert "BO-N" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    assert {"network", "placement", "seed", "epoch", "loss"} <= set(
        json.loads(lines[0])
    )
    assert [t.origin for t in result.trials] == [
        *("enqueued", "enqueued", "initial", "guided", "guided")
    ]


def test_published_numbers_stand_beside_ours(finished):
    found = Results.read(finished[0] / "results.json").quantities
    assert not any(q.key.startswith("published") for q in found)  # not the paper's
    results = {q.key: q for q in stack_published.published_quantities()}
    assert results["published.holds[vgg19,1R3G]"].value is False
    assert results["published.holds[vgg19,2R2G]"].value is True
    work = results["published.gpu_work_reduction"]
    assert abs(work.value - work.paper) < 0.03
    assert results["published.period_cut[fitted]"].value == pytest.approx(
        0.671, abs=2e-3
    )
    assert results["published.period_cut[prior]"].value < 0.5


def test_running_again_trains_nothing_and_finds_the_same(finished, three_sites):
    workdir, _ = finished
    before, lines = _values(workdir), (workdir / "metrics.jsonl").read_text()
    placement.run(_TINY, workdir=workdir)
    assert _values(workdir) == before
    assert (workdir / "metrics.jsonl").read_text() == lines


def test_what_a_kill_after_a_result_leaves_is_cleared(finished, tmp_path, three_sites):
    workdir = tmp_path / "copy"
    shutil.copytree(finished[0], workdir)
    kept = {path.name for path in (workdir / "checkpoints").iterdir()}
    shutil.copytree(
        workdir / "checkpoints" / "111-seed1", workdir / "checkpoints" / "111-seed0"
    )
    (workdir / ".report.html.0123abcd.tmp").touch()
    placement.run(_TINY, workdir=workdir)
    assert {path.name for path in (workdir / "checkpoints").iterdir()} == kept
    assert not list(workdir.glob("*.tmp"))
    assert _values(workdir) == _values(finished[0])


@pytest.mark.slow
def test_kill_9_at_any_moment_gives_the_same_quantities(
    finished, tmp_path, three_sites
):
    rng = np.random.default_rng(0)
    metrics = tmp_path / "metrics.jsonl"
    for _ in range(2):
        before = metrics.stat().st_size if metrics.exists() else 0
        process = _run_in_process(_TINY, tmp_path)
        # Kill it at some moment after it has trained another epoch at least.
        deadline = time.monotonic() + 600
        while not (metrics.exists() and metrics.stat().st_size > before):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(float(rng.uniform(0.0, 2.0)))
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
    placement.run(_TINY, workdir=tmp_path)
    assert _values(tmp_path) == _values(finished[0])
    entries = [json.loads(line) for line in metrics.read_text().splitlines()]
    keys = [(e["placement"], e["seed"], e["epoch"]) for e in entries]
    assert len(keys) == len(set(keys))


@pytest.mark.slow
def test_a_damaged_journal_and_checkpoint_are_reported_and_survived(
    finished, tmp_path, three_sites
):
    reference, result = finished
    shutil.copytree(reference, tmp_path / "copy")
    workdir = tmp_path / "copy"
    journal = workdir / "journal.jsonl"
    damaged = bytearray(journal.read_bytes())
    damaged[len(damaged) // 2] ^= 4
    journal.write_bytes(damaged)
    steps = (workdir / "checkpoints" / "111-seed1").glob("[0-9]*")
    weights = max(
        max(steps, key=lambda path: int(path.name)).glob("**/*"),
        key=lambda path: path.stat().st_size if path.is_file() else 0,
    )
    content = bytearray(weights.read_bytes())
    content[len(content) // 3] ^= 1
    weights.write_bytes(content)
    with pytest.warns(UserWarning, match="damaged|checksums") as seen:
        again = placement.run(_TINY, workdir=workdir)
    assert any("checksums" in str(w.message) for w in seen)
    assert _values(workdir) == _values(reference)
    (aside,) = workdir.glob("journal.jsonl.damaged*")
    assert aside.read_bytes() == bytes(damaged)
    # Of the five origins at most the one whose line was hit is lost.
    pairs = zip(again.trials, result.trials, strict=True)
    assert sum(a.origin != b.origin for a, b in pairs) <= 1


@pytest.mark.slow
def test_more_evaluations_and_seeds_go_on_in_the_same_workdir(
    finished, tmp_path, three_sites
):
    reference, result = finished
    workdir = tmp_path / "copy"
    shutil.copytree(reference, workdir)
    more = dataclasses.replace(_TINY, num_evaluations=6, num_seeds=3, max_seeds=3)
    again = placement.run(more, workdir=workdir)
    assert [t.x.tolist() for t in again.trials[:5]] == [
        t.x.tolist() for t in result.trials
    ]
    assert len(again.trained) == 6
    assert len(again.rows["all_bn"].statuses) == 3
    # The journal's own number of random placements counts, not that of six evaluations.
    assert [t.origin for t in again.trials].count("initial") == 1
    with pytest.raises(
        ValueError, match="num_seeds: 3 there, 2 now, and may only grow"
    ):
        placement.run(_TINY, workdir=workdir)


@pytest.mark.slow
def test_a_claim_that_is_open_gets_more_seeds(
    finished, tmp_path, three_sites, monkeypatch
):
    extended = []
    monkeypatch.setattr(Progress, "extend", lambda self, count: extended.append(count))
    # So wide a bar for what a claim takes that only the whole budget could decide it.
    monkeypatch.setattr(claims, "LEVEL", 1e-12)
    config = dataclasses.replace(_TINY, num_seeds=3, max_seeds=4)
    grown = tmp_path / "grown"
    shutil.copytree(finished[0], grown)  # of two seeds
    result = placement.run(config, workdir=grown)
    assert result.confirmed
    # All-BN and BO-N, one further seed each, of four epochs.
    assert extended[-1] == 8
    assert {key: len(row.test) for key, row in result.rows.items()} == {
        "all_bn": 4,
        "no_bn": 3,
        "bo_n": 4,
    }
    whole = tmp_path / "whole"
    placement.run(config, workdir=whole)
    assert _values(grown) == _values(whole)
    assert json.loads((whole / "results.json").read_text())["claim"] == {
        "vgg11": "not_decided"
    }


def test_what_another_search_found_stands_beside(finished, tmp_path, three_sites):
    workdir = tmp_path / "copy"
    shutil.copytree(finished[0], workdir)
    config = dataclasses.replace(_TINY, beside=(str(finished[0]),))
    result = placement.run(config, workdir=workdir)
    (other,) = result.others
    assert (other.seed, other.num_evaluations) == (0, 5)
    mask = result.rows["bo_n"].mask
    assert other.sites == (tuple(np.flatnonzero(mask)) if result.confirmed else None)
    assert other.loss == _values(workdir)["accuracy_loss[bo_n]"]
    page = (workdir / "report.html").read_text()
    assert "1 of 1 others found the same" in page


@pytest.mark.slow
def test_a_lost_journal_is_said(finished, tmp_path, monkeypatch, three_sites):
    folders.write_settings("bn_placement", _SHORT, tmp_path)
    (tmp_path / "results.json").write_text("{}")
    said = []
    monkeypatch.setattr(
        logging, "warning", lambda text, *args: said.append(text % args)
    )
    placement.run(_SHORT, workdir=tmp_path)
    assert any("journal.jsonl is gone; the search starts anew" in text for text in said)


@pytest.mark.slow
def test_candidates_that_diverge_are_recorded_and_the_search_goes_on(
    tmp_path, three_sites
):
    config = dataclasses.replace(
        _TINY, train=dataclasses.replace(_TINY.train, learning_rate=1e3), num_seeds=1
    )
    result = placement.run(config, workdir=tmp_path)
    failed = [trial for trial in result.trials if trial.status == "failed"]
    assert failed
    assert all(trial.reason for trial in failed)
    assert len(result.ended) == config.num_evaluations
    values = _values(tmp_path)
    assert values["num_failed"] == len(failed)
    assert failed[0].reason in (tmp_path / "report.html").read_text()


def test_another_setting_in_the_same_workdir_is_refused(finished, three_sites):
    other = dataclasses.replace(_TINY, width=0.125, seed=3)
    with pytest.raises(
        ValueError, match=r"other settings(.|\n)*seed: 0 there, 3 now"
    ) as e:
        placement.run(other, workdir=finished[0])
    assert "width: 0.0625 there, 0.125 now" in str(e.value)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"dataset": "cifar11"}, r"`dataset` \(='cifar11'\) must be one of .*'digits'"),
        ({"networks": ("vgg12",)}, r"`network` \(='vgg12'\) must be one of"),
        ({"networks": ()}, "`networks` is empty"),
        ({"networks": "vgg11"}, r"`networks` must be a tuple.*write \('vgg11',\)"),
        ({"width": 0.0}, "`width` must be > 0"),
        ({"image_size": 4}, "`image_size` must be >= 8, got 4"),
        ({"num_evaluations": 2}, "`num_evaluations` must be >= 3, got 2: All-BN"),
        ({"num_evaluations": 300}, "at most 256"),
        ({"seed": 2**32 - 1}, r"`seed` must lie in 0..2\*\*32 - `max_seeds`"),
        ({"num_seeds": 3}, r"`max_seeds` \(=2\) must be at least `num_seeds` \(=3\)"),
        ({"max_seeds": 2.5}, "`max_seeds` must be a whole number, got 2.5"),
        ({"beside": "runs/one"}, r"`beside` must be a tuple.*write \('runs/one',\)"),
        ({"beside": ("runs/none",)}, r"`beside` \(='runs/none'\).*which has ended"),
        ({"sparsity_penalty": float("inf")}, "finite"),
        ({"width": float("inf")}, "finite"),
        ({"num_seeds": 0}, "`num_seeds` must be >= 1"),
        ({"num_seeds": 2.5}, "`num_seeds` must be a whole number, got 2.5"),
        ({"sparsity_penalty": -0.1}, "`sparsity_penalty` must be >= 0, got -0.1"),
        ({"chip": "deeptrain:0R1G"}, "`R`.*at least 1"),
        ({"chip": "deeptrain:3R4G"}, "must not exceed 4"),
        ({"chip": "roofline:abacus"}, "`chip`.*none that is known.*roofline:Titan Xp"),
        ({"num_train": 10**6}, "`num_train`"),
        ({"train": TrainConfig(epochs=0)}, "`epochs`"),
        ({"train": TrainConfig(batch_size=5000)}, "`batch_size`"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(changes, match, tmp_path):
    config = dataclasses.replace(_TINY, **changes)
    with pytest.raises(ValueError, match=match):
        placement.run(config, workdir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_stack_that_is_too_small_says_by_how_much(tmp_path):
    config = dataclasses.replace(
        _TINY, networks=("vgg19",), width=1.0, image_size=32, chip="deeptrain:1R1G"
    )
    # 23493 crossbars for 32x32x3 images; the digits' one channel takes no fewer.
    with pytest.raises(ValueError, match=r"13824 crossbars.*needs 23493, 9669 more"):
        placement.run(config, workdir=tmp_path)


def test_missing_data_are_refused(tmp_path):
    config = dataclasses.replace(_TINY, dataset="cifar10")
    with pytest.raises(FileNotFoundError, match="none"):
        placement.run(config, workdir=tmp_path / "run", data_dir=tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"data_batch_1.bin.*30,?730,?000"):
        placement.run(config, workdir=tmp_path / "run", data_dir=tmp_path)


@pytest.mark.slow
def test_an_interrupted_cell_goes_on_in_the_same_process(
    finished, tmp_path, monkeypatch, three_sites
):
    class _Interrupt(BaseException):
        pass

    def interrupted(*args, **kwargs):
        raise _Interrupt

    # As a notebook whose cell is stopped while All-BN trains, and run again.
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train", interrupted)
        with pytest.raises(_Interrupt):
            placement.run(_TINY, workdir=tmp_path)
    placement.run(_TINY, workdir=tmp_path)
    assert _values(tmp_path) == _values(finished[0])


def _launch(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "experiments.bn_placement", *arguments],
        capture_output=True,
        text=True,
        cwd=_ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        timeout=120,
    )


def test_the_launcher_refuses_in_one_line(tmp_path):
    done = _launch(
        "--preset=smoke",
        "--stack=9R9G",
        "--evaluations=4",
        f"--workdir={tmp_path / 'a'}",
    )
    assert done.returncode == 1
    assert "error: " in done.stderr
    assert "must not exceed 4" in done.stderr
    assert "Traceback" not in done.stderr
    unknown = _launch("--preset=nonsense", f"--workdir={tmp_path / 'b'}")
    assert "`preset` (='nonsense') must be one of" in unknown.stderr
    assert unknown.returncode == 1


@pytest.mark.slow
def test_vanishing_gradients_are_not_trained(tmp_path, monkeypatch, three_sites):
    # So high a bar that only All-BN and No-BN pass, and the third in a row.
    monkeypatch.setattr(placement_search, "_MAX_SCREENED", 2)
    config = dataclasses.replace(_SHORT, least_health=1e3, num_evaluations=4)
    result = placement.run(config, workdir=tmp_path)
    screened = [t for t in result.ended if t.metrics["status"] == "screened"]
    assert len(result.trained) == 4
    assert len(screened) == 4
    assert all("gradients vanish" in t.reason for t in screened)
    values = _values(tmp_path)
    assert values["num_screened"] == 4
    assert values["num_evaluations"] == 4
    assert values["num_failed"] == 0


@pytest.mark.slow
def test_a_search_ends_when_all_placements_are_screened(tmp_path, three_sites):
    config = dataclasses.replace(_SHORT, least_health=1e3, num_evaluations=8)
    result = placement.run(config, workdir=tmp_path)
    assert (len(result.trained), len(result.ended)) == (2, 8)


@pytest.mark.slow
def test_warm_start_trains_the_best_of_another_search_first(
    finished, tmp_path, three_sites
):
    journal = tmp_path / "other.jsonl"
    shutil.copy(finished[0] / "journal.jsonl", journal)
    config = dataclasses.replace(
        _SHORT, warm_start=str(journal), num_evaluations=6, least_health=0.0
    )
    result = placement.run(config, workdir=tmp_path / "run")
    told = [t for t in finished[1].trials if t.status == "told"]
    penalty = config.sparsity_penalty
    told.sort(key=lambda t: (penalty * t.x.sum() - t.value, t.number))
    best = {tuple(t.x) for t in told[:3]} | {(0,) * 3, (1,) * 3}
    enqueued = {tuple(t.x) for t in result.trials if t.origin == "enqueued"}
    assert enqueued == best
    journal.unlink()  # a search that has begun goes on by its own
    again = placement.run(config, workdir=tmp_path / "run")
    assert [t.number for t in again.trials] == [t.number for t in result.trials]


@pytest.mark.parametrize("text", [None, "", "{}\n", "not a journal"])
def test_a_warm_start_must_be_a_journal(text, tmp_path):
    if text is not None:
        (tmp_path / "other.jsonl").write_text(text)
    config = dataclasses.replace(_TINY, warm_start=str(tmp_path / "other.jsonl"))
    with pytest.raises(
        ValueError, match="`warm_start` .* must be the journal.jsonl of"
    ):
        placement.run(config, workdir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_warm_start_from_another_network_is_refused(tmp_path):
    Study(5, tmp_path / "other.jsonl").tell([0] * 5, 0.5)
    config = dataclasses.replace(_TINY, warm_start=str(tmp_path / "other.jsonl"))
    with pytest.raises(ValueError, match="over 5 sites, but 'vgg11' has 8"):
        placement.run(config, workdir=tmp_path / "run")
