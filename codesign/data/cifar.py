"""The binary version of CIFAR: records of label bytes and red, green and blue planes.

The Python version consists of pickles, which can run code, and is never read.
"""

import gzip
import io
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from absl import logging

from codesign.data.augment import Augmentation
from codesign.data.checksums import (
    KnownFile,
    check_bytes,
    check_file,
    check_size,
    has_digest,
)
from codesign.data.dataset import Split
from codesign.data.datasets import Source, register
from codesign.data.download import Distribution, locate

_OTHERS_BYTES = 2**20  # of an archive: headers, and members that nobody reads
_IMAGE_SHAPE = (3, 32, 32)  # planes first in the file
_IMAGE_BYTES = 3 * 32 * 32
_BATCH_BYTES = 10_000 * (1 + _IMAGE_BYTES)
_URL = "https://www.cs.toronto.edu/~kriz/"

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
    url=_URL,
)

_ARCHIVE_100 = KnownFile(
    "cifar-100-binary.tar.gz", 168_513_733, "md5:03b5dce01913d631647c71ecec9e9cb8"
)
_RECORD_BYTES_100 = 2 + _IMAGE_BYTES  # the coarse label, then the fine one
CIFAR100 = Distribution(
    name="cifar100",
    folders=("cifar-100-binary",),
    files=(
        KnownFile(
            "train.bin",
            50_000 * _RECORD_BYTES_100,
            "sha256:f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29",
        ),
        KnownFile(
            "test.bin",
            10_000 * _RECORD_BYTES_100,
            "sha256:d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a",
        ),
    ),
    gzipped=False,
    archive=_ARCHIVE_100,
    downloads=(_ARCHIVE_100,),
    url=_URL,
)


def read_splits(
    folder: Path,
    distribution: Distribution = CIFAR10,
    num_classes: tuple[int, ...] = (10,),
    *,
    label_byte: int = -1,
    strict: bool = True,
) -> tuple[Split, Split]:
    """Reads the training and the test part.

    Args:
        folder: Holds all of `distribution.files`, or its archive. Reading the archive
            takes a few seconds more; extract it to save them.
        distribution: Training batches, then one test batch, with sizes and checksums.
        num_classes: For each label byte of a record, in order, how many classes it
            tells apart: (10,) of CIFAR-10, (20, 100) of CIFAR-100.
        label_byte: Which of these bytes is the label; -1 for the last, the finest.
        strict: Whether a file of the right size but another checksum is refused. If
            not, it is read, and one warning names all such files. An archive as a
            whole is always checked.

    Returns:
        Training and test part, images `[N, 32, 32, 3]`, in the order of the files.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is damaged, or a label is not a class.
    """
    *train, test = (
        _parse(data, known.name, num_classes, label_byte)
        for known, data in _contents(folder, distribution, strict)
    )
    images = np.concatenate([split.images for split in train])
    labels = np.concatenate([split.labels for split in train])
    return Split(images=images, labels=labels), test


def _parse(
    data: bytes, name: str, num_classes: tuple[int, ...], label_byte: int
) -> Split:
    """Records of label bytes and one image `[3, 32, 32]`."""
    num_labels = len(num_classes)
    size = num_labels + _IMAGE_BYTES
    if not data or len(data) % size:
        raise ValueError(
            f"{name} holds {len(data):,} bytes, but records of {size:,} "
            "bytes were expected; replace it with an undamaged copy."
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, size)
    for labels, num in zip(records.T, num_classes, strict=False):
        if labels.max() >= num:
            raise ValueError(
                f"{name} holds the label {labels.max()}, but the {num} classes are "
                f"0..{num - 1}; replace it with an undamaged copy."
            )
    labels = records[:, :num_labels][:, label_byte].astype(np.int32)
    images = records[:, num_labels:].reshape(-1, *_IMAGE_SHAPE).transpose(0, 2, 3, 1)
    return Split(images=images, labels=labels)


def _contents(
    folder: Path, distribution: Distribution, strict: bool
) -> Iterator[tuple[KnownFile, bytes]]:
    """Each file and its checked content, in the order of `distribution.files`."""
    absent = [file for file in distribution.files if not (folder / file.name).is_file()]
    archive = distribution.archive
    if not absent:
        others = []
        for known in distribution.files:
            path = folder / known.name
            check_size(path.stat().st_size, known, path)
            data = path.read_bytes()
            if strict:
                check_bytes(data, known, path)
            elif not has_digest(data, known):
                others.append(str(path))
            yield known, data
        if others:
            logging.warning(
                "%s: of the published size, but of another checksum, so accuracies may "
                "differ from those on the published %s.",
                " and ".join(others),
                distribution.name,
            )
    elif archive is not None and (folder / archive.name).is_file():
        check_file(folder / archive.name, archive)
        members = _members(folder / archive.name, distribution, strict)
        for known in distribution.files:
            yield known, members.pop(known.name)
    else:
        raise FileNotFoundError(f"{folder} lacks {', '.join(map(str, absent))}.")


def _members(path: Path, distribution: Distribution, strict: bool) -> dict[str, bytes]:
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
        if strict:
            check_bytes(data, known, where)
        else:
            check_size(len(data), known, where)
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


_FINE = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach
couch crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster
house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear
pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road
rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip
turtle wardrobe whale willow_tree wolf woman worm
"""
register(
    "cifar100",
    Source(
        read=lambda data_dir: read_splits(
            locate(CIFAR100, data_dir), CIFAR100, (20, 100), strict=False
        ),
        class_names=tuple(_FINE.split()),
        augmentation=Augmentation(crop_padding=4, flip=True),
    ),
)
