"""Settings with rules, compared over time, and results read back from JSON."""

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codesign.records.files import jsonable, restore
from codesign.records.settings import checked, differences, identity, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Inner:
    rate: float = setting(0.5, "A rate.", above=0, below=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Outer:
    kind: str = setting("a", "A kind.", one_of=("a", "b"))
    names: tuple[str, ...] = setting(("x",), "Names.", distinct=True, free=True)
    count: int | None = setting(None, "A count.", least=1, grows=True)
    inner: _Inner = setting(_Inner(), "Nested.")


def test_nested_and_optional_settings_are_checked():
    checked(_Outer())
    assert type(checked(_Outer(count=np.int64(3))).count) is int
    for changes, message in (
        ({"kind": "c"}, r"`kind` \(='c'\) must be one of \['a', 'b'\]"),
        ({"names": ("x", "x")}, r"`names` \(=\['x', 'x'\]\) holds a value twice"),
        ({"count": 0}, "`count` must be >= 1, got 0"),
        ({"inner": _Inner(rate=1.0)}, "`rate` must be < 1, got 1.0"),
        ({"inner": {"rate": 0.5}}, "`inner` must be of type"),
        ({"inner": _Inner(rate=10**400)}, "`rate` must be a finite number, got 1000"),
        ({"inner": _Inner(rate=np.complex64(0.5))}, "`rate` must be a finite number"),
        ({"count": 10**400}, "`count` must be <= 9,223,.*got 1000.* of 401 characters"),
        ({"kind": "a\udcff"}, r"`kind` \(='a\\udcff'\) is no text in UTF-8.*rename"),
        ({"names": ("x", "\ud800")}, r"`names` \(='\\ud800'\) is no text in UTF-8"),
        ({"names": ["x", "y"]}, r"must be a tuple of str.*write \('x', 'y'\)"),
    ):
        with pytest.raises(ValueError, match=message):
            checked(_Outer(**changes))


def test_differences_name_only_what_identifies():
    found = jsonable(_Outer(count=3))
    assert differences(_Outer(count=4, names=("y",)), found) == []
    assert differences(_Outer(count=2), found) == [
        "count: 3 there, 2 now, and may only grow"
    ]
    other = _Outer(count=3, kind="b", inner=_Inner(rate=0.25))
    assert differences(other, found) == [
        "inner.rate: 0.5 there, 0.25 now",
        "kind: 'a' there, 'b' now",
    ]
    assert differences(_Outer(count=3), {**found, "old": 1}) == [
        "old: 1 there, None now"
    ]
    assert identity(_Outer()) == {"kind": "a", "inner": {"rate": 0.5}}


@dataclasses.dataclass(frozen=True, eq=False)
class _Found:
    curve: np.ndarray
    by_name: dict[str, _Inner]
    pairs: tuple[tuple[str, float], ...]
    names: list[str]
    rest: _Inner | None
    value: float


@given(
    st.lists(st.floats(allow_infinity=False, width=64), max_size=5),
    st.dictionaries(st.text(max_size=3), st.floats(0.1, 0.9), max_size=3),
    st.floats(allow_infinity=False),
    st.booleans(),
)
def test_what_json_holds_is_read_back(curve, rates, value, has_rest):
    given_ = _Found(
        curve=np.array(curve, float),
        by_name={name: _Inner(rate=rate) for name, rate in rates.items()},
        pairs=(("a", 0.5),),
        names=["n"],
        rest=_Inner() if has_rest else None,
        value=value,
    )
    found = restore(_Found, json.loads(json.dumps(jsonable(given_))))
    np.testing.assert_array_equal(np.asarray(found.curve, float), given_.curve)
    assert found.by_name == given_.by_name
    assert (found.pairs, found.names, found.rest) == (
        given_.pairs,
        given_.names,
        given_.rest,
    )
    assert found.value == value or (math.isnan(found.value) and math.isnan(value))


def test_what_is_missing_is_refused():
    with pytest.raises(KeyError):
        restore(_Inner, {})
