"""What the frame gives to any study, shown on the one of `toy.py`."""

import dataclasses
import inspect
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from absl import logging

from codesign.records import read_metrics, workdir
from codesign.report import Quantities, Results, Table
from codesign.studies import frame
from tests.records.html_test import EVIL, Reader
from tests.studies import toy

ROOT = pathlib.Path(__file__).parents[2]
_QUICK = toy.STUDY.presets["quick"]
# Whoever runs the tests in the background has Ctrl-C ignored, and children inherit that.
_SCRIPT = f"""
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_path({str(ROOT / "tests" / "studies" / "toy.py")!r}, run_name="__main__")
"""


def _launch(*arguments, script=_SCRIPT, **options):
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def _finished(*arguments):
    process = _launch(*arguments)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def _change(**changes):
    return dataclasses.replace(_QUICK, **changes)


def test_a_run_writes_everything_and_a_second_one_measures_nothing(
    tmp_path, monkeypatch, capsys
):
    found = toy.STUDY.run(_QUICK, workdir=tmp_path)
    assert {unit: each.value for unit, each in found.items()} == {(2, 0): 4, (3, 0): 9}
    assert json.loads((tmp_path / "config.json").read_text())["power"] == 2
    results = Results.read(tmp_path / "results.json")
    assert (results.experiment, results.preset) == ("toy", "quick")
    assert results["power[3]"].verdict == "equal"
    assert dict(results["power[3]"].of) == {"number": "3"}
    assert (tmp_path / "powers.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "report.html").read_text()
    assert "data:image/png" in page
    assert "three, raised" in page
    assert "Euclid" in capsys.readouterr().out
    units = read_metrics(tmp_path / "metrics.jsonl")
    assert [entry["unit"] for entry in units] == [[2, 0], [3, 0]]

    monkeypatch.setattr(toy, "measure", None)
    monkeypatch.setitem(toy.STUDY.__dict__, "measure", None)
    again = toy.STUDY.run(_QUICK, workdir=tmp_path)
    assert [repr(each) for each in again.values()] == [
        repr(each) for each in found.values()
    ]
    assert Results.read(tmp_path / "results.json").quantities == results.quantities


def test_a_notebook_sees_tables_numbers_and_figures(tmp_path):
    found = toy.STUDY.run(_QUICK, workdir=tmp_path)
    assert found == {(2, 0): toy.Power(4), (3, 0): toy.Power(9)}
    assert json.dumps(found.report.quantities[0].to_dict())
    assert isinstance(found.report.quantities, Quantities)
    assert [table.title for table in found.report.tables] == [
        "Powers", "Published numbers and ours"
    ]  # fmt: skip
    rows = Reader(found._repr_html_()).rows
    assert ["3", "9"] in rows
    assert rows[-2][:3] == ["three, raised", "9", "9"]
    assert "2 powers." in found._repr_html_()
    assert "Figures: powers" in found._repr_html_()
    (figure,) = found.figures.values()
    assert found.figures["powers"] is figure
    assert figure._repr_png_()[0] == (tmp_path / "powers.png").read_bytes()
    figure.drawn.axes[0].set_title("mine")  # Matplotlib's own
    # It is none of pyplot's, which would draw it once more below the cell.
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def test_a_study_says_nothing_in_html(tmp_path):
    config = _change(preset=EVIL)
    study = dataclasses.replace(
        toy.STUDY,
        report=lambda config, found: frame.Report(
            title=EVIL, summary=EVIL, shown=[Table(EVIL, [EVIL], [(EVIL,)])]
        ),
    )
    page = study.run(config, workdir=tmp_path)._repr_html_()
    assert "script" not in Reader(page).tags
    assert page.count("&lt;script&gt;") == 5


def test_kill_9_loses_the_unit_under_way_only(tmp_path):
    arguments = (f"--workdir={tmp_path}", "--numbers=2,3,4,5,6", "--pause_s=0.4")
    process = _launch(*arguments)
    log = tmp_path / "finished.jsonl"
    deadline = time.monotonic() + 300
    while not (log.exists() and log.read_text().count("\n") >= 3):  # header, two units
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = log.read_text().count('"done"')
    assert 2 <= kept < 5
    code, out, err = _finished(*arguments)
    assert code == 0, err
    assert "5 powers." in out
    entries = read_metrics(tmp_path / "metrics.jsonl")
    units = [entry["unit"][0] for entry in entries]
    assert list(dict.fromkeys(units)) == [2, 3, 4, 5, 6]
    assert len(units) <= 6  # the one under way may stand there twice


def test_ctrl_c_says_how_to_go_on(tmp_path):
    process = _launch(f"--workdir={tmp_path}", "--pause_s=30")
    deadline = time.monotonic() + 300
    while not (tmp_path / "metrics.jsonl").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on" in err
    assert "Traceback" not in err


# Python hears no signal before the hash is done, as while XLA compiles.
_DEAF = """
import hashlib, time
time.sleep = lambda _: hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
"""


@pytest.mark.parametrize(
    "first", ["", pytest.param(_DEAF, marks=pytest.mark.slow)], ids=["heard", "deaf"]
)
def test_ctrl_c_twice_ends_at_once(first, tmp_path):
    arguments = (f"--workdir={tmp_path}", "--numbers=3", "--pause_s=30")
    process = _launch(*arguments, script=first + _SCRIPT)
    deadline = time.monotonic() + 300
    while not (tmp_path / "metrics.jsonl").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    if first:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert not first or "Ctrl-C again stops at once" in err
    assert err.endswith("the same command goes on from there.\n")
    assert "Traceback" not in err
    code, out, err = _finished(*arguments[:2])
    assert code == 0, err
    assert "1 powers." in out


def test_other_settings_are_refused_and_more_of_them_go_on(tmp_path, monkeypatch):
    toy.STUDY.run(_QUICK, workdir=tmp_path)
    with pytest.raises(ValueError, match=r"other settings:\n  power: 2 there, 3 now"):
        toy.STUDY.run(_change(power=3), workdir=tmp_path)
    # Other units, and more runs, are measured beside those that are there.
    measured, measure = [], toy.measure

    def counted(config, unit, job):
        measured.append(unit)
        return measure(config, unit, job)

    monkeypatch.setitem(toy.STUDY.__dict__, "measure", counted)
    config = _change(numbers=(3, 4), num_repeats=2)
    found = toy.STUDY.run(config, workdir=tmp_path)
    assert measured == [(3, 1), (4, 0), (4, 1)]
    assert list(found) == [(3, 0), (3, 1), (4, 0), (4, 1)]
    assert json.loads((tmp_path / "config.json").read_text())["num_repeats"] == 2
    with pytest.raises(ValueError, match="num_repeats: 2 there, 1 now, and may only"):
        toy.STUDY.run(_QUICK, workdir=tmp_path)


def test_a_deleted_config_does_not_let_other_settings_in(tmp_path):
    toy.STUDY.run(_QUICK, workdir=tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match="power: 2 there, 3 given"):
        toy.STUDY.run(_change(power=3), workdir=tmp_path)
    assert not (tmp_path / "config.json").exists()
    toy.STUDY.run(_QUICK, workdir=tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data.replace(b"\n", b"\r\n"),
        lambda data: b"\xef\xbb\xbf" + data,
        lambda data: b"\n" + data,
        lambda data: data.replace(b"\n", b""),
        lambda data: data.partition(b"\n")[2],
        lambda data: data.replace(b'"power":2', b'"power":3'),
    ],
)
def test_nor_does_a_damaged_record_of_what_they_were(damage, tmp_path):
    toy.STUDY.run(_QUICK, workdir=tmp_path)
    (tmp_path / "config.json").unlink()
    record = tmp_path / "finished.jsonl"
    record.write_bytes(damage(record.read_bytes()))
    with pytest.raises(ValueError, match="does not begin with the header"):
        toy.STUDY.run(_change(power=3), workdir=tmp_path)


