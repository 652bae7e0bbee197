"""Who evaluates a trial, and whether that process still lives."""

import os
import pathlib
import socket
from typing import Any

Worker = dict[str, Any]  # as the journal stores it


def this_worker() -> Worker:
    """Identifies this process among all processes of all hosts.

    Returns:
        `host`, `namespace` (of process ids: a container has its own), `boot` (changes
        when the host restarts), `pid` and `start` (tells a process from a later one
        with the same id). What the platform does not say is "".
    """
    status = _status(os.getpid())
    return {
        "host": socket.gethostname(),
        "namespace": _link("/proc/self/ns/pid"),
        "boot": _text("/proc/sys/kernel/random/boot_id"),
        "pid": os.getpid(),
        "start": status[1] if status else "",
    }


def is_worker(value: Any) -> bool:
    """Whether `value` is of the form that `this_worker` gives."""
    pid = value.get("pid") if isinstance(value, dict) else None
    return isinstance(pid, int) and 0 <= pid < 2**31


def is_dead(worker: Worker, here: Worker | None = None) -> bool:
    """Whether a worker has certainly ended; False where this host cannot tell.

    Args:
        worker: As `this_worker` gave it there.
        here: `this_worker()`, where it is known.
    """
    here = here or this_worker()
    if any(worker.get(key) != here[key] for key in ("host", "namespace")):
        return False
    if worker.get("boot") != here["boot"]:
        return True
    pid = worker["pid"]
    if pid == here["pid"]:
        return worker.get("start") != here["start"]
    status = _status(pid)
    if status is not None:
        state, start = status
        return state in "ZX" or start != worker.get("start")
    if os.name != "posix":  # elsewhere, signal 0 would end the process
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # somebody else's process
        return False
    return False


def _status(pid: int) -> tuple[str, str] | None:
    """State and start time of a process, where /proc has them (fields 3 and 22)."""
    text = _text(f"/proc/{pid}/stat")
    if not text:
        return None
    fields = text.rpartition(")")[2].split()  # the name before may hold anything
    return fields[0], fields[19]


def _text(path: str) -> str:
    try:
        return pathlib.Path(path).read_text().strip()
    except OSError:
        return ""


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
