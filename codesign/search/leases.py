"""What was handed out and since when, and what of it is lost."""

import time
from collections.abc import Iterable
from typing import Any, Protocol, TypeVar

from codesign.search import checks, worker
from codesign.search.worker import Worker

Key = tuple[str | int, float | None]  # of a lease: what was handed out, and when


class Lease(Protocol):
    """Something that was handed out."""

    @property
    def worker(self) -> Worker | None:
        """To whom."""
        ...

    @property
    def asked_at(self) -> float | None:
        """When, by the wall clock, in seconds since the epoch."""
        ...

    @property
    def clock(self) -> float | None:
        """When, by the monotonic clock of the worker's host; None if not known."""
        ...

    @property
    def key(self) -> Key:
        """Tells the lease from all others."""
        ...


_Lease = TypeVar("_Lease", bound=Lease)


def begun() -> dict[str, Any]:
    """A lease of this process that begins now, as the journal stores it."""
    clock = round(time.monotonic(), 3)
    return {"worker": worker.this_worker(), "time": time.time(), "clock": clock}


class Leases:
    """Decides which leases are lost.

    Attributes:
        orphans: Leases that nobody works on, whatever their worker does.
    """

    def __init__(self, lease_s: float):
        """Gives each lease so many seconds.

        Raises:
            ValueError: If it is no positive number.
        """
        lease_s = checks.checked_float("lease_s", lease_s)
        if not lease_s > 0:
            raise ValueError(f"`lease_s` must be positive, got {lease_s}.")
        self._lease_s = lease_s
        self.orphans: set[Key] = set()

    def lost(self, held: Iterable[_Lease]) -> list[_Lease]:
        """Those whose worker has ended, takes too long, or works on something else."""
        here = worker.this_worker()
        return [
            lease
            for lease in held
            if lease.key in self.orphans
            or _age_s(lease, here) > self._lease_s
            or worker.is_dead(lease.worker or {}, here)
        ]


def _age_s(lease: Lease, here: Worker) -> float:
    """For how long it has been held, at least 0.

    On this host since it started the monotonic clock decides, which all of its processes
    share and nobody sets. Of other hosts it is the wall clock, by which what lies in the
    future was handed out just now.
    """
    theirs = lease.worker or {}
    is_here = all(theirs.get(key) == here[key] for key in ("host", "boot"))
    if is_here and lease.clock is not None:
        return max(time.monotonic() - lease.clock, 0.0)
    return max(time.time() - (lease.asked_at or 0.0), 0.0)
