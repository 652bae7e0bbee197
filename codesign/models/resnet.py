"""ResNets with a BN site after each convolution, and a tap behind each block."""

from typing import ClassVar

import flax.linen as nn

from codesign.kernels.pooling import global_average_pool, max_pool
from codesign.models.layers import Conv, Dense
from codesign.models.norm import MaskedBatchNorm
from codesign.models.registry import register
from codesign.types import Array

_STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))  # features, stride of the first block
_PAPER_SITES = tuple(f"C{n}" for n in (3, 6, 7, *range(9, 18)))  # DeepTrain, VI-D


def _conv(
    number: int, features: int, kernel_size: int, stride: int, initialisation: str
) -> Conv:
    """Convolution `number`, padded so that only its stride makes the map smaller."""
    pad = kernel_size // 2
    return Conv(
        features,
        (kernel_size, kernel_size),
        (stride, stride),
        ((pad, pad), (pad, pad)),
        initialisation,
        name=f"conv{number}",
    )


class _BasicResNet(nn.Module):
    """Blocks of two convolutions, behind the 3x3 stem of stride 1 for 32x32 images."""

    depths: ClassVar[tuple[int, ...]]  # blocks of each stage

    num_classes: int
    width: float = 1.0
    initialisation: str = "pytorch"

    @nn.compact
    def __call__(self, x: Array, bn_mask: Array, *, train: bool) -> Array:
        """[B, H, W, C] and a mask [num_sites] -> logits [B, num_classes]."""

        def conv_norm(x, number, features, stride=1, kernel_size=3):
            conv = _conv(number, features, kernel_size, stride, self.initialisation)
            norm = MaskedBatchNorm(number - 1, name=f"norm{number}")
            return norm(conv(x), bn_mask, train=train)

        def channels(features):
            return max(1, round(features * self.width))

        number, projection = 1, 1 + 2 * sum(self.depths)
        x = nn.relu(conv_norm(x, number, channels(_STAGES[0][0])))
        for depth, (features, first_stride) in zip(self.depths, _STAGES, strict=True):
            for block in range(depth):
                stride = first_stride if block == 0 else 1
                y = nn.relu(conv_norm(x, number + 1, channels(features), stride))
                y = conv_norm(y, number + 2, channels(features))
                number += 2
                if stride != 1:
                    projection += 1
                    x = conv_norm(x, projection, channels(features), stride, 1)
                x = nn.relu(x + y)
                self.sow("intermediates", "tap", x)
        x = global_average_pool(x)
        return Dense(
            self.num_classes, initialisation=self.initialisation, name="classifier"
        )(x)


@register("resnet18", title="ResNet-18", num_sites=20, paper_sites=_PAPER_SITES)
class ResNet18(_BasicResNet):
    """He et al., CVPR 2016, with the 3x3 stride-1 stem usual for 32x32 images.

    Sites: C1 the stem, C2..C17 the main path in order, C18..C20 the three 1x1
    projections. Convolutions keep their bias, since their BN may be absent.
    """

    depths = (2, 2, 2, 2)


@register("resnet34", title="ResNet-34", num_sites=36)
class ResNet34(_BasicResNet):
    """He et al., CVPR 2016; stem, projections and biases as in `ResNet18`.

    Sites: C1 the stem, C2..C33 the main path in order, C34..C36 the three projections.
    """

    depths = (3, 4, 6, 3)


_BOTTLENECKS = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))  # and blocks, stride
_EXPANSION = 4  # channels that a bottleneck block makes for each of its inner ones


@register("resnet50", title="ResNet-50", num_sites=53)
class ResNet50(nn.Module):
    """He et al., CVPR 2016, as `keras.applications.ResNet50` has it.

    The first 1x1 convolution of a stage carries its stride, and convolutions keep their
    bias. Sites: C1 the stem, C2..C49 the main path in order, C50..C53 the projections of
    the four stages. `momentum` of the batch norms is this package's, not keras's 0.99.
    """

    num_classes: int
    width: float = 1.0
    initialisation: str = "pytorch"

    @nn.compact
    def __call__(self, x: Array, bn_mask: Array, *, train: bool) -> Array:
        """[B, H, W, C] and a mask [53] -> logits [B, num_classes]."""

        def conv_norm(x, number, features, kernel_size, stride=1):
            conv = _conv(number, features, kernel_size, stride, self.initialisation)
            norm = MaskedBatchNorm(number - 1, epsilon=1.001e-5, name=f"norm{number}")
            return norm(conv(x), bn_mask, train=train)

        def channels(features):
            return max(1, round(features * self.width))

        x = nn.relu(conv_norm(x, 1, channels(64), 7, 2))
        x = max_pool(x, 3, stride=2, padding=1)
        number, projection = 1, 1 + 3 * sum(blocks for _, blocks, _ in _BOTTLENECKS)
        for features, num_blocks, first_stride in _BOTTLENECKS:
            inner, outer = channels(features), channels(_EXPANSION * features)
            for block in range(num_blocks):
                stride, shortcut = 1, x
                if block == 0:
                    stride, projection = first_stride, projection + 1
                    shortcut = conv_norm(x, projection, outer, 1, stride)
                x = nn.relu(conv_norm(x, number + 1, inner, 1, stride))
                x = nn.relu(conv_norm(x, number + 2, inner, 3))
                x = conv_norm(x, number + 3, outer, 1)
                number += 3
                x = nn.relu(shortcut + x)
                self.sow("intermediates", "tap", x)
        x = global_average_pool(x)
        return Dense(
            self.num_classes, initialisation=self.initialisation, name="classifier"
        )(x)
