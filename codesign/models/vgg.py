"""VGG-11, 16 and 19 for small images, with a BN site after every convolution."""

import functools

import flax.linen as nn

from codesign.kernels.pooling import global_average_pool, max_pool
from codesign.models.layers import Conv, Dense
from codesign.models.norm import MaskedBatchNorm
from codesign.models.registry import register
from codesign.types import Array

_FEATURES = (64, 128, 256, 512, 512)  # of the convolutions of each block


class VGG(nn.Module):
    """Blocks of convolutions, BN sites C1..CN in order, and one classifier.

    A 2x2 max-pool ends each block. Images of 32x32 reach the classifier as 1x1 maps; a
    larger map is averaged, and a pool that would shrink a map below 1x1 is skipped. A
    tap stands behind each ReLU.
    """

    depths: tuple[int, ...]  # convolutions of each block
    num_classes: int
    width: float = 1.0
    initialisation: str = "pytorch"

    @nn.compact
    def __call__(self, x: Array, bn_mask: Array, *, train: bool) -> Array:
        """[B, H, W, C] and a mask [num_sites] -> logits [B, num_classes]."""
        site = 0
        for depth, features in zip(self.depths, _FEATURES, strict=True):
            features = max(1, round(features * self.width))
            for _ in range(depth):
                site += 1
                conv = Conv(
                    features, initialisation=self.initialisation, name=f"conv{site}"
                )
                norm = MaskedBatchNorm(site - 1, name=f"norm{site}")
                x = nn.relu(norm(conv(x), bn_mask, train=train))
                self.sow("intermediates", "tap", x)
            x = max_pool(x)
        x = global_average_pool(x)
        return Dense(
            self.num_classes, initialisation=self.initialisation, name="classifier"
        )(x)


for _name, _title, _depths, _paper_sites in (
    # Simonyan & Zisserman, ICLR 2015, Table 1, columns A, D and E; sites: DeepTrain, VI-D.
    ("vgg11", "VGG-11", (1, 1, 2, 2, 2), ("C5", "C7")),
    ("vgg16", "VGG-16", (2, 2, 3, 3, 3), ("C5", "C7", "C8", "C13")),
    ("vgg19", "VGG-19", (2, 2, 4, 4, 4), ("C5", "C8", "C11", "C16")),
):
    register(_name, title=_title, num_sites=sum(_depths), paper_sites=_paper_sites)(
        functools.partial(VGG, _depths)
    )
