"""A folder that belongs to one job with one set of settings."""

import json
import pathlib
from typing import Any

import filelock

from codesign.records.files import jsonable, write_atomic
from codesign.records.settings import differences


def lock(workdir: pathlib.Path) -> filelock.BaseFileLock:
    """Makes `workdir` and keeps a second process out; a process that ends lets go.

    Raises:
        ValueError: If another process works there.
        OSError: If the folder cannot be made.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    found = filelock.FileLock(workdir / ".lock")
    try:
        found.acquire(timeout=0)
    except filelock.Timeout as error:
        raise ValueError(
            f"`workdir` (={workdir}) is in use by another process; wait for it, or use "
            "another `workdir`."
        ) from error
    return found


def check_settings(config: Any, workdir: pathlib.Path) -> None:
    """Compares settings with the `config.json` that is there, if there is one.

    Args:
        config: Dataclass of settings; those declared as `grows` or `free` may differ.
        workdir: Folder, which need not exist.

    Raises:
        ValueError: If the workdir was made with other settings; shows each difference.
    """
    path = workdir / "config.json"
    if not path.exists():
        return
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}); restore it, or use another `workdir`."
        ) from error
    if lines := differences(config, found):
        raise ValueError(
            f"`workdir` (={workdir}) was made with other settings:\n  "
            + "\n  ".join(lines)
            + "\nUse another `workdir`, or the same settings to go on."
        )


def write_settings(config: Any, workdir: pathlib.Path) -> None:
    """Writes `config.json`."""
    write_atomic(workdir / "config.json", json.dumps(jsonable(config), indent=2) + "\n")
