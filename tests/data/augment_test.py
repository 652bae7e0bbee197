import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codesign.data import Augmentation, augment, normalise


def _coordinates(num_images, size):
    """Images whose two channels hold row + 1 and column + 1, so 0 is the border."""
    rows, columns = np.indices((size, size)) + 1
    image = np.stack([rows, columns], axis=-1).astype(np.uint8)
    return np.broadcast_to(image, (num_images, size, size, 2))


def _run(images, augmentation, seed=0):
    fn = jax.jit(augment, static_argnames="augmentation")
    return np.asarray(fn(jax.random.key(seed), jnp.asarray(images), augmentation))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_identity_without_crop_and_flip(dtype):
    images = np.random.default_rng(0).integers(0, 256, (3, 5, 4, 2)).astype(dtype)
    result = _run(images, Augmentation())
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, images)


def test_crops_are_windows_of_the_padded_image_and_uniform():
    # Offsets in {0, 1, 2}^2 of a 4x4 image: 9 windows, 4500 images, 500 +- 21 each.
    images = _coordinates(4500, 4)
    result = _run(images, Augmentation(crop_padding=1))
    padded = np.pad(images[0], ((1, 1), (1, 1), (0, 0)))
    windows = [padded[y : y + 4, x : x + 4] for y in range(3) for x in range(3)]
    which = np.array([[np.array_equal(r, w) for w in windows] for r in result[:900]])
    np.testing.assert_array_equal(which.sum(axis=1), 1)
    # The middle pixel tells the window: its row and column move by -1, 0 or 1.
    counts = np.bincount((result[:, 1, 1, 0] - 1) * 3 + result[:, 1, 1, 1] - 1)
    assert len(counts) == 9
    assert np.abs(counts - 500).max() < 5 * 21


def test_flips_half_of_the_images_and_nothing_else():
    images = _coordinates(4000, 4)
    result = _run(images, Augmentation(flip=True))
    flipped = result[:, 0, 0, 1] == 4
    np.testing.assert_array_equal(result[flipped], images[flipped][:, :, ::-1])
    np.testing.assert_array_equal(result[~flipped], images[~flipped])
    assert abs(flipped.mean() - 0.5) < 5 * 0.5 / np.sqrt(4000)


def test_flip_and_crop_are_independent():
    # With flips, columns run downwards; the row offset must not tell which.
    result = _run(_coordinates(6000, 6), Augmentation(crop_padding=1, flip=True))
    flipped = result[:, 2, 2, 1] > result[:, 2, 3, 1]
    offsets = result[:, 2, 2, 0]
    rates = [flipped[offsets == value].mean() for value in (2, 3, 4)]
    np.testing.assert_allclose(rates, 0.5, atol=5 * 0.5 / np.sqrt(2000))


def test_key_decides():
    images, augmentation = _coordinates(64, 8), Augmentation(crop_padding=2, flip=True)
    first = _run(images, augmentation, seed=1)
    np.testing.assert_array_equal(first, _run(images, augmentation, seed=1))
    assert (first != _run(images, augmentation, seed=2)).any()


def test_works_in_a_scan():
    augmentation = Augmentation(crop_padding=1, flip=True)
    keys = jax.random.split(jax.random.key(0), 3)
    images = jnp.asarray(_coordinates(4, 6))

    def body(carry, key):
        return carry, augment(key, images, augmentation)

    _, scanned = jax.jit(lambda: jax.lax.scan(body, 0, keys))()
    single = [augment(key, images, augmentation) for key in keys]
    np.testing.assert_array_equal(scanned, jnp.stack(single))


@pytest.mark.parametrize("padding", [-1, 1.5, "2"])
def test_rejects_bad_padding(padding):
    with pytest.raises(ValueError, match=r"`crop_padding`.*>= 0, got"):
        Augmentation(crop_padding=padding)


def test_rejects_a_single_image():
    with pytest.raises(
        ValueError, match=r"`images` must be \[B, H, W, C\].*\[4, 4, 1\]"
    ):
        augment(jax.random.key(0), jnp.zeros((4, 4, 1)), Augmentation())


@pytest.mark.parametrize("jit", [False, True])
def test_normalise_by_hand(jit):
    # 0 -> (0 - 0.5) / 0.25 = -2, 255 -> 2; second channel, 51 -> (0.2 - 0) / 0.1 = 2.
    def fn(x):
        return normalise(x, (0.5, 0.0), (0.25, 0.1))

    images = jnp.uint8([[[[0, 0], [255, 51]]]])
    result = jax.jit(fn)(images) if jit else fn(images)
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, [[[[-2, 0], [2, 2]]]], rtol=1e-6)


def test_normalise_rejects_what_does_not_fit():
    images = jnp.zeros((1, 2, 2, 3), jnp.uint8)
    with pytest.raises(ValueError, match=r"`mean` has 1 numbers.*3 channels"):
        normalise(images, (0.5,), (1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match=r"`std` must be > 0.*0\.0"):
        normalise(images, (0.5, 0.5, 0.5), (1.0, 0.0, 1.0))


def test_tokens_pass_through_as_they_are():
    tokens = jnp.arange(12, dtype=jnp.int32).reshape(4, 3)

    @jax.jit
    def preprocess(key, x):
        return normalise(augment(key, x, Augmentation(1, flip=True)), (), ())

    found = preprocess(jax.random.key(0), tokens)
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, tokens)
