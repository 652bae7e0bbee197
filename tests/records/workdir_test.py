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


def test_settings_are_written_once_and_compared_after(tmp_path):
    workdir.check_settings(_Config(), tmp_path)  # nothing to compare with
    workdir.write_settings(_Config(), tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written == {"names": ["a", "b"], "inner": {"rate": 0.5}}
    workdir.check_settings(_Config(), tmp_path)
    with pytest.raises(ValueError, match=r"inner.rate: 0.5 there, 0.25 now"):
        workdir.check_settings(_Config(inner=_Inner(0.25)), tmp_path)


def test_damaged_settings_are_no_reason_to_start_over(tmp_path):
    (tmp_path / "config.json").write_text('{"names": ')
    with pytest.raises(ValueError, match="damaged"):
        workdir.check_settings(_Config(), tmp_path)


def test_one_process_at_a_time(tmp_path):
    first = workdir.lock(tmp_path / "new")
    with pytest.raises(ValueError, match="in use by another process"):
        workdir.lock(tmp_path / "new")
    first.release()
    workdir.lock(tmp_path / "new").release()
