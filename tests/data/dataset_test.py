import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.data import Augmentation, Dataset, Split, normalise
from codesign.data.dataset import channel_statistics, stratified_order


def test_statistics_by_hand():
    # Channel 0: 0 and 255, mean 1/2, deviation 1/2. Channel 1: 51 throughout, 1/5.
    images = np.array([[[[0, 51]]], [[[255, 51]]]], np.uint8)
    mean, std = channel_statistics(images)
    assert mean == (0.5, 0.2)
    assert std == (0.5, 1.0)


def test_statistics_match_float64():
    images = np.random.default_rng(0).integers(0, 256, (1500, 4, 4, 3), np.uint8)
    mean, std = channel_statistics(images)
    scaled = images / 255
    np.testing.assert_allclose(mean, scaled.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, scaled.std(axis=(0, 1, 2)), rtol=1e-12)


@settings(max_examples=50, deadline=None)
@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_beginning_is_stratified(labels, seed):
    labels = np.array(labels, np.int32)
    order = stratified_order(labels, seed)
    np.testing.assert_array_equal(np.sort(order), np.arange(len(labels)))
    totals = np.bincount(labels)
    num_classes = np.count_nonzero(totals)
    # A beginning cut at t holds n t +- 1/2 of a class of n, and N t +- K / 2 of all.
    bound = (1 + num_classes * totals / len(labels)) / 2 + 1e-9
    for length in range(1, len(labels) + 1):
        found = np.bincount(labels[order[:length]], minlength=len(totals))
        assert (np.abs(found - length * totals / len(labels)) <= bound).all()


def test_order_depends_on_seed_alone():
    labels = np.tile(np.arange(4, dtype=np.int32), 25)
    order = stratified_order(labels, 7)
    np.testing.assert_array_equal(order, stratified_order(labels.copy(), 7))
    assert (order != stratified_order(labels, 8)).any()
    # Four equal classes: each run of four holds each class once.
    np.testing.assert_array_equal(
        np.sort(labels[order].reshape(25, 4)), np.tile(np.arange(4), (25, 1))
    )


def test_order_never_changes():
    # Published splits must outlive versions of NumPy: raw bits of PCG64(0), sorted, are
    # a stream that NumPy promises to keep.
    bits = [11749869230777074271, 4976686463289251617, 755828109848996024]
    assert np.random.PCG64(0).random_raw(3).tolist() == bits
    np.testing.assert_array_equal(stratified_order(np.zeros(3, np.int32), 0), [2, 1, 0])


def test_split_rejects_other_types_and_lengths():
    images = np.zeros((2, 4, 4, 1), np.uint8)
    with pytest.raises(ValueError, match=r"`images` must be uint8.*float64"):
        Split(images=images / 255, labels=np.zeros(2, np.int32))
    with pytest.raises(ValueError, match=r"`images` must be uint8.*\[4, 4, 1\]"):
        Split(images=images[0], labels=np.zeros(2, np.int32))
    with pytest.raises(ValueError, match=r"`labels` must be int32 \[2\].*int64 \[2\]"):
        Split(images=images, labels=np.zeros(2, np.int64))
    with pytest.raises(ValueError, match=r"`labels` must be int32 \[2\].*int32 \[3\]"):
        Split(images=images, labels=np.zeros(3, np.int32))


def _arrays(num=100, num_classes=4, dtype=np.uint8):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (num, 6, 5, 2)).astype(dtype)
    return images, rng.permutation(np.arange(num) % num_classes)


