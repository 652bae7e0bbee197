"""An append-only log on disk that survives a kill at any moment and notices damage."""

import contextlib
import os
import pathlib
import warnings
from collections.abc import Callable, Sequence
from typing import IO, NamedTuple

from absl import logging

from codesign.records import journal_file, lines, recovery
from codesign.records.files import write_atomic
from codesign.records.journal_lock import JournalLock
from codesign.records.lines import Chain, Event

# How often this process opened a journal as its only user.
_takeovers: dict[pathlib.Path, int] = {}


class JournalDamaged(ValueError):
    """A journal holds what was not written there, or lost what was.

    Attributes:
        num_sound: Number of lines before the damage.
    """

    def __init__(self, message: str, num_sound: int = 0):
        super().__init__(message)
        self.num_sound = num_sound


class JournalWarning(UserWarning):
    """A journal lost its unfinished last line or more, or was recovered from damage."""


def read_header(path: str | os.PathLike[str]) -> Event:
    """What the journal at `path` is of: the header that it was made with.

    Raises:
        JournalDamaged: If its first line fails its checksum.
        ValueError: If it is no regular file, has a second name, or is of a format of
            another version.
        OSError: If it cannot be read.
    """
    journal_file.check(path)
    with open(path, "rb") as file:
        line = lines.parse(file.readline().rstrip(b"\n"))
    if line is None or line["event"] != "study":
        raise JournalDamaged(
            f"`journal` (={os.fspath(path)}) does not begin with the header of a study; "
            "restore the file from a copy."
        )
    return _settings_of(line, path)


class _Place(NamedTuple):
    """How far a file was read."""

    inode: int = -1
    end: int = 0  # of the last whole line, in bytes
    chain: Chain = Chain()


