"""Asks that others cut across: interrupts, kills and results that come meanwhile."""

import json
import pathlib
import shutil
import time

import numpy as np
import pytest

from codesign.records.journal import JournalDamaged, JournalWarning
from codesign.records.lines import Chain
from codesign.search import proposals, thompson, worker
from codesign.search.study import SearchSpaceExhausted, Study
from codesign.search.trials import TrialTable
from tests.search.studies import f as _f
from tests.search.studies import study as _study

_FORMAT_1 = pathlib.Path(__file__).parent / "data" / "format_1.jsonl"


def _text(rows):
    return ["".join(map(str, x)) for x in rows]


def _run(study, num_trials):
    for _ in range(num_trials):
        (x,) = study.ask()
        study.tell(x, _f(x))
    return _text(trial.x for trial in study.trials)


def _events(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()[1:]]


def test_a_journal_of_format_1_goes_on_as_it_would_have(tmp_path):
    path = tmp_path / "study.jsonl"
    shutil.copy(_FORMAT_1, path)
    study = Study.load(path)
    assert [trial.status for trial in study.trials].count("told") == 10
    # What the version that wrote it proposed next.
    assert _text(study.ask(3)) == ["011111", "010111", "010110"]
    assert _text(t.x for t in Study.load(path).trials[11:]) == _text(
        t.x for t in study.trials[11:]
    )


def test_a_tell_does_not_wait_for_a_proposal(tmp_path, monkeypatch):
    path = tmp_path / "study.jsonl"
    study = _study(path)
    _run(study, 5)
    other, told = Study.load(path), []
    programme = thompson.programme

    def meanwhile(*args, **kwargs):
        for x in ([1] * 6, [0] * 6):
            start = time.monotonic()
            other.tell(x, 0.5)
            told.append(time.monotonic() - start)
        return programme(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(thompson, "programme", meanwhile)
        (x,) = study.ask()
    assert len(told) == 2
    assert max(told) < 2.0
    # What was told meanwhile is not learnt from: it came after the reservation.
    alone = _study()
    _run(alone, 5)
    assert _text([x]) == _text(alone.ask())


def test_a_point_taken_meanwhile_gives_way_to_the_next_best(tmp_path, monkeypatch):
    path = tmp_path / "study.jsonl"
    study = _study(path)
    _run(study, 5)
    table = TrialTable(6)
    for event in [*_events(path), {
        "event": "reserve", "slot": 5, "origin": "guided", "worker": {}, "time": 0.0
    }]:  # fmt: skip
        table.apply(event)
    best = proposals.candidates(table.reservations[5], 6, seed=3, sparsity_penalty=0.0)
    ranked = _text(next(best) for _ in range(4))
    assert len(set(ranked)) == 4
    other, programme = Study.load(path), thompson.programme

    def meanwhile(*args, **kwargs):
        for text in (ranked[0], ranked[1], ranked[3]):
            other.tell([int(bit) for bit in text], 0.25)
        return programme(*args, **kwargs)

    monkeypatch.setattr(thompson, "programme", meanwhile)
    assert _text(study.ask()) == [ranked[2]]


def test_initial_points_taken_meanwhile_give_way_too(tmp_path, monkeypatch):
    study = _study()
    first, then = _text(_study().ask()), []
    candidates = proposals.candidates

    def meanwhile(*args, **kwargs):
        study.tell([int(bit) for bit in first[0]], 0.25)
        for x in candidates(*args, **kwargs):
            then.append(x)
            yield x

    monkeypatch.setattr(proposals, "candidates", meanwhile)
    asked = _text(study.ask())
    assert asked != first
    assert _text(then) == [*first, *asked]


def test_what_is_reserved_counts_as_what_it_will_be():
    table = TrialTable(6)
    table.apply({"event": "tell", "x": "000000", "value": 1.0})
    for slot in range(1, 4):
        origin = proposals.origin(table.all(), table.reservations.values(), 2)
        assert origin == ("initial" if slot < 3 else "guided")
        assert table.next_slot() == slot
        lease = {"worker": {}, "time": 0.0}
        table.apply({"event": "reserve", "slot": slot, "origin": origin, **lease})


@pytest.mark.parametrize("num_told", [2, 6])
def test_a_reservation_of_the_dead_goes_on_at_its_place(
    tmp_path, num_told, monkeypatch
):
    path = tmp_path / "study.jsonl"
    whole = _study()
    _run(whole, num_told + 2)
    study = _study(path)
    _run(study, num_told)

    class Killed(BaseException):
        pass

    def kill(*args, **kwargs):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(proposals, "candidates", kill)
        with pytest.raises(Killed):
            study.ask()
    assert _events(path)[-1]["event"] == "reserve"
    # This process lives on, so another study leaves the slot to it; it is told more.
    other = Study.load(path)
    (late,) = other.ask()
    other.tell(late, _f(late))
    me = worker.this_worker()
    monkeypatch.setattr(worker, "this_worker", lambda: {**me, "start": "another life"})
    again = Study.load(path).ask(2)
    expected = _text(t.x for t in whole.trials[num_told : num_told + 1])
    if _text([late]) != expected:
        assert _text(again[:1]) == expected
    slots = [e["slot"] for e in _events(path) if e["event"] == "reserve"][num_told:]
    assert slots == [num_told, num_told + 1, num_told, num_told + 2]


@pytest.mark.parametrize("after", ["reserve", "ask"])
def test_an_interrupted_ask_is_taken_up_by_the_next(after, monkeypatch):
    whole, study = _study(), _study()
    expected = _text(whole.ask(4))
    append = study._append

    def interrupted(event):
        table = append(event)
        if event["event"] == after and len(study.trials) >= 2:
            raise KeyboardInterrupt
        return table

    with monkeypatch.context() as patch:
        patch.setattr(study, "_append", interrupted)
        with pytest.raises(KeyboardInterrupt):
            study.ask(4)
    assert _text(study.ask(4)) == expected
    assert len(study.trials) == 4


@pytest.mark.parametrize("after", range(3))
def test_an_interrupted_read_loses_nothing(tmp_path, monkeypatch, after):
    path = tmp_path / "study.jsonl"
    study = _study(path)
    _run(study, 3)
    points = _run(_study(path), 1)
    apply, calls = TrialTable.apply, iter(range(9))

    def interrupted(*args):
        apply(*args)
        if next(calls) == after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrialTable, "apply", interrupted)
        with pytest.raises(KeyboardInterrupt):  # of a trial reserved, asked for, told
            study.trials  # noqa: B018
    assert _text(trial.x for trial in study.trials) == points
    assert [trial.values for trial in study.trials] == [
        (_f(t.x),) for t in study.trials
    ]


