import dataclasses
import functools
import gzip
import hashlib
import io
import tarfile
import tracemalloc

import numpy as np
import pytest

from codesign.data import cifar
from codesign.data.checksums import KnownFile
from tests import fuzzing

_NAMES = [file.name for file in cifar.CIFAR10.files]


def _known(name, data, algorithm="sha256"):
    digest = hashlib.new(algorithm, data, usedforsecurity=False).hexdigest()
    return KnownFile(name, len(data), f"{algorithm}:{digest}")


def _contents():
    """Two records a file: labels 2i and 2i + 1 (mod 10), random pixels."""
    rng = np.random.default_rng(0)
    contents = {}
    for i, name in enumerate(_NAMES):
        records = rng.integers(0, 256, (2, 3073)).astype(np.uint8)
        records[:, 0] = [2 * i % 10, (2 * i + 1) % 10]
        contents[name] = records.tobytes()
    return contents


def _distribution(contents, archive=None):
    files = tuple(_known(name, data) for name, data in contents.items())
    return dataclasses.replace(cifar.CIFAR10, files=files, archive=archive)


def _folder(tmp_path, contents):
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


def _archive(tmp_path, members):
    """Writes (name, data or name of a type) pairs; returns the archive's description."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = getattr(tarfile, content), "/etc/hostname"
                archive.addfile(info)
    path = tmp_path / cifar.CIFAR10.archive.name
    path.write_bytes(stream.getvalue())
    return _known(path.name, stream.getvalue(), "md5")


def test_record_by_hand(tmp_path):
    # Label 7; plane after plane, row after row: red 1 at (0, 1), green 2 at (1, 0),
    # blue 3 at (31, 31).
    record = np.zeros(3073, np.uint8)
    record[0], record[1 + 1], record[1 + 1024 + 32], record[3072] = 7, 1, 2, 3
    contents = _contents() | {_NAMES[0]: record.tobytes()}
    folder = _folder(tmp_path, contents)
    train, test = cifar.read_splits(folder, _distribution(contents))
    assert train.images.shape == (1 + 4 * 2, 32, 32, 3)
    assert test.images.shape == (2, 32, 32, 3)
    assert train.labels[0] == 7
    image = train.images[0]
    assert (image[0, 1, 0], image[1, 0, 1], image[31, 31, 2]) == (1, 2, 3)
    assert image.sum() == 6


_TWO_LABELS = ("train.bin", "test.bin")


def _two_labels(fine=(99, 0), coarse=(19, 0)):
    """Two records a file, of a coarse label, a fine one and random pixels."""
    rng = np.random.default_rng(0)
    records = rng.integers(0, 256, (2, 3074)).astype(np.uint8)
    records[:, 0], records[:, 1] = coarse, fine
    return dict.fromkeys(_TWO_LABELS, records.tobytes())


def _distribution_100(contents):
    files = tuple(_known(name, data) for name, data in contents.items())
    return dataclasses.replace(cifar.CIFAR100, files=files, archive=None)


def _read_100(tmp_path, contents, published=None, **settings):
    distribution = _distribution_100(published or contents)
    folder = _folder(tmp_path, contents)
    return cifar.read_splits(folder, distribution, (20, 100), **settings)


def test_two_label_bytes_by_hand(tmp_path):
    # Coarse 3, fine 42; red 1 at (0, 1), blue 3 at (31, 31).
    record = np.zeros(3074, np.uint8)
    record[:2], record[2 + 1], record[3073] = (3, 42), 1, 3
    contents = _two_labels() | {"train.bin": record.tobytes()}
    train, test = _read_100(tmp_path, contents)
    assert train.labels.tolist() == [42]
    assert test.labels.tolist() == [99, 0]
    image = train.images[0]
    assert (image[0, 1, 0], image[31, 31, 2], image.sum()) == (1, 3, 4)
    coarse, _ = _read_100(tmp_path, contents, label_byte=0)
    assert coarse.labels.tolist() == [3]
    np.testing.assert_array_equal(coarse.images, train.images)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"fine": (100, 0)}, r"the label 100, but the 100 classes are 0\.\.99"),
        ({"coarse": (0, 20)}, r"the label 20, but the 20 classes are 0\.\.19"),
    ],
)
def test_both_labels_are_checked(tmp_path, labels, message):
    with pytest.raises(ValueError, match=rf"train\.bin holds {message}"):
        _read_100(tmp_path, _two_labels(**labels))


def test_another_checksum_is_refused_or_told_of_once(tmp_path, caplog):
    published = _two_labels()
    contents = {name: data[:-1] + b"?" for name, data in published.items()}
    with pytest.raises(ValueError, match=r"not the published train\.bin"):
        _read_100(tmp_path, contents, published)
    with caplog.at_level("WARNING"):
        train, _ = _read_100(tmp_path, contents, published, strict=False)
    assert train.images[-1, -1, -1, -1] == ord("?")
    (record,) = caplog.records
    for part in ("train.bin and ", "test.bin: ", "published cifar100"):
        assert part in record.getMessage()
    caplog.clear()
    _read_100(tmp_path, published, strict=False)
    assert not caplog.records


def test_an_archive_of_a_known_checksum_needs_none_of_its_members(tmp_path):
    published = _two_labels()
    contents = {name: data[:-1] + b"?" for name, data in published.items()}
    archive = _archive(tmp_path, [(f"x/{n}", d) for n, d in contents.items()])
    path = tmp_path / archive.name
    distribution = dataclasses.replace(
        _distribution_100(published), folders=("x",), archive=archive
    )
    read = functools.partial(cifar.read_splits, tmp_path, distribution, (20, 100))
    train, _ = read(strict=False)
    assert train.labels.tolist() == [99, 0]
    with pytest.raises(ValueError, match=r"x/train\.bin is not the published"):
        read()
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match=r"tar\.gz is not the published"):
        read(strict=False)


def test_another_size_is_refused_all_the_same(tmp_path):
    published = _two_labels()
    contents = published | {"test.bin": published["test.bin"][:3074]}
    with pytest.raises(ValueError, match=r"test\.bin is cut short: it holds 3,074"):
        _read_100(tmp_path, contents, published, strict=False)


def test_folder_and_archive_agree(tmp_path):
    contents = _contents()
    folder = _folder(tmp_path, contents)
    parts = cifar.read_splits(folder, _distribution(contents))
    np.testing.assert_array_equal(parts[0].labels, np.arange(10))
    np.testing.assert_array_equal(parts[1].labels, [0, 1])

    other = tmp_path / "other"
    other.mkdir()
    members = [(f"cifar-10-batches-bin/{n}", d) for n, d in reversed(contents.items())]
    extra = [("../../evil.bin", b"evil"), ("cifar-10-batches-bin/readme.html", b"hi")]
    archive = _archive(other, extra + members)
    from_archive = cifar.read_splits(other, _distribution(contents, archive))
    for one, two in zip(parts, from_archive, strict=True):
        np.testing.assert_array_equal(one.images, two.images)
        np.testing.assert_array_equal(one.labels, two.labels)
    assert [path.name for path in other.iterdir()] == [
        archive.name
    ]  # nothing extracted
    assert not (tmp_path.parent / "evil.bin").exists()


def test_folder_goes_before_archive_and_archive_fills_a_gap(tmp_path):
    contents = _contents()
    archive = _archive(tmp_path, list(contents.items()))
    _folder(tmp_path, contents)
    (tmp_path / _NAMES[2]).unlink()
    train, _ = cifar.read_splits(tmp_path, _distribution(contents, archive))
    np.testing.assert_array_equal(train.labels, np.arange(10))


def test_truncated_batch_names_sizes(tmp_path):
    contents = _contents()
    folder = _folder(tmp_path, contents)
    (folder / _NAMES[3]).write_bytes(contents[_NAMES[3]][:-10])
    message = r"data_batch_4\.bin is cut short: it holds 6,136 bytes, .* has 6,146"
    with pytest.raises(ValueError, match=message):
        cifar.read_splits(folder, _distribution(contents))


def test_flipped_bit_names_both_checksums(tmp_path):
    contents = _contents()
    folder = _folder(tmp_path, contents)
    data = bytearray(contents["test_batch.bin"])
    data[100] ^= 4
    (folder / "test_batch.bin").write_bytes(data)
    found = hashlib.sha256(data).hexdigest()
    expected = hashlib.sha256(contents["test_batch.bin"]).hexdigest()
    with pytest.raises(
        ValueError, match=rf"test_batch.*sha256 is {found}, but {expected}"
    ):
        cifar.read_splits(folder, _distribution(contents))


def test_truncated_archive_names_sizes(tmp_path):
    contents = _contents()
    archive = _archive(tmp_path, list(contents.items()))
    path = tmp_path / archive.name
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"binary\.tar\.gz is cut short: it holds"):
        cifar.read_splits(tmp_path, _distribution(contents, archive))


def test_archive_that_is_none(tmp_path):
    contents = _contents()
    for data in (b"nothing of the kind", _broken_gzip(tmp_path, contents)):
        path = tmp_path / cifar.CIFAR10.archive.name
        path.write_bytes(data)
        archive = _known(path.name, data, "md5")
        with pytest.raises(ValueError, match=r"cut short or no \.tar\.gz archive"):
            cifar.read_splits(tmp_path, _distribution(contents, archive))


def _broken_gzip(tmp_path, contents):
    archive = _archive(tmp_path, list(contents.items()))
    return (tmp_path / archive.name).read_bytes()[:20_000]


@pytest.mark.parametrize(
    ("attributes", "why"),
    [
        ({"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}, "no .tar.gz archive"),
        ({"GNU.sparse.size": "x"}, "no .tar.gz archive"),
        ({"GNU.sparse.map": "a,b"}, "no .tar.gz archive"),
        ({"GNU.sparse.map": "0,1", "GNU.sparse.size": "9" * 13}, "lacks data_batch_1"),
        ({"size": "-7"}, r"(data_batch_1\.bin is cut short|lacks data_batch_1)"),
        ({"size": "9" * 13}, "no .tar.gz archive"),
    ],
)
def test_attributes_of_members_that_are_nonsense(tmp_path, attributes, why):
    contents = _contents()
    path = tmp_path / cifar.CIFAR10.archive.name
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        for name, data in contents.items():
            info = tarfile.TarInfo(name)
            info.size, info.pax_headers = len(data), attributes
            archive.addfile(info, io.BytesIO(data))
    known = _known(path.name, path.read_bytes(), "md5")
    with pytest.raises(ValueError, match=rf"binary\.tar\.gz.*{why}"):
        cifar.read_splits(tmp_path, _distribution(contents, known))


@pytest.mark.parametrize("kind", ["SYMTYPE", "LNKTYPE", "DIRTYPE"])
def test_archive_members_that_are_no_files_are_never_followed(tmp_path, kind):
    contents = _contents()
    members = list(contents.items())
    members[1] = (members[1][0], kind)
    archive = _archive(tmp_path, members)
    with pytest.raises(ValueError, match=r"lacks data_batch_2\.bin \(6,146 bytes\)"):
        cifar.read_splits(tmp_path, _distribution(contents, archive))


def test_archive_with_another_member_of_that_name(tmp_path):
    contents = _contents()
    archive = _archive(tmp_path, [*contents.items(), ("test_batch.bin", bytes(6146))])
    with pytest.raises(
        ValueError, match=r"tar\.gz:test_batch\.bin is not the published"
    ):
        cifar.read_splits(tmp_path, _distribution(contents, archive))


def test_labels_and_records_are_checked(tmp_path):
    bad_label = bytes([10]) + bytes(3072)
    for data, message in (
        (bad_label, r"the label 10"),
        (bytes(100), r"100 bytes, but r"),
    ):
        contents = _contents() | {_NAMES[1]: data}
        with pytest.raises(ValueError, match=message):
            cifar.read_splits(_folder(tmp_path, contents), _distribution(contents))


def test_missing_files(tmp_path):
    contents = _contents()
    folder = _folder(tmp_path, contents)
    (folder / _NAMES[0]).unlink()
    with pytest.raises(
        FileNotFoundError, match=r"lacks data_batch_1\.bin \(6,146 bytes"
    ):
        cifar.read_splits(folder, _distribution(contents))


@pytest.mark.parametrize("kind", ["a member", "its attributes", "a long name"])
def test_an_archive_is_inflated_no_further_than_its_files_can_take(tmp_path, kind):
    contents, size = _contents(), 3 * 10**7
    path = tmp_path / cifar.CIFAR10.archive.name
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo("readme.html")
        if kind == "a member":
            info.size = size
        elif kind == "its attributes":
            info.pax_headers = {"comment": "0" * size}
        else:
            archive.format = tarfile.GNU_FORMAT
            info.name = "0" * size
        archive.addfile(info, io.BytesIO(bytes(info.size)))
    assert path.stat().st_size < 10**5
    known = _known(path.name, path.read_bytes(), "md5")
    tracemalloc.start()
    try:
        with pytest.raises(
            ValueError, match="inflates to more than its files can take"
        ):
            cifar.read_splits(tmp_path, _distribution(contents, known))
        assert tracemalloc.get_traced_memory()[1] < 5 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.parametrize("part", ["archive", "headers"])
def test_mutated_archives_are_refused_or_hold_the_same(tmp_path, part):
    contents = _contents()
    _archive(tmp_path, list(contents.items()))
    path = tmp_path / cifar.CIFAR10.archive.name
    expected = np.concatenate(
        [np.frombuffer(d, np.uint8)[::3073] for d in contents.values()]
    )
    with gzip.open(path) as file:
        inflated = file.read()
    size = 512 + 13 * 512  # a header, and 6146 bytes of content
    members = [inflated[i : i + size] for i in range(0, 6 * size, size)]
    if part == "headers":
        path.write_bytes(b"".join(member[:512] for member in members))

    def read(path):
        data = path.read_bytes()
        if part == "headers":
            headers = [data[i : i + 512] for i in range(0, 6 * 512, 512)]
            pieces = (h + m[512:] for h, m in zip(headers, members, strict=True))
            data = gzip.compress(b"".join(pieces) + data[6 * 512 :] + bytes(1024), 1)
        path.write_bytes(data)
        known = _known(path.name, data, "md5")
        return cifar.read_splits(tmp_path, _distribution(contents, known))

    def is_same(found):
        return np.array_equal(np.concatenate([s.labels for s in found]), expected)

    assert fuzzing.check(read, path, accepts=is_same) < 300
