import itertools
import json
import os
import subprocess
import sys
import threading
import warnings

import pytest

from codesign.records import journal, journal_lock
from codesign.records.journal import FileJournal, JournalDamaged, JournalWarning
from codesign.records.memory_journal import MemoryJournal

_HEADER = {"num_variables": 3, "seed": 0}
_EVENTS = [
    {"event": "ask", "x": "010"},
    {"event": "tell", "x": "010", "value": 0.1, "metrics": {"a": [1, None, "ü\n"]}},
    {"event": "tell", "x": "111", "value": -1.5},
]


def _open(path, **kwargs):
    return FileJournal(path, _HEADER, **kwargs)


def _read(path, **kwargs):
    opened = _open(path, **kwargs)
    with opened.locked():
        return opened.read()[1]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "study.jsonl"


@pytest.fixture
def sound(path):
    """A journal of three events, as bytes."""
    opened = _open(path)
    with opened.locked():
        opened.read()
        opened.append(_EVENTS[:1])
        opened.read()
        opened.append(_EVENTS[1:])
        assert opened.read()[1] == _EVENTS[1:]
    return path.read_bytes()


def test_is_json_lines_that_read_back(path, sound):
    lines = [json.loads(line) for line in sound.splitlines()]
    assert [line["n"] for line in lines] == [0, 1, 2, 3]
    (id,) = {line["id"] for line in lines}
    assert len(id) == 8
    header = {"event": "study", "format": 2, **_HEADER, "id": id}
    assert lines[0] == {"n": 0, **header, "sum": lines[0]["sum"]}
    for above, line in itertools.pairwise(lines):
        assert line["prev"] == above["sum"]
    assert _read(path) == _EVENTS


def test_reads_only_what_is_new(path, sound):
    first, second = _open(path), _open(path)
    with first.locked():
        assert first.read()[0]
        assert first.read() == (False, [])
    with second.locked():
        second.read()
        second.append([{"event": "ask", "x": "000"}])
    with first.locked():
        restarted, events = first.read()
    assert not restarted
    assert events == [{"event": "ask", "x": "000"}]


@pytest.mark.parametrize("value", [0.1, 1 / 3, 5e-324, -1.7976931348623157e308, 1e22])
def test_floats_come_back_exactly(path, value):
    opened = _open(path)
    with opened.locked():
        opened.read()
        opened.append([{"event": "tell", "x": "0", "value": value}])
    assert _read(path)[0]["value"] == value


def test_a_file_cut_anywhere_opens_and_goes_on(path, sound):
    ends = list(itertools.accumulate(len(line) + 1 for line in sound.splitlines()))
    for length in range(len(sound) + 1):
        path.write_bytes(sound[:length])
        # A line that lacks only its newline is whole.
        num_lines = sum(end - 1 <= length for end in ends)
        clean = length == 0 or length in ends or length + 1 in ends[1:]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            opened = _open(path)
            with opened.locked():
                events = opened.read()[1]
                opened.append([{"event": "ask", "x": "001"}])
        expected = _EVENTS[: max(num_lines - 1, 0)]
        assert events == expected, length
        assert [w.category for w in caught] == ([] if clean else [JournalWarning])
        assert _read(path) == [*expected, {"event": "ask", "x": "001"}]


def test_every_flipped_bit_is_noticed(path, sound):
    sound = b"".join(sound.splitlines(keepends=True)[:3])
    for index, bit in itertools.product(range(len(sound)), range(8)):
        damaged = bytearray(sound)
        damaged[index] ^= 1 << bit
        path.write_bytes(damaged)
        with pytest.raises(JournalDamaged, match=r"damaged in line \d+"):
            _open(path)
        assert path.read_bytes() == damaged  # nothing was written over it


def test_damage_names_the_file_the_line_and_the_way_out(path, sound):
    path.write_bytes(sound.replace(b"-1.5", b"-2.5"))
    with pytest.raises(JournalDamaged, match=r"study\.jsonl\).*line 4.*recover=True"):
        _open(path)


def test_lines_lost_or_moved_are_noticed(path, sound):
    lines = sound.splitlines(keepends=True)
    for order in ((0, 2, 3), (0, 2, 1, 3), (0, 1, 1, 2, 3), (1, 2, 3)):
        path.write_bytes(b"".join(lines[i] for i in order))
        with pytest.raises(JournalDamaged):
            _open(path)


@pytest.mark.parametrize("content", [b"hello", b"hello\nworld\n", b"\0" * 40, b"\n"])
def test_another_file_is_not_written_over(path, content):
    path.write_bytes(content)
    with pytest.raises(JournalDamaged, match="line 1"):
        _open(path)
    assert path.read_bytes() == content


