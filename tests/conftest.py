"""Settings of the whole suite, and a network that compiles in a second."""

import flax.linen as nn
import jax
import pytest

from codesign import models
from codesign.kernels.pooling import max_pool
from codesign.models.layers import Conv, Dense

jax.config.update("jax_numpy_rank_promotion", "raise")


class Tiny(nn.Module):
    """Three convolutions with a batch-norm site after each."""

    num_classes: int = 10

    @nn.compact
    def __call__(self, x, bn_mask, *, train):
        for site, features in enumerate((8, 16, 16)):
            x = Conv(features, name=f"conv{site + 1}")(x)
            norm = models.MaskedBatchNorm(site, name=f"norm{site + 1}")
            x = max_pool(nn.relu(norm(x, bn_mask, train=train)))
        return Dense(self.num_classes, name="classifier")(x.reshape(len(x), -1))


def tiny(*args, **settings):
    """Stands in for `models.create`: 8 placements, compiled in a second."""
    return models.Network(Tiny(), 3, (8, 8, 1), 10)


@pytest.fixture(scope="session")
def tiny_network():
    return tiny()