class FileJournal:
    """JSON lines in a file, shared by threads and by processes on one file system.

    A line is one JSON object. `n` counts lines from 0 and `event` names the kind. `sum`
    holds the first 16 hexadecimal digits of the SHA-256 of all of the line before it,
    `prev` the `sum` of the line above, and `id` 8 digits drawn at random when the journal
    was made; so a line of another journal, or from another place of this one, is noticed.
    Line 0 is the header: what the journal is of. Journals of format 1, whose lines have
    no `id` and `prev`, are read and go on in their format.

    Lines are appended in one write, flushed to the disk, under a lock on a file beside
    the journal, and the file itself appears with its header by one rename; so a kill
    leaves whole lines and at most one unfinished last line, which is dropped with a
    warning and cut off before the next append. By a symbolic link it is the same journal.
    Who may not write the file can read it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        header: Event,
        is_event: Callable[[Event], bool] = lambda event: True,
        *,
        recover: bool = False,
        exclusive: bool = False,
    ):
        """Opens the journal at `path`, or makes one.

        Args:
            path: The file; `<path>.lock` beside it is the lock.
            header: What the journal is of; must equal the header that is there.
            is_event: Whether a line, without what ties it to the others, is one that the
                journal's owner writes; one that is not counts as damage.
            recover: Continue a damaged journal from its sound lines, before and after the
                damage; lines of other journals are left out. The damaged file is kept as
                `<path>.damaged-1` (or 2, ...).
            exclusive: Take the journal over: what this process opened before, such as
                in an earlier run of a notebook's cell, reads on and writes no more.

        Raises:
            JournalDamaged: If a complete line fails its checksum, is not the next one or
                no event, and not `recover`.
            ValueError: If the header differs, or `path` is no regular file or has a
                second name (a hard link), by which it would have a second lock.
            PermissionError: If there is no journal and none may be made.

        Warns:
            JournalWarning: If an unfinished last line is dropped, or on recovery.
        """
        self._path = pathlib.Path(os.path.realpath(path))
        journal_file.check(self._path)
        self._settings, self._is_event = dict(header), is_event
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lock = pathlib.Path(f"{self._path}.lock")
        self._why_read_only = journal_file.why_read_only(lock, self._path)
        self._lock = JournalLock(
            self._path, is_read_only=self._why_read_only is not None
        )
        self._warned_of = b""
        self._place = _Place()
        with self.locked():
            if recover:
                self._recover()
            if self._is_new():
                self._replace([lines.header(self._settings, lines.new_id())])
            self.read()  # for its errors
            self.rewind()
            self._takeover = _takeovers.get(self._path, 0) + exclusive
            _takeovers[self._path] = self._takeover

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Keeps other threads and processes out; `read` and `append` are called within."""
        return self._lock.held()

    def read(self) -> tuple[bool, list[Event]]:
        """Events since the last `read`; True if they are to replace all before.

        Raises:
            JournalDamaged: If a line is not the next one, or lines read before are gone.
            ValueError: If the header is of another study.

        Warns:
            JournalWarning: If an unfinished last line is dropped, or the file was
                replaced by one without the lines read before, as by a recovery.
        """
        before = self._place
        with open(self._path, "rb") as file:
            status = os.fstat(file.fileno())
            restarted = status.st_ino != before.inode
            if not restarted and status.st_size < before.end:
                raise self._cut_off(status.st_size)
            place = _Place(status.st_ino) if restarted else before
            file.seek(place.end)
            *whole, tail = file.read().split(b"\n")
        _, end, chain = place
        if tail and self._is_whole(tail, chain.num_lines + len(whole)):
            whole.append(tail)
        events, goes_on = [], before.chain.num_lines == 0
        for text in whole:
            line = lines.parse(text)
            if line is None or not chain.goes_on_with(line):
                raise self._damaged(chain.num_lines)
            if chain.num_lines == 0:
                self._check_header(line)
            elif self._is_event(event := lines.content(line)):
                events.append(event)
            else:
                raise self._damaged(chain.num_lines)
            chain = chain.after(line)
            end += len(text) + 1
            goes_on |= chain == before.chain
        if restarted:
            self._check_replaced(before.chain, chain, goes_on=goes_on)
        self._place = _Place(status.st_ino, end, chain)
        return restarted, events

    def rewind(self) -> None:
        """Has `read` begin with the first event again."""
        self._place = _Place()

    def append(self, events: Sequence[Event]) -> None:
        """Stores events durably, in one write, after all that have been read.

        Raises:
            PermissionError: If this user may only read the journal.
            RuntimeError: If another object of this process took it over, or lines were
                not read.
        """
        if self._takeover != _takeovers[self._path]:
            raise RuntimeError(
                f"The journal {self._path} was opened again in this process, by one who "
                "is to be its only user; use the newer object, this one only reads."
            )
        self._check_writable()
        _, end, chain = self._place
        data = chain.written(events)
        with open(self._path, "r+b", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            if size < end:
                raise self._cut_off(size)
            file.seek(end)
            if b"\n" in file.read():
                raise RuntimeError(
                    f"Lines of {self._path} were not read before writing."
                )
            try:
                file.seek(end)
                file.truncate()  # cuts an unfinished line off
                _write(file, data)
            except OSError:  # for one, a full disk
                file.truncate(end)
                raise

    def _check_writable(self) -> None:
        if self._why_read_only is not None:
            raise PermissionError(
                f"The journal {self._path} can only be read by this user "
                f"({self._why_read_only}); copy it to a folder of yours to go on with it."
            )

    def _is_new(self) -> bool:
        """Whether there is no file yet, or one that ends within our header."""
        if not self._path.exists():
            return True
        with open(self._path, "rb") as file:
            data = file.readline()
        unfinished = lines.begins_header(data, self._settings)
        if unfinished and data:
            self._warn_of_tail(data)
        return unfinished

    def _check_header(self, line: Event) -> None:
        theirs = _settings_of(line, self._path)
        differing = sorted(
            key
            for key in theirs.keys() | self._settings.keys()
            if theirs.get(key) != self._settings.get(key)
        )
        if differing:
            pairs = ", ".join(
                f"{key}: {theirs.get(key)!r} there, {self._settings.get(key)!r} given"
                for key in differing
            )
            raise ValueError(
                f"`journal` (={self._path}) belongs to another study ({pairs}); give "
                "the study its settings, or another path."
            )

    def _check_replaced(self, before: Chain, now: Chain, *, goes_on: bool) -> None:
        """Checks that a file in the place of the one read before is the same journal.

        `goes_on` says whether it holds the lines read before.
        """
        if now.num_lines == 0 or (before.num_lines and now.id != before.id):
            raise JournalDamaged(
                f"`journal` (={self._path}) was emptied or replaced by another one while "
                f"it was open; {max(before.num_lines - 1, 0)} events were read before. "
                "Restore the file from a copy."
            )
        if not goes_on:
            _warn(
                f"The journal {self._path} was replaced while it was open, as by a "
                f"recovery or an older copy: it has {now.num_lines} lines, which are not "
                f"those of the {before.num_lines} read before."
            )

    def _is_whole(self, tail: bytes, number: int) -> bool:
        """Whether line `number` lacks only its newline, which it gets."""
        if lines.parse(tail) is not None and self._why_read_only is None:
            with open(self._path, "ab") as file:
                _write(file, b"\n")
            return True
        if number == 0 or lines.parse(tail[:-1]) is not None:
            # Not of a kill: no journal at all, or another byte in a newline's place.
            raise self._damaged(number)
        if self._why_read_only is None:  # else it may be being written
            self._warn_of_tail(tail)
        return False

    def _warn_of_tail(self, tail: bytes) -> None:
        if tail != self._warned_of:
            self._warned_of = tail
            _warn(
                f"The last line of the journal {self._path} is unfinished ({len(tail)} "
                "bytes), as a kill leaves it; it is dropped."
            )

    def _damaged(self, num_sound: int) -> JournalDamaged:
        return JournalDamaged(
            f"`journal` (={self._path}) is damaged in line {num_sound + 1}: it "
            "fails its checksum, is out of order, of another journal or of another "
            "version of codesign. Restore the file from a copy, or open it with "
            "`recover=True`, which keeps it under another name and continues from the "
            "lines that are sound.",
            num_sound,
        )

    def _cut_off(self, size: int) -> JournalDamaged:
        return JournalDamaged(
            f"`journal` (={self._path}) was cut to {size} bytes while it was open; the "
            f"{self._place.chain.num_lines} lines read before took {self._place.end}. "
            "Restore the file from a copy."
        )

    def _recover(self) -> None:
        """Replaces a damaged file by its sound lines; leaves a sound one alone."""
        if self._is_new() or self._why_read_only is not None:
            return
        try:
            self.read()
            return
        except JournalDamaged as error:
            num_before = error.num_sound
        finally:
            self.rewind()
        data = self._path.read_bytes()
        try:
            header, events, num_foreign = recovery.salvaged(
                data, self._settings, self._is_event
            )
        except ValueError as error:
            raise JournalDamaged(
                f"`journal` (={self._path}) cannot be recovered: {error}. Restore the "
                "file from a copy."
            ) from error
        aside = recovery.keep_aside(self._path, data)
        self._replace([header, *events])
        num_after = len(events) - max(num_before - 1, 0)
        foreign = (
            f" {num_foreign} of other journals or versions are left out."
            if num_foreign
            else ""
        )
        _warn(
            f"The journal {self._path} is damaged in line {num_before + 1}. It is kept as "
            f"{aside.name}; the study goes on from the {num_before} lines before and "
            f"{num_after} after the damage that are sound.{foreign}"
        )

    def _replace(self, events: Sequence[Event]) -> None:
        self._check_writable()
        write_atomic(self._path, Chain().written(events))


def _settings_of(header: Event, path: str | os.PathLike[str]) -> Event:
    try:
        return lines.settings_of(header)
    except ValueError as error:
        raise ValueError(f"`journal` (={os.fspath(path)}): {error}") from None


def _write(file: IO[bytes], data: bytes) -> None:
    """Writes all of `data`, onto the disk."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
    file.flush()
    os.fsync(file.fileno())


def _warn(message: str) -> None:
    logging.error(message)
    warnings.warn(message, JournalWarning, stacklevel=4)
