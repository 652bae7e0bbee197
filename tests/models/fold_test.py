import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codesign import models, workload
from codesign.models.fold import fold, without_norms
from codesign.models.formats import InFormats
from codesign.models.layers import Conv, Dense
from codesign.models.lora import LoRA
from codesign.models.norm import MaskedBatchNorm
from codesign.models.operand_formats import Formats


def _drawn(module, x, num_sites=1, seed=0):
    """Variables of a module whose batch norms have seen something."""
    ones = jnp.ones(num_sites)
    init = functools.partial(module.init, train=False)
    variables = jax.eval_shape(init, jax.random.key(seed), x, ones)
    rng = np.random.default_rng(seed)

    def other(path, leaf):
        name = path[-1].key
        if name in ("var", "scale"):
            return jnp.asarray(rng.uniform(0.5, 2.0, leaf.shape), leaf.dtype)
        if name in ("mean", "bias"):
            return jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype)
        bound = np.sqrt(3 / np.prod(leaf.shape[:-1]))
        return jnp.asarray(rng.uniform(-bound, bound, leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(other, variables)


class _Pair(nn.Module):
    """A layer and a norm, with what a test puts in their places."""

    layer: nn.Module
    norm: nn.Module | None = None
    is_doubled: bool = False
    is_activated: bool = False
    is_tapped: bool = False

    @nn.compact
    def __call__(self, x, bn_mask, *, train):
        y = self.layer(x)
        if self.is_tapped:
            self.sow("intermediates", "tap", y)
        y = nn.relu(y) if self.is_activated else y
        if self.norm is None:
            z = MaskedBatchNorm(0, epsilon=0.0, name="norm")(y, bn_mask, train=train)
        else:
            z = self.norm(y)
        return z + y if self.is_doubled else z


def test_by_hand():
    # s = 3 / sqrt(4) = 1.5; at mask .5: a = .75 + .5 = 1.25, b = .5 (7 - 2 * 1.5) = 2.
    # So the kernel 2 becomes 2.5 and the bias 4 becomes 1.25 * 4 + 2 = 7.
    variables = {
        "params": {
            "layer": {"kernel": jnp.array([[2.0]]), "bias": jnp.array([4.0])},
            "norm": {"scale": jnp.array([3.0]), "bias": jnp.array([7.0])},
        },
        "batch_stats": {"norm": {"mean": jnp.array([2.0]), "var": jnp.array([4.0])}},
    }
    module, x = _Pair(Dense(1)), jnp.ones((1, 1))
    folded = fold(module, variables, jnp.array([0.5]), x)
    layer = {"kernel": jnp.array([[2.5]]), "bias": jnp.array([7.0])}
    chex.assert_trees_all_close(
        folded, {"params": {"layer": layer}, "batch_stats": {}}, rtol=0
    )
    y = module.apply(variables, x, jnp.array([0.5]), train=False)
    assert y == 2.5 + 7.0


@pytest.mark.parametrize(
    "name",
    ["vgg11", *(pytest.param(f"resnet{n}", marks=pytest.mark.slow) for n in (18, 50))],
)
def test_a_folded_network_computes_as_before(name):
    network = models.create(name, width=0.1, image_shape=(8, 8, 3))
    images = jax.random.normal(jax.random.key(1), (4, 8, 8, 3))
    variables = _drawn(network.module, images, network.num_sites)
    mask = jnp.asarray(np.random.default_rng(2).choice([0, 0.3, 1], network.num_sites))
    mask = mask.astype(jnp.float32)
    folded = fold(network.module, variables, mask, images[:1])
    apply = jax.jit(network.module.apply, static_argnames="train")
    expected = apply(variables, images, mask, train=False)
    with without_norms():
        found = jax.jit(lambda v: network.module.apply(v, images, mask, train=False))(
            folded
        )
    largest = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * largest)
    assert not any("norm" in str(key) for key in folded["params"])


def test_the_trace_of_a_folded_network_has_no_norm():
    network = models.create("resnet18", width=0.1, image_shape=(8, 8, 3))
    fn, variables, image, mask = network.trace_args()
    before = workload.trace(fn, variables, image, mask)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), variables)
    folded = fold(network.module, zeros, np.ones(20, np.float32), image)
    with without_norms():
        after = workload.trace(fn, folded, image, mask)
    assert before.kinds.count("norm") == 20
    assert after.kinds == tuple(kind for kind in before.kinds if kind != "norm")
    assert after.total_macs == before.total_macs
    assert after.ops[0].output_shape == before.ops[0].output_shape


class _Users(nn.Module):
    """Flax's own layers and norms, one behind `nn.remat`, one for two calls."""

    @nn.compact
    def __call__(self, x, bn_mask, *, train):
        norm = nn.BatchNorm(use_running_average=not train, name="first_norm")
        x = nn.relu(norm(nn.Conv(4, (3, 3), name="first")(x)))
        x = x + nn.remat(_Branch, static_argnums=2)(name="branch")(x, train)
        layer, norm = nn.Dense(4, name="shared"), nn.BatchNorm(True, use_scale=False)
        for _ in range(2):
            x = nn.relu(norm(layer(x)))
        x = nn.BatchNorm(use_running_average=True, use_bias=False)(
            nn.DenseGeneral(3)(x)
        )
        return nn.GroupNorm(1)(x).mean((1, 2))


