"""Finished units: what of another form is not taken for ours."""

import dataclasses

import numpy as np
import pytest

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


@pytest.mark.parametrize("value", [[1.0], {}, None, "1", 10**400])
def test_neither_is_what_holds_another_type(value, tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Loose:
        value: object

    @dataclasses.dataclass(frozen=True)
    class Strict:
        value: dict[str, np.ndarray]

    path = tmp_path / "finished.jsonl"
    Finished(path, {}, Loose).keep("a", Loose({"x": [value, 0.5]}), 1.0)
    Finished(path, {}, Loose).keep("b", Loose(value), 1.0)
    kept = Finished(path, {}, Strict)
    assert "b" not in kept or value == {}
