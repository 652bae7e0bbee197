import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.data import resize


def _images(*shape):
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def test_pad_is_exact():
    images = _images(2, 28, 28, 1)
    padded = resize.pad(images, 32)
    assert padded.shape == (2, 32, 32, 1)
    np.testing.assert_array_equal(padded[:, 2:-2, 2:-2], images)
    assert padded.sum() == images.sum()


def test_doubling_by_hand():
    # Centres of the new pixels lie at -1/4, 1/4, 3/4 and 5/4 of the old; edges repeat.
    row = np.array([[0, 100]], np.uint8)[None, :, :, None]
    images = np.repeat(row, 2, axis=1)  # [1, 2, 2, 1]
    result = resize.bilinear(images, 4)
    np.testing.assert_array_equal(result[0, :, :, 0], np.tile([0, 25, 75, 100], (4, 1)))


def test_halving_by_hand():
    # A triangle of reach 2 around 0.5: weights 3/8, 3/8, 1/8 on pixels 0, 1, 2 (pixel
    # -1 does not exist), over their sum 7/8: 3/7, 3/7, 1/7 of 210.
    images = np.zeros((1, 4, 4, 1), np.uint8)
    images[0, :, 2:] = 210
    result = resize.bilinear(images, 2)
    np.testing.assert_array_equal(result[0, :, :, 0], [[30, 180], [30, 180]])


@pytest.mark.parametrize("size", [8, 13, 32, 40])
def test_matches_jax_image(size):
    images = _images(3, 16, 16, 2)
    reference = jax.image.resize(
        images.astype(np.float32), (3, size, size, 2), "linear"
    )
    result = resize.bilinear(images, size)
    assert result.dtype == np.uint8
    # Rounding to bytes gives 1/2, rounded weights a little more.
    assert np.abs(result - np.asarray(reference)).max() < 0.52


@settings(max_examples=30, deadline=None)
@given(old=st.integers(1, 40), new=st.integers(8, 40), value=st.integers(0, 255))
def test_plain_surfaces_stay(old, new, value):
    images = np.full((1, old, old, 1), value, np.uint8)
    assert (resize.bilinear(images, new) == value).all()


def test_same_size_is_untouched():
    images = _images(2, 9, 9, 3)
    assert resize.bilinear(images, 9) is images


def test_blocks_make_no_difference(monkeypatch):
    images = _images(7, 8, 8, 1)
    whole = resize.bilinear(images, 11)
    monkeypatch.setattr(resize, "_BLOCK", 3)
    np.testing.assert_array_equal(resize.bilinear(images, 11), whole)
