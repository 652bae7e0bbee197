"""Files with a known size and checksum, and errors that say how one differs."""

import dataclasses
import functools
import hashlib
import io
import os
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class KnownFile:
    """A published file, by content."""

    name: str  # as in the distribution, without a folder
    num_bytes: int | None  # None where nobody published the size
    digest: str  # `md5:...` or `sha256:...`, in hexadecimal; "" where never compared

    def __str__(self) -> str:
        size = "" if self.num_bytes is None else f" ({self.num_bytes:,} bytes)"
        return self.name + size


def check_size(num_bytes: int, known: KnownFile, where: str | os.PathLike) -> None:
    """Compares a size with the published one.

    Raises:
        ValueError: Names the file, its size and the expected one.
    """
    if known.num_bytes not in (None, num_bytes):
        state = "cut short" if num_bytes < known.num_bytes else "too long"
        raise ValueError(
            f"{where} is {state}: it holds {num_bytes:,} bytes, but {known.name} has "
            f"{known.num_bytes:,}; replace it with an undamaged copy."
        )


def check_bytes(data: bytes, known: KnownFile, where: str | os.PathLike) -> None:
    """Checks size, then checksum, of a file's content.

    Raises:
        ValueError: Names the file, what was found and what was expected.
    """
    check_size(len(data), known, where)
    _check_digest(io.BytesIO(data), known, where)


def check_file(path: Path, known: KnownFile) -> None:
    """Checks size, then checksum, of a file that is too large to hold in memory.

    Raises:
        ValueError: Names the file, what was found and what was expected.
    """
    check_size(path.stat().st_size, known, path)
    with path.open("rb") as file:
        _check_digest(file, known, path)


def has_digest(data: bytes, known: KnownFile) -> bool:
    """Whether a file's content has the published checksum."""
    return _digest(io.BytesIO(data), known) == known.digest.partition(":")[2]


def _digest(file: io.BytesIO | io.BufferedReader, known: KnownFile) -> str:
    """Checksum of what `file` holds, by the algorithm of the published one."""
    algorithm = known.digest.partition(":")[0]
    new = functools.partial(hashlib.new, algorithm, usedforsecurity=False)
    return hashlib.file_digest(file, new).hexdigest()


def _check_digest(
    file: io.BytesIO | io.BufferedReader, known: KnownFile, where: str | os.PathLike
) -> None:
    algorithm, _, expected = known.digest.partition(":")
    found = _digest(file, known)
    if found != expected:
        size = "" if known.num_bytes is None else f" of {known.num_bytes:,} bytes"
        raise ValueError(
            f"{where} is not the published {known.name}: its {algorithm} is {found}, "
            f"but {expected}{size} was expected; replace it with an undamaged copy."
        )
