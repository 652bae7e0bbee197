"""A comparison of number formats on a small scale: what it writes, says and refuses."""

import dataclasses
import json
from unittest import mock

import pytest

from codesign.report import Results
from codesign.studies.camel import number_formats, number_formats_report, operand_rows
from codesign.studies.camel.number_formats_result import FormatRun
from codesign.training import TrainConfig

_TINY = number_formats.NumberFormatsConfig(
    preset="tiny",
    schemes=("float32", "bfp5"),
    width=0.05,
    image_size=8,
    num_train=128,
    train=TrainConfig(epochs=1),
    num_seeds=1,
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished")
    return workdir, number_formats.run(_TINY, workdir=workdir)


@pytest.mark.slow
def test_what_is_written(finished):
    workdir, found = finished
    assert set(found) == {("float32", 0), ("bfp5", 0)}
    names = {path.name for path in workdir.iterdir()}
    assert {"report.html", "results.json", "error_by_layer.png"} <= names
    content = json.loads((workdir / "operand_statistics.json").read_text())
    products = content["formats"]["bfp5"]
    assert list(products) == ["conv1", "conv2", "conv3", "classifier"]
    for classes in products.values():
        assert set(classes) == {"weights", "activations", "gradients"}
        for values in classes.values():
            assert all(0 <= value <= 1 for value in values.values())
            assert values["zero"] + values["flushed"] == pytest.approx(
                values["zero_mantissa"], abs=1e-6
            )
    results = Results.read(workdir / "results.json").quantities
    by_key = {each.key: each.value for each in results}
    assert by_key["bits_per_number[bfp5]"] == pytest.approx(58 / 9)
    # Truncation to 5 bits: an error of 2^-5 of a block's largest number at most.
    assert 0 < by_key["quantization_error[bfp5,weights]"] < 0.1


@pytest.mark.slow
def test_wide_accumulators_are_exact_and_narrow_ones_are_not(finished):
    rows = finished[1]["bfp5", 0].accumulators
    by_width = {}
    for each in rows:
        if each.guard_bits == 1:
            by_width.setdefault(each.bits, []).append(each)
    assert all(each.error < 1e-6 for each in by_width[32])
    errors = [sum(e.error for e in by_width[bits]) for bits in sorted(by_width)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 1e-3
    low = {g: [r for r in rows if r.guard_bits == g] for g in (1, -1, -2, -3)}
    saturated = [sum(row.saturated for row in low[g]) for g in (1, -1, -2, -3)]
    assert saturated == sorted(saturated)
    assert saturated[0] == 0 < saturated[1]
    assert all(row.error > 1e-3 for row in low[-3])


@pytest.mark.slow
def test_a_training_is_kept_until_its_operands_are_recorded(finished, tmp_path):
    config = dataclasses.replace(_TINY, schemes=("float32", "bfp5"))
    with (
        mock.patch.object(operand_rows, "operand_statistics", side_effect=KeyError),
        pytest.raises(KeyError),
    ):
        number_formats.run(config, workdir=tmp_path)
    assert list((tmp_path / "checkpoints" / "bfp5-seed0").iterdir())
    found = number_formats.run(config, workdir=tmp_path)
    assert found["bfp5", 0].losses == finished[1]["bfp5", 0].losses
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    epochs = [entry for line in lines if "epoch" in (entry := json.loads(line))]
    assert len(epochs) == 2 * config.train.epochs  # none twice
    assert not [*(tmp_path / "checkpoints").glob("*/*")]


@pytest.mark.slow
def test_it_goes_on_where_it_was(finished, monkeypatch):
    workdir, found = finished
    monkeypatch.setattr(number_formats.Trainer, "train", None)  # nothing to train
    assert number_formats.run(_TINY, workdir=workdir) == found


def _run(test):
    return FormatRun(
        status="trained" if test is not None else "diverged",
        reason="",
        losses=(1.0,),
        validation=(0.9,),
        test=test,
        num_test=1000,
        epoch_s=2.0,
    )


def test_claims_are_paired_by_seed():
    config = dataclasses.replace(
        _TINY, schemes=("float32", "bfp5", "bfp2", "bfp1"), num_seeds=3
    )
    tests = {
        "float32": (0.980, 0.970, 0.960),
        "bfp5": (0.980, 0.971, 0.959),  # loses 0, -.1 and .1 points
        "bfp2": (0.940, 0.929, 0.921),  # loses 4, 4.1 and 3.9
        "bfp1": (0.1, None, 0.1),  # a diverged seed counts as 0
    }
    found = {(n, i): _run(t) for n, ts in tests.items() for i, t in enumerate(ts)}
    rows = {row.scheme: row for row in number_formats_report.rows(config, found)}
    assert rows["float32"].loss is None
    assert rows["float32"].verdict is None
    assert rows["bfp5"].loss.mean == pytest.approx(0, abs=1e-9)
    assert rows["bfp5"].verdict == "non_inferior"
    assert rows["bfp2"].loss.mean == pytest.approx(0.04)
    assert rows["bfp2"].verdict == "inferior"
    assert rows["bfp1"].loss.losses == pytest.approx((0.88, 0.97, 0.86))
    assert rows["bfp1"].accuracy == pytest.approx(0.1)
    report = number_formats_report.report(config, found)
    assert "bfp5" in report.summary
    assert "as well as float32" in report.summary
    (asked,) = [q for q in report.quantities if q.asked is not None]
    assert asked.verdict == "met"
    assert asked.value == rows["bfp5"].loss.bound()
    assert any("bfp1, seed 1: diverged" in text for text in report.warnings)


def test_float32_alone_and_what_always_diverges_have_a_page():
    config = dataclasses.replace(_TINY, schemes=("float32",))
    report = number_formats_report.report(config, {("float32", 0): _run(0.9)})
    assert "nothing to compare" in report.summary
    config = dataclasses.replace(_TINY, schemes=("float32", "bfp1"))
    found = {("float32", 0): _run(0.9), ("bfp1", 0): _run(None)}
    report = number_formats_report.report(config, found)
    assert "all runs of bfp1 diverged" in report.summary


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"schemes": ("bfp5",)}, "`formats`.*must hold 'float32'"),
        ({"schemes": ("float32", "bfp55")}, "`formats`.*mantissa_bits"),
        ({"schemes": ("float32", "mxfp8")}, "`formats`.*did you mean `mxfp8_e"),
        (
            {"schemes": ("float32", "bfp5", "bfp05")},
            "one format twice.*'bfp5' and 'bfp05'",
        ),
        ({"dataset": "mnits"}, "`dataset`.*mnist"),
        ({"network": "vgg12"}, "`network`.*vgg11"),
    ],
)
def test_what_is_refused(changes, why, tmp_path):
    config = dataclasses.replace(_TINY, **changes)
    with pytest.raises(ValueError, match=why):
        number_formats.run(config, workdir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
