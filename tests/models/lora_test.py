import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codesign import models, workload
from codesign.models.decoder import Decoder
from codesign.models.formats import InFormats
from codesign.models.layers import Dense
from codesign.models.lora import LoRA
from codesign.models.operand_formats import Formats


class _Small(nn.Module):
    """A layer of each kind, and one in a module of its own; dropout and statistics."""

    @nn.compact
    def __call__(self, x, *, train=False):
        x = nn.tanh(Dense(4, name="first")(x))
        x = nn.BatchNorm(use_running_average=not train, name="norm")(x)
        x = nn.Dropout(0.5, deterministic=not train)(x)
        x = _Block(name="block")(x)
        return nn.Dense(2, use_bias=False, name="last")(x)


class _Holding(nn.Module):
    """A module in a field."""

    held: nn.Module

    def __call__(self, x):
        return self.held(x)


class _Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x + Dense(4, name="first")(x)


_X = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32)


def _drawn(module, x=_X):
    """Variables whose B is no longer zero."""
    variables = module.init(jax.random.key(0), x)
    rng = np.random.default_rng(1)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype) / 2,
        variables["params"],
    )
    return {**variables, "params": params}


def test_by_hand():
    # y = x W + b + (alpha / rank) x A B = 2 * 3 + 1 + (8 / 2) 2 (1 * 5 - 2 * 1) = 31.
    module = LoRA(Dense(1), ("",), rank=2, alpha=8.0)
    variables = {
        "frozen": {"kernel": jnp.array([[3.0]]), "bias": jnp.array([1.0])},
        "params": {
            "lora_a": jnp.array([[1.0, -2.0]]),
            "lora_b": jnp.array([[5.0], [1.0]]),
        },
    }
    assert module.apply(variables, jnp.array([[2.0]])) == 31.0
    kernel = module.merge(variables)["params"]["kernel"]
    np.testing.assert_array_equal(kernel, [[15.0]])  # 3 + 4 * 3


def test_nothing_changes_at_the_start():
    plain, module = _Small(), LoRA(_Small(), ("first", "last"), rank=2)
    variables = module.init(jax.random.key(0), _X)
    own = plain.init(jax.random.key(0), _X)
    chex.assert_trees_all_equal(variables["frozen"], own["params"])
    chex.assert_trees_all_equal(variables["batch_stats"], own["batch_stats"])
    chex.assert_trees_all_equal(module.apply(variables, _X), plain.apply(own, _X))
    shapes = jax.tree.map(jnp.shape, variables["params"])
    square = {"lora_a": (4, 2), "lora_b": (2, 4)}
    assert shapes == {
        "first": {"lora_a": (3, 2), "lora_b": (2, 4)},
        "block": {"first": square},
        "last": {"lora_a": (4, 2), "lora_b": (2, 2)},
    }
    assert all(np.std(p["lora_a"]) > 0.1 for p in (variables["params"]["first"],))


def test_merged_kernels_compute_the_same():
    module = LoRA(_Small(), ("first", "last"), rank=2, alpha=3.0)
    variables = _drawn(module)
    merged = module.merge(variables)
    shapes = jax.tree.map(jnp.shape, _Small().init(jax.random.key(0), _X))
    assert jax.tree.map(jnp.shape, merged) == shapes
    found = jax.jit(module.apply)(variables, _X)
    np.testing.assert_allclose(_Small().apply(merged, _X), found, rtol=1e-5, atol=1e-5)
    start = _Small().apply({**merged, "params": variables["frozen"]}, _X)
    assert not np.allclose(start, found, rtol=1e-2)


def test_a_module_in_a_field():
    module = LoRA(_Holding(_Small()), ("held/first",))
    variables = module.init(jax.random.key(0), _X)
    own = _Holding(_Small()).init(jax.random.key(0), _X)
    chex.assert_trees_all_equal(variables["frozen"], own["params"])
    assert list(variables["params"]["held"]) == ["first"]


def test_a_path_names_one_layer():
    variables = LoRA(_Small(), ("block/first",)).init(jax.random.key(0), _X)
    assert list(variables["params"]) == ["block"]


