"""Finds data files, checks them against published checksums, or downloads them."""

import dataclasses
import gzip
import hashlib
import os
import pathlib
import urllib.error

import pooch

_ENVIRONMENT_VARIABLE = "CODESIGN_DATA"


@dataclasses.dataclass(frozen=True)
class File:
    """One file of a data set.

    Attributes:
        name: Name without a `.gz` ending.
        num_bytes: Size, uncompressed; None if not known.
        checksum: `md5:...` or `sha256:...` of the uncompressed content; may be empty.
    """

    name: str
    num_bytes: int | None = None
    checksum: str = ""


def read(directory: pathlib.Path, file: File) -> bytes:
    """Content of `file` in `directory`, stored plain or as `.gz`.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it is truncated, of another size, or fails its checksum; names
            the file, what was found and what was expected.
    """
    path = next(
        (
            p
            for p in (directory / file.name, directory / f"{file.name}.gz")
            if p.exists()
        ),
        None,
    )
    if path is None:
        raise FileNotFoundError(
            f"{directory / file.name} is missing (plain or .gz)"
            + (f"; {file.num_bytes} bytes are expected." if file.num_bytes else ".")
        )
    content = path.read_bytes()
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError) as error:
            raise ValueError(
                f"{path} is truncated or damaged ({error}); "
                f"{_expected(file)} after decompression. Get it again."
            ) from error
    check(path, content, file)
    return content


def check(path: pathlib.Path, content: bytes, file: File) -> None:
    """Compares size and checksum of `content`, read from `path`, with `file`'s.

    Raises:
        ValueError: If they differ.
    """
    if file.num_bytes is not None and len(content) != file.num_bytes:
        raise ValueError(
            f"{path} has {len(content)} bytes, {_expected(file)}: it is truncated or "
            "another file. Get it again."
        )
    if file.checksum:
        algorithm, _, wanted = file.checksum.partition(":")
        found = hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()
        if found != wanted:
            raise ValueError(
                f"{path} has the {algorithm} {found}, expected {wanted} "
                f"({len(content)} bytes): it is damaged or another file. Get it again."
            )


def _expected(file: File) -> str:
    return f"{file.num_bytes} expected" if file.num_bytes else "size unknown"


def locate(
    dataset: str,
    data_dir: str | os.PathLike[str] | None,
    candidates: tuple[str, ...],
    wanted: str,
    downloads: tuple[tuple[str, str], ...],
) -> pathlib.Path:
    """The folder that holds a data set's files.

    Searched are `data_dir`, else the folder that $CODESIGN_DATA names; neither is ever
    replaced by a download. Without them it is the user's cache, filled from
    `downloads` when it is empty.

    Args:
        dataset: Its name, for messages.
        data_dir: Folder given by the user, or None.
        candidates: Paths below that folder, of a file or folder whose presence shows
            that the set is there.
        wanted: What to say that is needed.
        downloads: (URL, `md5:...` of the file) pairs.

    Raises:
        FileNotFoundError: Says where it looked, what is needed and how to give it.
    """
    given = data_dir or os.environ.get(_ENVIRONMENT_VARIABLE)
    source = "`data_dir`" if data_dir else f"${_ENVIRONMENT_VARIABLE}"
    root = pathlib.Path(given) if given else pathlib.Path(pooch.os_cache("codesign"))
    for candidate in candidates:
        if (root / candidate).exists():
            return (root / candidate).parent
    help_text = (
        f"{dataset!r} needs {wanted}. Put them there, or name another folder by "
        f"--data_dir or ${_ENVIRONMENT_VARIABLE}."
    )
    if given:
        state = "has none of" if root.is_dir() else "does not exist; it should hold"
        raise FileNotFoundError(
            f"{source} (={root}) {state} {', '.join(candidates)}. {help_text}"
        )
    folder = root / dataset
    for url, checksum in downloads:
        try:
            pooch.retrieve(url, checksum, path=folder, fname=url.rsplit("/", 1)[-1])
        except (OSError, ValueError, urllib.error.URLError) as error:
            raise FileNotFoundError(
                f"{root} has none of {', '.join(candidates)}, and downloading {url} "
                f"failed ({type(error).__name__}: {error}). {help_text}"
            ) from error
    return folder
