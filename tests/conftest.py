"""Settings of the whole suite, and a network that compiles in a second."""

import atexit
import os
import shutil
import tempfile

if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # What one process of a run has compiled serves all of them. With a limit of its size
    # JAX locks the folder while an entry is written; without one it may be read half.
    _compiled = tempfile.mkdtemp(prefix="codesign-tests-")
    atexit.register(shutil.rmtree, _compiled, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled
    os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"] = str(2**31)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"

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
