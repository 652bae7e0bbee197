"""Layers of Flax in number formats: what they multiply is cast, or they say so."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codesign.models.attention import MultiHeadAttention
from codesign.models.formats import Formats, InFormats
from codesign.numerics import formats
from tests.models.arrays import assert_same, normal

_BFP3 = Formats.of("bfp3")


def _quick(fn):
    """Compiled in half the time, since it runs once."""
    return jax.jit(fn, compiler_options={"xla_backend_optimization_level": 1})


@pytest.mark.slow
def test_attention_of_flax_is_that_of_the_package():
    # The same kernels, as [8, 8] here and [8, 2, 4] there: blocks of all six products
    # and of their gradients lie alike, though heads stand at another axis.
    x = normal(2, 5, 8)
    ours = InFormats(MultiHeadAttention(2), _BFP3)
    theirs = InFormats(nn.MultiHeadDotProductAttention(2, precision="high"), _BFP3)
    params = _quick(functools.partial(ours.init, train=False))(jax.random.key(0), x, x)[
        "params"
    ]
    split = {name: (8, 2, 4) for name in ("query", "key", "value")}
    other = {
        name: {
            "kernel": params[name]["kernel"].reshape(split[name]),
            "bias": params[name]["bias"].reshape(split[name][1:]),
        }
        for name in split
    }
    kernel = params["output"]["kernel"].reshape(2, 4, 8)
    other["out"] = {**params["output"], "kernel": kernel}

    def pulled(module, params, *args, **settings):
        def loss(params, args):
            y = module.apply({"params": params}, *args, **settings)
            return jnp.sum(jnp.sin(y)), y

        grad = _quick(jax.grad(loss, (0, 1), has_aux=True))
        (by_params, by_args), y = grad(params, args)
        names = {"out": "output"}
        leaves = {
            names.get(name, name): jnp.reshape(each["kernel"], (8, 8))
            for name, each in by_params.items()
        }
        return y, leaves, sum(by_args)

    found = pulled(theirs, other, x)
    expected = pulled(ours, params, x, x, train=False)
    # A score that rounds to the other side of a step would differ by far more.
    assert_same(found, expected, rtol=1e-3, atol=1e-4)


class _Own(nn.Module):
    """Of one layer, given by the test."""

    layer: nn.Module

    @nn.compact
    def __call__(self, x):
        return self.layer(x)


class _Derived(nn.Dense):
    def __call__(self, x):
        return super().__call__(x)


def _both(layer, x, chosen=_BFP3):
    """What a layer gives in formats, and without."""
    module = _Own(layer)
    variables = _quick(module.init)(jax.random.key(0), x)
    found, plain = (
        _quick(each.apply)(variables, x) for each in (InFormats(module, chosen), module)
    )
    return found, plain, variables["params"]["layer"]


def test_a_layer_that_derives_from_flax_is_cast():
    x = normal(4, 9)
    found, _, params = _both(_Derived(3, use_bias=False), x)
    w = formats.cast(params["kernel"], _BFP3.weights, 0)
    np.testing.assert_allclose(found, formats.cast(x, _BFP3.weights) @ w, rtol=1e-5)


def test_many_matrices_of_a_dense_layer_are_cast_one_by_one():
    x = normal(2, 4, 9)
    found, _, params = _both(nn.DenseGeneral(3, batch_dims=0, use_bias=False), x)
    w = formats.cast(params["kernel"], _BFP3.weights, 1)  # [2, 9, 3]
    expected = jnp.einsum("nbc,nck->nbk", formats.cast(x, _BFP3.weights), w)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_layer_keeps_its_type():
    for layer, x in (
        (nn.Dense(3, dtype=jnp.bfloat16), normal(2, 4)),
        (nn.Conv(3, (2,), dtype=jnp.bfloat16), normal(2, 4, 3)),
    ):
        found, plain, _ = _both(layer, x)
        assert found.dtype == plain.dtype == jnp.bfloat16


def test_a_single_example_has_blocks_along_its_only_axis():
    found, _, params = _both(nn.Dense(3, use_bias=False), x := normal(9))
    w = formats.cast(params["kernel"], _BFP3.weights, 0)
    np.testing.assert_allclose(found, formats.cast(x, _BFP3.weights) @ w, rtol=1e-5)
    tiled = Formats.of("bfp3", tile=(3, 3))
    found, _, params = _both(nn.Dense(3, use_bias=False), x, tiled)
    w = formats.cast(params["kernel"], _BFP3.weights, tile=(3, 3))
    np.testing.assert_allclose(found, formats.cast(x, _BFP3.weights) @ w, rtol=1e-5)


def test_a_module_is_left_as_it_was():
    layer, x = nn.Dense(3), normal(2, 4)
    _both(layer, x)
    assert layer.dot_general is None
    kept = InFormats(_Own(layer), _BFP3)
    with pytest.raises(Exception, match="kernel"):  # of other sizes
        kept.apply({"params": {"layer": {"kernel": jnp.ones((2, 2))}}}, x)
    variables = _Own(layer).init(jax.random.key(0), x)
    plain = x @ variables["params"]["layer"]["kernel"]
    np.testing.assert_allclose(_Own(layer).apply(variables, x), plain, rtol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Dense(3, dot_general_cls=lambda: jax.lax.dot_general),
        nn.Dense(3, dot_general=jax.lax.dot_general),
        nn.Conv(3, (2,), conv_general_dilated=jax.lax.conv_general_dilated),
        nn.MultiHeadDotProductAttention(
            2,
            qk_attn_weights_einsum_cls=lambda: jnp.einsum,
            attn_weights_value_einsum_cls=lambda: jnp.einsum,
        ),
    ],
)
def test_a_layer_with_a_product_of_its_own_is_refused(layer):
    with pytest.raises(ValueError, match="'layer' .*of its own; leave it out"):
        _both(layer, normal(2, 4, 4))


@pytest.mark.parametrize(
    "layer",
    [
        nn.ConvTranspose(3, (2,)),
        nn.ConvLocal(3, (2,)),
        nn.Einsum((4, 3), "abc,cd->abd"),
        nn.MultiHeadDotProductAttention(2, attention_fn=lambda q, k, v: v),
    ],
)
def test_a_layer_that_nobody_reaches_is_named(layer):
    with pytest.warns(UserWarning, match=r"'layer' \(.*stays float32"):
        _both(layer, normal(2, 4, 4))


class _Attending(nn.Module):
    @nn.compact
    def __call__(self, x):
        table = nn.Embed(5, 3)
        return table.attend(table(x))


def test_a_table_is_named_where_it_multiplies():
    module, x = _Attending(), jnp.array([1, 2])
    variables = module.init(jax.random.key(0), x)
    with pytest.warns(UserWarning, match=r"'Embed_0' \(Embed\).*stays float32"):
        InFormats(module, _BFP3).apply(variables, x)
