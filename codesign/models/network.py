"""The one door to a network: what every other package knows of a model."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from codesign.models.layers import INITIALISATIONS
from codesign.models.resnet import ResNet18
from codesign.models.vgg import CONVOLUTIONS, VGG
from codesign.types import Array, PyTree


@dataclasses.dataclass(frozen=True)
class Network:
    """A Flax module with BN sites, and the shapes it works on.

    Attributes:
        module: Called as `module(x, bn_mask, train=...)`; holds `params` and
            `batch_stats`.
        num_sites: Length C of `bn_mask`.
        image_shape: (H, W, C) of one input.
        num_classes: Width of the logits.
        paper_sites: Sites of the published placement, numbered from 1; may be empty.
    """

    module: Any
    num_sites: int
    image_shape: tuple[int, int, int]
    num_classes: int
    paper_sites: tuple[int, ...] = ()

    def init(self, key: Array) -> PyTree:
        """Variables `{"params", "batch_stats"}` drawn from `key`."""
        images = jnp.zeros((1, *self.image_shape), jnp.float32)
        return self.module.init(key, images, jnp.ones(self.num_sites), train=True)

    def apply(
        self, variables: PyTree, images: Array, bn_mask: Array, *, train: bool
    ) -> tuple[Array, PyTree]:
        """Logits [B, num_classes] of images [B, H, W, C], and the batch statistics.

        With `train` the statistics are updated, otherwise they come back unchanged.

        Raises:
            ValueError: If `bn_mask` is not [num_sites].
        """
        if jnp.shape(bn_mask) != (self.num_sites,):
            raise ValueError(
                f"`bn_mask` has shape {jnp.shape(bn_mask)}; this network has "
                f"{self.num_sites} batch-norm sites, so pass ({self.num_sites},)."
            )
        if not train:
            logits = self.module.apply(variables, images, bn_mask, train=False)
            return logits, variables["batch_stats"]
        logits, updates = self.module.apply(
            variables, images, bn_mask, train=True, mutable=["batch_stats"]
        )
        return logits, updates["batch_stats"]

    def trace_args(self) -> tuple[Any, ...]:
        """`(fn, *shapes)` for `workload.trace`: one image through the whole network."""

        def forward(variables, images, bn_mask):
            return self.apply(variables, images, bn_mask, train=False)[0]

        variables = jax.eval_shape(self.init, jax.random.key(0))
        image = jax.ShapeDtypeStruct((1, *self.image_shape), jnp.float32)
        bn_mask = jax.ShapeDtypeStruct((self.num_sites,), jnp.float32)
        return forward, variables, image, bn_mask

    def mask(self, sites: tuple[int, ...]) -> Array:
        """Mask [num_sites] with ones at `sites`, numbered from 1."""
        for site in sites:
            if not 1 <= site <= self.num_sites:
                raise ValueError(
                    f"`sites` (={sites}) must lie in 1..{self.num_sites}, got {site}."
                )
        return jnp.zeros(self.num_sites).at[jnp.array(sites, int) - 1].set(1.0)


# Sites of the published placements: Section VI-D of the DeepTrain paper.
_PAPER_SITES = {
    "vgg11": (5, 7),
    "vgg16": (5, 7, 8, 13),
    "vgg19": (5, 8, 11, 16),
    "resnet18": (3, 6, 7, *range(9, 18)),
}
NETWORKS = tuple(sorted(_PAPER_SITES))


def create(
    name: str,
    *,
    num_classes: int = 10,
    image_shape: tuple[int, int, int] = (32, 32, 3),
    width: float = 1.0,
    initialisation: str = "pytorch",
) -> Network:
    """Builds a network by name.

    Args:
        name: One of `NETWORKS`.
        num_classes: Number of classes.
        image_shape: (H, W, C), H and W at least 8.
        width: Multiplies every channel count but the image's and the classes'.
        initialisation: `pytorch` (its default), `xavier` or `kaiming`.

    Raises:
        ValueError: For an unknown name or initialisation, a width that is not positive,
            or a shape that is too small.
    """
    if name not in NETWORKS:
        raise ValueError(f"`network` (={name!r}) must be one of {list(NETWORKS)}.")
    if initialisation not in INITIALISATIONS:
        raise ValueError(
            f"`initialisation` (={initialisation!r}) must be one of "
            f"{sorted(INITIALISATIONS)}."
        )
    if not (width > 0 and math.isfinite(width)):
        raise ValueError(f"`width` must be positive and finite, got {width}.")
    if num_classes < 2:
        raise ValueError(f"`num_classes` must be at least 2, got {num_classes}.")
    if len(image_shape) != 3 or min(image_shape[:2]) < 8 or image_shape[2] < 1:
        raise ValueError(
            f"`image_shape` must be (H, W, C) with H and W at least 8, "
            f"got {image_shape}; resize the images."
        )
    settings: dict[str, Any] = dict(
        num_classes=num_classes, width=width, initialisation=initialisation
    )
    if name == "resnet18":
        module, num_sites = ResNet18(**settings), 20
    else:
        plan = CONVOLUTIONS[name]
        module, num_sites = VGG(plan=plan, **settings), sum(c > 0 for c in plan)
    return Network(module, num_sites, image_shape, num_classes, _PAPER_SITES[name])
