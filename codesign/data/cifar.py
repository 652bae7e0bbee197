"""The binary version of CIFAR: records of label byte and red, green and blue planes.

The Python version consists of pickles, which can run code, and is never read.
"""

import gzip
import io
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from codesign.data.augment import Augmentation
from codesign.data.checksums import KnownFile, check_bytes, check_file, check_size
from codesign.data.dataset import Split
from codesign.data.datasets import Source, register
from codesign.data.download import Distribution, locate

_OTHERS_BYTES = 2**20  # of an archive: headers, and members that nobody reads
_IMAGE_SHAPE = (3, 32, 32)  # planes first in the file
_IMAGE_BYTES = 3 * 32 * 32
_BATCH_BYTES = 10_000 * (1 + _IMAGE_BYTES)

_ARCHIVE = KnownFile(
    "cifar-10-binary.tar.gz", 170_052_171, "md5:c32a1d4ab5d03f1284b67883e8d87530"
)
# Of the archive's members; the training batches, then the test batch.
_SHA256 = {
    "data_batch_1": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test_batch": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}
CIFAR10 = Distribution(
    name="cifar10",
    folders=("cifar-10-batches-bin",),
    files=tuple(
        KnownFile(f"{name}.bin", _BATCH_BYTES, f"sha256:{digest}")
        for name, digest in _SHA256.items()
    ),
    gzipped=False,
    archive=_ARCHIVE,
    downloads=(_ARCHIVE,),
    url="https://www.cs.toronto.edu/~kriz/",
)


def read_splits(
    folder: Path, distribution: Distribution = CIFAR10, num_classes: int = 10
) -> tuple[Split, Split]:
    """Reads the training and the test part.

    Args:
        folder: Holds all of `distribution.files`, or its archive. Reading the archive
            takes a few seconds more; extract it to save them.
        distribution: Training batches, then one test batch, with sizes and checksums.
        num_classes: Labels are below it.

    Returns:
        Training and test part, images `[N, 32, 32, 3]`, in the order of the files.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is damaged, or a label is not a class.
    """
    *train, test = (
        _parse(data, known.name, num_classes)
        for known, data in _contents(folder, distribution)
    )
    images = np.concatenate([split.images for split in train])
    labels = np.concatenate([split.labels for split in train])
    return Split(images=images, labels=labels), test


def _parse(data: bytes, name: str, num_classes: int) -> Split:
    """Records of one label byte and one image `[3, 32, 32]`."""
    if not data or len(data) % (1 + _IMAGE_BYTES):
        raise ValueError(
            f"{name} holds {len(data):,} bytes, but records of {1 + _IMAGE_BYTES:,} "
            "bytes were expected; replace it with an undamaged copy."
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, 1 + _IMAGE_BYTES)
    labels = records[:, 0].astype(np.int32)
    if labels.max() >= num_classes:
        raise ValueError(
            f"{name} holds the label {labels.max()}, but the {num_classes} classes are "
            f"0..{num_classes - 1}."
        )
    images = records[:, 1:].reshape(-1, *_IMAGE_SHAPE).transpose(0, 2, 3, 1)
    return Split(images=images, labels=labels)


def _contents(
    folder: Path, distribution: Distribution
) -> Iterator[tuple[KnownFile, bytes]]:
    """Each file and its checked content, in the order of `distribution.files`."""
    absent = [file for file in distribution.files if not (folder / file.name).is_file()]
    archive = distribution.archive
    if not absent:
        for known in distribution.files:
            path = folder / known.name
            check_size(path.stat().st_size, known, path)
            data = path.read_bytes()
            check_bytes(data, known, path)
            yield known, data
    elif archive is not None and (folder / archive.name).is_file():
        check_file(folder / archive.name, archive)
        members = _members(folder / archive.name, distribution)
        for known in distribution.files:
            yield known, members.pop(known.name)
    else:
        raise FileNotFoundError(f"{folder} lacks {', '.join(map(str, absent))}.")


def _members(path: Path, distribution: Distribution) -> dict[str, bytes]:
    """The files in an archive, by name. Nothing is extracted to disk.

    Only regular members, not sparse ones, with a known name, in the folder that the
    archive is published with or in none, are read at all, and no more is inflated than
    they and what may lie beside them can take.
    """
    known_files = {file.name: file for file in distribution.files}
    wanted = known_files | {
        f"{folder}/{name}": file
        for folder in distribution.folders
        for name, file in known_files.items()
    }
    most = _OTHERS_BYTES + sum(file.num_bytes or 0 for file in distribution.files)
    found = []
    try:
        with (
            gzip.open(path) as inflated,
            tarfile.open(fileobj=_Bounded(inflated, most), mode="r|") as archive,
        ):
            for member in archive:
                known = wanted.get(member.name.removeprefix("./"))
                if known is None or not member.isreg() or member.issparse():
                    continue
                file = archive.extractfile(member)
                assert file is not None  # it is a regular file
                found.append((known, f"{path}:{member.name}", file.read()))
    # A ValueError is tarfile's, of numbers in headers; those of ours come after.
    except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error) as error:
        raise ValueError(
            f"{path} is cut short or no .tar.gz archive ({error}); replace it with an "
            f"undamaged copy of {distribution.archive}."
        ) from error
    for known, where, data in found:
        check_bytes(data, known, where)
    contents = {known.name: data for known, _, data in found}
    if absent := [file for name, file in known_files.items() if name not in contents]:
        raise ValueError(
            f"{path} lacks {', '.join(map(str, absent))}; replace it with an undamaged "
            f"copy of {distribution.archive}."
        )
    return contents


class _Bounded(io.RawIOBase):
    """Reads from a file until it is longer than expected."""

    def __init__(self, file: gzip.GzipFile, most_bytes: int):
        self._file, self._left = file, most_bytes

    def read(self, size: int = -1) -> bytes:
        """As a file does; raises TarError where more than `most_bytes` are there."""
        data = self._file.read(
            min(size, self._left + 1) if size >= 0 else self._left + 1
        )
        self._left -= len(data)
        if self._left < 0:
            raise tarfile.TarError("it inflates to more than its files can take")
        return data


register(
    "cifar10",
    Source(
        read=lambda data_dir: read_splits(locate(CIFAR10, data_dir)),
        class_names=(
            *("airplane", "automobile", "bird", "cat", "deer"),
            *("dog", "frog", "horse", "ship", "truck"),
        ),
        augmentation=Augmentation(crop_padding=4, flip=True),
    ),
)
