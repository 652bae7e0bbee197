import numpy as np
import pytest
from PIL import Image

from codesign.data import resize
from codesign.data.decode import decode
from tests import fuzzing


def _save(path, pixels, **settings):
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path, **settings)
    return path


def _random(*shape):
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def test_pixels_are_exact_and_in_the_order_given(tmp_path):
    pixels = [_random(8, 8, 3) // (i + 1) for i in range(20)]
    paths = [_save(tmp_path / f"{i}.png", p) for i, p in enumerate(pixels)]
    images = decode(paths[::-1], 8)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, pixels[::-1])


@pytest.mark.parametrize("suffix", ["png", "bmp", "ppm", "webp", "jpg"])
def test_formats(tmp_path, suffix):
    plain = np.full((9, 9, 3), (200, 100, 50))
    path = _save(tmp_path / f"a.{suffix}", plain)
    (image,) = decode([path], 9)
    np.testing.assert_allclose(image.astype(int), plain, atol=3)  # two are lossy


def test_grey_transparent_and_indexed_images_get_three_channels(tmp_path):
    grey = _random(8, 8)
    colour = _random(8, 8, 4)
    indexed = Image.fromarray(colour[..., :3]).quantize(16)
    indexed.save(tmp_path / "indexed.png", transparency=bytes(range(16)))
    paths = [
        _save(tmp_path / "grey.png", grey),
        _save(tmp_path / "rgba.png", colour),
        _save(tmp_path / "la.png", np.stack([grey, 255 - grey], -1)),
        tmp_path / "indexed.png",
    ]
    images = decode(paths, 8)
    np.testing.assert_array_equal(images[0], np.stack([grey] * 3, -1))
    np.testing.assert_array_equal(images[1], colour[..., :3])
    np.testing.assert_array_equal(images[2], images[0])
    np.testing.assert_array_equal(images[3], np.asarray(indexed.convert("RGB")))


def test_first_picture_of_a_film(tmp_path):
    frames = [Image.fromarray(np.full((8, 8), v, np.uint8)) for v in (0, 255)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert decode([tmp_path / "a.gif"], 8).max() == 0


@pytest.mark.parametrize("shape", [(8, 14, 3), (15, 8, 3)])
def test_the_middle_of_an_oblong_image_by_hand(tmp_path, shape):
    # 14 wide: columns 3 to 10 are the middle eight. 15 high: rows 3 to 10, as 7 / 2
    # rounds down.
    pixels = _random(*shape)
    path = _save(tmp_path / "a.png", pixels)
    middle = pixels[:, 3:11] if shape[1] == 14 else pixels[3:11]
    np.testing.assert_array_equal(decode([path], 8)[0], middle)


def test_images_of_all_sizes_come_to_one(tmp_path):
    paths = [
        _save(tmp_path / f"{n}.png", np.full((n, n + 3, 3), n)) for n in (1, 5, 40, 300)
    ]
    images = decode(paths, 16)
    for image, value in zip(images, (1, 5, 40, 300 % 256), strict=True):
        np.testing.assert_array_equal(image, np.full((16, 16, 3), value))
    random = _random(40, 40, 3)
    path = _save(tmp_path / "random.png", random)
    expected = resize.bilinear(random[None], 16)
    np.testing.assert_array_equal(decode([path], 16), expected)


def _not_an_image(path):
    path.write_text("hello")


def _cut_short(path):
    _save(path, _random(64, 64, 3))
    path.write_bytes(path.read_bytes()[:-900])


def _no_end(path):
    _save(path, _random(64, 64, 3), quality=95)
    path.write_bytes(path.read_bytes()[:700])


def _deep(path):
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(path, "PNG")


def _postscript(path):
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")


def _no_pixels(path):
    path.write_bytes(b"GIF89a\0\0\x08\0\0\0\0,\0\0\0\0\0\0\x08\0\0\x02\x01\0\0;")


@pytest.mark.parametrize(
    "make",
    [
        _no_pixels,
        _not_an_image,
        _cut_short,
        _no_end,
        _deep,
        _postscript,
        lambda path: None,
    ],
)
def test_files_that_are_no_image_are_named(tmp_path, make):
    good = _save(tmp_path / "good.jpg", _random(8, 8, 3))
    bad = tmp_path / "bad.jpg"
    make(bad)
    with pytest.raises(ValueError, match=r"bad\.jpg is no image that can be read"):
        decode([good, bad, good], 8)


@pytest.mark.parametrize("num_pixels", [100, 40])  # Pillow warns, or refuses
def test_images_of_too_many_pixels_are_refused(tmp_path, monkeypatch, num_pixels):
    path = _save(tmp_path / "a.png", _random(11, 11))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", num_pixels)
    with pytest.raises(ValueError, match=r"a\.png is no image.*decompression bomb"):
        decode([path], 8)


def test_the_first_failure_is_the_one_that_is_named(tmp_path):
    bad = []
    for i in range(20):
        bad.append(tmp_path / f"{i}.png")
        bad[-1].write_text("?")
    for _ in range(5):
        with pytest.raises(ValueError, match=r"/0\.png is no image"):
            decode(bad, 8)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP"])
def test_mutated_images_are_refused_or_read(tmp_path, kind):
    path = tmp_path / "image"
    Image.fromarray(_random(16, 16, 3)).save(path, kind)
    fuzzing.check(
        lambda path: decode([path], 8), path, accepts=lambda found: found.ndim == 4
    )
