import jax
import numpy as np
import pytest

from codesign.data import Split, epoch_order, padded_batches


def _split(num):
    images = np.arange(num * 4, dtype=np.uint8).reshape(num, 2, 2, 1)
    return Split(images=images, labels=np.arange(num, dtype=np.int32))


def test_order_is_a_permutation_that_depends_on_seed_and_epoch_alone():
    order = np.asarray(epoch_order(3, 5, 100))
    np.testing.assert_array_equal(np.sort(order), np.arange(100))
    np.testing.assert_array_equal(order, epoch_order(3, 5, 100))
    np.testing.assert_array_equal(order, epoch_order(np.uint32(3), np.int64(5), 100))
    np.testing.assert_array_equal(order, epoch_order(jax.random.key(3), 5, 100))
    assert (order != epoch_order(4, 5, 100)).any()
    assert (order != epoch_order(3, 6, 100)).any()


def test_seeds_do_not_share_orders_shifted_by_an_epoch():
    orders = {
        tuple(np.asarray(epoch_order(seed, epoch, 12)).tolist())
        for seed in range(5)
        for epoch in range(5)
    }
    assert len(orders) == 25


def test_order_is_uniform():
    # 600 epochs of 4 examples: each comes first 150 times, give or take 10.6.
    first = [int(epoch_order(0, epoch, 4)[0]) for epoch in range(600)]
    assert np.abs(np.bincount(first, minlength=4) - 150).max() < 5 * 10.6


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_order_rejects_seed(seed):
    with pytest.raises(ValueError, match=rf"`seed` must lie in .*got {seed}"):
        epoch_order(seed, 0, 10)


def test_order_rejects_epoch_and_size():
    with pytest.raises(ValueError, match=r"`epoch` must be >= 0, got -1"):
        epoch_order(0, -1, 10)
    with pytest.raises(ValueError, match=r"`num_examples` must be >= 1, got 0"):
        epoch_order(0, 0, 0)


def test_batches_by_hand():
    images, labels, weights = padded_batches(_split(5), 2)
    assert images.shape == (3, 2, 2, 2, 1)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(labels, [[0, 1], [2, 3], [4, 0]])
    np.testing.assert_array_equal(weights, [[1, 1], [1, 1], [1, 0]])
    assert labels.dtype == np.int32
    assert weights.dtype == np.float32
    np.testing.assert_array_equal(images[2, 0].ravel(), [16, 17, 18, 19])
    np.testing.assert_array_equal(images[2, 1], 0)


@pytest.mark.parametrize("batch_size", [1, 3, 6, 7, 50])
def test_batches_keep_every_example_once(batch_size):
    split = _split(6)
    images, labels, weights = padded_batches(split, batch_size)
    assert len(images) == -(-6 // batch_size)
    assert weights.sum() == 6
    np.testing.assert_array_equal(images[weights == 1], split.images)
    np.testing.assert_array_equal(labels[weights == 1], split.labels)


def test_batches_reject_size_and_nothing():
    with pytest.raises(ValueError, match=r"`batch_size` must be >= 1, got 0"):
        padded_batches(_split(2), 0)
    with pytest.raises(ValueError, match=r"`split` is empty"):
        padded_batches(_split(0), 2)
