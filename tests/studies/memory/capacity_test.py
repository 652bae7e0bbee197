"""A whole sweep of a small network: files, numbers, resume and refusals."""

import csv
import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest

from codesign.hardware import memory as hardware
from codesign.hardware.memory import SYSTEMS
from codesign.report import Results, canvas
from codesign.studies import frame
from codesign.studies.memory import (
    capacity,
    capacity_measure,
    capacity_report,
    paper_networks,
    roofline_figure,
    timeline_figure,
)
from codesign.studies.memory.capacity_result import NetworkSweep, ran
from codesign.studies.memory.capacity_tables import CSV_COLUMNS
from codesign.workload import load as networks
from codesign.workload.iteration import training_iteration

_CFG = """[net]
width=32
height=32
channels=3
[convolutional]
filters=8
size=3
activation=leaky
"""
_CONFIG = dataclasses.replace(
    capacity.PRESETS["smoke"], hardware=("TPU v5e", "RTX 2080 Ti")
)


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> tuple[pathlib.Path, NetworkSweep]:
    folder = tmp_path_factory.mktemp("sweep")
    return folder, capacity.run(_CONFIG, workdir=folder)[0]


@pytest.fixture
def workdir(swept) -> pathlib.Path:
    return swept[0]


@pytest.fixture
def sweep(swept) -> NetworkSweep:
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


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch):
    file, load = tmp_path / "net.cfg", paper_networks.load
    file.write_text(_CFG)

    def edited(*args):
        file.write_text(_CFG + "[avgpool]\n")
        return load(*args)

    monkeypatch.setattr(paper_networks, "load", edited)
    config = dataclasses.replace(_CONFIG, networks=(f"darknet:{file}",))
    with pytest.raises(ValueError, match="changed while it was read; run again"):
        capacity.run(config, workdir=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_figures_of_two_networks_have_two_names(sweep):
    names = ("darknet:a-b.cfg", "darknet:a_b.cfg", "vgg11")
    sweeps = [dataclasses.replace(sweep, network=name) for name in names]
    assert capacity_report._file_names(sweeps) == [
        *("darknet_a_b_cfg", "darknet_a_b_cfg-1", "vgg11")
    ]


def test_running_again_simulates_nothing_and_writes_the_same(workdir, monkeypatch):
    before = (workdir / "sweep.csv").read_bytes()
    quantities = Results.read(workdir / "results.json").quantities

    def fail(*args, **kwargs):
        raise AssertionError("counted again")

    monkeypatch.setattr(networks, "load", fail)
    monkeypatch.setattr(capacity_measure, "measure", fail)
    monkeypatch.setattr(canvas, "to_png", lambda figure: b"")
    (workdir / "sweep.csv").unlink()
    capacity.run(_CONFIG, workdir=workdir)
    assert (workdir / "sweep.csv").read_bytes() == before
    assert Results.read(workdir / "results.json").quantities == quantities


def test_networks_may_be_added_and_a_changed_file_is_measured_again(
    workdir, tmp_path, monkeypatch, sweep
):
    file, copy = tmp_path / "net.cfg", tmp_path / "sweep"
    file.write_text(_CFG)
    shutil.copytree(workdir, copy)
    measured = []

    def measure(config, name, program, on_stage):
        on_stage(0, "capacity sweep")
        measured.append(name)
        return dataclasses.replace(sweep, network=name)

    monkeypatch.setattr(capacity_measure, "measure", measure)
    brief = frame.Report(title="Brief", summary="Nothing is drawn.")
    study = dataclasses.replace(capacity.STUDY, report=lambda *args: brief)
    names = ("vgg11", f"darknet:{file}")
    more = dataclasses.replace(_CONFIG, networks=names)
    found = study.run(more, workdir=copy)
    assert [each.network for each in found.values()] == list(names)
    assert measured == [names[1]]
    file.write_text(_CFG.replace("size=3", "size=1"))
    study.run(more, workdir=copy)
    assert measured == [names[1]] * 2


def test_other_settings_are_refused(workdir):
    other = dataclasses.replace(_CONFIG, capacity_mb="10,12")
    with pytest.raises(ValueError, match=r"capacity_mb: '10,16,24' there, '10,12' now"):
        capacity.run(other, workdir=workdir)


def test_a_cache_that_cannot_stream_is_refused_before_anything_is_written(tmp_path):
    small = dataclasses.replace(_CONFIG, capacity_mb="0.1:10:1")
    with pytest.raises(ValueError, match=r"capacity_mb.*vgg11.*bytes too small: step"):
        capacity.run(small, workdir=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_timeline_accounts_for_every_byte_and_step(sweep):
    found = ran(sweep.timeline)
    assert found.hardware == "TPU v5e"
    seconds = (found.transfer_end_s - found.transfer_start_s).sum()
    curves = sweep.sweeps["TPU v5e"]
    place = curves.index(_CONFIG.timeline_mb)
    bandwidth = float(SYSTEMS["TPU v5e"].bandwidth_bytes_per_s)
    assert np.isclose(seconds * bandwidth, curves.traffic[place], rtol=1e-9)
    assert found.total_s == pytest.approx(curves.total_s[0, place], rel=1e-12)
    assert (found.held_bytes <= _CONFIG.timeline_mb * 2**20).all()
    order = np.argsort(found.transfer_start_s)  # one channel: nothing overlaps
    starts, ends = found.transfer_start_s[order], found.transfer_end_s[order]
    assert (starts[1:] >= ends[:-1] - 1e-15).all()
    part = timeline_figure.enlarged(found)
    assert 0 <= part.start < part.stop <= len(found.names)


def test_the_split_parts_the_types(sweep):
    layers = sweep.layers
    above = layers.reuse_frequency > roofline_figure.split(layers)
    assert (above == ~layers.is_type_ii).all()


def test_scopes_account_for_the_traffic(sweep):
    reuse, paper = ran(sweep.reuse), ran(sweep.paper)
    for c, mebibytes in enumerate(reuse.capacities_mb):
        moved = paper.traffic[paper.index(mebibytes)]
        assert reuse.streamed_bytes - reuse.saved_bytes[c].sum() == moved