def test_recovery_keeps_the_damaged_file_and_the_results_after_the_damage(path, sound):
    flipped = sound.replace(b'"value":0.1', b'"value":0.3')
    for number in (1, 2):
        path.write_bytes(flipped)
        with pytest.warns(JournalWarning, match=rf"line 3.*damaged-{number}.*2 lines"):
            events = _read(path, recover=True)
        assert events == [_EVENTS[0], _EVENTS[2]]
        aside = path.with_name(f"study.jsonl.damaged-{number}")
        assert aside.read_bytes() == flipped
    assert _read(path) == events  # and now it is sound


def test_recovery_finds_results_in_lines_that_ran_together(path, sound):
    path.write_bytes(sound[:-1].replace(b"\n", b"\x0b") + b"\n")
    with pytest.warns(JournalWarning, match="line 1"):
        assert _read(path, recover=True) == _EVENTS


def test_recovery_loses_no_result_but_the_one_whose_bit_flipped(path, sound):
    starts = [0, *itertools.accumulate(len(s) + 1 for s in sound.splitlines())]
    for index in range(len(sound)):
        damaged = bytearray(sound)
        damaged[index] ^= 1
        path.write_bytes(damaged)
        with pytest.warns(JournalWarning):
            events = _read(path, recover=True)
        line = max(i for i, start in enumerate(starts) if start <= index)
        newline = index + 1 in starts
        for number, event in enumerate(_EVENTS, start=1):
            if event["event"] == "tell" and (number != line or newline):
                assert event in events, (index, number)


def test_recovery_leaves_a_sound_file_alone(path, sound):
    assert _read(path, recover=True) == _EVENTS
    assert path.read_bytes() == sound
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "study.jsonl",
        "study.jsonl.lock",
    ]


def test_another_process_recovers_while_this_one_has_it_open(path, sound):
    opened = _open(path)
    with opened.locked():
        opened.read()
    path.write_bytes(sound.replace(b"-1.5", b"-2.5"))
    with pytest.warns(JournalWarning):
        _open(path, recover=True)
    with opened.locked(), pytest.warns(JournalWarning, match="not those of the 4 read"):
        restarted, events = opened.read()
    assert restarted
    assert events == _EVENTS[:2]


def test_another_study_is_refused(path, sound):
    with pytest.raises(ValueError, match=r"seed: 0 there, 4 given") as caught:
        FileJournal(path, {**_HEADER, "seed": 4})
    assert "num_variables" not in str(caught.value)
    with pytest.raises(ValueError, match=r"lambda: None there, 1 given"):
        FileJournal(path, {**_HEADER, "lambda": 1})
    assert path.read_bytes() == sound


def test_a_kill_before_the_file_appears_leaves_nothing_in_the_way(path, monkeypatch):
    class Killed(BaseException):
        pass

    def kill(*args):
        raise Killed

    monkeypatch.setattr(journal.os, "replace", kill)
    with pytest.raises(Killed):
        _open(path)
    monkeypatch.undo()
    assert not path.exists()
    assert _read(path) == []
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "study.jsonl",
        "study.jsonl.lock",
    ]


