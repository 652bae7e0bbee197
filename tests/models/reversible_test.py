"""Reversible stacks of Flax modules against the same modules called one by one."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from codesign import models
from codesign.kernels.convolution import convolution
from codesign.models.formats import Formats, InFormats, casting
from codesign.models.norm import MaskedBatchNorm
from codesign.models.operands import operand_statistics, product_names
from codesign.models.reversible import ReversibleStack
from codesign.numerics import bfp
from codesign.numerics.lattice import to_lattice
from tests.models.arrays import assert_same, normal

_DEPTH = 3


class Normed(nn.Module):
    """A norm with statistics, dropout, a dense layer."""

    drop: float = 0.0

    @nn.compact
    def __call__(self, x, *, train=False):
        h = nn.BatchNorm(use_running_average=not train)(x)
        h = nn.Dropout(self.drop, deterministic=not train)(nn.gelu(h))
        return 0.3 * nn.Dense(x.shape[-1])(h)


class Tapped(nn.Module):
    """A dense layer of the input and of a tap, scaled."""

    @nn.compact
    def __call__(self, x, tap, scale):
        h = nn.Dense(x.shape[-1])(nn.gelu(x)) + nn.Dense(x.shape[-1], name="tap")(tap)
        return scale * h


class ConvNet(nn.Module):
    """A convolution of ours, which any format reaches."""

    @nn.compact
    def __call__(self, x):
        shape = (3, 3, x.shape[-1], x.shape[-1])
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        return 0.3 * convolution(nn.relu(x), kernel)


def _streams(*shape):
    shape = shape or (6, 8)
    return normal(*shape, seed=1), normal(*shape, seed=2)


def _of_block(variables, place, i):
    return {
        name: jax.tree.map(lambda leaf: leaf[i], found[place])
        for name, found in variables.items()
    }


def _one_by_one(function, variables, x1, x2, *each, **settings):
    for i in range(_DEPTH):
        arguments = jax.tree.map(lambda leaf, i=i: leaf[i], each)
        first, second = (_of_block(variables, f"residual{k}", i) for k in (1, 2))
        x2 = x2 + function.apply(first, x1, *arguments, **settings)
        x1 = x1 + function.apply(second, x2, *arguments, **settings)
    return x1, x2


def _sum(streams):
    return jnp.mean(jnp.sin(streams[0])) + jnp.mean(streams[1] ** 2)


def test_equals_its_modules_one_by_one_with_gradients_of_all_arguments():
    stack = ReversibleStack(Tapped(), Tapped(), _DEPTH, fraction_bits=None)
    streams, taps = _streams(), normal(_DEPTH, 6, 4, seed=3)
    scales = jnp.array([0.1, 0.2, 0.3])
    variables = stack.init(jax.random.key(0), *streams, taps, scales)
    kernels = np.asarray(variables["params"]["residual1"]["Dense_0"]["kernel"])
    assert kernels.shape == (_DEPTH, 8, 8)
    assert not np.allclose(kernels[0], kernels[1])

    def loss(run):
        return jax.jit(jax.value_and_grad(run, (0, 1, 2, 3)))(
            variables, streams, taps, scales
        )

    def reversible(variables, streams, taps, scales):
        return _sum(stack.apply(variables, *streams, taps, scales))

    def plain(variables, streams, taps, scales):
        return _sum(_one_by_one(Tapped(), variables, *streams, taps, scales))

    assert_same(loss(reversible), loss(plain), rtol=1e-4, atol=1e-6)


def test_statistics_are_recorded_once_and_dropout_draws_again_what_it_drew():
    stack = ReversibleStack(Normed(0.5), Normed(0.5), _DEPTH)
    x1, x2 = (to_lattice(x, 12) for x in _streams())
    variables = stack.init(jax.random.key(0), x1, x2)
    settings = {
        "train": True,
        "mutable": ["batch_stats"],
        "rngs": {"dropout": jax.random.key(7)},
    }

    @jax.jit
    def step(params):
        def loss(params):
            of = {**variables, "params": params}
            (y1, y2), updates = stack.apply(of, x1, x2, **settings)
            return _sum((y1, y2)), (y1, y2, updates)

        return jax.value_and_grad(loss, has_aux=True)(params)

    (_, (y1, y2, updates)), slopes = step(variables["params"])
    # After one call, .99 of the old mean 0 and .01 of the batch's; the first block sees x1.
    mean = updates["batch_stats"]["residual1"]["BatchNorm_0"]["mean"]
    np.testing.assert_allclose(mean[0], 0.01 * x1.mean(0), rtol=1e-4, atol=1e-7)
    (back, _) = jax.jit(
        lambda y1, y2: stack.apply(variables, y1, y2, method="inverse", **settings)
    )(y1, y2)
    np.testing.assert_array_equal(back.first, x1)
    np.testing.assert_array_equal(back.second, x2)
    # Finite differences with the same draws; others would be far off.
    direction = jax.tree.map(lambda p: normal(*p.shape, seed=p.size), slopes)

    def moved(size):
        shifted = jax.tree.map(
            lambda p, d: p + size * d, variables["params"], direction
        )
        return step(shifted)[0][0]

    expected = (moved(0.02) - moved(-0.02)) / 0.04
    products = jax.tree.map(lambda s, d: np.vdot(s, d), slopes, direction)
    found = sum(jax.tree.leaves(products))
    np.testing.assert_allclose(found, expected, rtol=0.05)


def test_each_call_draws_anew():
    stack = ReversibleStack(Normed(0.5), Normed(0.5), _DEPTH)
    streams = _streams()
    variables = stack.init(jax.random.key(0), *streams)
    first, other = (
        stack.apply(
            *(variables, *streams),
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(seed)},
        )[0]
        for seed in (0, 1)
    )
    assert not np.allclose(first.first, other.first)


@pytest.mark.parametrize(
    "rounding", ["truncate", pytest.param("stochastic", marks=pytest.mark.slow)]
)
def test_in_formats_the_inverse_is_exact_and_costs_what_the_format_does(rounding):
    stack = ReversibleStack(ConvNet(), ConvNet(), 8)
    streams = [to_lattice(x, 12) for x in _streams(2, 4, 4, 6)]
    variables = stack.init(jax.random.key(0), *streams)
    chosen = Formats.of(bfp.Format(rounding=rounding, bias="tensor"))

    def run(method, *streams):
        with casting(chosen, key=jax.random.key(1)):
            return stack.apply(variables, *streams, method=method)

    y = jax.jit(run, static_argnums=0)("__call__", *streams)
    for x, back in zip(
        streams, jax.jit(run, static_argnums=0)("inverse", *y), strict=True
    ):
        np.testing.assert_array_equal(back, x)
    plain = jax.jit(stack.apply)(variables, *streams)
    error = np.linalg.norm(y[0] - plain[0]) / np.linalg.norm(plain[0])
    assert 1e-3 < error < 0.2


class Classifier(nn.Module):
    """Two stacks of a width each between a convolution and a classifier."""

    @nn.compact
    def __call__(self, x, bn_mask, *, train):
        x = MaskedBatchNorm(0)(nn.Conv(8, (3, 3))(x), bn_mask, train=train)
        streams = ReversibleStack(ConvNet(), ConvNet(), 2, name="stack")(
            *jnp.split(x, 2, -1)
        )
        return nn.Dense(3)(jnp.concatenate(streams, -1).mean((1, 2)))


@pytest.mark.slow
def test_a_network_that_holds_a_stack_is_one_like_any_other():
    network = models.Network(
        InFormats(Classifier(), Formats.of("bfp5")), 1, (6, 6, 1), 3
    )
    assert product_names(network) == (
        *("Conv_0", "stack/residual1", "stack/residual2", "Dense_0"),
    )
    variables = network.init(jax.random.key(0))
    images, labels = normal(4, 6, 6, 1), jnp.array([0, 1, 2, 0])

    def loss(mask, bits):
        logits, _ = network.apply(
            variables, images, mask, train=True, mantissa_bits=bits
        )
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    slopes = jax.jit(jax.grad(loss, (0, 1)))(jnp.ones(1), jnp.float32(3.5))
    assert all(np.all(np.isfinite(s)) and np.all(s != 0) for s in slopes)
    found = operand_statistics(network, variables, images, labels, jnp.ones(1))
    for kinds in found.values():
        for kind in kinds.values():
            assert 0 < kind.error < 0.2


def test_a_lattice_that_overflows():
    class Far(nn.Module):
        @nn.compact
        def __call__(self, x):
            return x + 3000.0

    stack = ReversibleStack(Far(), Far(), 2)
    streams = _streams()
    with pytest.raises(ValueError, match=r"left the lattice.*4096.*fraction_bits.*=12"):
        stack.apply({}, *streams)
    assert np.isnan(jax.jit(lambda *x: stack.apply({}, *x))(*streams)[0]).all()
    found = ReversibleStack(Far(), Far(), 2, fraction_bits=None).apply({}, *streams)
    assert np.isfinite(found[0]).all()


def test_under_jit_of_sharded_data():
    stack = ReversibleStack(Normed(), Normed(), _DEPTH)
    streams = _streams()
    variables = stack.init(jax.random.key(0), *streams)
    mesh = jax.make_mesh((1,), ("data",))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    placed = [jax.device_put(x, spread) for x in streams]
    assert_same(
        jax.jit(stack.apply)(variables, *placed), stack.apply(variables, *streams)
    )


@pytest.mark.parametrize(
    ("settings", "streams", "error", "message"),
    [
        ({"f1": "conv"}, _streams(), TypeError, "`f1` .*'conv'.*Module"),
        ({"depth": 0}, _streams(), ValueError, r"`depth` \(=0\) must be a positive"),
        (
            {},
            (normal(4, 3), normal(4, 2)),
            ValueError,
            "streams.*even number of channels",
        ),
        ({"f2": nn.Dense(3)}, _streams(), ValueError, r"`f2` makes float32\[6, 3\]"),
        ({"fraction_bits": 30}, _streams(), ValueError, "fraction_bits.*=30.*0 to 23"),
    ],
)
def test_refuses(settings, streams, error, message):
    given = {"f1": nn.Dense(8), "f2": nn.Dense(8), "depth": 2} | settings
    with pytest.raises(error, match=message):
        ReversibleStack(**given).init(jax.random.key(0), *streams)
