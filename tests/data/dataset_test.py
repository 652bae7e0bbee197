import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.data import Split
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
