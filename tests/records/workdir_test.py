"""A folder keeps its settings and its one process."""

import contextlib
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import threading

import pytest

from codesign.records import workdir
from tests import fuzzing


@dataclasses.dataclass(frozen=True)
class _Inner:
    rate: float = 0.5


@dataclasses.dataclass(frozen=True)
class _Config:
    names: tuple[str, ...] = ("a", "b")
    inner: _Inner = _Inner()


def _check(config, folder, owner="sweep"):
    workdir.check(owner, config, folder, folder / "finished.jsonl")


def test_settings_are_written_once_and_compared_after(tmp_path):
    _check(_Config(), tmp_path)  # nothing to compare with
    workdir.write_settings("sweep", _Config(), tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written == {
        "experiment": "sweep", "names": ["a", "b"], "inner": {"rate": 0.5}
    }  # fmt: skip
    _check(_Config(), tmp_path)
    with pytest.raises(ValueError, match=r"inner.rate: 0.5 there, 0.25 now"):
        _check(_Config(inner=_Inner(0.25)), tmp_path)
    with pytest.raises(ValueError, match="is of sweep, not of search"):
        _check(_Config(), tmp_path, owner="search")


@pytest.mark.parametrize(
    "text", ['{"names": ', "[]", "null", "5", '"x"', "[" * 100_000, "\udcff"]
)
def test_damaged_settings_are_no_reason_to_start_over(text, tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match="config.json is damaged"):
        _check(_Config(), tmp_path)


@pytest.mark.parametrize("name", ["results.json", "journal.jsonl", "mine.png", "a.csv"])
def test_files_of_unknown_origin_are_left_alone(name, tmp_path):
    (tmp_path / "notes.txt").write_text("of no matter")
    _check(_Config(), tmp_path)
    (tmp_path / name).write_text("precious")
    with pytest.raises(ValueError, match=f"holds {name}, but no config.json"):
        _check(_Config(), tmp_path)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"`workdir` .* is a file; name a folder"):
        workdir.lock(tmp_path / "file")


def test_one_user_at_a_time(tmp_path, monkeypatch):
    first = workdir.lock(tmp_path / "new")
    with pytest.raises(
        ValueError, match=r"`workdir` \(=.*new\) is in use by this proc"
    ):
        workdir.lock(tmp_path / "new")
    monkeypatch.chdir(tmp_path)  # the same folder by another name
    with pytest.raises(ValueError, match="in use by this process"):
        workdir.lock(pathlib.Path("new"))
    first.release()
    workdir.lock(tmp_path / "new").release()


def test_one_thread_at_a_time(tmp_path):
    said = []

    def work():
        try:
            workdir.lock(tmp_path)
        except ValueError as error:
            said.append(str(error))

    held = workdir.lock(tmp_path)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert "in use by this process, in another thread or a call around" in said[0]
    # Whoever took it, any thread may let it go.
    thread = threading.Thread(target=held.release)
    thread.start()
    thread.join()
    workdir.lock(tmp_path).release()


_HOLD = """
import pathlib, sys
from codesign.records import workdir
from tests import fuzzing
held = workdir.lock(pathlib.Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_another_process_is_said_to_be_another(tmp_path):
    workdir.lock(tmp_path).release()  # we held it once
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as other:  # fmt: skip
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="in use by another process; wait for it"):
            workdir.lock(tmp_path)
        other.kill()
    workdir.lock(tmp_path).release()


_FORK = """
import os, pathlib, sys
from codesign.records import workdir
from tests import fuzzing

def refusal():
    try:
        workdir.lock(pathlib.Path(sys.argv[1]))
    except ValueError as error:
        return str(error).partition(" is in use by ")[2].partition(" process")[0]

held = workdir.lock(pathlib.Path(sys.argv[1]))
child = os.fork()
if child == 0:
    print("child", refusal(), flush=True)
    held.release()  # not its own: its parent's stays
    print("child", refusal(), flush=True)
    os._exit(0)
os.waitpid(child, 0)
print("parent", refusal(), flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_is_another_process(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", _FORK, str(tmp_path)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert run.stdout.splitlines() == ["child another", "child another", "parent this"]


def test_an_interrupt_right_after_it_was_taken_lets_go(tmp_path, monkeypatch):
    class _Interrupting(dict):
        def __setitem__(self, key, value):
            assert value.is_locked
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(workdir, "_ours", _Interrupting())
        # Its frames, and so the lock, live on, as a notebook's last traceback does.
        with pytest.raises(KeyboardInterrupt) as kept, contextlib.ExitStack() as held:
            workdir.lock(tmp_path, held)
    workdir.lock(tmp_path).release()
    assert kept.tb


def test_what_killed_processes_left_is_cleared_once_it_is_ours(tmp_path):
    (tmp_path / "vgg11").mkdir()
    left = [tmp_path / ".a.png.0123abcd.tmp", tmp_path / "vgg11" / ".b.89abcdef.tmp"]
    for path in left:
        path.touch()
    held = workdir.lock(tmp_path)
    assert not any(path.exists() for path in left)
    left[0].touch()
    with pytest.raises(ValueError, match="in use by this process"):
        workdir.lock(tmp_path)
    assert left[0].exists()  # of whoever holds the lock
    held.release()


@pytest.mark.parametrize("text", ["[" * 100_000, "[1]", '"a"', "1", "{", "\udcff"])
def test_settings_that_are_damaged_are_refused(text, tmp_path):
    (tmp_path / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        _check(_Config(), tmp_path)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda root: root / "file", r"file is a file; name a folder"),
        (lambda root: root / "file" / "new", r"file is a file; name a folder"),
        (lambda root: root / "nowhere", "is a link to nowhere; name a folder"),
        (lambda root: root / "loop", "cannot be used: .*symbolic links"),
        (lambda root: root / ("x" * 300), "cannot be used: .*too long"),
        (lambda root: f"{root}/a\0b", "cannot be used: .*embedded null"),
        (lambda root: root / "locked", r"cannot be used: .*\.lock"),
        (lambda root: "", " is empty"),
        (lambda root: None, " must be a path, got None"),
        (lambda root: b"runs", " must be a path, got b'runs'"),
    ],
)
def test_what_can_be_no_folder_is_refused_by_name(make, why, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "locked" / ".lock").mkdir(parents=True)
    with pytest.raises(ValueError, match=rf"^`workdir`.*{why}"):
        workdir.lock(make(tmp_path))


@pytest.mark.slow
def test_mutated_settings_are_the_same_or_refused(tmp_path):
    workdir.write_settings("sweep", _Config(), tmp_path)
    path = tmp_path / "config.json"
    sound = json.loads(path.read_bytes())

    def read(path):
        _check(_Config(), tmp_path)
        return json.loads(path.read_bytes())

    assert 0 < fuzzing.check(read, path, accepts=sound.__eq__) < 300