class _Branch(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(4, (1, 1), feature_group_count=2)(x)
        return nn.BatchNorm(use_running_average=not train)(x)


@pytest.mark.parametrize("in_formats", [False, True])
def test_any_flax_module(in_formats):
    module = _Users()
    x = jax.random.normal(jax.random.key(1), (2, 5, 5, 2))
    variables = _drawn(module, x)
    module = InFormats(module, Formats()) if in_formats else module
    folded = fold(module, variables, jnp.ones(1), x)
    expected = module.apply(variables, x, jnp.ones(1), train=False)
    with without_norms():
        found = module.apply(folded, x, jnp.ones(1), train=False)
        init = functools.partial(module.init, train=False)
        drawn = jax.eval_shape(init, jax.random.key(0), x, jnp.ones(1))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    chex.assert_trees_all_equal_shapes(drawn["params"], folded["params"])


def test_a_site_of_mask_zero_needs_no_layer():
    module, x = (
        _Pair(Conv(3, use_bias=False), is_activated=True),
        jnp.ones((1, 4, 4, 2)),
    )
    variables = _drawn(module, x)
    folded = fold(module, variables, jnp.zeros(1), x)
    chex.assert_trees_all_equal(
        folded, {"params": {"layer": variables["params"]["layer"]}, "batch_stats": {}}
    )


class _TwoNorms(nn.Module):
    @nn.compact
    def __call__(self, x, bn_mask, *, train):
        layer = Dense(3, name="layer")
        for site in (0, 1):
            x = MaskedBatchNorm(site, name=f"norm{site}")(
                layer(x), bn_mask, train=train
            )
        return x


class _Scanned(nn.Module):
    @nn.compact
    def __call__(self, x, bn_mask, *, train):
        block = nn.scan(
            _Step,
            length=2,
            variable_axes={"params": 0, "batch_stats": 0},
            split_rngs={"params": True},
        )
        return block(name="block")(x, None)[0]


class _Step(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return nn.BatchNorm(True, name="norm")(nn.Dense(3, name="layer")(x)), None


def _norm(**settings):
    return nn.BatchNorm(**({"use_running_average": True} | settings))


@pytest.mark.parametrize(
    ("module", "match"),
    [
        (_Pair(Dense(3), is_activated=True), "'norm' follows no convolution or dense"),
        (_Pair(nn.LayerNorm()), "'norm' follows no convolution or dense"),
        (
            _Pair(Conv(3, (1,) * 2, use_bias=False)),
            "'layer'.*'norm' has no bias.*=True",
        ),
        (_Pair(nn.Dense(3, use_bias=False), _norm()), "'layer'.*`use_bias=True`"),
        (
            _Pair(Dense(3), is_doubled=True),
            "'layer' goes to .*'norm' and to another op",
        ),
        (_Pair(Dense(3), is_tapped=True), "'layer' goes to .*'norm' and to another op"),
        (_TwoNorms(), "'layer' goes to .*'norm0' and to 'norm1'"),
        (_Scanned(), r"'block/layer'.*\(2, 3, 3\).*'block/norm'.*\(2, 3\).*nn.scan"),
        (_Pair(Dense(3), _norm(axis=1)), "'norm' has `axis` 1"),
        (_Pair(Dense(3), _norm(use_running_average=False)), "'norm' normalises by the"),
    ],
)
def test_refuses_modules(module, match):
    x = jnp.ones((2, 3, 3, 3))
    with pytest.raises(ValueError, match=match):
        fold(module, _drawn(module, x, 2), jnp.ones(2), x)


@pytest.mark.parametrize(
    ("collection", "name", "value", "match"),
    [
        ("batch_stats", "mean", None, "no `mean` of the batch norm 'norm' in `batch_s"),
        ("batch_stats", "var", None, "no `var`"),
        ("params", "scale", None, "no `scale` of the batch norm 'norm' in `params`"),
        ("batch_stats", "mean", np.nan, "`mean` of the batch norm 'norm'.*not finite"),
        ("batch_stats", "var", np.inf, "`var`.*not finite"),
        ("batch_stats", "var", -1.0, "`var`.*negative"),
        ("params", "bias", np.nan, "`bias` of the batch norm"),
    ],
)
def test_refuses_variables(collection, name, value, match):
    module, x = _Pair(Dense(3)), jnp.ones((2, 3))
    variables = _drawn(module, x)
    norm = variables[collection]["norm"]
    if value is None:
        del norm[name]
    else:
        norm[name] = norm[name].at[1].set(value)
    with pytest.raises(ValueError, match=match):
        fold(module, variables, jnp.ones(1), x)


def test_adapters_are_to_be_merged_first():
    module, x = LoRA(_Pair(Dense(3)), ("layer",)), jnp.ones((2, 3))
    init = functools.partial(module.init, train=False)
    variables = init(jax.random.key(0), x, jnp.ones(1))
    with pytest.raises(ValueError, match="'norm' in `params`.*adapters merged"):
        fold(module, variables, jnp.ones(1), x)
    merged = module.merge(variables)
    folded = fold(module.module, merged, jnp.ones(1), x)
    assert list(folded["params"]) == ["layer"]


@pytest.mark.parametrize("mask", [np.ones(0), np.ones((1, 1)), [np.nan], [-0.1], [2.0]])
def test_refuses_masks(mask):
    module, x = _Pair(Dense(3)), jnp.ones((2, 3))
    with pytest.raises(ValueError, match="`bn_mask`.*'norm' of `site` 0"):
        fold(module, _drawn(module, x), np.asarray(mask), x)
