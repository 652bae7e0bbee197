"""Random crops and flips, and normalisation, of image batches inside a jitted step.

Texts pass through both: one training step serves images and tokens.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from codesign.types import Array, is_whole


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How training images vary. Hashable, and static in a jitted step.

    Black pixels are added on each side before cropping to the old size at a random
    place, so that images move by at most `crop_padding`.
    """

    crop_padding: int = 0  # pixels on each side
    flip: bool = False  # whether half of the images are mirrored, left to right

    def __post_init__(self):
        """Checks the crop.

        Raises:
            ValueError: If `crop_padding` is not a whole number >= 0.
        """
        if not is_whole(self.crop_padding) or self.crop_padding < 0:
            raise ValueError(
                "`crop_padding` must be a whole number of pixels >= 0, got "
                f"{self.crop_padding!r}; 0 switches random crops off."
            )


def are_tokens(images: Array | np.ndarray) -> bool:
    """Whether a batch holds tokens of texts, which are int32, rather than pixels."""
    return images.dtype == np.int32


def augment(key: Array, images: Array, augmentation: Augmentation) -> Array:
    """Moves and mirrors each image on its own; jit- and scan-friendly.

    The padded area is 0: black, which is the background of digits and clothes, and what
    is customary for photographs. So call it before `normalise`, where 0 is the mean.

    Args:
        key: Random key, used up.
        images: `[B, H, W, C]` of any type; or tokens, returned as they are.
        augmentation: Static. With `Augmentation()` the images are returned as they are.

    Returns:
        `[B, H, W, C]` of the type of `images`.

    Raises:
        ValueError: If `images` is not a batch of images.
    """
    if are_tokens(images):
        return images
    if images.ndim != 4:
        raise ValueError(
            f"`images` must be [B, H, W, C], got {list(images.shape)}; add a batch "
            "dimension to a single image."
        )
    crop_key, flip_key = jax.random.split(key)
    num_images = len(images)
    if padding := augmentation.crop_padding:
        border = (padding, padding)
        padded = jnp.pad(images, ((0, 0), border, border, (0, 0)))
        corners = jax.random.randint(crop_key, (num_images, 2), 0, 2 * padding + 1)

        def crop(image, corner):
            start = (corner[0], corner[1], 0)
            return jax.lax.dynamic_slice(image, start, images.shape[1:])

        images = jax.vmap(crop)(padded, corners)  # [B, H, W, C]
    if augmentation.flip:
        mirror = jax.random.bernoulli(flip_key, shape=(num_images, 1, 1, 1))
        images = jnp.where(mirror, images[:, :, ::-1], images)
    return images


def normalise(images: Array, mean: Sequence[float], std: Sequence[float]) -> Array:
    """Scales bytes to 0..1, subtracts `mean` and divides by `std`, per channel.

    Args:
        images: `[..., C]` uint8, or floating-point numbers, which are not scaled first;
            or tokens, returned as they are.
        mean, std: C numbers each, in the unit of the images; of bytes for 0..1.

    Returns:
        `[..., C]` float32, `(images / 255 - mean) / std` as one multiplication and one
        addition.

    Raises:
        ValueError: If `mean` or `std` does not have C numbers, or `std` has a 0.
    """
    if are_tokens(images):
        return images
    shape = (1,) * (images.ndim - 1) + (images.shape[-1],)
    for name, value in (("mean", mean), ("std", std)):
        if len(value) != images.shape[-1]:
            raise ValueError(
                f"`{name}` has {len(value)} numbers, but `images` has "
                f"{images.shape[-1]} channels; give one for each."
            )
    mean64, std64 = np.asarray(mean, np.float64), np.asarray(std, np.float64)
    if not np.all(std64 > 0):
        raise ValueError(f"`std` must be > 0, got {tuple(std)}; use 1 to leave it out.")
    unit = 255 if images.dtype == jnp.uint8 else 1
    scale = jnp.asarray((1 / (unit * std64)).reshape(shape), jnp.float32)
    offset = jnp.asarray((-mean64 / std64).reshape(shape), jnp.float32)
    return images.astype(jnp.float32) * scale + offset