def test_another_study_is_refused(tmp_path):
    toy.STUDY.run(_QUICK, workdir=tmp_path)
    other = dataclasses.replace(toy.STUDY, name="other")
    with pytest.raises(ValueError, match="is of toy, not of other"):
        other.run(_QUICK, workdir=tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match="experiment: 'toy' there, 'other' given"):
        other.run(_QUICK, workdir=tmp_path)


def test_numbers_of_numpy_are_those_of_python(tmp_path):
    numbers = (np.int8(100), np.uint16(3))
    config = _change(numbers=numbers, seed=np.uint32(7), pause_s=np.float32(0))
    found = toy.STUDY.run(config, workdir=tmp_path)
    assert found[100, 0].value == 10_000
    assert Results.read(tmp_path / "results.json").seed == 7


def test_arguments_that_nobody_takes_are_refused(tmp_path):
    with pytest.raises(TypeError, match=r"toy takes no \['data_dir'\]"):
        toy.STUDY.run(_QUICK, workdir=tmp_path, data_dir="x")


def test_what_another_process_wrote_meanwhile_is_compared(tmp_path):
    folder = tmp_path / "new"

    def prepare(config, pending, workdir):
        toy.STUDY.run(_change(num_repeats=3), workdir=folder)

    study = dataclasses.replace(toy.STUDY, prepare=prepare)
    with pytest.raises(ValueError, match="num_repeats: 3 there, 1 now"):
        study.run(_QUICK, workdir=folder)


