"""Whole files that survive a crash, and values as JSON holds them."""

import contextlib
import dataclasses
import itertools
import json
import math
import os
import pathlib
import re
import secrets
import shutil
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

try:
    import fcntl
except ImportError:  # not POSIX: what a kill leaves there, stays
    fcntl = None

StrPath = str | os.PathLike[str]
_MOST_LEVELS = 200  # of JSON
_TOKEN = re.compile(r'"(?:[^"\\]+|\\.)*"?|[\[\]{}]', re.DOTALL)
_STEPS = {"[": 1, "{": 1, "]": -1, "}": -1}
_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")


def write_atomic(path: StrPath, content: str | bytes) -> None:
    """Replaces the file at `path` by `content`: a reader sees the old or the new file.

    The new content reaches the disk under a temporary name in the same folder before it
    takes the old file's place, so a crash at any moment leaves one of the two, whole.

    Args:
        path: Target file; its folder must exist. A symbolic link is followed.
        content: Text, or bytes. Text is written as UTF-8; what UTF-8 cannot hold, such as
            of a file's name that is not UTF-8, becomes a backslash escape, as in JSON.

    Raises:
        OSError: If the folder cannot be written to; the old file is then untouched.
    """
    target = pathlib.Path(os.path.realpath(path))
    data = encoded(content) if isinstance(content, str) else content
    with unfinished(target) as temporary:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)


def encoded(text: str) -> bytes:
    """`text` in UTF-8, with backslash escapes for what UTF-8 cannot hold."""
    return text.encode(errors="backslashreplace")


@contextlib.contextmanager
def unfinished(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a name beside `target` for a file or folder to be made and then renamed.

    What still has that name at the end is deleted; what a kill leaves, the next
    `clear_unfinished` deletes, in any process. The folder is synced at the end.
    """
    name = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    with _opened(target.parent) as folder:
        if folder is not None and fcntl is not None:
            with contextlib.suppress(OSError):  # file systems without locks
                fcntl.flock(folder, fcntl.LOCK_SH)
        try:
            yield name
        finally:
            remove(name)
        if folder is not None:
            os.fsync(folder)


def clear_unfinished(folder: pathlib.Path) -> None:
    """Deletes what killed writers left in `folder`, unless somebody writes there now."""
    with _opened(folder) as descriptor:
        if descriptor is None or fcntl is None:
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # a live writer holds it, or the file system has no locks
            return
        for path in folder.iterdir():
            if _UNFINISHED.fullmatch(path.name):
                remove(path)


@contextlib.contextmanager
def _opened(folder: pathlib.Path) -> Iterator[int | None]:
    """The folder's descriptor; None where folders cannot be opened, nor need a sync."""
    if os.name != "posix":
        yield None
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def remove(path: pathlib.Path) -> None:
    """Deletes a file, or a folder with all that it holds; of a link, the link alone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def parse_json(text: str | bytes) -> Any:
    """`json.loads`, whose only error is a plain ValueError, whatever the text.

    What nests more than 200 deep is refused, so that whoever shows or walks through the
    result meets no RecursionError.
    """
    brackets = text if isinstance(text, str) else text.decode("latin-1")
    if brackets.count("[") + brackets.count("{") > _MOST_LEVELS:
        steps = (_STEPS.get(token, 0) for token in _TOKEN.findall(brackets))
        if max(itertools.accumulate(steps)) > _MOST_LEVELS:
            raise ValueError("it is nested too deeply")
    try:
        return json.loads(text)
    except ValueError as error:  # of kinds that hold the whole text
        raise ValueError(f"it is no JSON: {error}") from None


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
    if value is None and (
        dataclasses.is_dataclass(kind)
        or kind in (bool, int, str)
        or origin in (dict, list, tuple)
    ):
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
        if not isinstance(value, dict):
            raise TypeError(f"{value!r} is no object.")
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
