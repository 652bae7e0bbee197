"""Whole files that survive a crash, and values as JSON holds them."""

import dataclasses
import math
import os
import pathlib
import secrets
import types
import typing
from collections.abc import Mapping
from typing import Any

import numpy as np

StrPath = str | os.PathLike[str]


def write_atomic(path: StrPath, content: str | bytes) -> None:
    """Replaces the file at `path` by `content`: a reader sees the old or the new file.

    The new content reaches the disk under a temporary name in the same folder before it
    takes the old file's place, so a crash at any moment leaves one of the two, whole.

    Args:
        path: Target file; its folder must exist. A symbolic link is followed.
        content: Text, written as UTF-8, or bytes.

    Raises:
        OSError: If the folder cannot be written to; the old file is then untouched.
    """
    target = pathlib.Path(os.path.realpath(path))
    data = content.encode() if isinstance(content, str) else content
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # Elsewhere a folder cannot be opened, and needs no sync.
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def jsonable(value: Any) -> Any:
    """Returns `value` in JSON's own types, for `json.dumps`.

    Arrays become lists, dataclasses become objects, and NaN and infinity, for which
    JSON has no word, become null.

    Raises:
        TypeError: If `value` holds something that JSON has no word for.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: jsonable(getattr(value, field.name)) for field in fields}
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    tolist = getattr(value, "tolist", None)
    if tolist is not None:  # NumPy and JAX arrays and their scalars.
        return jsonable(tolist())
    raise TypeError(f"Cannot write a {type(value).__name__} as JSON: {value!r}.")


def restore(kind: Any, value: Any) -> Any:
    """Reads back what `jsonable` made of a value of the type `kind`.

    Args:
        kind: A dataclass, `np.ndarray`, `dict[str, X]`, a tuple or list type,
            `X | None`, or a plain type; null is NaN where a number is due.
        value: What JSON gave.

    Raises:
        KeyError, TypeError, ValueError: If it is something else.
    """
    options, origin = typing.get_args(kind), typing.get_origin(kind)
    if value is None and dataclasses.is_dataclass(kind):
        raise TypeError(f"There is no {kind}.")
    if value is None:
        return math.nan if kind is float else None
    if kind is Any:
        return value
    if isinstance(kind, types.UnionType):
        kinds = [each for each in options if each is not types.NoneType]
        return restore(kinds[0], value) if len(kinds) == 1 else value
    if kind is np.ndarray:
        array = np.asarray(value)
        return array.astype(float) if array.dtype == object else array
    if dataclasses.is_dataclass(kind):
        made: Any = kind
        hints = typing.get_type_hints(kind)
        names = [field.name for field in dataclasses.fields(kind)]
        return made(**{name: restore(hints[name], value[name]) for name in names})
    if origin is dict:
        return {name: restore(options[1], each) for name, each in value.items()}
    if origin in (list, tuple):
        one_kind = origin is list or options[-1] is ...
        kinds = options[:1] * len(value) if one_kind else options
        return origin(map(restore, kinds, value))
    if kind in (bool, int, str, float) and not (
        type(value) is kind or (kind is float and type(value) is int)
    ):
        raise TypeError(f"{value!r} is not of type {kind.__name__}.")
    return value
