"""An append-only log on disk that survives a kill at any moment and notices damage."""

import contextlib
import hashlib
import json
import os
import pathlib
import re
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import IO, Any, Protocol

import filelock
from absl import logging

FORMAT = 1
_SUM = b',"sum":"'  # then 16 hexadecimal digits
_END = re.compile(rb',"sum":"[0-9a-f]{16}"\}')
_SUM_LENGTH = len(_SUM) + 16 + len(b'"}')
_LOCK_TIMEOUT_S = 600.0
_takeovers: dict[str, int] = {}  # how often this process opened a file as its only user

Event = dict[str, Any]
_REPLAYABLE = ("ask", "enqueue", "tell", "fail", "done")  # in any subset


class JournalDamaged(ValueError):
    """A complete line of a journal fails its checksum."""


class JournalWarning(UserWarning):
    """A journal lost its unfinished last line, or was recovered from damage."""


class Journal(Protocol):
    """A shared list of events; `read` and `append` are called within `locked`."""

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Keeps other threads and processes out."""
        ...

    def read(self) -> tuple[bool, list[Event]]:
        """Events since the last `read`; True if they are to replace all before."""
        ...

    def append(self, events: Sequence[Event]) -> None:
        """Stores events durably, in one write, after all that have been read."""
        ...


class MemoryJournal:
    """A journal of this process only."""

    def __init__(self):
        self._lock = threading.RLock()
        self._unread: list[Event] = []

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        with self._lock:
            yield

    def read(self) -> tuple[bool, list[Event]]:
        events, self._unread = self._unread, []
        return False, events

    def append(self, events: Sequence[Event]) -> None:
        self._unread += [json.loads(_dumps(event)) for event in events]


def read_header(path: str | os.PathLike[str]) -> Event:
    """What the journal at `path` is of: the header that it was made with.

    Raises:
        JournalDamaged: If its first line fails its checksum.
        ValueError: If it is no regular file.
        OSError: If it cannot be read.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError(f"`journal` (={os.fspath(path)}) is not a regular file.")
    with open(path, "rb") as file:
        event = _parse(file.readline().rstrip(b"\n"))
    if event is None or event["event"] != "study":
        raise JournalDamaged(
            f"`journal` (={os.fspath(path)}) does not begin with the header of a study; "
            "restore the file from a copy."
        )
    return {k: v for k, v in event.items() if k not in ("n", "sum", "event", "format")}


