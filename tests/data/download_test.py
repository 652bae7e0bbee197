import dataclasses
import gzip
import hashlib
import shutil

import pooch
import pytest

from codesign.data import cifar, idx
from codesign.data.checksums import KnownFile
from codesign.data.download import Distribution, locate


def _md5(data):
    return f"md5:{hashlib.md5(data, usedforsecurity=False).hexdigest()}"


_DATA = {"a": b"first", "b": b"second"}
_PACKED = {f"{name}.gz": gzip.compress(data) for name, data in _DATA.items()}
_TINY = Distribution(
    name="tiny",
    folders=("tiny-v1",),
    files=tuple(KnownFile(n, len(d), _md5(d)) for n, d in _DATA.items()),
    gzipped=True,
    archive=KnownFile("tiny.tar.gz", 1234, "md5:0"),
    downloads=tuple(KnownFile(n, None, _md5(d)) for n, d in _PACKED.items()),
    url="https://example.invalid/",
)


def _fill(folder, names=("a", "b")):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")
    return folder


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """No variable, an empty cache, and a network that is down."""

    def retrieve(url, **kwargs):
        raise ConnectionError(f"no route to {url}")

    monkeypatch.delenv("CODESIGN_DATA", raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    monkeypatch.setattr(pooch, "retrieve", retrieve)
    return tmp_path / "cache" / "codesign"


@pytest.fixture
def served(monkeypatch, tmp_path, cache):
    """A server, as a folder; pooch's own checks and renaming stay."""
    server = tmp_path / "server"
    server.mkdir()
    for name, data in _PACKED.items():
        (server / name).write_bytes(data)
    calls = []

    def downloader(url, output_file, _pooch):
        name = url.removeprefix("https://example.invalid/")
        calls.append(name)
        shutil.copyfile(server / name, output_file)

    real = pooch.core.retrieve

    def retrieve(url, **kwargs):
        return real(url, downloader=downloader, **kwargs)

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    return server, calls


@pytest.mark.parametrize("subfolder", ["", "tiny", "tiny-v1"])
def test_finds_files_in_the_folder_or_a_usual_subfolder(tmp_path, subfolder):
    folder = _fill(tmp_path / "data" / subfolder)
    assert locate(_TINY, tmp_path / "data") == folder
    assert locate(_TINY, str(tmp_path / "data")) == folder


def test_compressed_files_and_archives_will_do(tmp_path):
    assert locate(_TINY, _fill(tmp_path / "mixed", ("a", "b.gz"))) == tmp_path / "mixed"
    folder = _fill(tmp_path / "archive", ("tiny.tar.gz",))
    assert locate(_TINY, folder) == folder
    plain = dataclasses.replace(_TINY, gzipped=False)
    with pytest.raises(FileNotFoundError, match="lacks b"):
        locate(plain, tmp_path / "mixed")


def test_subfolder_before_the_folder_itself(tmp_path):
    # MNIST and Fashion-MNIST have files of the same names; one may lie above the other.
    _fill(tmp_path)
    assert locate(_TINY, _fill(tmp_path)) == tmp_path
    sub = _fill(tmp_path / "tiny-v1")
    assert locate(_TINY, tmp_path) == sub


def test_argument_then_variable_then_cache(monkeypatch, tmp_path, cache):
    in_cache = _fill(cache / "tiny")
    assert locate(_TINY) == in_cache
    in_variable = _fill(tmp_path / "variable")
    monkeypatch.setenv("CODESIGN_DATA", "")  # as good as not set
    assert locate(_TINY) == in_cache
    monkeypatch.setenv("CODESIGN_DATA", str(in_variable))
    assert locate(_TINY) == in_variable
    given = _fill(tmp_path / "given")
    assert locate(_TINY, given) == given
    shutil.rmtree(in_variable)
    in_variable.mkdir()
    assert locate(_TINY) == in_cache


def test_missing_folder_is_an_error_at_once(monkeypatch, tmp_path, served):
    gone = tmp_path / "gone"
    with pytest.raises(
        FileNotFoundError, match=r"`data_dir` \(='.*gone'\) is not an ex"
    ):
        locate(_TINY, gone)
    monkeypatch.setenv("CODESIGN_DATA", str(gone))
    with pytest.raises(
        FileNotFoundError, match=r"`CODESIGN_DATA` \(='.*gone'\) is not"
    ):
        locate(_TINY)
    assert not served[1]


def test_given_folder_that_lacks_files_is_never_filled(tmp_path, served):
    folder = _fill(tmp_path / "data", ("a",))
    with pytest.raises(FileNotFoundError) as caught:
        locate(_TINY, folder)
    message = str(caught.value)
    for part in (
        f"tiny is not in {folder}",
        "a (5 bytes), b (6 bytes), each plain or as .gz",
        "or tiny.tar.gz (1,234 bytes)",
        "subfolder tiny-v1 or tiny",
        f"{folder} has some, but lacks b.",
        "--data_dir",
        "CODESIGN_DATA",
    ):
        assert part in message
    assert not served[1]


def test_what_a_person_has_to_get_is_never_downloaded(cache, served):
    by_hand = dataclasses.replace(_TINY, downloads=())
    with pytest.raises(FileNotFoundError, match=r"get it from https://example\.inv"):
        locate(by_hand)
    assert not served[1]
    assert locate(by_hand, _fill(cache / "tiny")) == cache / "tiny"


def test_no_network(tmp_path, cache):
    with pytest.raises(FileNotFoundError) as caught:
        locate(cifar.CIFAR10)
    message = str(caught.value)
    for part in (
        f"cifar10 is not in {cache}",
        "data_batch_1.bin (30,730,000 bytes)",
        "cifar-10-binary.tar.gz (170,052,171 bytes)",
        "--data_dir",
        "no route to https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    ):
        assert part in message
    assert isinstance(caught.value.__cause__, ConnectionError)


def test_no_network_names_all_folders_searched(monkeypatch, tmp_path, cache):
    monkeypatch.setenv("CODESIGN_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f"not in {tmp_path} or {cache}"):
        locate(idx.MNIST)


def test_downloads_into_the_cache_once(cache, served):
    folder = locate(_TINY)
    assert folder == cache / "tiny"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == _PACKED
    assert served[1] == ["a.gz", "b.gz"]
    assert locate(_TINY) == folder
    assert len(served[1]) == 2


def test_goes_on_after_an_interrupted_download(cache, served):
    server, calls = served
    (server / "b.gz").rename(server / "later")
    with pytest.raises(FileNotFoundError, match=r"Downloading .*b\.gz to .* failed"):
        locate(_TINY)
    assert [path.name for path in (cache / "tiny").iterdir()] == ["a.gz"]
    (server / "later").rename(server / "b.gz")
    locate(_TINY)
    assert calls == ["a.gz", "b.gz", "b.gz"]


def test_wrong_download_leaves_nothing(cache, served):
    (served[0] / "a.gz").write_bytes(b"a login page")
    with pytest.raises(ValueError, match=r"a\.gz is not the published a\.gz with md5:"):
        locate(_TINY)
    assert not list((cache / "tiny").iterdir())


_PUBLISHED = [cifar.CIFAR10, cifar.CIFAR100, idx.MNIST, idx.FASHION_MNIST]


@pytest.mark.parametrize("known", _PUBLISHED)
def test_tables_are_well_formed(known):
    digits = {"md5": 32, "sha256": 64}
    described = (*known.files, *known.downloads)
    for file in described:
        algorithm, _, digest = file.digest.partition(":")
        assert len(digest) == digits[algorithm]
        int(digest, 16)
    assert len({file.digest for file in described}) == len(described)
    assert known.url.endswith("/")