def test_a_workdir_has_one_user_at_a_time(tmp_path):
    held = workdir.lock(tmp_path)
    with pytest.raises(ValueError, match=r"`workdir` .* is in use by this process"):
        toy.STUDY.run(_QUICK, workdir=tmp_path)
    held.release()
    toy.STUDY.run(_QUICK, workdir=tmp_path)


def test_two_threads_do_not_share_a_workdir(tmp_path):
    said = []

    def measure(config, unit, job):
        def again():
            try:
                toy.STUDY.run(_QUICK, workdir=tmp_path)
            except ValueError as error:
                said.append(str(error))

        thread = threading.Thread(target=again)
        thread.start()
        thread.join()
        return toy.measure(config, unit, job)

    study = dataclasses.replace(toy.STUDY, measure=measure)
    assert len(study.run(_QUICK, workdir=tmp_path)) == 2
    assert len(said) == 2
    assert all("in use by this process, in another thread" in each for each in said)


@pytest.mark.parametrize("why", [KeyboardInterrupt, ValueError, SystemExit])
def test_the_same_cell_runs_again_after_it_was_stopped(why, tmp_path):
    measured = []

    def measure(config, unit, job):
        measured.append(unit)
        if len(measured) == 2:
            raise why("stopped")
        return toy.measure(config, unit, job)

    study = dataclasses.replace(toy.STUDY, measure=measure)
    with pytest.raises(
        why
    ) as kept:  # with its frames, as a notebook keeps the last one
        study.run(_QUICK, workdir=tmp_path)
    found = study.run(_QUICK, workdir=tmp_path)
    assert measured == [(2, 0), (3, 0), (3, 0)]
    assert kept.tb
    assert study.run(_QUICK, workdir=tmp_path) == found  # nothing is measured
    assert len(measured) == 3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*unclosed file")  # metrics not yet in a `with`
@pytest.mark.filterwarnings("ignore:.*metrics.jsonl")
def test_wherever_the_interrupt_struck(tmp_path, monkeypatch):
    """Raises in turn at every line that a run takes through the frame and the lock."""
    monkeypatch.setattr(frame.reports, "environment", dict)
    plain = frame.Report(title="Powers", summary="No figures: they take their time.")
    study = dataclasses.replace(toy.STUDY, report=lambda config, found: plain)
    files = tuple(inspect.getsourcefile(each) for each in (frame, workdir))

    def run(stop):
        count = 0

        def trace(stack, event, argument):
            nonlocal count
            if stack.f_code.co_filename not in files:
                return None
            if event == "line":
                count += 1
                if count == stop:
                    sys.settrace(None)
                    raise KeyboardInterrupt
            return trace

        sys.settrace(trace)
        try:
            study.run(_QUICK, workdir=folder)
        finally:
            sys.settrace(None)
        return count

    folder = tmp_path / "whole"
    num_lines = run(0)
    assert num_lines > 50
    for stop in range(1, num_lines):  # the last one leaves `with`, when all is written
        folder = tmp_path / f"{stop}"
        with pytest.raises(KeyboardInterrupt) as kept:
            run(stop)
        assert len(study.run(_QUICK, workdir=folder)) == 2, stop
        assert kept.tb


def test_a_lost_record_of_finished_work_is_said(tmp_path, monkeypatch):
    toy.STUDY.run(_QUICK, workdir=tmp_path)
    (tmp_path / "finished.jsonl").unlink()
    said = []
    monkeypatch.setattr(
        logging, "warning", lambda text, *args: said.append(text % args)
    )
    toy.STUDY.run(_QUICK, workdir=tmp_path)
    assert "finished.jsonl is gone; everything is measured again" in said[0]


def test_work_of_an_earlier_version_is_refused_by_name(tmp_path):
    (tmp_path / "journal.jsonl").write_text("{}")
    study = dataclasses.replace(toy.STUDY, formerly=("journal.jsonl",))
    with pytest.raises(ValueError, match=r"workdir.*holds journal.jsonl of an earlier"):
        study.run(_QUICK, workdir=tmp_path)


