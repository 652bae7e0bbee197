"""What may be the file of a journal, and who may write it."""

import errno
import os
import pathlib

from codesign.records.files import StrPath


def check(path: StrPath) -> None:
    """Checks that a journal may lie at `path`.

    Raises:
        ValueError: If something else than a regular file lies there, or a file that has a
            second name (a hard link): each name has its own lock.
    """
    if not os.path.exists(path):
        return
    if not os.path.isfile(path):
        raise ValueError(
            f"`journal` (={os.fspath(path)}) is not a regular file; name a file, or one "
            "that is not there yet."
        )
    if (num_names := os.stat(path).st_nlink) > 1:
        raise ValueError(
            f"`journal` (={os.fspath(path)}) is a file of {num_names} names (hard "
            "links), of which each would have its own lock; take the others away, or "
            "use a copy."
        )


def why_read_only(lock: pathlib.Path, path: pathlib.Path) -> OSError | None:
    """Why this user may not write a journal, or its lock; None if it may."""
    try:
        open(lock, "ab").close()
        if path.exists():
            open(path, "ab").close()
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        return error
    return None
