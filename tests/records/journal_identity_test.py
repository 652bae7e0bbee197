"""Whose a journal's lines are, by whatever name, and what happens under an open one."""

import contextlib
import json
import os
import pathlib
import shutil
import tempfile
import time

import pytest

from codesign.records import lines
from codesign.records.journal import (
    FileJournal,
    JournalDamaged,
    JournalWarning,
    read_header,
)
from codesign.records.lines import Chain

_HEADER = {"num_variables": 3, "seed": 0}
_FORMAT_1 = pathlib.Path(__file__).parent.parent / "search/data/format_1.jsonl"


def _open(path, header=_HEADER, **kwargs):
    return FileJournal(path, header, **kwargs)


def _append(opened, *events):
    with opened.locked():
        opened.read()
        opened.append(events)
        opened.read()


def _read(path, **kwargs):
    opened = _open(path, **kwargs)
    with opened.locked():
        return opened.read()[1]


def _tells(*values):
    return [{"event": "tell", "x": "010", "value": value} for value in values]


def _made(path, *values):
    """A journal of so many results, as lines."""
    _append(_open(path), *_tells(*values))
    return path.read_bytes().splitlines(keepends=True)


def test_lines_of_another_journal_are_noticed_also_of_one_with_equal_settings(tmp_path):
    path = tmp_path / "mine.jsonl"
    mine = _made(path, 1.0, 2.0, 3.0)
    other = _made(tmp_path / "other.jsonl", 1.0, 2.0, 3.0)
    for number in range(1, 4):
        altered = [*mine]
        altered[number] = other[number]
        path.write_bytes(b"".join(altered))
        with pytest.raises(
            JournalDamaged, match=rf"line {number + 1}.* another journal"
        ):
            _open(path)
        kept = [value for value in (1.0, 2.0, 3.0) if value != number]
        with pytest.warns(
            JournalWarning, match="1 of other journals or versions are left"
        ):
            assert _read(path, recover=True) == _tells(*kept)
        assert _read(path) == _tells(*kept)
    path.write_bytes(b"".join([other[0], *mine[1:]]))
    with pytest.raises(JournalDamaged, match="line 2"):
        _open(path)


def test_a_line_from_another_place_or_time_is_noticed(tmp_path):
    path = tmp_path / "study.jsonl"
    one = _made(path, 1.0, 2.0)
    path.write_bytes(b"".join(one[:2]))
    _append(_open(path), *_tells(4.0))
    two = path.read_bytes().splitlines(keepends=True)
    _append(_open(path), *_tells(5.0))
    # The same journal, number and kind, after another line than it was written after.
    last = path.read_bytes().splitlines(keepends=True)[3]
    path.write_bytes(b"".join([*one, last]))
    assert one[:2] == two[:2]
    with pytest.raises(JournalDamaged, match="line 4"):
        _open(path)


@pytest.mark.parametrize("lost", [1, 2])
def test_recovery_without_a_header_goes_by_the_id_that_the_lines_share(tmp_path, lost):
    path = tmp_path / "study.jsonl"
    written = _made(path, 1.0, 2.0, 3.0)
    path.write_bytes(b"\0" * sum(map(len, written[:lost])) + b"".join(written[lost:]))
    with pytest.raises(JournalDamaged, match="line 1"):
        _open(path)
    with pytest.warns(JournalWarning, match=r"the 0 lines before and \d after"):
        assert _read(path, recover=True) == _tells(*[1.0, 2.0, 3.0][lost - 1 :])
    assert json.loads(path.read_bytes().splitlines()[1])["id"] in written[1].decode()


def test_recovery_refuses_to_guess_whose_lines_are_the_own(tmp_path):
    path = tmp_path / "mine.jsonl"
    mine, other = _made(path, 1.0, 2.0), _made(tmp_path / "other.jsonl", 7.0)
    path.write_bytes(b"".join([*mine[1:], *other[1:]]))
    content = path.read_bytes()
    with pytest.raises(
        JournalDamaged, match="no header, and lines of several journals"
    ):
        _open(path, recover=True)
    assert path.read_bytes() == content


def test_recovery_takes_a_line_that_is_there_twice_once(tmp_path):
    path = tmp_path / "study.jsonl"
    written = _made(path, 1.0, 2.0, 3.0)
    path.write_bytes(b"".join([*written[:3], *written[1:]]))
    with pytest.warns(JournalWarning):
        assert _read(path, recover=True) == _tells(1.0, 2.0, 3.0)


