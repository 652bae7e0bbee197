import dataclasses
import functools
import gzip
import hashlib
import struct
import tracemalloc

import numpy as np
import pytest

from codesign.data import idx
from codesign.data.checksums import KnownFile
from tests import fuzzing


def _encode(array):
    header = struct.pack(">HBB", 0, 8, array.ndim)
    return header + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def _known(name, data):
    digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
    return KnownFile(name, len(data), f"md5:{digest}")


def _tiny(folder, compress=False, labels=(3, 1, 2)):
    """Writes three training and three test images; returns their distribution."""
    images = np.arange(3 * 4 * 4, dtype=np.uint8).reshape(3, 4, 4)
    arrays = (
        images,
        np.array(labels, np.uint8),
        images[::-1],
        np.array([0, 1, 9], "u1"),
    )
    files = []
    for known, array in zip(idx.MNIST.files, arrays, strict=True):
        data = _encode(np.ascontiguousarray(array))
        files.append(_known(known.name, data))
        path = folder / (f"{known.name}.gz" if compress else known.name)
        path.write_bytes(gzip.compress(data) if compress else data)
    return dataclasses.replace(idx.MNIST, files=tuple(files))


def test_parse_by_hand():
    data = bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 10, 11, 12, 13, 14, 15])
    result = idx.parse(data, "six")
    np.testing.assert_array_equal(result, [[10, 11, 12], [13, 14, 15]])
    assert result.dtype == np.uint8


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "six is no IDX file: it begins with nothing"),
        (b"\x1f\x8b\x08\x00abc", "six is no IDX file: it begins with 1f 8b 08 00"),
        (b"\0\0\x08\0", "six is no IDX file"),
        (b"\0\0\x0d\x01\0\0\0\x01\0\0\0\0", "six holds numbers of type 0x0d"),
        (b"\0\0\x08\x03\0\0\0\x01", r"six is cut short: it holds 8 bytes, .* has 16"),
        (b"\0\0\x08\x01\0\0\0\x05abc", r"six is cut short: it holds 11 bytes.* has 13"),
        (b"\0\0\x08\x01\0\0\0\x02abc", r"six is too long: it holds 11 bytes.* has 10"),
        # Dimensions that would overflow 64 bits.
        (b"\0\0\x08\x03" + b"\xff" * 12, "six is cut short"),
    ],
)
def test_parse_rejects(data, message):
    with pytest.raises(ValueError, match=message):
        idx.parse(data, "six")


@pytest.mark.parametrize("compress", [False, True])
def test_reads_both_parts(tmp_path, compress):
    train, test = idx.read_splits(tmp_path, _tiny(tmp_path, compress))
    assert train.images.shape == test.images.shape == (3, 4, 4, 1)
    np.testing.assert_array_equal(train.labels, [3, 1, 2])
    np.testing.assert_array_equal(test.labels, [0, 1, 9])
    np.testing.assert_array_equal(train.images[1, 0, :, 0], [16, 17, 18, 19])
    np.testing.assert_array_equal(test.images[0], train.images[2])


def test_truncated_file_names_sizes(tmp_path):
    tiny = _tiny(tmp_path)
    path = tmp_path / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    message = r"t10k-images-idx3-ubyte is cut short: it holds 63 bytes, .* has 64"
    with pytest.raises(ValueError, match=message):
        idx.read_splits(tmp_path, tiny)


@pytest.mark.parametrize("length", [0, 5, 30, -4])
def test_truncated_gzip_names_the_file(tmp_path, length):
    tiny = _tiny(tmp_path, compress=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:length])
    message = r"train-images-idx3-ubyte\.gz.*64"
    with pytest.raises(ValueError, match=message):
        idx.read_splits(tmp_path, tiny)


def test_gzip_of_garbage_and_of_too_much(tmp_path):
    tiny = _tiny(tmp_path, compress=True)
    path = tmp_path / "train-labels-idx1-ubyte.gz"
    path.write_bytes(b"no gzip at all")
    with pytest.raises(ValueError, match=r"train-labels.*no gzip file"):
        idx.read_splits(tmp_path, tiny)
    path.write_bytes(
        gzip.compress(bytes(10**6))
    )  # only its first 12 bytes are inflated
    with pytest.raises(ValueError, match=r"train-labels.*too long: it holds 12 bytes"):
        idx.read_splits(tmp_path, tiny)


def test_flipped_bit_names_both_checksums(tmp_path):
    tiny = _tiny(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    found = hashlib.md5(data, usedforsecurity=False).hexdigest()
    expected = tiny.files[0].digest.removeprefix("md5:")
    with pytest.raises(ValueError, match=rf"{found}, but {expected} of 64 bytes"):
        idx.read_splits(tmp_path, tiny)


def test_labels_must_fit_images_and_classes(tmp_path):
    with pytest.raises(ValueError, match=r"images \[3, 4, 4\] and labels \[2\]"):
        idx.read_splits(tmp_path, _tiny(tmp_path, labels=(1, 2)))
    with pytest.raises(ValueError, match=r"the label 10, but the 10 classes of mnist"):
        idx.read_splits(tmp_path, _tiny(tmp_path, labels=(1, 2, 10)))


def test_missing_file(tmp_path):
    tiny = _tiny(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"lacks train-labels-idx1-ubyte \(11 b"
    ):
        idx.read_splits(tmp_path, tiny)


def test_published_sizes_follow_from_the_format():
    # A header of 4 bytes and 4 a dimension, then a byte a number.
    sizes = [file.num_bytes for file in idx.FASHION_MNIST.files]
    assert sizes == [16 + 60_000 * 784, 8 + 60_000, 16 + 10_000 * 784, 8 + 10_000]


@pytest.mark.parametrize("compress", [False, True])
def test_a_file_is_read_no_further_than_its_header_and_the_bound_allow(
    tmp_path, compress
):
    path = tmp_path / ("numbers.gz" if compress else "numbers")

    def peak(data, message, **bound):
        path.write_bytes(gzip.compress(data) if compress else data)
        tracemalloc.start()
        try:
            with pytest.raises(ValueError, match=message):
                idx.read(path, **bound)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    ten = _encode(np.zeros(10, np.uint8))
    bomb = bytes(5 * 10**7)
    assert peak(ten + bomb, r"too long: it holds [\d,]+ bytes, .* has 18") < 2**20
    assert peak(bomb, "is no IDX file") < 2**20
    whole = _encode(np.zeros(100, np.uint8))
    message = r"tells of 108 bytes, more than `most_bytes` \(=107\)"
    assert peak(whole, message, most_bytes=107) < 2**20
    assert idx.read(path, most_bytes=108).shape == (100,)
    huge = struct.pack(">HBB3I", 0, 8, 3, 2**20, 2**10, 2**10)  # a TiB in 16 bytes
    assert peak(huge, r"tells of 1,099,511,627,792 bytes") < 2**20


@pytest.mark.slow
@pytest.mark.parametrize("is_known", [False, True])
@pytest.mark.parametrize("name", ["numbers", "numbers.gz"])
def test_mutations_are_refused_or_hold_what_they_say(tmp_path, name, is_known):
    array = np.arange(3 * 4 * 4, dtype=np.uint8).reshape(3, 4, 4)
    data = _encode(array)
    known = _known(name, data) if is_known else None
    path = tmp_path / name
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix else data)

    def is_sound(found):
        if is_known or path.suffix:  # there is a checksum
            return found.dtype == np.uint8 and np.array_equal(found, array)
        return _encode(found) == path.read_bytes()

    read = functools.partial(idx.read, known=known)
    assert fuzzing.check(read, path, accepts=is_sound) < 300
