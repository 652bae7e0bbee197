"""Where the files of a data set are, or where they come from.

They are looked for in `data_dir`; without it in the folder named by the environment
variable `CODESIGN_DATA`, then in the user's cache folder. What is nowhere is downloaded
into the cache, unless `data_dir` was given.
"""

import dataclasses
import os
from pathlib import Path

from codesign.data.checksums import KnownFile

ENVIRONMENT_VARIABLE = "CODESIGN_DATA"


@dataclasses.dataclass(frozen=True)
class Distribution:
    """The files that a data set is published as."""

    name: str  # of the data set; also its folder in the cache
    folders: tuple[str, ...]  # names that a folder of these files commonly has
    files: tuple[KnownFile, ...]  # all needed
    gzipped: bool  # whether `NAME.gz` will do for each of them
    archive: KnownFile | None  # a .tar.gz file that will do instead of all of them
    downloads: tuple[KnownFile, ...]  # what to fetch; () where a person has to
    url: str  # folder on the server, ending in a slash; or where a person gets it

    def missing(self, folder: Path) -> list[KnownFile]:
        """Those of `files` that `folder` holds in no form; empty if it has the archive."""
        if self.archive and (folder / self.archive.name).is_file():
            return []
        return [file for file in self.files if self.find(folder, file) is None]

    def find(self, folder: Path, file: KnownFile) -> Path | None:
        """Where `folder` holds `file`, plain or compressed, or None."""
        names = [file.name, f"{file.name}.gz"] if self.gzipped else [file.name]
        paths = (folder / name for name in names)
        return next((path for path in paths if path.is_file()), None)


def locate(
    distribution: Distribution, data_dir: str | os.PathLike[str] | None = None
) -> Path:
    """The folder that holds all files of a distribution, downloaded if need be.

    Contents are not read here, except that a download is checked before it appears under
    its name, so an interrupted one leaves nothing behind that looks complete.

    Args:
        distribution: What to look for.
        data_dir: Folder to search, with its usual subfolders, instead of all others.

    Raises:
        FileNotFoundError: If `data_dir` or the folder in `CODESIGN_DATA` does not exist,
            if `data_dir` lacks a file, or if nothing was found and the download failed.
            Says what was searched, which files are needed and how to give them.
        ValueError: If a download is not the published file.
    """
    import pooch  # loads progress bars, which warn in a notebook without ipywidgets

    cache = Path(pooch.os_cache("codesign"))
    if data_dir is not None:
        roots = [_folder("data_dir", data_dir)]
    elif value := os.environ.get(ENVIRONMENT_VARIABLE):
        roots = [_folder(ENVIRONMENT_VARIABLE, value), cache]
    else:
        roots = [cache]
    for root in roots:
        for folder in _candidates(distribution, root):
            if not distribution.missing(folder):
                return folder
    if data_dir is not None or not distribution.downloads:
        raise FileNotFoundError(_advice(distribution, roots))
    target = cache / distribution.name
    _download(distribution, target, _advice(distribution, roots))
    return target


def _folder(name: str, value: str | os.PathLike[str]) -> Path:
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise ValueError(f"`{name}` must be a path, got {value!r}.")
    path = Path(value).expanduser().absolute()
    if not path.is_dir():
        raise FileNotFoundError(
            f"`{name}` (={os.fspath(value)!r}) is not an existing folder; give the one "
            "that holds the data set, or its parent."
        )
    return path


def _candidates(distribution: Distribution, root: Path) -> list[Path]:
    """Subfolders first: MNIST and Fashion-MNIST have files of the same names."""
    names = dict.fromkeys((distribution.name, *distribution.folders))
    return [*(root / name for name in names), root]


def _advice(distribution: Distribution, roots: list[Path]) -> str:
    """What was searched, what is needed, and how to give it."""
    files = ", ".join(map(str, distribution.files))
    text = (
        f"{distribution.name} is not in {' or '.join(map(str, roots))}. Needed: {files}"
    )
    if distribution.gzipped:
        text += ", each plain or as .gz"
    if distribution.archive:
        text += f"; or {distribution.archive}"
    folders = dict.fromkeys((*distribution.folders, distribution.name))
    text += f"; in that folder or in its subfolder {' or '.join(folders)}. "
    for folder in (f for root in roots for f in _candidates(distribution, root)):
        missing = distribution.missing(folder)
        if 0 < len(missing) < len(distribution.files):
            names = ", ".join(file.name for file in missing)
            text += f"{folder} has some, but lacks {names}. "
    if not distribution.downloads:
        text += f"Nothing downloads it: get it from {distribution.url} and unpack it. "
    return text + (
        "Give the folder as `data_dir` (--data_dir=DIR) or in the environment variable "
        f"{ENVIRONMENT_VARIABLE}."
    )


def _download(distribution: Distribution, target: Path, advice: str) -> None:
    """Fetches what is missing or damaged in `target`."""
    import pooch

    for file in distribution.downloads:
        url = distribution.url + file.name
        try:
            # Writes to a temporary file beside the target, checks it and renames it.
            pooch.retrieve(url, known_hash=file.digest, fname=file.name, path=target)
        except OSError as error:  # no network, no such page, no space, no permission
            raise FileNotFoundError(
                f"{advice} Downloading {url} to {target} failed: {error}"
            ) from error
        except ValueError as error:
            raise ValueError(
                f"{url} is not the published {file} with {file.digest}; nothing was "
                f"kept of it. {advice} The download said: {error}"
            ) from error
