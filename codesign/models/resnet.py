"""ResNet-18 for small images, with a BN site after every convolution."""

import flax.linen as nn

from codesign.kernels.pooling import global_average_pool
from codesign.models.layers import Conv, Dense
from codesign.models.norm import MaskedBatchNorm
from codesign.types import Array

_STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))  # features, stride; two blocks each
_NUM_MAIN = 17  # the stem and two convolutions in each of eight blocks


class ResNet18(nn.Module):
    """He et al., CVPR 2016, with the 3x3 stride-1 stem usual for 32x32 images.

    Sites: C1 the stem, C2..C17 the main path in order, C18..C20 the three 1x1
    projections. Convolutions keep their bias, since their BN may be absent.
    """

    num_classes: int
    width: float = 1.0
    initialisation: str = "pytorch"

    @nn.compact
    def __call__(self, x: Array, bn_mask: Array, *, train: bool) -> Array:
        """[B, H, W, C] and a mask [20] -> logits [B, num_classes]."""

        def conv_norm(x, number, features, stride=1, kernel_size=3):
            pad = kernel_size // 2
            conv = Conv(
                features,
                (kernel_size, kernel_size),
                (stride, stride),
                ((pad, pad), (pad, pad)),
                self.initialisation,
                name=f"conv{number}",
            )
            norm = MaskedBatchNorm(number - 1, name=f"norm{number}")
            return norm(conv(x), bn_mask, train=train)

        def channels(features):
            return max(1, round(features * self.width))

        number, projection = 1, _NUM_MAIN
        x = nn.relu(conv_norm(x, number, channels(_STAGES[0][0])))
        for stage, (features, first_stride) in enumerate(_STAGES):
            for stride in (first_stride, 1):
                y = nn.relu(conv_norm(x, number + 1, channels(features), stride))
                y = conv_norm(y, number + 2, channels(features))
                number += 2
                if stage > 0 and stride != 1:
                    projection += 1
                    x = conv_norm(x, projection, channels(features), stride, 1)
                x = nn.relu(x + y)
        x = global_average_pool(x)
        return Dense(
            self.num_classes, initialisation=self.initialisation, name="classifier"
        )(x)