def test_arrays_are_split_in_proportion():
    images, labels = _arrays()
    found = Dataset.from_arrays(images, labels, name="mine")
    assert [len(s) for s in (found.train, found.validation, found.test)] == [60, 20, 20]
    assert (found.name, found.num_classes) == ("mine", 4)
    for split in (found.train, found.validation, found.test):
        np.testing.assert_array_equal(np.bincount(split.labels), [len(split) / 4] * 4)
    # Each image is in one split, with its own label.
    rows = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    seen = [
        (image.tobytes(), label)
        for split in (found.train, found.validation, found.test)
        for image, label in zip(split.images, split.labels, strict=True)
    ]
    assert len(dict(seen)) == 100
    assert all(rows[image] == label for image, label in seen)
    again = Dataset.from_arrays(images, labels, num_validation=5, num_test=30)
    assert [len(s) for s in (again.train, again.validation, again.test)] == [65, 5, 30]
    assert found.digest() == Dataset.from_arrays(images, labels).digest()
    assert found.digest() != Dataset.from_arrays(images, labels, seed=1).digest()


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64, np.float16])
def test_arrays_of_any_type_are_normalised(dtype):
    images, labels = _arrays(dtype=dtype)
    found = Dataset.from_arrays(images, labels)
    x = normalise(found.train.images, found.mean, found.std)
    np.testing.assert_allclose(np.mean(x, (0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(np.std(x, (0, 1, 2)), 1, atol=1e-4)


def test_one_channel_needs_no_axis():
    images, labels = _arrays()
    found = Dataset.from_arrays(images[..., 0], labels)
    assert found.train.images.shape == (60, 6, 5, 1)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda x, y: (x.astype(np.int64), y), "uint8 or floating-point.*int64"),
        (lambda x, y: (x[0, 0], y), r"uint8 \[5, 2\]"),
        (lambda x, y: (x[:0], y[:0]), r"\[0, 6, 5, 2\]"),
        (lambda x, y: (x, y[:-1]), "`labels` must be 100 whole numbers"),
        (lambda x, y: (x, y.astype(float)), "whole numbers from 0.*float64"),
        (lambda x, y: (x, np.eye(4)[y]), r"float64 \[100, 4\]"),
        (lambda x, y: (x, y - 1), "down to -1"),
        (lambda x, y: (x, y + 2**40), "more classes than the 100 images"),
        (lambda x, y: (x * np.nan, y), "holds 6000 numbers that are not finite"),
        (lambda x, y: (x * 1e300, y), "not finite in float32"),
        (lambda x, y: (x[:4], y[:4]), "`num_validation`|training has none of class"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change, match):
    images, labels = change(*_arrays())
    with (
        np.errstate(over="ignore", invalid="ignore"),
        pytest.raises(ValueError, match=match),
    ):
        Dataset.from_arrays(images, labels)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"num_validation": 0}, "`num_validation` must be a whole number >= 1, got 0"),
        ({"num_test": 2.5}, "`num_test` must be a whole number"),
        ({"num_test": 99}, "training has none of class 0"),
        (
            {"num_classes": 3},
            r"go up to 3, so `num_classes` \(=3\) must be a whole number, at least 4",
        ),
    ],
)
def test_splits_that_do_not_fit_are_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        Dataset.from_arrays(*_arrays(), **settings)


@pytest.mark.parametrize("part", ["train", "validation", "test"])
@pytest.mark.parametrize("label", [-1, 4, 2**31 - 1])
def test_labels_beyond_the_classes_are_refused_in_a_dataset_of_parts(part, label):
    dataset = Dataset.from_arrays(*_arrays())
    split = getattr(dataset, part)
    labels = split.labels.copy()
    labels[-1] = label
    wrong = {part: dataclasses.replace(split, labels=labels)}
    message = rf"`{part}` holds the label {label}, but the 4 classes are 0\.\.3"
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(dataset, **wrong)
    with pytest.raises(ValueError, match=r"`num_classes` \(=4.0\)"):
        dataclasses.replace(dataset, num_classes=4.0)


