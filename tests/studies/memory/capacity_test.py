"""A whole sweep of a small network: files, numbers, resume and refusals."""

import csv
import dataclasses
import json
import pathlib

import numpy as np
import pytest

from codesign.hardware import memory as hardware
from codesign.hardware.memory import SYSTEMS
from codesign.report import Results
from codesign.studies.memory import capacity as memory
from codesign.studies.memory import capacity_measure as measure
from codesign.studies.memory import roofline_figure as roofline
from codesign.studies.memory import timeline_figure as timeline
from codesign.studies.memory.capacity_tables import CSV_COLUMNS
from codesign.workload import load as networks
from codesign.workload.iteration import training_iteration

_CONFIG = dataclasses.replace(
    memory.PRESETS["smoke"], hardware=("TPU v5e", "RTX 2080 Ti")
)


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> tuple[pathlib.Path, memory.Outcome]:
    folder = tmp_path_factory.mktemp("sweep")
    return folder, memory.run(_CONFIG, workdir=folder)[0]


@pytest.fixture
def workdir(swept) -> pathlib.Path:
    return swept[0]


@pytest.fixture
def outcome(swept) -> memory.Outcome:
    return swept[1]


def _rows(workdir):
    with open(workdir / "sweep.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_csv_is_what_the_simulator_says(workdir):
    rows = _rows(workdir)
    assert tuple(rows[0]) == CSV_COLUMNS
    assert len(rows) == 2 * 3  # machines, capacities
    program = training_iteration(networks.load("vgg11", 32))
    for row in rows:
        assert (row["network"], row["batch"]) == ("vgg11", "32")
        spec = dataclasses.replace(
            SYSTEMS[row["hardware"]],
            capacity_bytes=float(row["capacity_mb"]) * 2**20,
        )
        found = hardware.simulate(spec, program, batch_size=32)
        assert int(row["traffic_in_bytes"]) == found.traffic_in_bytes
        assert int(row["traffic_out_bytes"]) == found.traffic_out_bytes
        for column, value in (
            ("time_s", found.total_s),
            ("average_bandwidth", found.average_bandwidth),
            ("active_time", found.active_time),
            ("utilisation", found.utilisation),
            ("type2_time_share", found.type_ii_time_share),
        ):
            assert np.isclose(float(row[column]), value, rtol=1e-12), column
    assert {row["hardware"] for row in rows} == set(_CONFIG.hardware)


def test_results_hold_the_contract(workdir):
    content = json.loads((workdir / "results.json").read_text())
    assert content["experiment"] == "memory_sweep"
    assert content["preset"] == "smoke"
    assert set(content["sweep_s"]) == {"vgg11"}
    assert 0 < content["sweep_s"]["vgg11"] < content["wall_s"]
    results = Results.read(workdir / "results.json")
    assert results.extras == {"sweep_s": content["sweep_s"]}
    assert results["observation_7"].value is None
    for path in results.figures:
        assert (workdir / path).read_bytes().startswith(b"\x89PNG")
    assert {"traffic.png", "timeline_vgg11.png", "roofline_vgg11.png"} <= set(
        results.figures
    )
    page = (workdir / "report.html").read_text()
    assert page.count("data:image/png") == len(results.figures)
    assert "needs MobileNetV2" in page


def test_running_again_simulates_nothing_and_writes_the_same(workdir, monkeypatch):
    before = (workdir / "sweep.csv").read_bytes()
    quantities = Results.read(workdir / "results.json").quantities

    def fail(*args, **kwargs):
        raise AssertionError("counted again")

    monkeypatch.setattr(networks, "load", fail)
    monkeypatch.setattr(measure, "measure", fail)
    (workdir / "sweep.csv").unlink()
    memory.run(_CONFIG, workdir=workdir)
    assert (workdir / "sweep.csv").read_bytes() == before
    assert Results.read(workdir / "results.json").quantities == quantities


def _torn(line: bytes) -> bytes:
    return line[:-100]


def _flipped(line: bytes) -> bytes:
    """One digit of a time is another."""
    at = line.index(b'"total_s": [[0.') + len(b'"total_s": [[0.') + 3
    return line[:at] + (b"1" if line[at : at + 1] != b"1" else b"2") + line[at + 1 :]


@pytest.mark.parametrize("damage", [_torn, _flipped])
def test_a_damaged_record_is_measured_again(workdir, tmp_path, damage):
    for name in ("config.json", "metrics.jsonl"):
        (tmp_path / name).write_bytes((workdir / name).read_bytes())
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_bytes(damage(metrics.read_bytes()))
    experiment = memory.prepare(_CONFIG, workdir=tmp_path)
    experiment.lock.release()
    assert list(experiment.programs) == ["vgg11"]
    assert not experiment.done


def test_other_settings_are_refused(workdir):
    other = dataclasses.replace(_CONFIG, capacity_mb="10,12")
    with pytest.raises(ValueError, match=r"capacity_mb: '10,16,24' there, '10,12' now"):
        memory.prepare(other, workdir=workdir)


def test_a_cache_that_cannot_stream_is_refused_before_anything_is_written(tmp_path):
    small = dataclasses.replace(_CONFIG, capacity_mb="0.1:10:1")
    with pytest.raises(ValueError, match=r"capacity_mb.*vgg11.*bytes too small: step"):
        memory.prepare(small, workdir=tmp_path)
    assert not (tmp_path / "config.json").exists()
    # And the workdir is free for the next.
    memory.prepare(_CONFIG, workdir=tmp_path).lock.release()


def test_a_second_process_is_refused(tmp_path):
    experiment = memory.prepare(_CONFIG, workdir=tmp_path)
    with pytest.raises(ValueError, match=r"workdir.*in use"):
        memory.prepare(_CONFIG, workdir=tmp_path)
    experiment.lock.release()


def test_timeline_accounts_for_every_byte_and_step(outcome):
    found = outcome.timeline
    assert found is not None
    assert found.hardware == "TPU v5e"
    seconds = (found.transfer_end_s - found.transfer_start_s).sum()
    curves = outcome.sweeps["TPU v5e"]
    place = curves.index(_CONFIG.timeline_mb)
    bandwidth = float(SYSTEMS["TPU v5e"].bandwidth_bytes_per_s)
    assert np.isclose(seconds * bandwidth, curves.traffic[place], rtol=1e-9)
    assert found.total_s == pytest.approx(curves.total_s[0, place], rel=1e-12)
    assert (found.held_bytes <= _CONFIG.timeline_mb * 2**20).all()
    order = np.argsort(found.transfer_start_s)  # one channel: nothing overlaps
    starts, ends = found.transfer_start_s[order], found.transfer_end_s[order]
    assert (starts[1:] >= ends[:-1] - 1e-15).all()
    part = timeline.enlarged(found)
    assert 0 <= part.start < part.stop <= len(found.names)


def test_the_split_parts_the_types(outcome):
    layers = outcome.layers
    above = layers.reuse_frequency > roofline.split(layers)
    assert (above == ~layers.is_type_ii).all()


def test_scopes_account_for_the_traffic(outcome):
    reuse, paper = outcome.reuse, outcome.paper
    assert reuse is not None
    assert paper is not None
    for c, mebibytes in enumerate(reuse.capacities_mb):
        moved = paper.traffic[paper.index(mebibytes)]
        assert reuse.streamed_bytes - reuse.saved_bytes[c].sum() == moved


def test_only_the_papers_own_settings_are_held_against_it():
    program = training_iteration(networks.load("resnet18", 32))
    small = dataclasses.replace(
        memory.PRESETS["smoke"], capacity_mb="48", figure_capacity_mb="48"
    )
    for name, changes, expected in (
        ("keras:ResNet50", {}, "resnet50"),
        ("keras:ResNet50", {"batch_size": 16}, ""),
        ("resnet50", {}, ""),  # the smoke preset's images are not 224 x 224
        ("resnet50", {"image_size": 224}, "resnet50"),
        ("gnmt", {}, "gnmt"),
        ("transformer", {"batch_size": 32}, ""),
    ):
        config = dataclasses.replace(small, **changes)
        assert measure.measure(config, name, program).family == expected