class FileJournal:
    """JSON lines in a file, shared by threads and by processes on one file system.

    A line is one JSON object. `n` counts lines from 0, `event` names the kind and `sum`
    holds the first 16 hexadecimal digits of the SHA-256 of the line before it. Line 0
    is the header: what the journal is of. Lines are appended in one write, flushed to
    the disk, under a lock on a file beside the journal, and the file itself appears with
    its header by one rename; so a kill leaves whole lines and at most one unfinished
    last line, which is dropped with a warning and cut off before the next append.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        header: Event,
        *,
        recover: bool = False,
        exclusive: bool = False,
    ):
        """Opens the journal at `path`, or makes one.

        Args:
            path: The file; `<path>.lock` beside it is the lock.
            header: What the journal is of; must equal the header that is there.
            recover: Continue a damaged journal from its lines before the damage and the
                intact results (`tell` and `fail` lines) after it. The damaged file is
                kept as `<path>.damaged-1` (or 2, ...).
            exclusive: Take the journal over: what this process opened before, such as
                in an earlier run of a notebook's cell, reads on and writes no more.

        Raises:
            JournalDamaged: If a complete line fails its checksum and not `recover`.
            ValueError: If the header differs.

        Warns:
            JournalWarning: If an unfinished last line is dropped, or on recovery.
        """
        self._path = pathlib.Path(path).absolute()
        self._header = {"event": "study", "format": FORMAT, **header}
        self._thread_lock = threading.RLock()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file_lock = filelock.FileLock(
            f"{self._path}.lock", timeout=_LOCK_TIMEOUT_S, thread_local=False
        )
        self._warned_of = b""
        self._process = os.getpid()
        self._file = os.path.realpath(self._path)
        self._forget()
        with self.locked():
            if recover:
                self._recover()
            if self._is_new():
                self._replace([self._header])
            self.read()  # for its errors
            self._forget()
            self._takeover = _takeovers.get(self._file, 0) + exclusive
            _takeovers[self._file] = self._takeover

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        if self._process != os.getpid():  # its lock is that of its parent
            raise RuntimeError(
                f"The journal {self._path} was opened before this process was forked; "
                "open it once more here."
            )
        with self._thread_lock:
            try:
                self._acquire()
                yield
            finally:  # also where an interrupt came right after it was taken
                self._file_lock.release()

    def _acquire(self) -> None:
        try:
            self._file_lock.acquire()
        except filelock.Timeout as error:
            raise TimeoutError(
                f"The journal {self._path} was locked by another process for "
                f"{_LOCK_TIMEOUT_S:.0f} s; end the process that holds "
                f"{self._path.name}.lock, if it hangs."
            ) from error

    def read(self) -> tuple[bool, list[Event]]:
        with open(self._path, "rb") as file:
            status = os.fstat(file.fileno())
            restarted = status.st_ino != self._inode or status.st_size < self._end
            if restarted:
                self._forget()
                self._inode = status.st_ino
            file.seek(self._end)
            data = file.read()
        events = []
        while data:
            if b"\n" not in data:
                data = self._terminate_or_drop(data)
                continue
            line, _, data = data.partition(b"\n")
            event = _parse(line)
            if event is None or event["n"] != self._num_lines:
                raise self._damaged()
            if self._num_lines == 0:
                self._check_header(event)
            else:
                events.append(event)
            self._num_lines += 1
            self._end += len(line) + 1
        return restarted, events

    def append(self, events: Sequence[Event]) -> None:
        if self._takeover != _takeovers[self._file]:
            raise RuntimeError(
                f"The journal {self._path} was opened again in this process, by one who "
                "is to be its only user; use the newer object, this one only reads."
            )
        data = b"".join(_line(self._num_lines + i, e) for i, e in enumerate(events))
        with open(self._path, "r+b", buffering=0) as file:
            file.seek(self._end)
            if b"\n" in file.read():
                raise RuntimeError(
                    f"Lines of {self._path} were not read before writing."
                )
            try:
                file.seek(self._end)
                file.truncate()  # cuts an unfinished line off
                _write(file, data)
            except OSError:  # for one, a full disk
                file.truncate(self._end)
                raise

    def _forget(self) -> None:
        self._inode = -1
        self._end = 0  # of the last whole line, in bytes
        self._num_lines = 0

    def _is_new(self) -> bool:
        """Whether there is no file yet, or one that ends within our header."""
        if not self._path.exists():
            return True
        data = self._path.read_bytes()
        unfinished = _line(0, self._header)[:-1].startswith(data)
        if unfinished and data:
            self._warn_of_tail(data)
        return unfinished

    def _check_header(self, event: Event) -> None:
        theirs = {k: v for k, v in event.items() if k not in ("n", "sum")}
        differing = sorted(
            key
            for key in theirs.keys() | self._header.keys()
            if theirs.get(key) != self._header.get(key)
        )
        if differing:
            pairs = ", ".join(
                f"{key}: {theirs.get(key)!r} there, {self._header.get(key)!r} given"
                for key in differing
            )
            raise ValueError(
                f"`journal` (={self._path}) belongs to another study ({pairs}); give "
                "the study its settings, or another path."
            )

    def _terminate_or_drop(self, tail: bytes) -> bytes:
        """`tail` with its newline if only that is missing, else nothing."""
        if _parse(tail) is not None:
            with open(self._path, "ab") as file:
                _write(file, b"\n")
            return tail + b"\n"
        if self._num_lines == 0 or _parse(tail[:-1]) is not None:
            # Not of a kill: no journal at all, or another byte in a newline's place.
            raise self._damaged()
        self._warn_of_tail(tail)
        return b""

    def _warn_of_tail(self, tail: bytes) -> None:
        if tail != self._warned_of:
            self._warned_of = tail
            _warn(
                f"The last line of the journal {self._path} is unfinished ({len(tail)} "
                "bytes), as a kill leaves it; it is dropped."
            )

    def _damaged(self) -> JournalDamaged:
        return JournalDamaged(
            f"`journal` (={self._path}) is damaged in line {self._num_lines + 1}: it "
            "fails its checksum or is out of order. Restore the file from a copy, or "
            "open it with `recover=True`, which keeps it under another name and "
            "continues from the lines that are sound."
        )

    def _recover(self) -> None:
        """Replaces a damaged file by its sound part; leaves a sound one alone."""
        if self._is_new():
            return
        try:
            self.read()
            return
        except JournalDamaged:
            pass
        finally:
            good, num_good = self._end, self._num_lines
            self._forget()
        data = self._path.read_bytes()
        kept = [json.loads(line) for line in data[:good].splitlines()]
        sound = _sound(data[good:])
        later = [e for e in sound if e["event"] in _REPLAYABLE]
        headers = [e for e in sound if e["event"] == "study"] or [self._header]
        aside = self._copy_aside(data)
        self._replace([*(kept or headers[:1]), *later])
        _warn(
            f"The journal {self._path} is damaged in line {num_good + 1}. It is kept as "
            f"{aside.name}; the study goes on from the {num_good} lines before and "
            f"{len(later)} after the damage that are sound."
        )

    def _copy_aside(self, data: bytes) -> pathlib.Path:
        number = 1
        while True:
            aside = self._path.with_name(f"{self._path.name}.damaged-{number}")
            with contextlib.suppress(FileExistsError), open(aside, "xb") as file:
                _write(file, data)
                return aside
            number += 1

    def _replace(self, events: Sequence[Event]) -> None:
        """Writes the whole file anew: on disk under another name first, then renamed."""
        scratch = self._path.with_name(f".{self._path.name}.new")
        with open(scratch, "wb") as file:
            _write(file, b"".join(_line(i, event) for i, event in enumerate(events)))
        os.replace(scratch, self._path)
        if os.name == "posix":
            descriptor = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _dumps(event: Event) -> str:
    return json.dumps(event, separators=(",", ":"), allow_nan=False)


def _line(number: int, event: Event) -> bytes:
    content = {k: v for k, v in event.items() if k not in ("n", "sum")}
    body = _dumps({"n": number, **content}).encode()[:-1]
    return body + _SUM + _digest(body) + b'"}\n'


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest()[:16].encode()


def _parse(line: bytes) -> Event | None:
    """The event of a line without its newline, or None if its checksum fails."""
    body, end = line[:-_SUM_LENGTH], line[-_SUM_LENGTH:]
    if not body or end != _SUM + _digest(body) + b'"}':
        return None
    return json.loads(line)


def _sound(data: bytes) -> list[Event]:
    """Every event in `data` with a good checksum, also where newlines were lost."""
    found = []
    for start in re.finditer(rb'\{"n":', data):
        end = _END.search(data, start.start())
        event = _parse(data[start.start() : end.end()]) if end else None
        if event is not None:
            found.append(event)
    return found


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
