"""An append-only log of metrics, one JSON object a line."""

import contextlib
import json
import os
from collections.abc import Mapping
from typing import Any, BinaryIO

from absl import logging

from codesign.records.files import StrPath, encoded, jsonable, parse_json, restore


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
        self._file.write(encoded(line) + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file; closing twice does nothing."""
        self._file.close()

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def read_metrics(
    path: StrPath, keys: Mapping[str, type] | None = None
) -> list[dict[str, Any]]:
    """Reads what `MetricsLog` wrote, oldest first.

    Lines that hold no whole record, as a crash or a flipped bit leaves them, are skipped
    with a warning in the log. A file that does not exist holds no records.

    Args:
        path: The file.
        keys: Types of what every record must have, such as `{"seed": int}`.
    """
    records = []
    if not os.path.exists(path):
        return records
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            record = None
            with contextlib.suppress(ValueError):  # Also bytes that are not UTF-8.
                record = parse_json(line)
            if isinstance(record, dict) and _has(record, keys or {}):
                records.append(record)
            elif line.strip():
                logging.warning("%s, line %d: skipped, not a record.", path, number)
    return records


def _has(record: dict[str, Any], keys: Mapping[str, type]) -> bool:
    try:
        for name, kind in keys.items():
            restore(kind, record[name])
    except (KeyError, TypeError):
        return False
    return True