def test_a_journal_of_format_1_goes_on_in_its_format(tmp_path):
    path = tmp_path / "study.jsonl"
    shutil.copy(_FORMAT_1, path)
    before = path.read_bytes()
    header = read_header(path)
    assert header["seed"] == 3
    opened = _open(path, header)
    _append(opened, *_tells(1.0))
    data = path.read_bytes()
    assert data.startswith(before)
    last = json.loads(data.splitlines()[-1])
    assert set(last) == {"n", "event", "x", "value", "sum"}
    written = data.splitlines(keepends=True)
    new = _made(tmp_path / "new.jsonl", 1.0, 2.0)
    path.write_bytes(b"".join([*written, new[1]]))
    with pytest.raises(JournalDamaged, match=f"line {len(written) + 1}"):
        _open(path, header)
    with pytest.warns(JournalWarning, match="1 of other journals"):
        assert len(_read(path, header=header, recover=True)) == len(written) - 1
    assert path.read_bytes() == data


def test_a_later_format_is_refused_by_name(tmp_path):
    path = tmp_path / "study.jsonl"
    later = {"event": "study", "format": 3, **_HEADER}
    path.write_bytes(Chain().written([later]))
    for call in (lambda: _open(path), lambda: read_header(path)):
        with pytest.raises(ValueError, match=r"is of format 3.*reads 1 and 2"):
            call()


def test_a_symbolic_link_is_the_same_journal(tmp_path):
    path, link = tmp_path / "a" / "study.jsonl", tmp_path / "b" / "study.jsonl"
    link.parent.mkdir()
    link.symlink_to(path)  # dangling so far
    opened = _open(link, exclusive=True)
    assert path.is_file()
    assert link.is_symlink()
    assert sorted(p.name for p in link.parent.iterdir()) == ["study.jsonl"]
    second = _open(path)
    second._lock._file.timeout = 0.0
    with opened.locked(), pytest.raises(TimeoutError), second.locked():
        raise AssertionError("both hold the lock")
    _append(opened, *_tells(1.0, 2.0))
    _append(second, *_tells(3.0))
    path.write_bytes(path.read_bytes().replace(b"2.0", b"9.0"))
    with pytest.warns(JournalWarning):
        assert _read(link, recover=True) == _tells(1.0, 3.0)
    assert link.is_symlink()
    assert _read(path) == _tells(1.0, 3.0)
    _open(path, exclusive=True)
    with opened.locked(), pytest.raises(RuntimeError, match="use the newer object"):
        opened.append(_tells(4.0))


