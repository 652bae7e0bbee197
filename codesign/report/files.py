"""Files that survive a crash: whole-file replacement and an append-only metrics log."""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import secrets
from collections.abc import Mapping
from typing import Any, BinaryIO

from absl import logging

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


class MetricsLog:
    """Appends one JSON object per line to a file, e.g. metrics.jsonl.

    A process that died while writing leaves a line without an end; the next
    `MetricsLog` on that file starts a new line, so only the unfinished record is lost.

        with MetricsLog(workdir / "metrics.jsonl") as metrics:
            metrics.append({"step": 3, "loss": loss})
    """

    def __init__(self, path: StrPath):
        """Opens `path` for appending and creates it where there is none."""
        self._file: BinaryIO = open(path, "ab+")  # noqa: SIM115, closed by `close`
        if self._file.tell() > 0:
            self._file.seek(-1, os.SEEK_END)
            if self._file.read(1) != b"\n":
                self._file.write(b"\n")

    def append(self, record: Mapping[str, Any]) -> None:
        """Writes `record` as one line and flushes it.

        Args:
            record: Whatever `jsonable` takes, by name; NaN and infinity become null.

        Raises:
            TypeError: If a value is of another type; nothing is written then.
        """
        line = json.dumps(jsonable(record), ensure_ascii=False, allow_nan=False)
        self._file.write(line.encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file; closing twice does nothing."""
        self._file.close()

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def read_metrics(path: StrPath) -> list[dict[str, Any]]:
    """Reads what `MetricsLog` wrote, oldest first.

    Lines that hold no whole record, as a crash leaves them, are skipped with a warning
    in the log. A file that does not exist holds no records.
    """
    records = []
    if not os.path.exists(path):
        return records
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            record = None
            with contextlib.suppress(ValueError):  # Also bytes that are not UTF-8.
                record = json.loads(line)
            if isinstance(record, dict):
                records.append(record)
            elif line.strip():
                logging.warning("%s, line %d: skipped, not a record.", path, number)
    return records
