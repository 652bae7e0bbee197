"""Settings in frozen dataclasses: default, help, range and what they identify, at once.

@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    networks: tuple[str, ...] = setting(("vgg11",), "Networks.", distinct=True)
    num_seeds: int = setting(3, "Runs of each.", least=1, grows=True, flag="seeds")

checked(Sweep(num_seeds=2.5))  # ValueError: `num_seeds` must be a whole number, ...
"""

import dataclasses
import math
import operator
import types
import typing
from collections.abc import Collection, Iterator
from typing import Any, TypeVar

import numpy as np

from codesign.records.files import jsonable

_NUMBERS = {int: "a whole number", float: "a finite number"}
_MOST = {int: 2**63 - 1, float: math.inf}
_Config = TypeVar("_Config", bound=Any)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """What `setting` was told about a field."""

    help: str = ""
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    one_of: Collection[Any] = ()
    distinct: bool = False
    grows: bool = False
    free: bool = False
    flag: str | None = ""


def setting(default: Any, help: str, **rule: Any) -> Any:
    """Declares a field of a settings dataclass.

    Args:
        default: Its default, immutable.
        help: A sentence for people; the text of its flag.
        **rule: Of every number, or every element of a tuple: `least`, `most`, `above`,
            `below`, `one_of`; of a tuple: `distinct`. Of a workdir that was made with
            another value: with `grows` a larger one goes on there (more seeds), with
            `free` any does (where data lie); else it is refused. `flag`: a second,
            shorter name of the flag; None for a setting that no flag sets.
    """
    return dataclasses.field(
        default=default, metadata={"rule": Rule(help=help, **rule)}
    )


def fields(config: Any) -> Iterator[tuple[str, Any, Rule]]:
    """Yields name, type and rule of every field, given an instance or its class."""
    hints = typing.get_type_hints(config if isinstance(config, type) else type(config))
    for field in dataclasses.fields(config):
        yield field.name, hints[field.name], field.metadata.get("rule", Rule())


def checked(config: _Config) -> _Config:
    """Checks type and range of every setting, nested dataclasses included.

    Returns:
        The same settings, with Python's own numbers in place of NumPy's.

    Raises:
        ValueError: Names the setting, its value and the rule.
    """
    values = {
        n: _checked(n, k, rule, getattr(config, n)) for n, k, rule in fields(config)
    }
    return dataclasses.replace(config, **values)


def _checked(name: str, kind: Any, rule: Rule, value: Any) -> Any:
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if value is None and type(None) in options:
        return None
    kind = options[0]
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, typing.cast(type, kind)):
            raise ValueError(f"`{name}` must be of type {kind}, got {value!r}.")
        value = checked(value)
    elif typing.get_origin(kind) is tuple:
        element = typing.get_args(kind)[0]
        if not isinstance(value, tuple):
            written = tuple(value) if isinstance(value, list) else (value,)
            raise ValueError(
                f"`{name}` must be a tuple of {element.__name__}, got {value!r}; write "
                f"{written!r}."
            )
        if not value:
            raise ValueError(f"`{name}` is empty; name at least one.")
        value = tuple(_checked(name, element, rule, each) for each in value)
        if rule.distinct and len({*value}) < len(value):
            raise ValueError(f"`{name}` (={list(value)}) holds a value twice.")
    elif kind in _NUMBERS:
        value = _checked_number(name, kind, rule, value)
    elif not isinstance(value, kind):
        raise ValueError(f"`{name}` must be of type {kind.__name__}, got {value!r}.")
    elif isinstance(value, str) and not _is_utf8(value):
        raise ValueError(
            f"`{name}` (={value!r}) is no text in UTF-8, which all records are; rename "
            "the file that it names."
        )
    if rule.one_of and not isinstance(value, tuple) and value not in rule.one_of:
        raise ValueError(f"`{name}` (={value!r}) must be one of {list(rule.one_of)}.")
    return value


def _checked_number(name: str, kind: type, rule: Rule, value: Any) -> Any:
    numbers = (
        (int, np.integer) if kind is int else (int, float, np.integer, np.floating)
    )
    try:
        number = kind(value) if isinstance(value, numbers) else math.nan
    except OverflowError:
        number = math.nan
    if number != number or abs(number) == math.inf or type(value) is bool:
        raise ValueError(f"`{name}` must be {_NUMBERS[kind]}, got {_short(value)}.")
    for text, bound, holds in (
        (">=", rule.least, operator.ge),
        ("<=", _MOST[kind] if rule.most is None else rule.most, operator.le),
        (">", rule.above, operator.gt),
        ("<", rule.below, operator.lt),
    ):
        if bound is not None and not holds(number, bound):
            raise ValueError(f"`{name}` must be {text} {bound:,}, got {_short(value)}.")
    return number


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # as of a file's name in another encoding
        return False
    return True


def _short(value: Any) -> str:
    text = repr(value.item() if isinstance(value, np.number) else value)
    return text if len(text) < 100 else f"{text[:40]}... of {len(text)} characters"


def read(kind: Any, text: str) -> Any:
    """Reads a value of the type `kind` from text: "none", "1,2,3", "0.5".

    Raises:
        ValueError: Says what was wanted.
    """
    options = typing.get_args(kind)
    if isinstance(kind, types.UnionType):
        return None if text in ("none", "None") else read(options[0], text)
    if typing.get_origin(kind) is tuple:
        parts = [part.strip() for part in text.removesuffix(",").split(",")]
        if "" in parts:
            raise ValueError("must hold no empty element.")
        return tuple(read(options[0], part) for part in parts)
    try:
        return kind(text)
    except ValueError:
        need = {int: "a whole number", float: "a number"}[kind]
        raise ValueError(f"must be {need}.") from None


def is_text(kind: Any) -> bool:
    """Whether `read` can make a value of the type `kind`."""
    options = [each for each in typing.get_args(kind) if each not in (type(None), ...)]
    return all(map(is_text, options)) if options else kind in (int, float, bool, str)


def differences(config: Any, found: dict[str, Any]) -> list[str]:
    """Says which settings keep `config` from going on with what `found` began.

    Args:
        config: Settings wanted now.
        found: Those there, as `jsonable(config)` gave them; unknown ones count.

    Returns:
        A line for each, empty if none.
    """
    wanted, rules = jsonable(config), {name: rule for name, _, rule in fields(config)}
    lines = []
    for name in sorted(wanted.keys() | found.keys()):
        now: Any = wanted.get(name)
        there: Any = found.get(name)
        rule = rules.get(name, Rule())
        if now == there or rule.free:
            continue
        if isinstance(now, dict) and isinstance(there, dict):
            lines += [
                f"{name}.{line}" for line in differences(getattr(config, name), there)
            ]
        elif not rule.grows or type(now) is not type(there) or now < there:
            how = ", and may only grow" if rule.grows else ""
            lines.append(f"{name}: {there!r} there, {now!r} now{how}")
    return lines


def identity(config: Any) -> dict[str, Any]:
    """Settings that may not change in a workdir, in JSON's own types."""
    return {
        name: identity(getattr(config, name))
        if dataclasses.is_dataclass(getattr(config, name))
        else jsonable(getattr(config, name))
        for name, _, rule in fields(config)
        if not (rule.grows or rule.free)
    }
