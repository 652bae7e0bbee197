"""A folder that belongs to one job with one set of settings."""

import contextlib
import json
import os
import pathlib
import weakref
from collections.abc import Sequence
from typing import Any

import filelock

from codesign.records.files import (
    StrPath,
    clear_unfinished,
    jsonable,
    parse_json,
    write_atomic,
)
from codesign.records.journal import read_header
from codesign.records.settings import differences

_OUTPUTS = (
    *("metrics.jsonl", "results.json", "report.html"),
    *("journal.jsonl", "checkpoints"),
)
# Locks that this process took, by its id, which a forked child does not share, and folder.
_ours: weakref.WeakValueDictionary[tuple[int, str], filelock.BaseFileLock] = (
    weakref.WeakValueDictionary()
)


def checked(workdir: StrPath) -> pathlib.Path:
    """`workdir` as a path, once it is sure that it is, or can be made, a folder.

    Raises:
        ValueError: Says what stands in its way.
    """
    if not isinstance(workdir, str | os.PathLike):
        raise ValueError(f"`workdir` must be a path, got {workdir!r}.")
    if not os.fspath(workdir).strip():
        raise ValueError("`workdir` is empty; name a folder, such as `runs/first`.")
    folder = pathlib.Path(workdir)
    try:
        os.stat(folder)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:  # a name too long, or with a null byte
        raise _unusable(folder, error) from error
    there = next(p for p in (folder, *folder.absolute().parents) if os.path.lexists(p))
    if not there.is_dir():
        kind = "a link to nowhere" if there.is_symlink() else "a file"
        raise ValueError(
            f"`workdir` (={folder}): {there} is {kind}; name a folder, or one to be made."
        )
    if not os.access(there, os.W_OK | os.X_OK):
        raise _unusable(folder, f"{there} may not be written to")
    return folder


def _unusable(workdir: pathlib.Path, why: object) -> ValueError:
    return ValueError(f"`workdir` (={workdir}) cannot be used: {why}; name another.")


def lock(
    workdir: pathlib.Path, held: contextlib.ExitStack | None = None
) -> filelock.BaseFileLock:
    """Makes `workdir` and keeps a second user out; a process that ends lets go.

    What killed processes left unfinished in it is deleted.

    Args:
        workdir: Folder.
        held: Lets go when it is closed, wherever an interrupt struck.

    Returns:
        What to `release`.

    Raises:
        ValueError: If another process, or another thread or call of this one, works
            there, or the folder cannot be made or written to.
    """
    checked(workdir)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(workdir, error) from error
    # Not of one thread: another one asks whether it is taken, and may release it.
    found = filelock.FileLock(workdir / ".lock", thread_local=False)
    if held is not None:  # before it is taken, since an interrupt may come right after
        held.callback(found.release)
    key = os.getpid(), os.path.realpath(workdir)
    try:
        found.acquire(timeout=0)
    except filelock.Timeout as error:
        ours = _ours.get(key)
        if ours is not None and ours.is_locked:
            raise ValueError(
                f"`workdir` (={workdir}) is in use by this process, in another thread or "
                "a call around this one; wait until it ends, or use another `workdir`."
            ) from error
        raise ValueError(
            f"`workdir` (={workdir}) is in use by another process; wait for it, or use "
            "another `workdir`."
        ) from error
    except OSError as error:
        raise _unusable(workdir, error) from error
    _ours[key] = found
    for folder, _, _ in os.walk(workdir):
        clear_unfinished(pathlib.Path(folder))
    return found


def check(
    owner: str,
    config: Any,
    workdir: pathlib.Path,
    record: pathlib.Path,
    formerly: Sequence[str] = (),
) -> None:
    """Checks that a job may work in `workdir`, by what is there.

    Args:
        owner: Name of the job.
        config: Dataclass of its settings; those declared as `grows` or `free` may differ.
        workdir: Folder.
        record: Journal of its finished work, whose header has owner and settings too.
        formerly: Files of earlier versions, which are not gone on with.

    Raises:
        ValueError: If the workdir is of another job or of other settings (shows each
            difference), or holds results and nothing that says what they are of.
    """
    for name in formerly:
        if (workdir / name).exists() and not record.exists():
            raise ValueError(
                f"`workdir` (={workdir}) holds {name} of an earlier version, which this "
                "one does not go on with; use another `workdir`."
            )
    if (workdir / "config.json").exists():
        _compare(owner, config, workdir)
    elif record.exists():
        read_header(record)  # it alone says what the results are of: it must be sound
    elif outputs := sorted(each.name for each in workdir.iterdir() if _is_output(each)):
        raise ValueError(
            f"`workdir` (={workdir}) holds {', '.join(outputs)}, but no config.json that "
            "says what they are of; use another `workdir`."
        )


def _compare(owner: str, config: Any, workdir: pathlib.Path) -> None:
    path = workdir / "config.json"
    if not path.is_file():
        raise ValueError(f"{path} is no file; use another `workdir`.")
    try:
        found = parse_json(path.read_bytes())
        theirs = found.pop("experiment", owner)
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged ({error}); restore it, or use another `workdir`."
        ) from error
    if theirs != owner:
        raise ValueError(
            f"`workdir` (={workdir}) is of {theirs}, not of {owner}; use another."
        )
    if lines := differences(config, found):
        raise ValueError(
            f"`workdir` (={workdir}) was made with other settings:\n  "
            + "\n  ".join(lines)
            + "\nUse another `workdir`, or the same settings to go on."
        )


def _is_output(path: pathlib.Path) -> bool:
    """Whether it is named as something that a job writes."""
    return path.name in _OUTPUTS or path.suffix in (".png", ".csv")


def write_settings(owner: str, config: Any, workdir: pathlib.Path) -> None:
    """Writes `config.json`."""
    content = {"experiment": owner, **jsonable(config)}
    write_atomic(workdir / "config.json", json.dumps(content, indent=2) + "\n")
