"""Reads a file of a stranger: regular, and no longer than its format may be."""

import os
import stat

from codesign.records.files import StrPath


def read_bytes(path: StrPath, most: int) -> bytes:
    """The content of a file, which must be a regular one of at most `most` bytes.

    Raises:
        ValueError: If it is longer, or a folder, pipe or device: one that never ends.
        OSError: If it cannot be read.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)  # a pipe would wait for a writer
    with open(path, "rb", opener=lambda name, _: os.open(name, flags)) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(
                f"`path` (={path}) is no regular file; copy what it gives into one."
            )
        if found.st_size > most:
            raise ValueError(
                f"`path` (={path}) has {found.st_size} bytes; at most {most} are read."
            )
        return file.read(found.st_size)