def test_a_damaged_unit_is_measured_again(tmp_path):
    toy.STUDY.run(_QUICK, workdir=tmp_path)
    path = tmp_path / "finished.jsonl"
    path.write_text(path.read_text().replace('"value":4', '"value":5'))
    with pytest.warns(UserWarning, match="damaged in line 2"):
        found = toy.STUDY.run(_QUICK, workdir=tmp_path)
    assert found[2, 0].value == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_repeats": 2.5}, "`num_repeats` must be a whole number, got 2.5"),
        ({"num_repeats": True}, "`num_repeats` must be a whole number, got True"),
        ({"num_repeats": 0}, "`num_repeats` must be >= 1, got 0"),
        ({"power": 10}, "`power` must be <= 9, got 10"),
        ({"numbers": "12"}, "`numbers` must be a tuple of int, got '12'"),
        ({"numbers": ()}, "`numbers` is empty"),
        ({"numbers": (1, "2")}, "`numbers` must be a whole number, got '2'"),
        ({"seed": -1}, "`seed` must be >= 0, got -1"),
        ({"seed": 2**32}, "`seed` must be < 4,294,967,296"),
        ({"pause_s": float("nan")}, "`pause_s` must be a finite number, got nan"),
        ({"preset": 3}, "`preset` must be of type str, got 3"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(
    changes, message, tmp_path
):
    with pytest.raises(ValueError, match=message):
        toy.STUDY.run(_change(**changes), workdir=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_failed_preparation_leaves_no_folder_behind(tmp_path):
    def prepare(config, pending, workdir):
        raise ValueError("`numbers` are not at hand.")

    study = dataclasses.replace(toy.STUDY, prepare=prepare)
    with pytest.raises(ValueError, match="not at hand"):
        study.run(_QUICK, workdir=tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(ValueError, match="not at hand"):
        study.run(_QUICK, workdir=tmp_path)
    toy.STUDY.run(_change(power=3), workdir=tmp_path)  # nothing was begun there


def test_presets_and_workdirs_are_checked():
    with pytest.raises(ValueError, match=r"`preset` \(='slow'\) must be one of.*quick"):
        toy.STUDY.preset("slow")
    with pytest.raises(ValueError, match="`workdir` is empty"):
        toy.STUDY.run(_QUICK, workdir="")


def test_flags_are_the_settings(tmp_path):
    flagfile = tmp_path / "flags.txt"
    flagfile.write_text("--numbers=5\n--exponent=3\n")
    code, out, err = _finished(f"--workdir={tmp_path / 'a'}", f"--flagfile={flagfile}")
    assert code == 0, err
    assert "125" in out
    for flag, message in (
        ("--num_repeats=2.5", "num_repeats=2.5: must be a whole number"),
        ("--preset=slow", "error: `preset` (='slow') must be one of ['quick']"),
        ("--power=0", "error: `power` must be >= 1, got 0."),
        ("--workdir=", "error: `workdir` is empty"),
        ("--numbers=2,,3", "numbers=2,,3: must hold no empty element"),
        ("rest", "Unexpected arguments: ['rest']"),
    ):
        code, _, err = _finished(f"--workdir={tmp_path / 'b'}", flag)
        assert code == 1
        assert message in err
        assert "Traceback" not in err


@pytest.mark.slow
def test_finished_work_needs_nobody_who_reads(tmp_path):
    toy.STUDY.run(_QUICK, workdir=tmp_path)
    for options in ({"stdout": subprocess.DEVNULL}, {"env_encoding": "ascii"}):
        environment = {"PYTHONIOENCODING": options.pop("env_encoding", "utf-8")}
        process = subprocess.run(
            [sys.executable, "-c", _SCRIPT, f"--workdir={tmp_path}"],
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdout=options.get("stdout", subprocess.PIPE), stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.returncode == 0, process.stderr
    with _launch(f"--workdir={tmp_path}") as reader:
        reader.stdout.close()  # as `| head -0` does
        assert "rror" not in reader.stderr.read()
    assert reader.returncode == 0


def test_help_is_ours():
    code, out, _ = _finished("--help")
    assert code == 0
    assert "A study in sixty lines" in out
    assert "--num_repeats  1" in out
    assert "Also --exponent." in out
    assert "jax" not in out
    assert len(out.splitlines()) < 30
    code, _, err = _finished("--help", "--preset=slow")
    assert code == 1
    assert err.splitlines()[-1].startswith("error: `preset` (='slow') must be one of")
