import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codesign.models.attention import MultiHeadAttention, attention_weights
from codesign.models.layers import Dropout
from codesign.models.norm import LayerNorm


def _softmax(scores):
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _reference(params, x, memory, num_heads, causal):
    def dense(name, x):
        kernel, bias = (np.asarray(params[name][p]) for p in ("kernel", "bias"))
        return x @ kernel + bias

    query = dense("query", x)
    key, value = dense("key", memory), dense("value", memory)
    width = query.shape[-1] // num_heads
    context = np.zeros_like(query)
    for b in range(x.shape[0]):
        for head in range(num_heads):
            at = slice(head * width, (head + 1) * width)
            scores = query[b, :, at] @ key[b, :, at].T / np.sqrt(width)
            if causal:
                scores[np.triu_indices(len(scores), 1)] = -np.inf
            context[b, :, at] = _softmax(scores) @ value[b, :, at]
    return dense("output", context)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("num_heads", [1, 3])
def test_equals_numpy(num_heads, causal):
    layer = MultiHeadAttention(num_heads, causal=causal, initialisation="pytorch")
    keys = jax.random.split(jax.random.key(0))
    x = 3 * jax.random.normal(keys[0], (2, 4, 6))
    memory = x if causal else 3 * jax.random.normal(keys[1], (2, 5, 6))
    variables = layer.init(jax.random.key(2), x, memory, train=False)
    y = layer.apply(variables, x, memory, train=False)
    expected = _reference(
        variables["params"], np.asarray(x), np.asarray(memory), num_heads, causal
    )
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def test_causal_weights_by_hand():
    # Equal scores: query i spreads evenly over the keys 0..i, whatever the later hold.
    scores = jnp.array([[0.0, 50.0, 50.0], [0.0, 0.0, 50.0], [0.0, 0.0, 0.0]])
    weights = attention_weights(scores, scale=2.0, causal=True)
    expected = [[1, 0, 0], [1 / 2, 1 / 2, 0], [1 / 3, 1 / 3, 1 / 3]]
    np.testing.assert_allclose(weights, expected, rtol=1e-6)
    grad = jax.grad(lambda s: attention_weights(s, scale=2.0, causal=True)[0, 0])
    assert np.all(np.isfinite(grad(scores)))


def test_layer_norm_by_hand():
    # Mean 3, variance 4: (1, 5) -> (-1, 1).
    layer = LayerNorm(epsilon=0.0)
    x = jnp.array([[1.0, 5.0]])
    variables = layer.init(jax.random.key(0), x)
    np.testing.assert_allclose(layer.apply(variables, x), [[-1.0, 1.0]])
    params = {"scale": jnp.array([2.0, 3.0]), "bias": jnp.array([0.5, 0.0])}
    np.testing.assert_allclose(layer.apply({"params": params}, x), [[-1.5, 3.0]])


def test_dropout_keeps_the_mean_and_rests_outside_training():
    layer, x = Dropout(0.25), jnp.ones((100, 100))
    y = layer.apply({}, x, train=True, rngs={"dropout": jax.random.key(0)})
    values, counts = np.unique(y, return_counts=True)
    np.testing.assert_allclose(values, [0, 4 / 3], rtol=1e-6)
    assert counts[0] == pytest.approx(
        2500, abs=4 * 43.3
    )  # sqrt(1e4 / 4 * 3 / 4) = 43.3
    assert layer.apply({}, x, train=False) is x
    assert Dropout(0.0).apply({}, x, train=True) is x
