"""Formats of functions that JAX has traced before, in other formats or in none."""

import logging

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codesign.kernels.cast_product import TAP_SHAPE
from codesign.kernels.dense import dense
from codesign.models.formats import Formats, InFormats
from codesign.numerics import bfp, formats
from tests.models.arrays import normal

_FORMATS = ("bfp2", "bfp8", "float32")
_RANDOM = bfp.Format(mantissa_bits=3, bias=None, rounding="stochastic")


def _step(kernel, row):
    return kernel, dense(row, kernel)


def _scanned(x, kernel):
    return jax.lax.scan(_step, kernel, x)[1]


_FUNCTIONS = {  # at module level, so that JAX keeps their traces
    "checkpoint": jax.checkpoint(dense),
    "jit": jax.jit(dense),
    "scan": _scanned,
}


class _Calling(nn.Module):
    """A kernel, and a function that multiplies by it."""

    function: str

    @nn.compact
    def __call__(self, x, *, train=False):
        kernel = self.param("kernel", nn.initializers.normal(1.0), (9, 4))
        return _FUNCTIONS[self.function](x, kernel)


@pytest.mark.parametrize("function", _FUNCTIONS)
def test_each_format_acts_in_a_function_that_another_was_traced_in(function):
    x, params = normal(2, 9), {"kernel": normal(9, 4, seed=1)}

    def pulled(module):
        def loss(params):
            y = module.apply({"params": params}, x)
            return jnp.sum(y), y

        (_, y), slopes = jax.value_and_grad(loss, has_aux=True)(params)
        return y, slopes["kernel"]

    def expected(name):
        fmt = formats.by_name(name)
        y = formats.cast(x, fmt) @ formats.cast(params["kernel"], fmt, 0)
        # Of a scan each row is a product of its own, with blocks along its only axis.
        back = formats.cast(x, fmt, -1 if function == "scan" else 0).sum(0)
        return y, jnp.tile(back[:, None], 4)

    for name in (*_FORMATS, None):
        module = _Calling(function)
        if name is not None:
            module = InFormats(module, Formats.of(name))
        found = jax.jit(pulled, static_argnums=0)(module)
        for ours, theirs in zip(found, expected(name or "float32"), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_second_call_in_the_same_formats_compiles_nothing(caplog):
    x, variables = normal(2, 9), {"params": {"kernel": normal(9, 4, seed=1)}}

    def num_compiled(name):
        caplog.clear()
        with jax.log_compiles(), caplog.at_level(logging.WARNING):
            InFormats(_Calling("jit"), Formats.of(name)).apply(variables, x)
        return sum("Compiling" in record.getMessage() for record in caplog.records)

    assert num_compiled("bfp7") > 0
    assert num_compiled("bfp7") == 0
    assert num_compiled("bfp6") > 0
    assert num_compiled("bfp7") == 0


class _Twice(nn.Module):
    @nn.compact
    def __call__(self, x, *, train=False):
        return [_Calling("jit", name=name)(x) for name in "ab"]


def test_one_function_in_two_modules_is_two_products():
    x, layer = jnp.full((64, 9), 1.125), {"kernel": normal(9, 4)}
    variables = {"params": {"a": layer, "b": layer}}
    module = InFormats(_Twice(), Formats.of({"activations": _RANDOM}))
    a, b = module.apply(variables, x, train=True, rngs={"rounding": jax.random.key(0)})
    assert np.mean(a == b) < 0.1  # 9 draws each agree by chance once in 512

    def total(taps):
        return sum(map(jnp.sum, module.apply(variables, x, taps=taps)))

    found = jax.grad(total)({name: jnp.zeros(TAP_SHAPE) for name in "ab"})
    assert all(np.all(rows[:, -1] == 1) for rows in found.values())


def test_a_key_of_a_trace_that_has_ended_is_not_met_again():
    x, variables = jnp.full((8, 9), 1.125), {"params": {"kernel": normal(9, 4)}}
    module = InFormats(_Calling("checkpoint"), Formats.of({"activations": _RANDOM}))

    def run(key):
        return module.apply(variables, x, train=True, rngs={"rounding": key})

    keys = jax.random.split(jax.random.key(0), 3)
    alone = jnp.stack([jax.jit(lambda key: run(key))(key) for key in keys])
    assert np.any(alone[0] != alone[1])
    np.testing.assert_array_equal(jnp.stack([*map(run, keys)]), alone)
    np.testing.assert_array_equal(jax.jit(jax.vmap(run))(keys), alone)