def test_a_journal_emptied_while_it_is_open_is_said_each_time(tmp_path):
    path = tmp_path / "study.jsonl"
    study = _study(path)
    _run(study, 2)
    whole = path.read_bytes()
    for content in (b"", b"".join(whole.splitlines(keepends=True)[:3])):
        path.write_bytes(content)
        for call in (study.ask, lambda: study.tell([1] * 6, 0.5), lambda: study.trials):
            with pytest.raises(JournalDamaged, match="was cut to"):
                call()
        assert path.read_bytes() == content
    path.write_bytes(whole)
    assert len(study.trials) == 2


_TELL = {"event": "tell", "x": "010101", "value": 1.0}


@pytest.mark.parametrize(
    "event",
    [
        {"event": "enqueue", "x": "0" * 8},
        {"event": "enqueue", "x": "00000a"},
        {"event": "prune", "x": "010101"},
        {"event": "tell", "x": "010101"},
        {"event": "ask", "x": "010101", "origin": "guided", "worker": {}, "time": 0.0},
        {"event": "reserve", "slot": -1},
        *({**_TELL, "value": value} for value in ("1", 10**400, None, True, [1.0])),
        {**_TELL, "metrics": [1]},
        {**_TELL, "slot": 1.5},
    ],
)
def test_lines_of_another_study_or_version_are_damage(tmp_path, event):
    path = tmp_path / "study.jsonl"
    lines = _FORMAT_1.read_bytes().splitlines(keepends=True)
    # Format 1 numbers its lines and no more.
    chain = Chain(num_lines=3)
    path.write_bytes(b"".join(lines[:3]) + chain.written([event, _TELL]))
    with pytest.raises(JournalDamaged, match=r"study\.jsonl.*line 4: .* version"):
        Study.load(path)
    with pytest.warns(JournalWarning, match="1 of other journals or versions are left"):
        _study(path, recover=True)
    assert [trial.value for trial in Study.load(path).trials] == [
        0.12000000000000001,
        1.0,
    ]


def test_the_last_points_are_not_promised_twice(monkeypatch):
    study = _study(num_variables=1, num_initial=2)
    candidates = proposals.candidates

    def meanwhile(*args, **kwargs):
        study.tell([0], 0.0)
        study.tell([1], 0.0)
        return candidates(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(proposals, "candidates", meanwhile)
        with pytest.raises(SearchSpaceExhausted, match=r"0 of the 2"):
            study.ask()
    with pytest.raises(SearchSpaceExhausted, match=r"0 of the 2"):
        study.ask()


def test_a_time_of_another_host_in_the_future_counts_as_now(tmp_path, monkeypatch):
    path = tmp_path / "study.jsonl"
    elsewhere = {**worker.this_worker(), "host": "elsewhere"}
    with monkeypatch.context() as patch:
        patch.setattr(worker, "this_worker", lambda: elsewhere)
        then = time.time() + 1e6
        patch.setattr(time, "time", lambda: then)
        theirs = _study(path).ask()[0]
    study = _study(path, lease_s=100.0)
    assert not np.array_equal(study.ask()[0], theirs)
    monkeypatch.setattr(time, "time", lambda: then + 101.0)
    np.testing.assert_array_equal(study.ask()[0], theirs)
