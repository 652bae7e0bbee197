"""A folder that belongs to one job with one set of settings."""

import json
import pathlib
from typing import Any

import filelock

from codesign.records.files import jsonable, write_atomic


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
    """Writes `config.json`, or compares with the one that is there.

    Args:
        config: Dataclass of settings.
        workdir: Folder, which must exist.

    Raises:
        ValueError: If the workdir was made with other settings; shows each difference.
    """
    path = workdir / "config.json"
    wanted = jsonable(config)
    if not path.exists():
        write_atomic(path, json.dumps(wanted, indent=2) + "\n")
        return
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}); restore it, or use another `workdir`."
        ) from error
    found, wanted = _flat(found), _flat(wanted)
    differences = [
        f"  {name}: {found.get(name)!r} there, {wanted.get(name)!r} now"
        for name in sorted(found.keys() | wanted.keys())
        if found.get(name) != wanted.get(name)
    ]
    if differences:
        raise ValueError(
            f"`workdir` (={workdir}) was made with other settings:\n"
            + "\n".join(differences)
            + "\nUse another `workdir`, or the same settings to go on."
        )


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix[:-1]: tree}
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.")
    return flat
