"""Finished units: what of another form is not taken for ours."""

import dataclasses
import warnings

import numpy as np
import pytest

from codesign.records.finished import Finished
from codesign.records.journal import JournalWarning
from tests import fuzzing


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


@pytest.mark.slow
def test_mutations_lose_units_and_change_none(tmp_path):
    path = tmp_path / "finished.jsonl"
    sound = {("a", 1): _Old(0.1), ("b", 2): _Old(1e-300), "c": _Old(-7.0)}
    kept = Finished(path, {"power": 2}, _Old)
    for unit, found in sound.items():
        kept.keep(unit, found, 1.0)

    def read(path):
        for beside in path.parent.glob(f"{path.name}.*"):
            beside.unlink()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", JournalWarning)
            Finished(path, {"power": 2}, _Old).keep("d", _Old(2.0), 1.0)
        again = Finished(path, {"power": 2}, _Old)
        return {unit: again[unit] for unit in (*sound, "d") if unit in again}

    def is_part(found):
        return found.items() <= {**sound, "d": _Old(2.0)}.items() and "d" in found

    assert fuzzing.check(read, path, accepts=is_part) == 300
