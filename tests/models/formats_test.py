"""Networks in number formats, of this package and of a user's own Flax."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codesign import models, workload
from codesign.kernels.dense import dense
from codesign.models.digest import digest
from codesign.models.formats import Formats, InFormats, casting
from codesign.models.layers import Dropout
from codesign.models.operands import product_names
from codesign.numerics import bfp, formats
from codesign.workload.op import TYPE_I_KINDS
from tests.models.arrays import assert_same, normal

_PLAIN, _BFP3 = Formats(), Formats.of("bfp3")
_RANDOM = Formats.of(bfp.Format(mantissa_bits=3, bias=None, rounding="stochastic"))


class _Block(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return x + nn.relu(nn.Dense(x.shape[-1])(x)), None


class _Mixed(nn.Module):
    """Each of Flax's layers, a shared one, and one that is scanned and rematerialised."""

    @nn.compact
    def __call__(self, x, bn_mask, *, train):
        x = nn.Conv(6, (3, 3), (2, 1), kernel_dilation=(1, 2), padding="VALID")(x)
        x = nn.Conv(6, (3, 3), feature_group_count=3, use_bias=False)(x)
        x = models.MaskedBatchNorm(0)(x, bn_mask, train=train)
        x = x.reshape(len(x), -1, 6)
        x = nn.Conv(8, (3,))(x)
        shared = nn.Dense(8)
        x = shared(nn.relu(shared(x)))
        x = nn.MultiHeadDotProductAttention(2)(x)
        blocks = nn.scan(
            nn.remat(_Block), {"params": 0}, split_rngs={"params": True}, length=3
        )
        x, _ = blocks(name="blocks")(x, None)
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(10)(x.mean(1))


_NAMES = (
    *("Conv_0", "Conv_1", "Conv_2", "Dense_0", "Dense_0#2"),
    *(f"MultiHeadDotProductAttention_0/{name}" for name in ("query", "key", "value")),
    *("MultiHeadDotProductAttention_0", "MultiHeadDotProductAttention_0#2"),
    *("MultiHeadDotProductAttention_0/out", "blocks/Dense_0", "Dense_1"),
)


def _network(chosen=None, module=None, shape=(7, 6, 3)):
    module = _Mixed() if module is None else module
    module = module if chosen is None else InFormats(module, chosen)
    return models.Network(module, image_shape=shape)


@functools.cache
def _drawn():
    return _quick(_network().init)(jax.random.key(0))


def _quick(fn):
    """Compiled in half the time, since it runs once."""
    return jax.jit(fn, compiler_options={"xla_backend_optimization_level": 1})


@functools.cache
def _pulled(chosen):
    """Loss and gradients of the mixed network in training, from the same variables."""
    network, images = _network(chosen), normal(2, 7, 6, 3)

    def loss(params, variables, key):
        given = {**variables, "params": params}
        logits, _ = network.apply(given, images, jnp.ones(1), train=True, key=key)
        return jnp.sum(jnp.sin(logits))

    gradient = _quick(jax.value_and_grad(loss))
    return gradient(_drawn()["params"], _drawn(), jax.random.key(1))


@pytest.mark.slow
def test_in_float32_all_is_as_without_formats():
    variables = _quick(_network(_PLAIN).init)(jax.random.key(0))
    assert_same(variables, _drawn(), rtol=0)
    assert jax.tree.structure(variables) == jax.tree.structure(_drawn())
    assert_same(_pulled(_PLAIN), _pulled(None), rtol=1e-4, atol=1e-5)


def test_formats_of_gradients_change_gradients_only():
    gradients = Formats.of({"gradients": "bfp1"})
    value, slopes = _pulled(gradients)
    plain_value, plain = _pulled(_PLAIN)
    assert value == plain_value
    changed = [
        not np.allclose(a, b, rtol=1e-3)
        for a, b in zip(jax.tree.leaves(slopes), jax.tree.leaves(plain), strict=True)
    ]
    assert np.mean(changed) > 0.8  # the last bias only adds up what it is given


def test_every_product_has_a_name():
    assert product_names(_network(_BFP3)) == _NAMES


def test_a_trace_has_the_macs_of_the_plain_network():
    def products(network):
        ops = workload.trace(*network.trace_args())
        return [
            (op.kind, op.macs) for op in ops.ops if op.kind in (*TYPE_I_KINDS, "matmul")
        ]

    assert products(_network(_BFP3)) == products(_network())


