"""VGG-11, 16 and 19 for small images, with a BN site after every convolution."""

import flax.linen as nn

from codesign.kernels.pooling import global_average_pool, max_pool
from codesign.models.layers import Conv, Dense
from codesign.models.norm import MaskedBatchNorm
from codesign.types import Array

_POOL = 0
CONVOLUTIONS = {  # Simonyan & Zisserman, ICLR 2015, Table 1, columns A, D and E.
    "vgg11": (64, _POOL, 128, _POOL, 256, 256, _POOL, 512, 512, _POOL, 512, 512, _POOL),
    "vgg16": (
        *(64, 64, _POOL, 128, 128, _POOL, 256, 256, 256, _POOL),
        *(512, 512, 512, _POOL, 512, 512, 512, _POOL),
    ),
    "vgg19": (
        *(64, 64, _POOL, 128, 128, _POOL, 256, 256, 256, 256, _POOL),
        *(512, 512, 512, 512, _POOL, 512, 512, 512, 512, _POOL),
    ),
}


class VGG(nn.Module):
    """Convolutions, BN sites C1..CN in order, 2x2 max-pools and one classifier.

    Images of 32x32 reach the classifier as 1x1 maps; a larger map is averaged, and a
    pool that would shrink a map below 1x1 is skipped.
    """

    plan: tuple[int, ...]
    num_classes: int
    width: float = 1.0
    initialisation: str = "pytorch"

    @nn.compact
    def __call__(self, x: Array, bn_mask: Array, *, train: bool) -> Array:
        """[B, H, W, C] and a mask [num_sites] -> logits [B, num_classes]."""
        site = 0
        for features in self.plan:
            if features == _POOL:
                x = max_pool(x)
                continue
            features = max(1, round(features * self.width))
            site += 1
            conv = Conv(
                features, initialisation=self.initialisation, name=f"conv{site}"
            )
            norm = MaskedBatchNorm(site - 1, name=f"norm{site}")
            x = nn.relu(norm(conv(x), bn_mask, train=train))
        x = global_average_pool(x)
        return Dense(
            self.num_classes, initialisation=self.initialisation, name="classifier"
        )(x)
