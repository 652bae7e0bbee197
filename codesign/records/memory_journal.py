"""A journal that no file keeps."""

import contextlib
import json
import threading
from collections.abc import Iterator, Sequence

from codesign.records import lines
from codesign.records.lines import Event


class MemoryJournal:
    """A journal of this process only, with the methods of `FileJournal`."""

    def __init__(self):
        self._lock = threading.RLock()
        self._events: list[Event] = []
        self._num_read = 0

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        with self._lock:
            yield

    def read(self) -> tuple[bool, list[Event]]:
        events = self._events[self._num_read :]
        self._num_read += len(events)
        return False, events

    def rewind(self) -> None:
        self._num_read = 0

    def append(self, events: Sequence[Event]) -> None:
        self._events += [json.loads(lines.dumps(event)) for event in events]
