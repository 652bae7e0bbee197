"""The IDX format of MNIST and its relatives.

Two zero bytes, the type of the numbers, the number of dimensions, each dimension as a
big-endian 32-bit integer, and the numbers, last dimension fastest.
"""

import gzip
import math
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from codesign.data.augment import Augmentation
from codesign.data.checksums import KnownFile, check_bytes, check_size
from codesign.data.dataset import Split
from codesign.data.datasets import Source, register
from codesign.data.download import Distribution, locate

_UNSIGNED_BYTE = 0x08
_NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_SIZES = (47_040_016, 60_008, 7_840_016, 10_008)


def _registered(
    name: str,
    folders: tuple[str, ...],
    url: str,
    class_names: tuple[str, ...],
    md5: tuple[str, ...],
) -> Distribution:
    """Enters a data set that is published as MNIST is.

    `md5` gives, of each of `_NAMES`, the sum of the file and of its .gz on the server.
    """
    plain, compressed = zip(*(line.split() for line in md5), strict=True)
    distribution = Distribution(
        name=name,
        folders=folders,
        files=tuple(
            KnownFile(file, size, f"md5:{digest}")
            for file, size, digest in zip(_NAMES, _SIZES, plain, strict=True)
        ),
        gzipped=True,
        archive=None,
        downloads=tuple(
            KnownFile(f"{file}.gz", None, f"md5:{digest}")
            for file, digest in zip(_NAMES, compressed, strict=True)
        ),
        url=url,
    )
    source = Source(
        read=lambda data_dir: read_splits(locate(distribution, data_dir), distribution),
        class_names=class_names,
        augmentation=Augmentation(crop_padding=2),
        padded_size=32,
    )
    register(name, source)
    return distribution


MNIST = _registered(
    "mnist",
    ("MNIST/raw",),
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    tuple("0123456789"),
    (
        "6bbc9ace898e44ae57da46a324031adb f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "a25bea736e30d166cdddb491f175f624 d53e105ee54ea40749a09fcbcd1e9432",
        "2646ac647ad5339dbf082846283269ea 9fb629c4189551a2d022fa330f9573f3",
        "27ae3e4e09519cfbb04c329615203637 ec29112dd5afa0611ce80d1b7f02629c",
    ),
)
FASHION_MNIST = _registered(
    "fashion_mnist",
    ("fashion-mnist", "FashionMNIST/raw"),
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    (
        "f4a8712d7a061bf5bd6d2ca38dc4d50a 8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "9018921c3c673c538a1fc5bad174d6f9 25c81989df183df01b3e8a0aad5dffbe",
        "8181f5470baa50b63fa0f6fddb340f0a bef4ecab320f06d8554ea6380940ec79",
        "15d484375f8d13e6eb1aabb0c3f46965 bb300cfdad3c16e7a12a480ee83cd310",
    ),
)


def parse(data: bytes, where: str | Path) -> np.ndarray:
    """The array in the content of an IDX file.

    Args:
        data: Content, uncompressed.
        where: Name for errors.

    Returns:
        uint8, with the dimensions that the file states.

    Raises:
        ValueError: If it is not IDX, holds another type, or has too few or many bytes.
    """
    shape, header = _header(data, where)
    expected = KnownFile("the file its header tells of", header + math.prod(shape), "")
    check_size(len(data), expected, where)
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def _header(data: bytes, where: str | Path) -> tuple[list[int], int]:
    """Shape that the beginning of an IDX file states, and the bytes before its numbers.

    Raises:
        ValueError: If it is no header.
    """
    if len(data) < 4 or data[:2] != b"\0\0" or not data[3]:
        raise ValueError(
            f"{where} is no IDX file: it begins with {data[:4].hex(' ') or 'nothing'}, "
            "but two zero bytes, a type and a number of dimensions were expected."
        )
    if data[2] != _UNSIGNED_BYTE:
        raise ValueError(
            f"{where} holds numbers of type 0x{data[2]:02x}, but only unsigned bytes "
            f"(0x{_UNSIGNED_BYTE:02x}) can be read."
        )
    header = 4 + 4 * data[3]
    if len(data) < header:
        raise ValueError(
            f"{where} is cut short: it holds {len(data)} bytes, but its header of "
            f"{data[3]} dimensions has {header}."
        )
    return np.frombuffer(data, ">u4", count=data[3], offset=4).tolist(), header


def read(
    path: Path, known: KnownFile | None = None, *, most_bytes: int = 2**30
) -> np.ndarray:
    """Reads an IDX file, plain or gzipped by its ending.

    Args:
        path: The file.
        known: Size and checksum of its uncompressed content; None to check neither.
        most_bytes: Uncompressed; no more are read, whatever the file says.

    Returns:
        uint8, with the dimensions that the file states.

    Raises:
        ValueError: If it is damaged, larger than `most_bytes`, is not IDX, or is not
            `known`.
    """
    if known is not None and known.num_bytes is not None:
        most_bytes = known.num_bytes
    if path.suffix == ".gz":
        try:
            with gzip.open(path) as file:
                data = _bounded(file, path, most_bytes, known)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            size = path.stat().st_size
            expected = "" if known is None else f" with {known} inside"
            raise ValueError(
                f"{path} ({size:,} bytes) is cut short or no gzip file ({error}); "
                f"replace it with an undamaged copy{expected}."
            ) from error
    else:
        if known is not None:
            check_size(path.stat().st_size, known, path)
        with path.open("rb") as file:
            data = _bounded(file, path, most_bytes, known)
    if known is not None:
        check_bytes(data, known, path)
    return parse(data, path)


def _bounded(
    file: BinaryIO | gzip.GzipFile, path: Path, most: int, known: KnownFile | None
) -> bytes:
    """The content, or one byte more than is expected of a longer one, and no further."""
    if known is not None:
        return file.read(most + 1)
    head = file.read(4 + 4 * 255)
    shape, header = _header(head, path)
    expected = header + math.prod(shape)
    if expected > most:
        raise ValueError(
            f"{path} tells of {expected:,} bytes, more than `most_bytes` (={most:,}); "
            "raise it if you trust the file."
        )
    return head + file.read(max(0, expected + 1 - len(head)))


def read_splits(
    folder: Path, distribution: Distribution, num_classes: int = 10
) -> tuple[Split, Split]:
    """Reads the training and the test part of a set laid out like MNIST.

    Args:
        folder: Holds all `distribution.files`.
        distribution: Training images and labels, then test images and labels.
        num_classes: Labels are below it.

    Returns:
        Training and test part, images `[N, H, W, 1]`, in the order of the files.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is damaged, or images and labels do not fit.
    """
    arrays = []
    for known in distribution.files:
        path = distribution.find(folder, known)
        if path is None:
            raise FileNotFoundError(f"{folder} lacks {known}, plain or as .gz.")
        arrays.append(read(path, known))
    train_images, train_labels, test_images, test_labels = arrays
    splits = []
    for images, labels in ((train_images, train_labels), (test_images, test_labels)):
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise ValueError(
                f"{folder} holds images {list(images.shape)} and labels "
                f"{list(labels.shape)}, but [N, H, W] and [N] were expected."
            )
        if labels.size and labels.max() >= num_classes:
            raise ValueError(
                f"{folder} holds the label {labels.max()}, but the {num_classes} "
                f"classes of {distribution.name} are 0..{num_classes - 1}."
            )
        splits.append(Split(images=images[..., None], labels=labels.astype(np.int32)))
    return splits[0], splits[1]
