"""Products of two maps, in and out of formats."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codesign.kernels.cast_product import Casts, cast_product
from codesign.kernels.einsum import einsum
from codesign.kernels.product import Axes, around_products
from codesign.numerics import bfp
from tests.kernels.slow_casts import along

_FMT = bfp.Format(block_size=4, mantissa_bits=2, bias=None)
# Of each spec: its axes, and the specs of its two gradients.
_PRODUCTS = {
    "bqnd,bknd->bnqk": (
        Axes((-1, -1), (-1, 1), (1, -2)),
        "bnqk,bknd->bqnd",
        "bqnd,bnqk->bknd",
    ),
    "bnqk,bknd->bqnd": (
        Axes((-1, 1), (-1, -1), (-2, 1)),
        "bqnd,bknd->bnqk",
        "bnqk,bqnd->bknd",
    ),
}
_SIZES = dict(b=2, q=5, k=6, n=3, d=7)


def _drawn(spec):
    parts = spec.replace("->", ",").split(",")
    rng = np.random.default_rng(0)
    shapes = [[_SIZES[axis] for axis in part] for part in parts]
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize("spec", _PRODUCTS)
def test_blocks_lie_along_what_each_product_adds(spec):
    axes, by_x, by_y = _PRODUCTS[spec]
    x, y, g = _drawn(spec)
    run = functools.partial(einsum, spec, axes=axes)
    np.testing.assert_array_equal(run(x, y), jnp.einsum(spec, x, y))
    fmts = Casts(_FMT, _FMT, _FMT)

    def cast_run(x, y):
        with around_products(lambda product, *two: cast_product(product, fmts, *two)):
            return run(x, y)

    def slow(spec, a, b):
        """Casts each operand along the one axis that both have and the result has not."""
        *operands, result = spec.replace("->", ",").split(",")
        (shared,) = (set(operands[0]) & set(operands[1])) - set(result)
        a, b = (
            along(value, _FMT, axes.index(shared))
            for value, axes in zip((a, b), operands, strict=True)
        )
        return np.einsum(spec, a, b)

    @jax.jit
    def pulled(x, y, g):
        product, pull = jax.vjp(cast_run, x, y)
        return product, *pull(g)

    found = pulled(x, y, g)
    expected = (slow(spec, x, y), slow(by_x, g, y), slow(by_y, x, g))
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
