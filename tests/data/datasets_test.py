import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from codesign import data
from codesign.data import Augmentation, Split
from codesign.data import datasets as catalogue


def _keys(split):
    """Each image and its label as bytes, in order."""
    return [
        i.tobytes() + bytes([n])
        for i, n in zip(split.images, split.labels, strict=True)
    ]


def _tiny(size=28):
    """A set of 100 + 30 images, all different, of two classes 3 : 1."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (130, size, size, 1)).astype(np.uint8)
    labels = (np.arange(130) % 4 == 0).astype(np.int32)
    return Split(images[:100], labels[:100]), Split(images[100:], labels[100:])


@pytest.fixture
def tiny(monkeypatch):
    """Registers a data set, as anyone would who adds one."""
    source = catalogue.Source(
        read=lambda data_dir: _tiny(),
        class_names=("many", "few"),
        augmentation=Augmentation(crop_padding=4, flip=True),
        padded_size=32,
    )
    monkeypatch.setitem(catalogue._SOURCES, "tiny", source)
    return "tiny"


def test_names():
    expected = "cifar10 cifar100 digits fashion_mnist mnist tiny_imagenet"
    assert " ".join(data.DATASETS) == expected


def test_digits():
    digits = data.load("digits", data_dir="/nowhere")  # embedded: needs no folder
    sizes = [len(s) for s in (digits.train, digits.validation, digits.test)]
    assert sizes == [1078, 359, 360]  # 60 : 20 : 20 of 1797
    assert digits.train.images.shape == (1078, 32, 32, 1)
    assert digits.num_classes == len(digits.class_names) == 10
    assert digits.augmentation == Augmentation(crop_padding=2, flip=False)
    pixels = digits.train.images / 255
    np.testing.assert_allclose(digits.mean, [pixels.mean()])
    np.testing.assert_allclose(digits.std, [pixels.std()])
    assert pixels.max() == 1


def test_digits_are_scikit_learns_scaled_and_each_once():
    from sklearn.datasets import load_digits

    digits = data.load("digits", image_size=8)
    found = [
        k for s in (digits.train, digits.validation, digits.test) for k in _keys(s)
    ]
    raw = load_digits()
    scaled = np.rint(raw.images * 255 / 16).astype(np.uint8)[..., None]  # pyright: ignore[reportAttributeAccessIssue]
    expected = _keys(Split(scaled, raw.target.astype(np.int32)))  # pyright: ignore[reportAttributeAccessIssue]
    assert sorted(found) == sorted(expected)


def test_digits_are_stratified():
    digits = data.load("digits", image_size=8)
    totals = sum(
        np.bincount(s.labels) for s in (digits.train, digits.validation, digits.test)
    )
    for split in (digits.train, digits.validation, digits.test):
        share = totals * len(split) / 1797
        assert np.abs(np.bincount(split.labels) - share).max() <= 2.1


def test_smaller_splits_begin_larger_ones_and_never_mix():
    whole = data.load("digits", image_size=8)
    small = data.load(
        "digits", image_size=8, num_train=100, num_validation=50, num_test=7
    )
    for part, num in (("train", 100), ("validation", 50), ("test", 7)):
        few, many = getattr(small, part), getattr(whole, part)
        assert len(few) == num
        assert _keys(few) == _keys(many)[:num]
    # Statistics are those of the images trained on.
    np.testing.assert_allclose(small.mean, [small.train.images.mean() / 255])


def test_seed_decides_the_split_alone():
    first, again = (data.load("digits", image_size=8, seed=1) for _ in range(2))
    assert _keys(first.train) == _keys(again.train)
    other = data.load("digits", image_size=8)
    assert set(_keys(first.test)) != set(_keys(other.test))


def test_published_test_part_stays_the_test_split(tiny):
    dataset = data.load(tiny)
    train, test = _tiny()
    # 2 pixels of black on each side; a tenth held out, 3 : 1 like the whole.
    assert dataset.train.images.shape == (90, 32, 32, 1)
    assert (len(dataset.validation), len(dataset.test)) == (10, 30)
    inner = [
        Split(s.images[:, 2:-2, 2:-2], s.labels)
        for s in (dataset.train, dataset.validation, dataset.test)
    ]
    assert sorted(_keys(inner[0]) + _keys(inner[1])) == sorted(_keys(train))
    assert sorted(_keys(inner[2])) == sorted(_keys(test))
    assert (
        dataset.train.images[:, :2].max() == dataset.train.images[:, :, -2:].max() == 0
    )
    assert np.bincount(dataset.validation.labels).tolist() in ([7, 3], [8, 2])
    assert dataset.class_names == ("many", "few")
    other = data.load(tiny, seed=5)
    assert sorted(_keys(other.test)) == sorted(_keys(dataset.test))
    assert set(_keys(other.validation)) != set(_keys(dataset.validation))


@pytest.mark.parametrize(("size", "crop"), [(8, 1), (16, 2), (32, 4), (64, 8)])
def test_crop_follows_the_image_size(tiny, size, crop):
    dataset = data.load(tiny, image_size=size)
    assert dataset.train.images.shape[1:] == (size, size, 1)
    assert dataset.augmentation == Augmentation(crop_padding=crop, flip=True)


def test_own_size_is_exact(tiny):
    dataset = data.load(tiny, image_size=28)
    assert sorted(_keys(dataset.test)) == sorted(_keys(_tiny()[1]))


@pytest.mark.parametrize("name", data.DATASETS)
def test_only_photographs_are_flipped(name):
    source = catalogue._SOURCES[name]
    if isinstance(source, catalogue.Source):
        assert source.augmentation.flip == name.startswith("cifar")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 7}, r"`image_size` \(=7\).*>= 8"),
        ({"image_size": 32.0}, r"`image_size` \(=32\.0\) must be a whole number"),
        ({"num_train": 0}, r"`num_train` \(=0\).*>= 1"),
        ({"num_test": 1.5}, r"`num_test` \(=1\.5\)"),
        ({"num_test": True}, r"`num_test` \(=True\)"),
        (
            {"num_train": 1079},
            r"`num_train` \(=1079\) exceeds the 1078 train examples of",
        ),
        ({"num_validation": 400}, r"`num_validation` \(=400\) exceeds the 359"),
        ({"num_test": 361}, r"`num_test` \(=361\) exceeds the 360"),
        ({"seed": -1}, r"`seed` \(=-1\)"),
    ],
)
def test_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        data.load("digits", **arguments)


def test_unknown_name_lists_the_known():
    with pytest.raises(
        ValueError, match=r"`name` \(='cifar'\).*cifar10, cifar100, dig"
    ):
        data.load("cifar")


@pytest.mark.parametrize(
    "name", ["cifar10", "cifar100", "mnist", "fashion_mnist", "tiny_imagenet"]
)
def test_empty_folder_is_an_error(tmp_path, name):
    with pytest.raises(
        FileNotFoundError, match=rf"{name} is not in .*Needed: .*(bytes|wnids)"
    ):
        data.load(name, data_dir=tmp_path)


def test_import_touches_no_device_and_no_scikit_learn():
    code = (
        "import sys, codesign.data, jax._src.xla_bridge as bridge;"
        "assert not bridge._backends and 'sklearn' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def _real(*names):
    """The folder of `CODESIGN_DATA` if it has one of `names`; else the test is skipped."""
    folder = pathlib.Path(os.environ.get("CODESIGN_DATA") or "/nonexistent")
    if not any((folder / name).exists() for name in names):
        pytest.skip(f"CODESIGN_DATA names no folder with {' or '.join(names)}")
    return folder


def test_real_cifar10():
    _real("cifar-10-batches-bin", "cifar-10-binary.tar.gz", "data_batch_1.bin")
    dataset = data.load("cifar10")
    for split, num in zip(
        (dataset.train, dataset.validation, dataset.test),
        (4500, 500, 1000),
        strict=True,
    ):
        assert split.images.shape == (num * 10, 32, 32, 3)
        np.testing.assert_array_equal(np.bincount(split.labels), num)
    # Widely used values of all 50,000 training images; these are 45,000 of them.
    np.testing.assert_allclose(dataset.mean, (0.4914, 0.4822, 0.4465), atol=1e-3)
    np.testing.assert_allclose(dataset.std, (0.2470, 0.2435, 0.2616), atol=1e-3)
    assert dataset.augmentation == Augmentation(crop_padding=4, flip=True)


@pytest.mark.slow
def test_real_cifar100():
    _real("cifar-100-binary", "cifar-100-binary.tar.gz")
    dataset = data.load("cifar100")
    for split, num in zip(
        (dataset.train, dataset.validation, dataset.test), (450, 50, 100), strict=True
    ):
        assert split.images.shape == (num * 100, 32, 32, 3)
        np.testing.assert_array_equal(np.bincount(split.labels), num)
    # Published values of all 50,000 training images; these are 45,000 of them.
    np.testing.assert_allclose(dataset.mean, (0.5071, 0.4865, 0.4409), atol=2e-3)
    np.testing.assert_allclose(dataset.std, (0.2673, 0.2564, 0.2762), atol=2e-3)


def test_real_mnist():
    _real("mnist", "MNIST")
    dataset = data.load("mnist", num_train=5000, num_validation=1000)
    assert dataset.train.images.shape == (5000, 32, 32, 1)
    assert len(dataset.test) == 10_000
    # 0.1307 over 28x28 pixels, of which 32x32 adds black ones.
    np.testing.assert_allclose(dataset.mean, [0.1307 * 28**2 / 32**2], rtol=0.02)
    assert not dataset.augmentation.flip


def test_real_fashion_mnist():
    _real("fashion-mnist", "fashion_mnist", "FashionMNIST")
    dataset = data.load("fashion_mnist", num_train=5000)
    np.testing.assert_array_equal(np.bincount(dataset.train.labels), 500)
    np.testing.assert_allclose(dataset.mean, [0.2860 * 28**2 / 32**2], rtol=0.02)
