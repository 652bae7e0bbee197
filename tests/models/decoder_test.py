import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign import workload
from codesign.models.decoder import Decoder, GroupedQueryAttention, rotate
from codesign.models.formats import InFormats
from codesign.models.operand_formats import Formats

_SMALL = Decoder(20, 12, 2, 6, 3, 10, base=100.0)  # three heads of keys, each for two
_TOKENS = jnp.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]], jnp.int32)


@functools.cache
def _drawn():
    shapes = jax.eval_shape(_SMALL.init, jax.random.key(0), _TOKENS)
    rng = np.random.default_rng(0)

    def draw(leaf):
        return jnp.asarray(rng.normal(size=leaf.shape), jnp.float32) / 2

    return jax.tree.map(draw, shapes)


@functools.cache
def _apply():
    return jax.jit(_SMALL.apply)


def _norm(x, p):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * p["scale"]


def _attention(x, p):
    """One text [T, 12], head by head, a pair of channels as a complex number."""
    length, context = len(x), np.zeros_like(x)
    turn = np.exp(1j * np.arange(length))[:, None]  # of two channels: 100^0 = 1
    query, key, value = (x @ p[name]["kernel"] for name in ("query", "key", "value"))
    for head in range(6):
        q, own = query[:, 2 * head :][:, :2], 2 * (head // 2)
        k, v = key[:, own : own + 2], value[:, own : own + 2]
        q, k = ((z[:, :1] + 1j * z[:, 1:]) * turn for z in (q, k))
        scores = (q @ k.conj().T).real / np.sqrt(2)
        weights = np.exp(scores) * np.tri(length)
        context[:, 2 * head : 2 * head + 2] = (
            weights / weights.sum(-1, keepdims=True) @ v
        )
    return context @ p["output"]["kernel"]


def _swiglu(x, p):
    gate = x @ p["gate"]["kernel"]
    y = gate / (1 + np.exp(-gate)) * (x @ p["value"]["kernel"])
    return y @ p["outer"]["kernel"]


def test_equals_numpy():
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), _drawn()["params"])
    for tokens, logits in zip(_TOKENS, _apply()(_drawn(), _TOKENS), strict=True):
        y = p["tokens"]["embedding"][np.asarray(tokens)]
        for layer in ("layer1", "layer2"):
            z = _norm(y, p[f"{layer}_attention_norm"])
            y = y + _attention(z, p[f"{layer}_attention"])
            y = y + _swiglu(_norm(y, p[f"{layer}_swiglu_norm"]), p[f"{layer}_swiglu"])
        expected = _norm(y, p["norm"]) @ p["head"]["kernel"]
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_later_tokens_do_not_change_earlier_outputs():
    before = _apply()(_drawn(), _TOKENS)
    for t in range(5):
        after = _apply()(_drawn(), _TOKENS.at[:, t].set(7))
        np.testing.assert_allclose(after[:, :t], before[:, :t], rtol=1e-5, atol=1e-5)
        assert np.all(np.any(np.abs(after[:, t] - before[:, t]) > 1e-3, -1))


@given(st.integers(0, 2**16), st.integers(1, 4), st.integers(1, 20))
@settings(max_examples=20, deadline=None)
def test_products_of_turned_vectors_know_their_distance_alone(seed, pairs, distance):
    rng = np.random.default_rng(seed)
    query, key = rng.normal(size=(2, 1, 1, 1, 2 * pairs)).astype(np.float32)

    def turned(x):  # the same vector at 40 positions
        return np.asarray(rotate(jnp.tile(x, (1, 40, 1, 1))))[0, :, 0]

    products = turned(query) @ turned(key).T  # [40, 40]
    diagonal = np.diagonal(products, distance)
    np.testing.assert_allclose(diagonal, diagonal[0], rtol=0, atol=1e-3)
    # Position 0 is not turned, and no turn changes a length.
    np.testing.assert_array_equal(turned(query)[0], query[0, 0, 0])
    lengths = np.linalg.norm(turned(query), axis=-1)
    np.testing.assert_allclose(lengths, lengths[0], rtol=1e-5)


def test_groups_are_heads_whose_keys_and_values_are_repeated():
    x = jax.random.normal(jax.random.key(1), (2, 5, 12))
    grouped, full = GroupedQueryAttention(6, 3), GroupedQueryAttention(6, 6)
    params = {**_drawn()["params"]["layer1_attention"]}
    y = grouped.apply({"params": params}, x)
    for name in ("key", "value"):
        kernel = params[name]["kernel"].reshape(12, 3, 1, 2)
        params[name] = {"kernel": jnp.repeat(kernel, 2, 2).reshape(12, 12)}
    np.testing.assert_allclose(
        full.apply({"params": params}, x), y, rtol=1e-4, atol=1e-5
    )


def test_published_parameters():
    # Llama-2-7B, as its checkpoint has them.
    shapes = jax.eval_shape(Decoder().init, jax.random.key(0), _TOKENS)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 6_738_415_616


def test_macs_of_the_trace():
    # Query and output 12 x 12, key and value 12 x 6, three of 12 x 10; two products of
    # 5 x 5 x 12; the head.
    layer = 5 * (2 * 12 * 12 + 2 * 12 * 6 + 3 * 12 * 10) + 2 * 5 * 5 * 12
    ops = workload.trace(_SMALL.apply, _drawn(), _TOKENS[:1])
    assert ops.total_macs == 2 * layer + 5 * 12 * 20
    variants = [op.variant for op in ops.ops]
    assert (variants.count("rms"), variants.count("silu")) == (5, 2)


def test_taps_and_formats():
    module = InFormats(_SMALL, Formats.of("bfp5"))
    logits, found = jax.eval_shape(
        functools.partial(module.apply, mutable=["intermediates"]), _drawn(), _TOKENS
    )
    assert logits.shape == (2, 5, 20)
    taps = found["intermediates"]["tap"]
    assert [tap.shape for tap in taps] == [(2, 5, 12)] * 2
    near = jax.jit(module.apply)(_drawn(), _TOKENS)
    exact = _apply()(_drawn(), _TOKENS)
    error = np.linalg.norm(near - exact) / np.linalg.norm(exact)
    assert 1e-4 < error < 0.3


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        (dict(hidden=10, num_heads=4), r"`hidden` \(=10\).*`num_heads` \(=4\)"),
        (dict(num_heads=4, num_kv_heads=3), r"\(=4\).*`num_kv_heads` \(=3\)"),
        (dict(hidden=12, num_heads=4, num_kv_heads=4), r"\(=3\) must be even"),
    ],
)
def test_refuses_heads(fields, match):
    with pytest.raises(ValueError, match=match):
        Decoder(**fields)


def test_refuses_what_are_no_tokens():
    with pytest.raises(ValueError, match=r"float32 \(2, 5\).*int32"):
        _SMALL.init(jax.random.key(0), jnp.zeros((2, 5)))
