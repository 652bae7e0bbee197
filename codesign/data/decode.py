"""Files of images as one array: of three channels, square, and all of one size."""

import concurrent.futures
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from codesign.data import resize

_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "WEBP")  # that run no other program
_MOST_THREADS = 8


def decode(paths: Sequence[Path], size: int) -> np.ndarray:
    """Reads images, in the order given, on several threads.

    Grey images get three equal channels, and transparency is ignored. The square in the
    middle, as long as the shorter side, is scaled bilinearly to `size`.

    Args:
        paths: N files, of BMP, GIF (its first picture), JPEG, PNG, PPM or WebP.
        size: Pixels on each side of the result.

    Returns:
        `[N, size, size, 3]` uint8.

    Raises:
        ValueError: Names the first file that is no image, is cut short, has more than
            eight bits a channel, or more pixels than Pillow deems safe.
    """
    from PIL import Image

    images = np.empty((len(paths), size, size, 3), np.uint8)

    def fill(index: int) -> None:
        images[index] = _fit(_pixels(paths[index]), size)

    num_threads = min(_MOST_THREADS, os.cpu_count() or 1)
    with (
        warnings.catch_warnings(),
        concurrent.futures.ThreadPoolExecutor(num_threads) as pool,
    ):
        # Set here, as filters belong to the process rather than to a thread.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for _ in pool.map(fill, range(len(paths))):
            pass  # raises what a thread raised, of the first file that failed
    return images


def _pixels(path: Path) -> np.ndarray:
    """`[H, W, 3]` uint8."""
    from PIL import Image

    try:
        with Image.open(path, formats=_FORMATS) as image:
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"mode {image.mode!r} has more than 8 bits a channel")
            if not min(image.size):
                raise ValueError("it has no pixels")
            # By way of RGBA, as Pillow warns of transparent palettes otherwise.
            through = image.convert("RGBA") if image.mode in ("P", "PA") else image
            return np.asarray(through.convert("RGB"))
    except Exception as error:  # Pillow's readers raise errors of many kinds
        raise ValueError(
            f"{path} is no image that can be read ({error}); remove it, or replace it "
            f"with an undamaged {', '.join(_FORMATS)} of 8 bits a channel."
        ) from error


def _fit(image: np.ndarray, size: int) -> np.ndarray:
    """The square in the middle, at `size`."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[top : top + side, left : left + side]
    return resize.bilinear(square[None], size)[0]
