"""MobileNetV2, with a BN site after every convolution."""

import flax.linen as nn

from codesign.kernels.pooling import global_average_pool
from codesign.models.layers import Conv, Dense
from codesign.models.norm import MaskedBatchNorm
from codesign.models.registry import register
from codesign.types import Array

_STAGES = (  # Sandler et al., CVPR 2018, Table 2: expansion t, channels c, n, stride s
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_STEM, _LAST = 32, 1280


def _channels(features: float) -> int:
    """Nearest multiple of 8, if that takes away less than a tenth."""
    rounded = max(8, int(features + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * features else rounded


@register("mobilenetv2", title="MobileNetV2", num_sites=52)
class MobileNetV2(nn.Module):
    """Sandler et al., CVPR 2018, as `keras.applications.MobileNetV2` has it.

    `width` is keras's `alpha`: channels are rounded to multiples of 8, and the last
    convolution keeps its 1280 channels where it is below 1. Convolutions have no bias,
    as in keras, so a site at 0 leaves its convolution without an offset. Sites C1..C52
    are the convolutions in order. `momentum` of the batch norms is this package's, not
    keras's 0.999, whose running statistics need thousands of steps.
    """

    num_classes: int
    width: float = 1.0
    initialisation: str = "pytorch"

    @nn.compact
    def __call__(self, x: Array, bn_mask: Array, *, train: bool) -> Array:
        """[B, H, W, C] and a mask [52] -> logits [B, num_classes]."""
        site = 0

        def conv_norm(x, features, kernel_size=1, stride=1, groups=1):
            nonlocal site
            site += 1
            conv = Conv(
                features,
                (kernel_size, kernel_size),
                (stride, stride),
                "SAME",  # what keras's `correct_pad` and `valid` come to at stride 2
                self.initialisation,
                groups=groups,
                use_bias=False,
                name=f"conv{site}",
            )
            norm = MaskedBatchNorm(site - 1, epsilon=1e-3, name=f"norm{site}")
            return norm(conv(x), bn_mask, train=train)

        x = nn.relu6(conv_norm(x, _channels(_STEM * self.width), 3, 2))
        for expansion, features, num_blocks, first_stride in _STAGES:
            outer = _channels(int(features * self.width))
            for block in range(num_blocks):
                stride, shortcut = (first_stride if block == 0 else 1), x
                inner = expansion * x.shape[-1]
                if expansion > 1:
                    x = nn.relu6(conv_norm(x, inner))
                x = nn.relu6(conv_norm(x, inner, 3, stride, groups=inner))
                x = conv_norm(x, outer)
                if stride == 1 and x.shape == shortcut.shape:
                    x = shortcut + x
                self.sow("intermediates", "tap", x)
        x = nn.relu6(conv_norm(x, _channels(_LAST * max(1.0, self.width))))
        x = global_average_pool(x)
        return Dense(
            self.num_classes, initialisation=self.initialisation, name="classifier"
        )(x)
