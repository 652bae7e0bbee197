"""Data sets by name: each registers itself beside its reader; `load` reads any of them.

A new file in this folder that calls `register` is found by itself.
"""

import dataclasses
import os
from collections.abc import Callable

import numpy as np

from codesign.data import partition, resize
from codesign.data.augment import Augmentation
from codesign.data.dataset import Dataset, Split, channel_statistics
from codesign.types import is_whole

_MIN_IMAGE_SIZE = 8  # three halvings, as every network here makes at least
_MAX_IMAGE_SIZE = 4096  # a single image is then 48 MiB
_NOMINAL_IMAGE_SIZE = 32  # that `Augmentation.crop_padding` below refers to

DataDir = str | os.PathLike[str] | None


@dataclasses.dataclass(frozen=True)
class Source:
    """How to read one data set, and how to train on it.

    `read` takes `data_dir` and returns the training and the test part, images
    `[N, H, W, C]` in their own size; the latter is None where none is published.
    """

    read: Callable[[DataDir], tuple[Split, Split | None]]
    class_names: tuple[str, ...]  # in the order of the labels
    augmentation: Augmentation  # of 32x32 images; the crop shrinks with the image
    image_size: int = 32  # by default, pixels on each side
    padded_size: int | None = None  # size reached by a black border, not by scaling


# Finds out about a set that is not the same everywhere, given `data_dir` and the size
# of images that was asked for. Images are then read in that size.
Opener = Callable[[DataDir, int | None], Source]

_SOURCES: dict[str, Source | Opener] = {}


def register(name: str, source: Source | Opener) -> None:
    """Enters a data set, to be loaded by its name.

    Of a name that ends in a colon the rest is a path, which the opener gets as
    `data_dir`: `folder:` is for `load("folder:PATH")`.
    """
    _SOURCES[name] = source


def names() -> tuple[str, ...]:
    """Names of all data sets, sorted, without those that need a path."""
    return tuple(sorted(name for name in _SOURCES if not name.endswith(":")))


def load(
    name: str,
    *,
    data_dir: DataDir = None,
    image_size: int | None = None,
    num_train: int | None = None,
    num_validation: int | None = None,
    num_test: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Loads a data set, split into training, validation and test images.

    The splits are stratified and depend on `seed` alone. Smaller ones are the beginning
    of larger ones, and no size moves an example from one split to another. Where a test
    part is published it is the test split, and a tenth of the training part is held out
    for validation; `digits` is split 60 : 20 : 20.

    Args:
        name: One of `DATASETS`, or `folder:PATH` for a folder of images, laid out as
            `folders` says.
        data_dir: Folder with the published files. None for the folder in `CODESIGN_DATA`,
            else the cache, else a download. `digits` comes with scikit-learn and needs
            none; the path of a folder of images starts from here.
        image_size: Pixels on each side, at least 8; None for 32, or for 64 of folders of
            images and `tiny_imagenet`. Images of 28x28 pixels get a black border to
            become 32x32; all else is scaled bilinearly.
        num_train, num_validation, num_test: Size of each split; None for all there is.
        seed: Root of the split. Keep it when seeds of training vary.

    Returns:
        Images in memory, with the mean and deviation of the training split.

    Raises:
        ValueError: If an argument is out of its range, or a file is damaged.
        FileNotFoundError: If the files are not there and cannot be downloaded.
    """
    source = _source(name, data_dir, image_size)
    size = source.image_size if image_size is None else image_size
    if not is_whole(size) or not _MIN_IMAGE_SIZE <= size <= _MAX_IMAGE_SIZE:
        raise ValueError(
            f"`image_size` (={size!r}) must be a whole number >= {_MIN_IMAGE_SIZE} and <= "
            f"{_MAX_IMAGE_SIZE}; leave it out for {source.image_size}."
        )
    sizes = {"train": num_train, "validation": num_validation, "test": num_test}
    seed = partition.checked(sizes, seed)  # before reading, which may take seconds

    train, test = source.read(data_dir)
    test_labels = None if test is None else test.labels
    chosen = partition.partition(train.labels, test_labels, sizes, seed, name)
    splits = {}
    for part, (origin, indices) in chosen.items():
        whole = test if test is not None and origin == "test" else train
        taken = whole.take(indices)
        images = _fit(taken.images, int(size), source.padded_size)
        splits[part] = Split(images=images, labels=taken.labels)
    mean, std = channel_statistics(splits["train"].images)
    crop = source.augmentation.crop_padding * size / _NOMINAL_IMAGE_SIZE
    return Dataset(
        name=name,
        **splits,
        num_classes=len(source.class_names),
        mean=mean,
        std=std,
        augmentation=dataclasses.replace(source.augmentation, crop_padding=round(crop)),
        class_names=source.class_names,
    )


def _source(name: str, data_dir: DataDir, image_size: int | None) -> Source:
    kind, colon, path = name.partition(":") if isinstance(name, str) else ("", "", "")
    if kind + colon not in _SOURCES or bool(colon) != bool(path):
        raise ValueError(
            f"`name` (={name!r}) is no known data set; choose one of "
            f"{', '.join(names())}, or folder:PATH for images of your own."
        )
    source = _SOURCES[kind + colon]
    if isinstance(source, Source):
        return source
    where = os.path.join(data_dir or "", path) if colon else data_dir
    return source(where, image_size)


def _fit(images: np.ndarray, size: int, padded_size: int | None) -> np.ndarray:
    """Brings `[N, H, W, C]` images to `size`, with a border if that is `padded_size`."""
    if size == padded_size and max(images.shape[1:3]) <= size:
        return resize.pad(images, size)
    return resize.bilinear(images, size)
