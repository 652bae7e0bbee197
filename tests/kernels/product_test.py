"""What stands around a product, and for how long."""

import jax.numpy as jnp
import numpy as np
import pytest

from codesign.kernels.convolution import convolution
from codesign.kernels.dense import dense
from codesign.kernels.product import around_products

_X, _W = jnp.arange(6.0).reshape(2, 3), jnp.eye(3)


def _doubled(product, x, w):
    return 2 * product(x, w)


def _negated(product, x, w):
    return -product(x, w)


def test_the_innermost_stands_around_and_leaves_with_its_block():
    with around_products(_doubled):
        with around_products(_negated):
            np.testing.assert_array_equal(dense(_X, _W), -_X)
        np.testing.assert_array_equal(dense(_X, _W), 2 * _X)
    np.testing.assert_array_equal(dense(_X, _W), _X)


def test_an_error_inside_leaves_nothing_behind():
    with pytest.raises(ValueError, match="inner"), around_products(_doubled):
        raise ValueError("inner")
    np.testing.assert_array_equal(dense(_X, _W), _X)


@pytest.mark.parametrize("implementation", ["xla", "unfold"])
def test_alone_is_the_same_product(implementation):
    seen = []

    def note(product, x, w):
        seen.append((product(x, w), product.alone(x, w)))
        return seen[-1][0]

    rng = np.random.default_rng(0)
    x, w = (
        jnp.float32(rng.normal(size=shape)) for shape in ((2, 5, 4, 3), (3, 2, 3, 4))
    )
    with around_products(note):
        convolution(x, w, strides=(2, 1), implementation=implementation)
    np.testing.assert_allclose(*seen[0], rtol=1e-5, atol=1e-5)
