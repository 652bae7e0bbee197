"""Finished units: what of another form is not taken for ours."""

import dataclasses

from codesign.records.finished import Finished


@dataclasses.dataclass(frozen=True)
class _Old:
    value: float


@dataclasses.dataclass(frozen=True)
class _New:
    value: float
    spread: float


def test_what_another_version_kept_is_not_there(tmp_path):
    path = tmp_path / "finished.jsonl"
    Finished(path, {"power": 2}, _Old).keep(("a", 1), _Old(0.1), 2.0)
    kept = Finished(path, {"power": 2}, _New)
    assert ("a", 1) not in kept
    kept.keep(("a", 1), _New(0.1, 0.2), 3.0)
    again = Finished(path, {"power": 2}, _New)
    assert again[("a", 1)] == _New(0.1, 0.2)
