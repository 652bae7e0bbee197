"""Units of work that are done: kept with a checksum, so that no kill repeats them."""

import json
from typing import Any, Generic, TypeVar

from absl import logging

from codesign.records.files import StrPath, jsonable, restore
from codesign.records.journal import FileJournal

_Found = TypeVar("_Found")


class Finished(Generic[_Found]):
    """Results by unit, in a journal of lines `{"unit", "found", "seconds"}`."""

    def __init__(self, path: StrPath, identity: dict[str, Any], kind: type[_Found]):
        """Opens or makes the journal at `path`.

        A line that is damaged, or that another version wrote, only loses its unit.

        Args:
            path: The file.
            identity: Settings that all results share.
            kind: Dataclass of a result, which `restore` can read back.

        Raises:
            ValueError: If the journal is of other settings.
        """
        self._kind = kind
        self._journal = FileJournal(path, identity, recover=True)
        with self._journal.locked():
            events = self._journal.read()[1]
        self._events: dict[str, Any] = {}
        for event in events:
            try:
                unit = _key(event["unit"])
                restore(kind, event["found"])
            except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
                logging.warning(
                    "%s: %s was kept by another version and is measured again.",
                    path,
                    event.get("unit"),
                )
            else:
                self._events[unit] = event

    def __contains__(self, unit: Any) -> bool:
        return _key(unit) in self._events

    def __getitem__(self, unit: Any) -> _Found:
        return restore(self._kind, self._events[_key(unit)]["found"])

    def keep(self, unit: Any, found: _Found, seconds: float) -> None:
        """Writes a result down, onto the disk; reading gives it back exactly."""
        event = {
            "event": "done",
            "unit": jsonable(unit),
            "found": jsonable(found),
            "seconds": seconds,
        }
        with self._journal.locked():
            self._journal.read()
            self._journal.append([event])
        self._events[_key(unit)] = event


def _key(unit: Any) -> str:
    return json.dumps(jsonable(unit))