def test_training_records_statistics_and_draws_dropout():
    module, plain = LoRA(_Small(), ("last",)), _Small()
    variables = module.init(jax.random.key(0), _X)
    own = {"params": variables["frozen"], "batch_stats": variables["batch_stats"]}
    settings = dict(
        train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(1)}
    )
    found, expected = (
        m.apply(v, _X, **settings) for m, v in ((module, variables), (plain, own))
    )
    chex.assert_trees_all_close(found, expected, rtol=1e-6)


def test_gradients_reach_adapters_alone():
    module = LoRA(_Small(), ("first", "last"), rank=2)
    variables = _drawn(module)
    slopes = jax.jit(jax.grad(lambda v: jnp.sum(module.apply(v, _X) ** 2)))(variables)
    for leaf in jax.tree.leaves(slopes["params"]):
        assert np.all(np.abs(leaf).max() > 1e-4)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(slopes["frozen"]))


def test_the_trace_has_adapters_beside_fixed_weights():
    module = LoRA(_Small(), ("block/first",), rank=2)
    variables = jax.eval_shape(module.init, jax.random.key(0), _X[:1])
    ops = workload.trace(module.apply, variables, _X[:1])
    assert ops.total_macs == 3 * 4 + 4 * 4 + 4 * 2 + 4 * 2 + 2 * 4
    fixed = [bool(op.fixed) for op in ops.ops if op.kind == "dense"]
    assert fixed == [True, True, False, False, True]


@pytest.mark.parametrize("is_outside", [True, False])
def test_formats_cast_the_adapters_too(is_outside):
    formats = Formats.of("bfp5")
    if is_outside:
        module = InFormats(LoRA(_Small(), ("last",), rank=2), formats)
    else:
        module = LoRA(InFormats(_Small(), formats), ("last",), rank=2)
    variables = _drawn(module)
    exact = LoRA(_Small(), ("last",), rank=2)
    expected = jax.jit(exact.apply)(variables, _X)
    found = jax.jit(module.apply)(variables, _X)
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert 1e-4 < error < 0.3
    params = jax.tree.map(jnp.zeros_like, variables["params"])
    without = jax.jit(module.apply)({**variables, "params": params}, _X)
    assert not np.allclose(without, found, rtol=1e-2)


def test_a_decoder_of_todays_size():
    # Llama-2-7B, rank 8 on queries and values: 32 layers of two, each 4096 x 8 twice.
    module = LoRA(Decoder(), ("query", "layer1_attention/value"), rank=8)
    tokens = jnp.zeros((1, 4), jnp.int32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), tokens)
    sizes = {n: sum(x.size for x in jax.tree.leaves(v)) for n, v in shapes.items()}
    assert sizes == {"params": 33 * 2 * 4096 * 8, "frozen": 6_738_415_616}


@pytest.mark.parametrize(
    ("module", "settings", "error", "match"),
    [
        (_Small(), dict(layers=("fist",)), ValueError, "'fist', no dense.*`first`"),
        (_Small(), dict(layers=("norm",)), ValueError, "'norm', no dense layer"),
        (nn.LayerNorm(), dict(layers=("a",)), ValueError, "'a', no dense.*it has none"),
        (_Small(), dict(layers=(), rank=0), ValueError, r"`rank` \(=0\)"),
        (_Small(), dict(layers=(), alpha=np.inf), ValueError, r"`alpha` \(=inf\)"),
        (_Small, dict(layers=()), TypeError, "`module`.*instance"),
    ],
)
def test_refuses(module, settings, error, match):
    with pytest.raises(error, match=match):
        LoRA(module, **settings).init(jax.random.key(0), _X)


def test_a_network_learns_by_its_adapters():
    classifier = models.create("vgg11", width=0.05, image_shape=(8, 8, 1)).module
    module = LoRA(classifier, ("classifier",), rank=2)
    x, mask = jnp.ones((2, 8, 8, 1)), jnp.ones(8)
    variables = jax.eval_shape(
        lambda key: module.init(key, x, mask, train=True), jax.random.key(0)
    )
    assert list(variables["params"]) == ["classifier"]
    assert len(variables["frozen"]) == 8 + 8 + 1
    assert module.label == "VGG"
