"""ViT and BERT against NumPy in float64, by properties, and by published sizes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from codesign import models, workload
from codesign.models.attention import MultiHeadAttention, attention_weights
from codesign.models.bert import BERT
from codesign.models.vit import ViT

_NO_MASK = jnp.zeros(0)
_SMALL = dict(hidden=8, num_layers=2, num_heads=2, inner=12)


def _vit(**settings):
    return ViT(3, **(_SMALL | dict(patch_size=4) | settings))


def _bert(**settings):
    small = dict(vocabulary_size=20, max_length=9, separator=3)
    return BERT(3, **(_SMALL | small | settings))


def _shapes(module, x):
    init = functools.partial(module.init, train=False)
    return jax.eval_shape(init, jax.random.key(0), x, _NO_MASK)


def _drawn(module, x, seed=0):
    """Variables of ordinary size, norms and biases among them."""
    rng = np.random.default_rng(seed)

    def draw(leaf):
        width = leaf.shape[-2] if len(leaf.shape) > 1 else 4
        return jnp.asarray(rng.normal(size=leaf.shape) / np.sqrt(width), jnp.float32)

    return jax.tree.map(draw, _shapes(module, x))


def _apply(module):
    return jax.jit(lambda v, x: module.apply(v, x, _NO_MASK, train=False))


def _images(batch=2, height=8, width=12):
    return jax.random.normal(jax.random.key(1), (batch, height, width, 3))


# A pair of texts with padding, one text, and one that fills its row.
_TOKENS = jnp.array(
    [[2, 7, 8, 3, 9, 3, 0, 0], [2, 5, 3, 0, 0, 0, 0, 0], [2, 4, 3, 6, 7, 8, 9, 3]],
    jnp.int32,
)
_SEGMENTS = np.array(
    [[0, 0, 0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 1, 1, 1, 1]]
)


class _NumPy:
    """The parts of an encoder, in float64."""

    def __init__(self, params):
        self.params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)

    def dense(self, x, p):
        return x @ p["kernel"] + p["bias"]

    def norm(self, x, p, epsilon):
        centred = x - x.mean(-1, keepdims=True)
        y = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)
        return y * p["scale"] + p["bias"]

    def gelu_block(self, x, p):
        y = self.dense(x, p["inner"])
        y = y * (1 + scipy.special.erf(y / np.sqrt(2))) / 2
        return self.dense(y, p["outer"])

    def attention(self, x, p, seen):
        query, key, value = (self.dense(x, p[n]) for n in ("query", "key", "value"))
        context, width = np.zeros_like(query), x.shape[-1] // 2
        for b in range(len(x)):
            for at in (slice(0, width), slice(width, None)):
                scores = query[b, :, at] @ key[b, :, at].T / np.sqrt(width)
                scores = np.exp(scores - scores.max()) * seen[b]
                weights = scores / scores.sum(-1, keepdims=True)
                context[b, :, at] = weights @ value[b, :, at]
        return self.dense(context, p["output"])


@pytest.mark.slow
def test_vit_equals_numpy():
    module, x = _vit(), _images()
    variables = _drawn(module, x)
    numpy = _NumPy(variables["params"])
    p, images = numpy.params, np.asarray(x, np.float64)
    # Patches of 4x4, in rows of 3.
    patches = images.reshape(2, 2, 4, 3, 4, 3).swapaxes(2, 3).reshape(2, 6, 48)
    kernel = p["patches"]["kernel"].reshape(48, 8)
    y = patches @ kernel + p["patches"]["bias"]
    y = np.concatenate([np.tile(p["token"], (2, 1, 1)), y], 1) + p["positions"]
    taps = []
    for layer in (p["layer1"], p["layer2"]):
        z = numpy.norm(y, layer["attention_norm"], 1e-6)
        y = y + numpy.attention(z, layer["attention"], np.ones((2, 7)))
        y = y + numpy.gelu_block(numpy.norm(y, layer["dense_norm"], 1e-6), layer)
        taps.append(y[:, 1:].reshape(2, 2, 3, 8))
    expected = numpy.dense(numpy.norm(y[:, 0], p["norm"], 1e-6), p["classifier"])
    logits, found = module.apply(
        variables, x, _NO_MASK, train=False, mutable=["intermediates"]
    )
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    for tap, map_ in zip(found["intermediates"]["tap"], taps, strict=True):
        np.testing.assert_allclose(tap, map_, rtol=1e-4, atol=1e-4)


def test_bert_equals_numpy():
    module = _bert()
    variables = _drawn(module, _TOKENS)
    numpy = _NumPy(variables["params"])
    p, tokens = numpy.params, np.asarray(_TOKENS)
    y = p["tokens"]["embedding"][tokens] + p["segments"]["embedding"][_SEGMENTS]
    embedded = y = numpy.norm(y + p["positions"][:8], p["norm"], 1e-12)
    taps = []
    for layer in (p["layer1"], p["layer2"]):
        z = y + numpy.attention(y, layer["attention"], tokens != 0)
        y = numpy.norm(z, layer["attention_norm"], 1e-12)
        y = numpy.norm(y + numpy.gelu_block(y, layer), layer["dense_norm"], 1e-12)
        taps.append(y)
    expected = numpy.dense(np.tanh(numpy.dense(y[:, 0], p["pooler"])), p["classifier"])
    logits, found = module.apply(
        variables, _TOKENS, _NO_MASK, train=False, mutable=["intermediates"]
    )
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    start = found["intermediates"]["input"][0]
    np.testing.assert_allclose(start, embedded, rtol=1e-4, atol=1e-5)
    for tap, sequence in zip(found["intermediates"]["tap"], taps, strict=True):
        np.testing.assert_allclose(tap, sequence, rtol=1e-3, atol=1e-4)


def test_order_of_patches_is_known_by_positions_alone():
    module, x = _vit(), _images()
    variables = _drawn(module, x)
    swapped = jnp.concatenate([x[:, 4:], x[:, :4]], 1)  # the two rows of patches
    apply = _apply(module)
    assert not np.allclose(apply(variables, x), apply(variables, swapped), atol=1e-3)
    params = variables["params"] | {"positions": jnp.zeros((1, 7, 8))}
    one, two = (apply({"params": params}, images) for images in (x, swapped))
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)


def test_padding_changes_nothing():
    module = _bert()
    variables = _drawn(module, _TOKENS)
    apply = _apply(module)
    full = apply(variables, _TOKENS[:1])
    np.testing.assert_allclose(apply(variables, _TOKENS[:1, :6]), full, rtol=1e-5)
    assert not np.allclose(apply(variables, _TOKENS[:1, :5]), full, rtol=1e-3)


def test_masked_weights_by_hand():
    # Equal scores: each query spreads over the keys that it sees; none seen, over all.
    mask = jnp.array([[True, False, True], [False] * 3])
    weights = attention_weights(jnp.zeros((2, 1, 2, 3)), scale=1.0, key_mask=mask)
    np.testing.assert_allclose(weights[0, 0], [[0.5, 0, 0.5]] * 2, rtol=1e-6)
    np.testing.assert_allclose(weights[1], np.full((1, 2, 3), 1 / 3), rtol=1e-6)
    causal = attention_weights(
        jnp.zeros((2, 2, 3, 3)), scale=1.0, causal=True, key_mask=mask
    )
    np.testing.assert_allclose(
        causal[0, 1], [[1, 0, 0], [1, 0, 0], [0.5, 0, 0.5]], rtol=1e-6
    )


def test_a_mask_of_all_keys_is_none():
    layer, x = MultiHeadAttention(2), jax.random.normal(jax.random.key(0), (2, 3, 4))
    variables = layer.init(jax.random.key(1), x, x, train=False)
    found = layer.apply(variables, x, x, key_mask=jnp.ones((2, 3), bool), train=False)
    expected = layer.apply(variables, x, x, train=False)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("module", "x", "head", "published"),
    [
        # "ViT-B/16: 86M", exactly as torchvision counts it with 1000 classes.
        (ViT(1000), jnp.zeros((1, 224, 224, 3)), 0, 86_567_656),
        # BERT-base "110M", as transformers counts `BertModel`, without a head.
        (BERT(2), jnp.zeros((1, 4), jnp.int32), 768 * 2 + 2, 109_482_240),
    ],
)
def test_published_parameters(module, x, head, published):
    leaves = jax.tree.leaves(_shapes(module, x)["params"])
    assert sum(leaf.size for leaf in leaves) - head == published


@pytest.mark.parametrize(
    ("module", "x", "tokens", "others"),
    [
        # 6 patches and the class token; 48 values in a patch, and the head.
        (_vit(), _images(1), 7, 6 * 48 * 8 + 8 * 3),
        (_bert(), _TOKENS[:1], 8, 8 * 8 + 8 * 3),  # the pooler and the head
    ],
)
def test_macs_of_the_trace(module, x, tokens, others):
    # A layer: four projections, two dense layers, and two products of attention.
    layer = tokens * (4 * 8 * 8 + 2 * 8 * 12) + 2 * tokens**2 * 8
    ops = workload.trace(
        lambda v, x: module.apply(v, x, _NO_MASK, train=False), _shapes(module, x), x
    )
    assert ops.total_macs == 2 * layer + others
    assert len(ops.select("softmax").ops) == 2
    assert [op.variant for op in ops.ops].count("gelu") == 2


@pytest.mark.parametrize("kind", [ViT, BERT])
def test_dropout_acts_in_training_alone(kind):
    module = (_vit if kind is ViT else _bert)(dropout_rate=0.5)
    x = _images() if kind is ViT else _TOKENS
    variables = _drawn(module, x)

    def apply(seed, train):
        rngs = {"dropout": jax.random.key(seed, impl="rbg")}
        return module.apply(variables, x, _NO_MASK, train=train, rngs=rngs)

    assert not np.allclose(apply(0, True), apply(1, True), rtol=1e-3)
    np.testing.assert_array_equal(apply(0, False), apply(1, False))


@pytest.mark.parametrize("settings", [dict(hidden=10, num_heads=4)])
@pytest.mark.parametrize("kind", [ViT, BERT])
def test_heads_share_the_width(kind, settings):
    with pytest.raises(ValueError, match=r"`hidden` \(=10\).*`num_heads` \(=4\)"):
        kind(3, **settings)


@pytest.mark.parametrize(
    ("module", "x", "match"),
    [
        (_vit(), _images(height=10), r"`patch_size` \(=4\) must divide.*10 and 12"),
        (_bert(), jnp.zeros((1, 10), jnp.int32), "10 tokens, but `max_length` is 9"),
        (_bert(), jnp.zeros((1, 4)), r"float32 \(1, 4\).*\[B, T\] int32"),
        (_bert(), jnp.zeros(4, jnp.int32), r"int32 \(4,\)"),
    ],
)
def test_refuses(module, x, match):
    with pytest.raises(ValueError, match=match):
        _shapes(module, x)


def test_a_token_beyond_the_vocabulary_makes_nan():
    module = _bert()
    logits = _apply(module)(_drawn(module, _TOKENS), _TOKENS.at[0, 1].set(20))
    np.testing.assert_array_equal(np.isnan(logits).any(1), [True, False, False])


@pytest.mark.parametrize(
    ("name", "settings", "num_layers"),
    [
        ("vit12", dict(image_shape=(32, 32, 3)), 12),
        ("vit16", dict(image_shape=(48, 32, 1), patch_size=8), 16),
        ("bert12", dict(length=7, vocabulary_size=20), 12),
    ],
)
def test_networks_by_name(name, settings, num_layers):
    network = models.create(name, hidden=24, inner=8, num_classes=5, **settings)
    assert network.num_sites == 0
    ops = workload.trace(*network.trace_args()).ops
    kinds = [op.kind for op in ops]
    assert kinds.count("softmax") == num_layers
    assert kinds.count("norm") == 2 * num_layers + 1
    assert ops[-1].output_shape == (5,)