def test_some_classes_by_hand():
    images = np.arange(60, dtype=np.uint8).reshape(60, 1, 1, 1)
    whole = Dataset.from_arrays(images, np.arange(60) % 4)  # image i is of class i % 4
    some = whole.of_classes([3, 1])
    assert (some.num_classes, some.class_names) == (2, ("3", "1"))
    assert some.name == "arrays[3,1]"
    for part in ("train", "validation", "test"):
        before, after = getattr(whole, part), getattr(some, part)
        kept = [i for i in before.images.ravel().tolist() if i % 2]
        assert after.images.ravel().tolist() == kept
        assert after.labels.tolist() == [0 if i % 4 == 3 else 1 for i in kept]
    pixels = some.train.images / 255
    np.testing.assert_allclose(some.mean, [pixels.mean()], rtol=1e-12)
    np.testing.assert_allclose(some.std, [pixels.std()], rtol=1e-12)
    assert some.digest() != whole.of_classes([1, 3]).digest()


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(4)), cut=st.integers(2, 4))
def test_some_classes_of_some_are_some_of_all(order, cut):
    whole = Dataset.from_arrays(*_arrays())
    twice = whole.of_classes(order).of_classes(range(cut))
    assert twice.digest() == whole.of_classes(order[:cut]).digest()


@pytest.mark.parametrize(
    ("classes", "match"),
    [
        ([0], r"`classes` \(=\[0\]\) must be at least two"),
        ([0, 1, 0], "each once"),
        ([0, 4], r"holds 4, but the 4 classes of 'arrays' are 0\.\.3"),
        ([-1, 0], "holds -1"),
        ([0, 1.0], "holds 1.0"),
        ("01", "holds '0'"),
    ],
)
def test_classes_that_are_none_are_refused(classes, match):
    with pytest.raises(ValueError, match=match):
        Dataset.from_arrays(*_arrays()).of_classes(classes)


def test_classes_without_examples_are_refused():
    whole = Dataset.from_arrays(*_arrays(), num_classes=6)
    with pytest.raises(ValueError, match=r"have no example in `train` of 'arrays'"):
        whole.of_classes([4, 5])


def _texts(labels):
    tokens = np.arange(3 * len(labels), dtype=np.int32).reshape(-1, 3)
    return Split(images=tokens, labels=np.asarray(labels))


def _text_set(labels=np.int32, **settings):
    split = _texts(np.array([0, 1, 2, 0, 1, 2], labels))
    facts = {"name": "texts", "train": split, "validation": split, "test": split}
    facts |= {"num_classes": 3, "mean": (), "std": (), "class_names": tuple("abc")}
    return Dataset(**(facts | {"augmentation": Augmentation()} | settings))


def test_tokens_are_rows_and_have_no_statistics():
    dataset = _text_set()
    assert channel_statistics(dataset.train.images) == ((), ())
    some = dataset.of_classes([2, 0])
    np.testing.assert_array_equal(some.test.labels, [1, 0, 1, 0])
    np.testing.assert_array_equal(
        some.test.images, dataset.test.images[dataset.test.labels != 1]
    )
    assert (some.mean, some.std, some.class_names) == ((), (), ("c", "a"))
    images = np.zeros((2, 3, 3, 1), np.int32)
    with pytest.raises(
        ValueError, match=r"or tokens, int32 \[N, T\], got int32 \[2, 3"
    ):
        Split(images=images, labels=np.zeros(2, np.int32))
    with pytest.raises(
        ValueError, match=r"uint8 or float32 \[N, H, W, C\].*uint8 \[2,"
    ):
        Split(images=np.zeros((2, 3), np.uint8), labels=np.zeros(2, np.int32))


def test_numbers_are_labels_of_one_class():
    numbers = np.array([0, 2.5, 5], np.float32)
    dataset = _text_set(np.float32, num_classes=1, class_names=())
    assert dataset.test.labels.dtype == np.float32
    for wrong in (
        lambda: _text_set(np.float32),
        lambda: dataclasses.replace(dataset, num_classes=5),
        lambda: dataclasses.replace(_text_set(), test=dataset.test),
        lambda: dataclasses.replace(dataset, test=_text_set().test),
    ):
        with pytest.raises(ValueError, match="float32 and one class for a regression"):
            wrong()
    with pytest.raises(ValueError, match="`labels` holds 1 numbers that are not fin"):
        _texts(np.where(numbers < 5, numbers, np.inf).astype(np.float32))
    with pytest.raises(ValueError, match="at least two labels"):
        dataset.of_classes([0])