@pytest.mark.parametrize("name", models.NETWORKS)
def test_every_network_of_the_package(name):
    plain = models.create(name, width=0.125, image_shape=(8, 8, 3))
    chosen = dataclasses.replace(plain, module=InFormats(plain.module, _RANDOM))
    ops = workload.trace(*plain.trace_args())
    assert len(product_names(chosen)) == sum(
        op.kind in ("conv", "dense", "depthwise", "matmul") for op in ops.ops
    )
    shapes = [
        jax.tree.map(jnp.shape, jax.eval_shape(network.init, jax.random.key(0)))
        for network in (plain, chosen)
    ]
    assert shapes[0] == shapes[1]


def test_what_a_module_holds_draws_as_without_formats():
    # Draws depend on paths, and a field may have the name of our own.
    layers = nn.Sequential([nn.Dense(4), nn.Dropout(0.5, deterministic=False)])
    rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    x = normal(3, 4)
    for module in (layers, _Holding(layers), InFormats(layers, _PLAIN)):
        found = _quick(InFormats(module, _PLAIN).init_with_output)(rngs, x)
        expected = _quick(module.init_with_output)(rngs, x)
        assert_same(found, expected, rtol=1e-6)


class _Holding(nn.Module):
    module: nn.Module

    def __call__(self, x):
        return self.module(x)


class _Drawing(nn.Module):
    """Draws of its own and in a layer; the first product is exact in every format."""

    @nn.compact
    def __call__(self, x, *, train):
        x = dense(jnp.eye(8), dense(x, jnp.eye(8)))
        own = jax.random.uniform(self.make_rng("dropout"), (8,))
        return own, Dropout(0.5)(jnp.ones((8, 8)), train=train), x


@pytest.mark.parametrize(
    "streams", [("params",), ("dropout",), ("dropout", "rounding")]
)
def test_dropout_draws_what_it_draws_without_formats(streams):
    rngs = {name: jax.random.key(i) for i, name in enumerate(streams)}
    x = jnp.full((8, 8), 1.125)  # halfway between two numbers of three bits
    module = _Drawing()
    plain = module.apply({}, x, train=True, rngs=rngs)
    found = InFormats(module, _RANDOM).apply({}, x, train=True, rngs=rngs)
    np.testing.assert_array_equal(found[0], plain[0])
    np.testing.assert_array_equal(found[1], plain[1])
    assert set(np.unique(jnp.stack(found[2:]))) == {1.0, 1.25}