def test_a_full_disk_leaves_the_journal_as_it_was(path, sound, monkeypatch):
    opened = _open(path)

    def write_half(file, data):
        file.write(data[: len(data) // 2])
        raise OSError("No space left on device")

    with opened.locked():
        opened.read()
        with monkeypatch.context() as patch:
            patch.setattr(journal, "_write", write_half)
            with pytest.raises(OSError, match="No space"):
                opened.append([{"event": "ask", "x": "000"}])
        assert path.read_bytes() == sound
        opened.append([{"event": "ask", "x": "000"}])
    assert len(_read(path)) == 4


def test_writing_over_lines_that_were_not_read_is_refused(path, sound):
    first, second = _open(path), _open(path)
    for opened in (first, second):
        with opened.locked():
            opened.read()
    with first.locked():
        first.append([{"event": "ask", "x": "000"}])
    with second.locked(), pytest.raises(RuntimeError, match="not read before"):
        second.append([{"event": "ask", "x": "111"}])
    assert len(_read(path)) == 4


def test_events_that_json_cannot_hold_are_refused_before_writing(path, sound):
    opened = _open(path)
    with opened.locked():
        opened.read()
        with pytest.raises(ValueError, match="not JSON compliant"):
            opened.append([{"event": "tell", "x": "000", "value": float("nan")}])
    assert path.read_bytes() == sound


_WRITER = """
import sys
from codesign.records.journal import FileJournal
opened = FileJournal(sys.argv[1], {"num_variables": 3, "seed": 0})
for i in range(40):
    with opened.locked():
        opened.read()
        opened.append([{"event": "tell", "x": sys.argv[2], "value": i}])
"""


def test_processes_and_threads_write_side_by_side(path):
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITER, str(path), f"{i}"])
        for i in range(3)
    ]
    opened = _open(path)

    def write(x):
        for i in range(40):
            with opened.locked():
                opened.read()
                opened.append([{"event": "tell", "x": x, "value": i}])

    threads = [threading.Thread(target=write, args=(f"t{i}",)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    events = _read(path)
    for x in ("0", "1", "2", "t0", "t1"):
        assert [e["value"] for e in events if e["x"] == x] == list(range(40))


def test_an_exclusive_user_takes_the_journal_over(path, sound):
    old, older = _open(path, exclusive=True), _open(path)
    new = _open(path, exclusive=True)
    for opened in (new, old, older):
        with opened.locked():
            opened.read()
            if opened is new:
                opened.append([{"event": "ask", "x": "000"}])
                continue
            with pytest.raises(RuntimeError, match=r"study\.jsonl was opened again in "
                               r"this process.*use the newer object"):  # fmt: skip
                opened.append([{"event": "ask", "x": "111"}])
    assert _read(path) == [*_EVENTS, {"event": "ask", "x": "000"}]
    # Whoever comes after shares it with the newest, which promised to be alone.
    later = _open(path)
    with later.locked():
        later.read()
        later.append([{"event": "ask", "x": "001"}])
    assert len(_read(path)) == 5


def test_by_whatever_name(path, sound, monkeypatch):
    old = _open(path, exclusive=True)
    monkeypatch.chdir(path.parent)
    _open(path.name, exclusive=True)
    with old.locked(), pytest.raises(RuntimeError, match="use the newer object"):
        old.append([{"event": "ask", "x": "111"}])


def test_who_is_refused_takes_nothing_over(path, sound):
    old = _open(path, exclusive=True)
    with pytest.raises(ValueError, match="belongs to another study"):
        FileJournal(path, {**_HEADER, "seed": 4}, exclusive=True)
    with old.locked():
        old.read()
        old.append([{"event": "ask", "x": "000"}])
    assert len(_read(path)) == 4


def test_an_interrupt_right_after_the_lock_was_taken_lets_go(path, monkeypatch):
    opened = _open(path)
    acquire = opened._lock._acquire

    def interrupted():
        acquire()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(opened._lock, "_acquire", interrupted)
        with pytest.raises(KeyboardInterrupt), opened.locked():
            pass
    monkeypatch.setattr(journal_lock, "_TIMEOUT_S", 0.0)
    assert _read(path) == []  # another object, while the first one lives


def test_an_interrupt_while_the_lock_is_let_go_is_made_good(path, monkeypatch):
    opened = _open(path)

    def interrupted(force=False):
        if opened._lock._file.is_locked:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(opened._lock._file, "release", interrupted)
        with pytest.raises(KeyboardInterrupt), opened.locked():
            pass
    monkeypatch.setattr(journal_lock, "_TIMEOUT_S", 0.0)
    with pytest.raises(TimeoutError):
        _open(path)
    with opened.locked():  # its next use lets go of what was left
        pass
    assert _read(path) == []


_FORK = """
import os, sys
from codesign.records.journal import FileJournal
header = {"num_variables": 3, "seed": 0}
opened = FileJournal(sys.argv[1], header, exclusive=True)
child = os.fork()
if child == 0:
    try:
        with opened.locked():
            opened.read()
    except RuntimeError as error:
        print(error, flush=True)
    own = FileJournal(sys.argv[1], header, exclusive=True)  # as any other process may
    with own.locked():
        own.read()
        own.append([{"event": "ask", "x": "010"}])
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
with opened.locked():
    print(len(opened.read()[1]), flush=True)
    opened.append([{"event": "ask", "x": "011"}])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_opens_its_own(path):
    run = subprocess.run(
        [sys.executable, "-c", _FORK, str(path)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    said, num_read = run.stdout.splitlines()
    assert "opened before this process was forked; open it once more here" in said
    assert num_read == "1"
    assert [event["x"] for event in _read(path)] == ["010", "011"]


def test_memory_journal_gives_back_what_a_file_would():
    opened = MemoryJournal()
    with opened.locked():
        assert opened.read() == (False, [])
        opened.append(_EVENTS)
        assert opened.read() == (False, _EVENTS)
        assert opened.read() == (False, [])
        opened.rewind()
        assert opened.read() == (False, _EVENTS)
        with pytest.raises(ValueError, match="not JSON compliant"):
            opened.append([{"event": "tell", "value": float("nan")}])
