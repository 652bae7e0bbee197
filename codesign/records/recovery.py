"""What can be kept of a damaged journal: its own sound lines, wherever they stand."""

import bisect
import collections
import contextlib
import itertools
import os
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from codesign.records import lines
from codesign.records.lines import Event

_LINE = re.compile(rb'\{"n":')
_MOST_DUG = 1 << 25  # bytes that are tried within lines that are not whole
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

    Its own lines have the `id` of its header; of several headers that of the journal with
    the most lines. Where no header is left, the `id` that all sound lines share is taken,
    with the settings given. Where lines of one journal tell two histories, as a copy that
    was written on does, the longer is kept. Lines of format 1 have no `id` and no order
    but their numbers; all of them count as of the same journal.

    Raises:
        ValueError: If there is no header, and lines of several journals.
    """
    found = _sound(data)
    counts = collections.Counter(line.get("id") for line in found)
    headers = [line for line in found if line["event"] == "study"]
    header = max(headers, key=lambda line: counts[line.get("id")], default=None)
    if header is None and len(counts) > 1:
        raise ValueError(
            "it has no header, and lines of several journals "
            f"({', '.join(sorted(map(str, counts)))}), so that its own cannot be told"
        )
    if header is None:
        own, theirs = next(iter(counts), lines.new_id()), settings
    else:
        own, theirs = header.get("id"), lines.settings_of(header)
    kept = [line for line in found if line.get("id") == own]
    kept = kept if own is None else _one_history(kept)
    events = [lines.content(line) for line in kept if line["event"] != "study"]
    events = [event for event in events if is_event(event)]
    num_foreign = len(found) - (header is not None) - len(events)
    return Salvaged(lines.header(theirs, own), events, num_foreign)


def _one_history(found: list[Event]) -> list[Event]:
    """One line of each number, each the next of the one before, if that is there."""
    follow: dict[str, int] = {}  # how many lines follow on a line, itself included
    for line in reversed(found):
        here = follow.setdefault(line["sum"], 1)
        before = line.get("prev", "")
        follow[before] = max(follow.get(before, 1), here + 1)
    kept: list[Event] = []
    for number, several in itertools.groupby(found, key=lambda line: line["n"]):
        lines_ = list(several)
        if kept and kept[-1]["n"] == number - 1:
            lines_ = [line for line in lines_ if line["prev"] == kept[-1]["sum"]]
        if lines_:  # the first of equals
            kept.append(max(lines_, key=lambda line: follow[line["sum"]]))
    return kept


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
    budget = _MOST_DUG
    for text in data.split(b"\n"):
        line = lines.parse(text)
        if line is not None:
            found.setdefault((line["n"], line["sum"]), line)
            continue
        for line, cost in _dug(text):  # where its newline, or another's, was lost
            budget -= cost
            if line is not None:
                found.setdefault((line["n"], line["sum"]), line)
            if budget < 0:
                break
    return sorted(found.values(), key=lambda line: line["n"])


def _dug(text: bytes) -> Iterator[tuple[Event | None, int]]:
    """Tries every stretch that looks like a line, and says how many bytes it was."""
    ends = [match.end() for match in _END.finditer(text)]
    free = 0
    for start in _LINE.finditer(text):
        if start.start() < free:
            continue  # inside a line that was found
        for end in ends[bisect.bisect(ends, start.start()) :]:
            line = lines.parse(text[start.start() : end])
            yield line, end - start.start()
            if line is not None:
                free = end
                break
