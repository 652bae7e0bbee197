"""A folder keeps its settings and its one process."""

import dataclasses
import json

import pytest

from codesign.records import workdir


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


def test_one_process_at_a_time(tmp_path):
    first = workdir.lock(tmp_path / "new")
    with pytest.raises(ValueError, match="in use by another process"):
        workdir.lock(tmp_path / "new")
    first.release()
    workdir.lock(tmp_path / "new").release()
