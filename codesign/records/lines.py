"""The lines of a journal: each numbered, with a checksum, and tied to those before."""

import hashlib
import json
import secrets
from collections.abc import Iterable
from typing import Any, NamedTuple

from codesign.records.files import parse_json

FORMAT = 2  # that of 1, without `id` and `prev`, is read and gone on with
_FORMATS = (1, FORMAT)
_OURS = ("n", "id", "prev", "sum")
_SUM = b',"sum":"'  # then 16 hexadecimal digits
_SUM_LENGTH = len(_SUM) + 16 + len(b'"}')
_ID_DIGITS = 8

Event = dict[str, Any]


class Chain(NamedTuple):
    """The lines so far, as far as the next one depends on them.

    Attributes:
        num_lines: How many there are, the header included.
        id: Of the journal, 8 hexadecimal digits drawn when it was made; None in format 1.
        last_sum: Checksum of the last line.
    """

    num_lines: int = 0
    id: str | None = None
    last_sum: str | None = None

    def goes_on_with(self, line: Event) -> bool:
        """Whether a parsed line is the next one."""
        if line["n"] != self.num_lines:
            return False
        if self.num_lines == 0:
            return line["event"] == "study"
        prev = None if self.id is None else self.last_sum
        return line.get("id") == self.id and line.get("prev") == prev

    def after(self, line: Event) -> "Chain":
        return Chain(self.num_lines + 1, line.get("id"), line["sum"])

    def written(self, events: Iterable[Event]) -> bytes:
        """The lines of further events, the first of which may be a header."""
        chain, lines = self, []
        for event in events:
            line: Event = {"n": chain.num_lines, **event}
            if chain.num_lines and chain.id is not None:
                line |= {"id": chain.id, "prev": chain.last_sum}
            body = dumps(line).encode()[:-1]
            digest = _digest(body)
            lines.append(body + _SUM + digest + b'"}\n')
            chain = chain.after({**line, "sum": digest.decode()})
        return b"".join(lines)


def header(settings: Event, id: str | None) -> Event:
    """Line 0 of a journal of `settings`; without an id it is of format 1."""
    if id is None:
        return {"event": "study", "format": 1, **settings}
    return {"event": "study", "format": FORMAT, **settings, "id": id}


def new_id() -> str:
    return secrets.token_hex(_ID_DIGITS // 2)


def begins_header(data: bytes, settings: Event) -> bool:
    """Whether `data` is the beginning of a header of `settings`, whatever its id."""
    start = Chain().written([header(settings, "")]).rpartition(b'"id":"')
    known = start[0] + start[1]
    found = data[len(known) :][:_ID_DIGITS].decode(errors="replace")
    whole = Chain().written([header(settings, found.ljust(_ID_DIGITS, "0"))])
    return whole[:-1].startswith(data)


def settings_of(line: Event) -> Event:
    """What a header says of a journal's owner.

    Raises:
        ValueError: If it is of a format that is not known here.
    """
    if line.get("format") not in _FORMATS:
        raise ValueError(
            f"it is of format {line.get('format')}, made by another version of "
            f"codesign; this one reads {' and '.join(map(str, _FORMATS))}. Use that "
            "version, or another path."
        )
    return {k: v for k, v in content(line).items() if k not in ("event", "format")}


def content(line: Event) -> Event:
    """A line's event, without what ties it to the others."""
    return {k: v for k, v in line.items() if k not in _OURS}


def dumps(event: Event) -> str:
    return json.dumps(event, separators=(",", ":"), allow_nan=False)


def parse(line: bytes) -> Event | None:
    """A line without its newline, or None if its checksum fails."""
    body, end = line[:-_SUM_LENGTH], line[-_SUM_LENGTH:]
    if not body or end != _SUM + _digest(body) + b'"}':
        return None
    try:
        found = parse_json(line)
    except ValueError:  # not written by us
        return None
    is_ours = isinstance(found.get("n"), int) and isinstance(found.get("event"), str)
    return found if is_ours else None


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest()[:16].encode()
