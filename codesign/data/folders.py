"""Folders of images: a folder for each class, or as Tiny ImageNet is laid out.

The common layout is `train/CLASS/FILE` with `val/CLASS/FILE` (or `test`) to test on; or
`CLASS/FILE` alone, of which a part is held out. Classes are in alphabetic order. Tiny
ImageNet lists its classes in `wnids.txt`, names them in `words.txt`, trains on
`train/WNID/images/FILE`, and tests on `val/images/FILE`, whose classes are in
`val/val_annotations.txt`. Files are taken in alphabetic order, and those whose names
begin with a dot are left out.
"""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from codesign.data.augment import Augmentation
from codesign.data.checksums import KnownFile
from codesign.data.dataset import Split
from codesign.data.datasets import DataDir, Source, register
from codesign.data.decode import decode
from codesign.data.download import Distribution, locate

_IMAGE_SIZE = 64  # of Tiny ImageNet
_WNIDS, _WORDS = "wnids.txt", "words.txt"
_ANNOTATIONS = "val/val_annotations.txt"

TINY_IMAGENET = Distribution(
    name="tiny_imagenet",
    folders=("tiny-imagenet-200",),
    files=(KnownFile(_WNIDS, None, ""), KnownFile(_ANNOTATIONS, None, "")),
    gzipped=False,
    archive=None,
    downloads=(),
    url="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
)

Files = list[tuple[Path, int]]  # images with their labels


@dataclasses.dataclass(frozen=True)
class Listing:
    """What a folder holds, before any image is read."""

    class_names: tuple[str, ...]  # in the order of the labels
    train: Files
    test: Files | None  # None where nothing is set apart to test on


