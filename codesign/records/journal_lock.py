"""Keeps other threads and processes from a journal."""

import contextlib
import os
import pathlib
import threading
from collections.abc import Iterator

import filelock

_TIMEOUT_S = 600.0
_POLL_S = 0.002


class JournalLock:
    """A lock on `<path>.lock`, which one thread of one process holds at a time.

    A user who may only read the journal keeps only the other threads out.
    """

    def __init__(self, path: pathlib.Path, *, is_read_only: bool):
        self._path, self._is_read_only = path, is_read_only
        self._threads = threading.RLock()
        self._file = filelock.FileLock(
            f"{path}.lock",
            timeout=_TIMEOUT_S,
            poll_interval=_POLL_S,
            thread_local=False,
        )
        self._process = os.getpid()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Holds the lock; the thread that has it may take it again.

        Raises:
            RuntimeError: In a process that was forked from the one that made the lock.
            TimeoutError: If others hold it for ten minutes.
        """
        if self._process != os.getpid():  # it is that of the parent
            raise RuntimeError(
                f"The journal {self._path} was opened before this process was forked; "
                "open it once more here."
            )
        is_nested = self._threads._is_owned()  # pyright: ignore[reportAttributeAccessIssue]
        with self._threads:
            try:
                if not is_nested:
                    self._let_go()  # of what an interrupt of an earlier use left
                if not self._is_read_only:
                    self._acquire()
                yield
            finally:  # also where an interrupt came right after it was taken
                if is_nested:
                    self._file.release()
                else:
                    self._let_go()

    def _acquire(self) -> None:
        try:
            self._file.acquire()
        except filelock.Timeout as error:
            raise TimeoutError(
                f"The journal {self._path} was locked by another process for "
                f"{self._file.timeout:.0f} s; end the process that holds "
                f"{self._path.name}.lock, if it hangs."
            ) from error

    def _let_go(self) -> None:
        """Frees the file, however often it counts as taken."""
        try:
            self._file.release(force=True)
        except BaseException:  # an interrupt just now
            self._file.release(force=True)
            raise