def test_only_regular_files(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    (tmp_path / "link").symlink_to("/dev/null")
    for path in (tmp_path, fifo, tmp_path / "link", "/dev/null"):
        for call in (_open, read_header):
            with pytest.raises(ValueError, match="is not a regular file"):
                call(path)
    assert fifo.is_fifo()


@pytest.mark.parametrize("keep", [0, 1, 2])
def test_emptied_or_cut_while_it_is_open(tmp_path, keep):
    path = tmp_path / "study.jsonl"
    written = _made(path, 1.0, 2.0)
    opened, late = _open(path), _open(path)
    for each in (opened, late):
        with each.locked():
            each.read()
    path.write_bytes(b"".join(written[:keep]))
    with opened.locked():
        for _ in range(2):
            with pytest.raises(JournalDamaged, match=r"was cut to \d+ bytes.*3 lines"):
                opened.read()
    with late.locked(), pytest.raises(JournalDamaged, match="was cut to"):
        late.append(_tells(3.0))
    assert path.read_bytes() == b"".join(written[:keep])


def test_replaced_while_it_is_open(tmp_path):
    path, other = tmp_path / "study.jsonl", tmp_path / "other.jsonl"
    written = _made(path, 1.0, 2.0)
    opened = _open(path)
    os.link(path, tmp_path / "kept")  # so that nobody else gets its inode
    with opened.locked():
        opened.read()
    for content in (b"", b"".join(_made(other, 1.0, 2.0, 3.0))):
        other.write_bytes(content)
        os.replace(other, path)
        with (
            opened.locked(),
            pytest.raises(JournalDamaged, match="emptied or replaced"),
        ):
            opened.read()
    other.write_bytes(b"".join(written[:2]))  # an older copy
    os.replace(other, path)
    with opened.locked(), pytest.warns(JournalWarning, match="2 lines, which are not"):
        assert opened.read() == (True, _tells(1.0))


def test_an_older_copy_that_was_written_on_is_told_from_a_longer_journal(tmp_path):
    path, copy = tmp_path / "study.jsonl", tmp_path / "copy.jsonl"
    copy.write_bytes(b"".join(_made(path, 1.0)))
    opened = _open(path)
    _append(opened, *_tells(2.0))
    _append(_open(copy), *_tells(3.0, 4.0, 5.0))
    os.replace(copy, path)
    with opened.locked(), pytest.warns(JournalWarning, match="not those of the 3 read"):
        assert opened.read() == (True, _tells(1.0, 3.0, 4.0, 5.0))


def _recovered(path):
    with pytest.warns(JournalWarning) as caught:
        found = _read(path, recover=True)
    return found, str(caught[-1].message)


def test_of_two_histories_the_longer_is_recovered(tmp_path):
    path, copy = tmp_path / "study.jsonl", tmp_path / "copy.jsonl"
    copy.write_bytes(b"".join(_made(path, 1.0)))
    _append(_open(path), *_tells(2.0, 3.0))
    _append(_open(copy), *_tells(2.5, 3.0, 4.0))
    path.write_bytes(path.read_bytes() + copy.read_bytes())
    found, message = _recovered(path)
    assert found == _tells(1.0, 2.5, 3.0, 4.0)
    assert "2 of other" in message


def test_metrics_that_look_like_the_end_of_a_line_are_kept(tmp_path):
    path = tmp_path / "study.jsonl"
    like = {"n": 1, "ckpt": {"n": 2, "sum": "0123456789abcdef"}, "z": 1}
    tells = [{**tell, "metrics": like} for tell in _tells(1.0, 2.0, 3.0, 4.0)]
    _append(_open(path), *tells)
    whole = path.read_bytes().splitlines(keepends=True)
    # A damaged line, and two lines whose newline is lost.
    whole[2] = whole[2].replace(b"2.0", b"9.0")
    path.write_bytes(b"".join([*whole[:3], whole[3].rstrip(b"\n"), whole[4]]))
    assert _recovered(path)[0] == [tells[0], *tells[2:]]


def test_a_foreign_header_in_front_changes_nothing(tmp_path):
    path = tmp_path / "study.jsonl"
    foreign = _made(tmp_path / "other.jsonl", 9.0)[0]
    own = _made(path, 1.0, 2.0, 3.0)
    path.write_bytes(foreign + b"".join(own))
    found, message = _recovered(path)
    assert found == _tells(1.0, 2.0, 3.0)
    assert "1 of other" in message


@pytest.mark.parametrize("bomb", [b'{"n":', b'{"n":1,"sum":"0123456789abcdef"}'])
def test_recovery_takes_time_in_proportion(tmp_path, bomb):
    path = tmp_path / "study.jsonl"
    _made(path, 1.0)
    with path.open("ab") as file:
        file.write(bomb * 100_000 + b"\n")
    start = time.process_time()
    assert _recovered(path)[0] == _tells(1.0)
    assert time.process_time() - start < 5


def test_a_file_of_two_names_would_have_two_locks(tmp_path):
    path, second = tmp_path / "study.jsonl", tmp_path / "second.jsonl"
    _made(path, 1.0)
    os.link(path, second)
    for opening in (_open, read_header):
        with pytest.raises(ValueError, match=r"second.jsonl\) is a file of 2 names"):
            opening(second)
    path.unlink()
    assert _read(second) == _tells(1.0)


def test_an_interrupted_read_is_read_again(tmp_path, monkeypatch):
    path = tmp_path / "study.jsonl"
    _made(path, 1.0, 2.0, 3.0)
    opened = _open(path)
    parse, calls = lines.parse, iter(range(10))

    def interrupted(line):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return parse(line)

    with opened.locked():
        with monkeypatch.context() as patch:
            patch.setattr(lines, "parse", interrupted)
            with pytest.raises(KeyboardInterrupt):
                opened.read()
        assert opened.read()[1] == _tells(1.0, 2.0, 3.0)


@contextlib.contextmanager
def _as_nobody():
    """Another user than root, who may write everything."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no users as of POSIX")
@pytest.mark.parametrize("lock_is_there", [True, False])
def test_who_may_not_write_can_read(lock_is_there):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "study.jsonl")
        written = _made(path, 1.0, 2.0)
        lock = pathlib.Path(f"{path}.lock")
        if not lock_is_there:
            lock.unlink()
        for each, mode in ((lock, 0o444), (path, 0o444), (path.parent, 0o555)):
            if each.exists():
                each.chmod(mode)
        with _as_nobody():
            assert _read(path) == _tells(1.0, 2.0)
            opened = _open(path, recover=True)
            with opened.locked():
                opened.read()
                with pytest.raises(PermissionError, match=r"can only be read.*copy it"):
                    opened.append(_tells(3.0))
        path.parent.chmod(0o755)
        path.chmod(0o644)
        # What its writer has not finished is left to the writer.
        for tail in (b'{"n":3,"eve', written[1][:-1]):
            path.write_bytes(b"".join(written) + tail)
            path.chmod(0o444)
            path.parent.chmod(0o555)
            with _as_nobody():
                assert opened.read() == (False, [])
            path.parent.chmod(0o755)
            path.chmod(0o644)
