"""ResNets of two convolutions a block are those of the paper, and keep their variables."""

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from codesign import models, workload
from codesign.kernels.pooling import global_average_pool
from codesign.models.digest import digest
from codesign.models.layers import Conv, Dense
from codesign.models.norm import MaskedBatchNorm


class ResNet18(nn.Module):
    """Written down block by block, under the names that checkpoints know."""

    num_classes: int
    width: float = 1.0
    initialisation: str = "pytorch"

    @nn.compact
    def __call__(self, x, bn_mask, *, train):
        def conv_norm(x, number, features, stride=1, size=3):
            pad = ((size // 2, size // 2),) * 2
            sizes = (size, size), (stride, stride)
            conv = Conv(round(features * self.width), *sizes, pad, name=f"conv{number}")
            norm = MaskedBatchNorm(number - 1, name=f"norm{number}")
            return norm(conv(x), bn_mask, train=train)

        def block(x, number, features, projection=None):
            stride = 1 if projection is None else 2
            y = nn.relu(conv_norm(x, number, features, stride))
            y = conv_norm(y, number + 1, features)
            if projection is not None:
                x = conv_norm(x, projection, features, 2, 1)
            return nn.relu(x + y)

        x = nn.relu(conv_norm(x, 1, 64))
        x = block(block(x, 2, 64), 4, 64)
        x = block(block(x, 6, 128, projection=18), 8, 128)
        x = block(block(x, 10, 256, projection=19), 12, 256)
        x = block(block(x, 14, 512, projection=20), 16, 512)
        return Dense(self.num_classes, name="classifier")(global_average_pool(x))


def test_checkpoints_of_resnet18_are_those_of_the_plain_network():
    settings = dict(num_sites=20, image_shape=(32, 32, 3))
    plain = models.Network(ResNet18(10, 0.25), **settings)
    assert digest(models.create("resnet18", width=0.25)) == digest(plain)


@pytest.mark.parametrize(
    ("name", "blocks", "parameters"),
    # He et al. for 1000 classes, as torchvision counts it: 11,689,512 and 21,797,672. A
    # 3x3 stem has 64 * 3 * (49 - 9) weights less, and each convolution has a bias.
    [
        ("resnet18", (2, 2, 2, 2), 11_689_512 - 7_680 + 4_800),
        ("resnet34", (3, 4, 6, 3), 21_797_672 - 7_680 + 8_512),
    ],
)
def test_parameters_and_maps(name, blocks, parameters):
    network = models.create(name, num_classes=1000)
    variables = jax.eval_shape(network.init, jax.random.key(0))
    found = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert found == parameters
    ops = workload.trace(*network.trace_args())
    stages = zip((32, 16, 8, 4), (64, 128, 256, 512), blocks, strict=True)
    expected = [(s, s, c) for s, c, n in stages for _ in range(n)]
    assert [*ops.select("add").output_shapes] == expected
    strided = [op for op in ops.ops if op.kind == "conv" and op.weight_shape[0] == 1]
    assert len(strided) == 3


def test_sites_of_resnet34():
    # A norm of each site stands behind its convolution; the projections come last.
    ops = workload.trace(*models.create("resnet34").trace_args()).ops
    norms = {op.site: ops[op.operands[0]] for op in ops if op.kind == "norm"}
    assert sorted(norms) == [*range(36)]
    for site, conv in norms.items():
        assert conv.name.endswith(f"/conv{site + 1}")
        assert conv.weight_shape[0] == (1 if site >= 33 else 3)
    assert jnp.prod(jnp.array(norms[35].output_shape)) == 4 * 4 * 512