def test_the_key_of_a_call_is_all_that_rounding_depends_on():
    network, images = _network(_RANDOM, _Small(), (4, 4, 1)), normal(2, 4, 4, 1)
    variables, mask = _quick(network.init)(jax.random.key(0)), jnp.zeros(1)

    @_quick
    def logits(key):
        return network.apply(variables, images, mask, train=True, key=key)[0]

    first, again, other = (logits(jax.random.key(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)
    # Without one training is refused, and evaluation rounds to the nearest.
    with pytest.raises(ValueError, match=r"`key` is None.*round at random"):
        network.apply(variables, images, mask, train=True)
    nearest = Formats.of(formats.without_chance(_RANDOM.weights))
    found, expected = (
        _quick(functools.partial(each.apply, train=False))(variables, images, mask)[0]
        for each in (network, _network(nearest, _Small(), (4, 4, 1)))
    )
    np.testing.assert_array_equal(found, expected)


def test_sequence_networks_round_by_the_key_of_dropout():
    small = dict(num_layers=1, hidden=8, inner=12, num_heads=2, length=3)
    plain = models.create("transformer", **small)
    network = dataclasses.replace(plain, module=InFormats(plain.module, _RANDOM))
    source, target = normal(1, 3, 8), normal(1, 3, 8, seed=1)

    def run(key):
        variables = network.init(jax.random.key(0))
        return network.apply(variables, source, target, key, train=True)

    assert jax.eval_shape(run, jax.random.key(1)).shape == (1, 3, 8)


def test_each_formats_have_a_digest_of_their_own():
    found = {
        digest(models.Network(InFormats(_Small(), chosen), image_shape=(2, 2, 1)))
        for chosen in (
            *(_PLAIN, _BFP3, _RANDOM, Formats(master="bfp3")),
            *(Formats.of("bfp3x16"), Formats.of("bfp3", tile=(3, 3))),
            Formats.of({"gradients": "bfp3"}),
        )
    }
    assert len(found) == 7


class _Small(nn.Module):
    @nn.compact
    def __call__(self, x, bn_mask, *, train):
        x = models.MaskedBatchNorm(0)(x, bn_mask, train=train)
        return nn.Dense(10)(x.reshape(len(x), -1))


@pytest.mark.parametrize(
    "bits", [0.5, 23.5, float("nan"), np.ones(3), np.ones((2, 1)), [4.0, 0.0]]
)
def test_widths_out_of_range_or_shape_are_refused(bits):
    network = _network(_BFP3, _Small(), (2, 2, 1))
    variables = network.init(jax.random.key(0))
    with pytest.raises(ValueError, match=r"(?s)`mantissa_bits`.*from 1 to 23"):
        network.apply(
            variables,
            jnp.ones((1, 2, 2, 1)),
            jnp.ones(1),
            train=False,
            mantissa_bits=bits,
        )


def test_widths_are_of_weights_and_of_activations():
    # Linear in each width between whole ones: at 3 and 3 it is the format itself.
    network, images = _network(_BFP3, _Small(), (3, 3, 1)), normal(4, 3, 3, 1)
    variables = network.init(jax.random.key(0))

    @jax.jit
    def logits(bits):
        return network.apply(
            variables, images, jnp.zeros(1), train=False, mantissa_bits=bits
        )[0]

    def expected(weights, activations):
        flat, params = images.reshape(4, 9), variables["params"]["Dense_0"]
        w, x = (
            formats.cast(
                value, dataclasses.replace(_BFP3.weights, mantissa_bits=m), axis
            )
            for value, m, axis in (
                (params["kernel"], weights, 0),
                (flat, activations, 1),
            )
        )
        return x @ w

    np.testing.assert_allclose(logits(jnp.float32(3)), expected(3, 3), rtol=1e-5)
    np.testing.assert_allclose(logits(jnp.array([2.0, 5.0])), expected(2, 5), rtol=1e-5)
    half = (expected(2, 5) + expected(3, 5)) / 2
    np.testing.assert_allclose(
        logits(jnp.array([2.5, 5.0])), half, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("name", ["weights", "activations"])
def test_widths_need_block_floating_point(name):
    chosen = dataclasses.replace(_BFP3, **{name: "mxint8"})
    network = _network(chosen, _Small(), (2, 2, 1))
    with pytest.raises(ValueError, match=f"`{name}` is mxint8"):
        network.apply(
            network.init(jax.random.key(0)),
            jnp.ones((1, 2, 2, 1)),
            jnp.ones(1),
            train=False,
            mantissa_bits=4.0,
        )


def test_formats_by_class_or_all_at_once():
    assert (
        _BFP3.weights == _BFP3.activations == _BFP3.gradients == formats.by_name("bfp3")
    )
    mixed = Formats.of({"gradients": "mxfp8_e5m2"}, master="bfloat16")
    assert (mixed.weights, mixed.gradients) == ("float32", "mxfp8_e5m2")
    assert mixed.master == "bfloat16"
    assert Formats.of("bfp3", tile=[3, 3]).tile == (3, 3)
    assert len({_BFP3, Formats.of("bfp3")}) == 1  # fit for a static argument


@pytest.mark.parametrize(
    ("given", "settings", "match"),
    [
        ({"weight": "bfp3"}, {}, "`weight` is no class.*did you mean `weights`"),
        ({"master": "bfp3"}, {}, "`master` is no class of tensors; .*`gradients`"),
        ({"gradients": "bpf5"}, {}, "`gradients`.*did you mean `bfp5`"),
        ("bfp0", {}, r"`weights` \(='bfp0'\).*`mantissa_bits`"),
        (None, {}, r"`weights` \(=None\) is none"),
        ("bfp3", {"master": "x"}, r"`master` \(='x'\) is none"),
        (
            "bfp3",
            {"tile": (3, 4)},
            r"`tile` \(=\(3, 4\)\).*12 numbers.*`weights` is bfp3",
        ),
        ("mxint8", {"tile": (4, 8)}, "32 numbers, but `weights` is mxint8"),
        ("bfp3", {"tile": (3, 3), "master": "mxint8"}, "`master` is mxint8"),
        ("bfp3", {"tile": 9}, r"`tile` \(=9\) must be \(rows, columns\)"),
        ("bfp3", {"tile": (9,)}, r"must be \(rows, columns\)"),
        ("bfp3", {"tile": (-3, -3)}, r"must be \(rows, columns\)"),
        ("bfp3", {"tile": (1.5, 6)}, r"must be \(rows, columns\)"),
    ],
)
def test_formats_refuse(given, settings, match):
    with pytest.raises(ValueError, match=match):
        Formats.of(given, **settings)


def test_a_name_in_the_place_of_formats_is_refused():
    with pytest.raises(TypeError, match=r"`formats` \(='bfp3'\) must be `Formats`"):
        InFormats(nn.Dense(3), "bfp3").init(jax.random.key(0), jnp.ones((2, 3)))


def test_only_kernels_are_kept_in_the_master_format():
    # As of attention or of a scan, a bias may have two axes; a table is no kernel.
    shapes = dict(kernel=(2, 9, 5), bias=(3, 4), scale=(6,), embedding=(7, 4))
    params = {"layer": {name: normal(*shape) for name, shape in shapes.items()}}
    module = InFormats(nn.Dense(5), Formats(master="bfp3"))
    kept = module.stored(params, jax.random.key(0))["layer"]
    expected = formats.cast(params["layer"]["kernel"], _BFP3.weights, -2)
    np.testing.assert_array_equal(kept["kernel"], expected)
    assert np.any(kept["kernel"] != params["layer"]["kernel"])
    again = module.stored({"layer": kept}, jax.random.key(1))["layer"]
    np.testing.assert_array_equal(again["kernel"], expected)
    for name in ("bias", "scale", "embedding"):
        np.testing.assert_array_equal(kept[name], params["layer"][name])


def test_tiles_of_the_master_are_those_of_the_products():
    chosen = Formats.of("bfp3", tile=(3, 3), master="bfp3")
    params = {"kernel": normal(6, 6)}
    kept = InFormats(nn.Dense(6), chosen).stored(params, jax.random.key(0))["kernel"]
    again = formats.cast(kept, chosen.weights, tile=(3, 3))
    np.testing.assert_array_equal(again, kept)
    expected = formats.cast(params["kernel"], chosen.weights, tile=(3, 3))
    np.testing.assert_array_equal(kept, expected)


def test_truncation_swallows_small_updates_and_chance_keeps_their_mean():
    # Two bits below the largest of 1.5: steps of 1/2. An update of 1/16 to 1 is an eighth
    # of a step: cut, it is lost 64 times over; at random an eighth of 1024 is kept, 128
    # with a deviation of sqrt(1024 / 8 * 7 / 8) = 10.6, here held to five of these.
    kernel = jnp.concatenate([jnp.full((1, 1024), 1.5), jnp.ones((1, 1024))])
    kinds = {"truncate": 0, "stochastic": 128}
    for rounding, expected in kinds.items():
        master = bfp.Format(block_size=2, mantissa_bits=2, bias=None, rounding=rounding)
        module = InFormats(nn.Dense(1024), Formats(master=master))
        moved = {"kernel": kernel.at[1].add(1 / 16)}
        kept = module.stored(moved, jax.random.key(0))["kernel"]
        np.testing.assert_array_equal(kept[0], kernel[0])
        assert set(np.unique(kept[1])) <= {1.0, 1.5}
        assert abs(np.sum(kept[1] == 1.5) - expected) <= 53 * (expected > 0)
        other = module.stored(moved, jax.random.key(1))["kernel"]
        assert np.array_equal(other, kept) == (rounding == "truncate")


def test_kernels_of_one_shape_have_random_bits_of_their_own():
    master = bfp.Format(block_size=2, mantissa_bits=2, bias=None, rounding="stochastic")
    module = InFormats(nn.Dense(64), Formats(master=master))
    layer = {"kernel": jnp.full((2, 64), 1.25)}
    kept = module.stored({"a": layer, "b": layer}, jax.random.key(0))
    assert np.mean(kept["a"]["kernel"] == kept["b"]["kernel"]) < 0.7


def test_a_function_without_modules_is_cast_too():
    x, w = normal(4, 9), normal(9, 2, seed=1)
    with casting(Formats.of("bfp5")):
        found = dense(dense(x, w), w.T)  # two products, two names
    fmt = formats.by_name("bfp5")
    inner = bfp.quantize(x, fmt) @ bfp.quantize(w, fmt, 0)
    outer = bfp.quantize(inner, fmt) @ bfp.quantize(w.T, fmt, 0)
    np.testing.assert_allclose(found, outer, rtol=1e-6)
    np.testing.assert_allclose(dense(x, w), x @ w, rtol=1e-5)  # outside, nothing is
