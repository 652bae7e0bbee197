"""What can be kept of a damaged journal: its own sound lines, wherever they stand."""

import contextlib
import os
import pathlib
import re
from collections.abc import Callable
from typing import NamedTuple

from codesign.records import lines
from codesign.records.lines import Event

_LINE = re.compile(rb'\{"n":')
_END = re.compile(rb',"sum":"[0-9a-f]{16}"\}')


class Salvaged(NamedTuple):
    """The part of a journal that is sound.

    Attributes:
        header: That of the file, or one made of the settings given.
        events: In the order in which they were written, each once.
        num_foreign: Number of sound lines that are of other journals or no events, which
            are left out.
    """

    header: Event
    events: list[Event]
    num_foreign: int


def salvaged(
    data: bytes, settings: Event, is_event: Callable[[Event], bool]
) -> Salvaged:
    """Reads what is sound in a journal's bytes, also where newlines were lost.

    A line is the journal's own if it has the `id` of its header. Where no header is left,
    the `id` that all sound lines share is taken, with the settings given. Lines of
    format 1 have no `id`; all of them count as of the same journal.

    Raises:
        ValueError: If there is no header, and lines of several journals.
    """
    found = _sound(data)
    headers = [line for line in found if line["event"] == "study"][:1]
    ids = {line.get("id") for line in headers or found}
    if len(ids) > 1:
        raise ValueError(
            "it has no header, and lines of several journals "
            f"({', '.join(sorted(map(str, ids)))}), so that its own cannot be told"
        )
    own = ids.pop() if ids else lines.new_id()
    events = [
        lines.content(line)
        for line in found
        if line["event"] != "study" and line.get("id") == own
    ]
    events = [event for event in events if is_event(event)]
    theirs = lines.settings_of(headers[0]) if headers else settings
    num_foreign = len(found) - len(headers) - len(events)
    return Salvaged(lines.header(theirs, own), events, num_foreign)


def keep_aside(path: pathlib.Path, data: bytes) -> pathlib.Path:
    """Writes a damaged file's bytes beside it, under the first free name."""
    number = 1
    while True:
        aside = path.with_name(f"{path.name}.damaged-{number}")
        with contextlib.suppress(FileExistsError), open(aside, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            return aside
        number += 1


def _sound(data: bytes) -> list[Event]:
    """Each line in `data` with a good checksum once, by number."""
    found: dict[tuple[int, str], Event] = {}
    for start in _LINE.finditer(data):
        end = _END.search(data, start.start())
        line = lines.parse(data[start.start() : end.end()]) if end else None
        if line is not None:
            found.setdefault((line["n"], line["sum"]), line)
    return sorted(found.values(), key=lambda line: line["n"])