def list_folder(path: str | os.PathLike[str]) -> Listing:
    """Finds the images of a folder and their classes.

    Args:
        path: A folder in one of the layouts above.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: Names the file, and the line in it, that does not fit: a class
            without images, an unknown class, something other than a folder of a class
            or a file of an image, or a link that leads out of the folder.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(
            f"{str(root)!r} is not an existing folder; give the one that holds `train`."
        )
    root = root.resolve()
    if (root / _WNIDS).is_file():
        return _list_tiny(root)
    parts = {e.name: Path(e.path) for e in _entries(root, root) if e.is_dir()}
    train = parts.get("train", root)
    names = [e.name for e in _entries(train, root) if e.is_dir() or train != root]
    if len(names) < 2:
        raise ValueError(
            f"{train} has {len(names)} classes, but at least 2 are needed: a folder for "
            "each, with images in it."
        )
    test = parts.get("val", parts.get("test")) if train != root else None
    labels = {name: label for label, name in enumerate(names)}
    test_files = None if test is None else _list_classes(test, labels, root)
    return Listing(tuple(names), _list_classes(train, labels, root), test_files)


def read_folder(
    path: str | os.PathLike[str], image_size: int = _IMAGE_SIZE
) -> tuple[Split, Split | None, tuple[str, ...]]:
    """Reads all images of a folder.

    Args:
        path: A folder in one of the layouts above.
        image_size: Pixels on each side, to which the middle of each image is scaled.

    Returns:
        The training part, the part to test on or None, images `[N, S, S, 3]`, and the
        names of the classes.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: As `list_folder` and `decode` raise it.
    """
    listing = list_folder(path)
    return *_read(listing, image_size), listing.class_names


def _read(listing: Listing, size: int) -> tuple[Split, Split | None]:
    parts = []
    for files in (listing.train, listing.test):
        if files is None:
            parts.append(None)
            continue
        images = decode([path for path, _ in files], size)
        parts.append(Split(images, np.array([label for _, label in files], np.int32)))
    return parts[0], parts[1]


def _entries(folder: Path, root: Path) -> list[os.DirEntry[str]]:
    """What lies in a folder, sorted by name; no link leads out of `root`."""
    with os.scandir(folder) as found:
        entries = sorted(
            (entry for entry in found if not entry.name.startswith(".")),
            key=lambda entry: entry.name,
        )
    for entry in entries:
        if entry.is_symlink():
            _check_inside(Path(entry.path), root)
    return entries


def _check_inside(path: Path, root: Path) -> None:
    if not path.resolve().is_relative_to(root):
        raise ValueError(
            f"{path} leads out of {root}, to {path.resolve()}; put the file itself there."
        )


def _check_folder(folder: Path, root: Path) -> Path:
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder of images; restore or remove it.")
    _check_inside(folder, root)
    return folder


def _list_images(folder: Path, root: Path) -> list[Path]:
    """The files of a folder that holds nothing else."""
    entries = _entries(_check_folder(folder, root), root)
    if not entries:
        raise ValueError(
            f"{folder} is empty; put images of that class in it, or remove the class."
        )
    for entry in entries:
        if entry.is_dir():
            raise ValueError(
                f"{entry.path} is a folder where an image was expected; move its images "
                "one level up."
            )
    return [Path(entry.path) for entry in entries]


def _list_classes(part: Path, labels: dict[str, int], root: Path) -> Files:
    """The images of `part`, which holds a folder for each class."""
    files = []
    for entry in _entries(part, root):
        if not entry.is_dir():
            if part == root:
                continue  # notes and licences lie beside the classes
            raise ValueError(f"{entry.path} is no folder of a class; remove it.")
        if entry.name not in labels:
            raise ValueError(
                f"{entry.path} is of a class that has no folder to train on; remove it, "
                f"or rename it to one of {', '.join(list(labels)[:5])}, ..."
            )
        images = _list_images(Path(entry.path), root)
        files += [(path, labels[entry.name]) for path in images]
    return files


def _list_tiny(root: Path) -> Listing:
    train_folder = _check_folder(root / "train", root)
    there = {entry.name for entry in _entries(train_folder, root)}
    labels = {}
    for number, line in _lines(root / _WNIDS, root):
        if line in labels or line not in there:
            raise ValueError(
                f"{root / _WNIDS}, line {number}: {line!r} is no new folder of "
                f"{train_folder}; give each class once, one a line, with its folder."
            )
        labels[line] = len(labels)
    words = {}
    if (root / _WORDS).is_file():
        for number, line in _lines(root / _WORDS, root):
            wnid, tab, name = line.partition("\t")
            if not tab:
                raise ValueError(
                    f"{root / _WORDS}, line {number}: {line!r} has no tab between a class "
                    "and its names; mend or remove it."
                )
            words[wnid] = name.split(",")[0]
    train = [
        (path, label)
        for wnid, label in labels.items()
        for path in _list_images(train_folder / wnid / "images", root)
    ]
    names = tuple(words.get(wnid, wnid) for wnid in labels)
    return Listing(names, train, _list_annotated(root, labels))


def _list_annotated(root: Path, labels: dict[str, int]) -> Files:
    """The images of `val`, each with the class that the annotations give it."""
    annotations, folder = root / _ANNOTATIONS, root / "val" / "images"
    classes = {}
    for number, line in _lines(annotations, root):
        cells = line.split("\t")
        if len(cells) < 2 or cells[1] not in labels or cells[0] in classes:
            raise ValueError(
                f"{annotations}, line {number}: {line!r} is not a new file, a tab and one "
                f"of the {len(labels)} classes of {_WNIDS}; mend or remove it."
            )
        classes[cells[0]] = (labels[cells[1]], number)
    images = _list_images(folder, root)
    for path in images:
        if path.name not in classes:
            raise ValueError(
                f"{path} has no line in {annotations}; add one, or remove the image."
            )
    if absent := sorted(set(classes) - {path.name for path in images}):
        raise ValueError(
            f"{annotations}, line {classes[absent[0]][1]}: there is no {absent[0]!r} in "
            f"{folder}; restore the image, or remove the line."
        )
    return [(path, classes[path.name][0]) for path in images]


def _lines(path: Path, root: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file, from 1, without their ends."""
    _check_inside(path, root)
    if not path.is_file():
        raise ValueError(f"{path} is missing; unpack the whole data set again.")
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if line or number == 1:
            try:
                yield number, line.decode().removesuffix("\r")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path}, line {number}: not UTF-8 ({error}); convert the file."
                ) from error


def _open_folder(path: DataDir, image_size: int | None) -> Source:
    """A folder of a user's own: nothing is augmented, as of arrays."""
    return _source(Path(path or "."), image_size, Augmentation())


def _open_tiny(data_dir: DataDir, image_size: int | None) -> Source:
    folder = locate(TINY_IMAGENET, data_dir)
    return _source(folder, image_size, Augmentation(crop_padding=4, flip=True))


def _source(path: Path, image_size: int | None, augmentation: Augmentation) -> Source:
    listing = list_folder(path)
    size = _IMAGE_SIZE if image_size is None else image_size
    return Source(
        read=lambda data_dir: _read(listing, size),
        class_names=listing.class_names,
        augmentation=augmentation,
        image_size=_IMAGE_SIZE,
    )


register("folder:", _open_folder)
register("tiny_imagenet", _open_tiny)
