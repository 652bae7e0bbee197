"""Chains of point-wise steps become the layers that people know."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax import lax

from codesign import workload
from codesign.workload.iteration import operations
from tests.workload.graphs import shape


def layers(ops, *, last=None):
    """Kind and variant of each op; without the last `dense` that makes it a network."""
    found = [(op.kind, op.variant) for op in ops.ops]
    return found[:last]


def after_dense(fn, *params, width=8):
    """The layers that `fn(x, *params)` makes of a dense layer's output."""

    def net(x, w, *params):
        return fn(x @ w, *params)

    ops = workload.trace(net, shape(1, 5, width), shape(width, width), *params)
    assert ops.kinds[0] == "dense"
    return layers(ops)[1:]


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("relu", "relu"),
        ("relu6", "relu6"),
        ("gelu", "gelu"),
        ("silu", "silu"),
        ("swish", "silu"),
        ("sigmoid", "sigmoid"),
        ("tanh", "tanh"),
        ("softplus", "softplus"),
        ("elu", "elu"),
        ("leaky_relu", "leaky_relu"),
        ("hard_swish", "hard_swish"),
        ("hard_sigmoid", "hard_sigmoid"),
        ("selu", "selu"),
        ("mish", "mish"),
    ],
)
def test_activations_of_jax(name, variant):
    assert after_dense(getattr(jax.nn, name)) == [("activation", variant)]


@pytest.mark.parametrize(
    ("fn", "variant"),
    [
        (lambda x: jnp.maximum(x, 0), "relu"),
        (lambda x: jnp.where(x > 0, x, 0), "relu"),
        (lambda x: jnp.where(x > 0, x, 0.1 * x), "leaky_relu"),
        (lambda x: x * jax.nn.sigmoid(1.702 * x), "silu"),
        (lambda x: 0.5 * x * (1 + lax.erf(x / 2**0.5)), "gelu"),
        (lambda x: 0.5 * x * (1 + jnp.tanh(0.8 * (x + 0.04 * x**3))), "gelu"),
        (lambda x: jnp.maximum(x, jnp.zeros(())), "relu"),
        (lambda x: jnp.clip(x, 0, 6), "relu6"),
        (lambda x: jnp.clip(x, 0), "relu"),
        (lambda x: lax.clamp(0.0, x, 6.0), "relu6"),
        (lambda x: jnp.minimum(jnp.maximum(x, 0), 6) * 2, "relu6"),
        (lambda x: jnp.clip(x, 0, 1), "clip"),
        (lambda x: jnp.clip(x, -6, 6), "clip"),
        (lambda x: x * jnp.clip(x + 3, 0, 6) / 6, "hard_swish"),
    ],
)
def test_activations_written_by_hand(fn, variant):
    assert after_dense(fn) == [("activation", variant)]


@jax.jit
def swish(w, x):
    return x @ w


@jax.jit
def _resize(x, w):
    return jax.image.resize(x, (1, 5, 3), "nearest") @ w


@jax.jit
def softmax(x):
    return jnp.sin(x)


def test_functions_of_the_user_that_are_called_like_layers():
    ops = workload.trace(lambda x, w: swish(w, x), shape(1, 5, 8), shape(8, 8))
    assert ops.kinds == ("dense",)
    assert ops.total_macs == 5 * 8 * 8
    ops = workload.trace(_resize, shape(1, 5, 8), shape(3, 4))
    assert layers(ops) == [("resize", "nearest"), ("dense", "")]
    assert after_dense(softmax) == [("activation", "sin")]
    assert after_dense(jax.jit(jax.nn.softmax)) == [("softmax", "")]


def _layer_norm(x, scale, bias):
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) / jnp.sqrt(variance + 1e-5) * scale + bias


def _group_norm(x, scale, bias):
    grouped = x.reshape(1, 5, 2, 4)
    mean = grouped.mean((1, 3), keepdims=True)
    variance = grouped.var((1, 3), keepdims=True)
    y = (grouped - mean) * lax.rsqrt(variance + 1e-5)
    return y.reshape(1, 5, 8) * scale + bias


def _rms_norm(x, scale, bias):
    del bias
    return x * lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6) * scale


def _batch_norm(x, scale, bias):
    mean, variance = x.mean((0, 1)), x.var((0, 1))
    scaled = (x - mean.reshape(1, 1, -1)) / jnp.sqrt(variance + 1e-5).reshape(1, 1, -1)
    return scaled * scale + bias


@pytest.mark.parametrize(
    ("fn", "variant", "elements"),
    [
        (_layer_norm, "layer", 16),
        (_group_norm, "group", 16),
        (_rms_norm, "rms", 8),
        (_batch_norm, "batch", 16),
    ],
)
def test_norms_written_by_hand(fn, variant, elements):
    def net(x, w, scale, bias):
        return jax.nn.relu(fn(x @ w, scale, bias))

    params = shape(8, 8), shape(1, 1, 8), shape(1, 1, 8)
    ops = workload.trace(net, shape(1, 5, 8), *params, inputs=(0,))
    assert layers(ops) == [("dense", ""), ("norm", variant), ("activation", "relu")]
    norm = ops.ops[1]
    assert norm.output_shape == (5, 8)
    sizes = dict(ops.graph.parameters)
    assert sum(sizes[name] for name in norm.parameters) == elements


@pytest.mark.parametrize(
    ("module", "variant", "elements"),
    [
        (nn.LayerNorm, "layer", 16),
        (nn.RMSNorm, "rms", 8),
        (functools.partial(nn.GroupNorm, num_groups=2), "group", 16),
        (functools.partial(nn.BatchNorm, use_running_average=False), "batch", 32),
        (functools.partial(nn.BatchNorm, use_running_average=True), "batch", 32),
    ],
)
def test_norms_of_flax(module, variant, elements):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.relu(module(name="norm")(nn.Dense(8, name="dense")(x)))

    x = shape(1, 5, 8)
    variables = jax.eval_shape(Net().init, jax.random.key(0), x)
    ops = workload.trace(
        lambda v, x: Net().apply(v, x, mutable=["batch_stats"]), variables, x
    )
    assert ops.names == ("Net/dense", "Net/norm", "Net/activation")
    assert layers(ops)[1:] == [("norm", variant), ("activation", "relu")]
    assert dict(ops.graph.parameters) == {"Net/dense": 72, "Net/norm": elements}


def test_an_activation_ahead_of_a_norm_is_an_op_of_its_own():
    def chain(x):
        x = jnp.maximum(x, 0)
        return (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)

    assert after_dense(chain) == [("activation", "relu"), ("norm", "layer")]


def test_softmax():
    mask = jnp.tril(jnp.ones((5, 5), bool)).reshape(1, 5, 5)

    def by_hand(scores):
        scores = jnp.where(mask, scores / 2, -1e9)
        scores = jnp.exp(scores - scores.max(-1, keepdims=True))
        return scores / scores.sum(-1, keepdims=True)

    # The division joins the matrix product, and the mask the softmax.
    assert after_dense(by_hand, width=5) == [("softmax", "")]
    assert after_dense(lambda x: jax.nn.softmax(x, where=None)) == [("softmax", "")]
    assert after_dense(jax.nn.log_softmax) == [("softmax", "log")]


def test_a_mask_made_of_token_ids_joins_the_softmax():
    def net(ids, q, k):
        x = jax.nn.one_hot(ids, 7) @ q
        seen = (ids != 0)[:, None, :]
        return jax.nn.softmax(jnp.where(seen, x @ k, -1e9))

    ids = shape(1, 5, dtype=jnp.int32)
    ops = workload.trace(net, ids, shape(7, 4), shape(4, 5))
    assert ops.kinds == ("embedding", "dense", "dense", "softmax")
    assert ops.ops[3].operands == (2, -1)


def test_dropout_stands_alone():
    def net(x, w, key):
        x = jax.nn.relu(x @ w)
        kept = jax.random.bernoulli(key, 0.9, x.shape)
        return jnp.where(kept, x / 0.9, 0) @ w

    x, w = shape(1, 8), shape(8, 8)
    for key in (jax.random.key(0), jnp.zeros(2, jnp.uint32)):
        ops = workload.trace(net, x, w, key)
        assert ops.kinds == ("dense", "activation", "dropout", "dense")
        assert ops.graph.parameters == (("w", 64),)


def test_joins_of_two_maps():
    def net(x, w, v):
        a, b = x @ w, x @ v
        return (a + b) * (a - b) / jax.nn.sigmoid(a)

    ops = workload.trace(net, shape(1, 4), shape(4, 4), shape(4, 4))
    assert layers(ops)[2:] == [
        ("add", ""),
        ("add", "sub"),
        ("mul", ""),
        ("activation", "sigmoid"),
        ("mul", "div"),
    ]
    assert [op.operands for op in ops.ops[2:]] == [(0, 1), (0, 1), (2, 3), (0,), (4, 5)]


def test_pools_and_reductions():
    def net(x, kernel, w):
        numbers = ("NHWC", "HWIO", "NHWC")
        x = lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=numbers
        )
        x = nn.avg_pool(nn.max_pool(x, (2, 2), (2, 2)), (2, 2), (2, 2))
        x = x.reshape(1, 2, 2, 2, 2, 4).max((2, 4))
        return (x.mean((1, 2)) @ w).sum(-1)

    ops = workload.trace(net, shape(1, 16, 16, 3), shape(3, 3, 3, 4), shape(4, 4))
    assert [(op.kind, op.variant, op.window) for op in ops.ops] == [
        ("conv", "", 1),
        ("pool", "max", 4),
        ("pool", "average", 4),
        ("pool", "max", 4),
        ("pool", "global_average", 4),
        ("dense", "", 1),
        ("reduce", "sum", 1),
    ]


def test_a_product_written_as_a_sum_is_charged_for_the_map_in_between():
    def net(x, w, v):
        return (x[:, :, None] * w).sum(1) @ v

    ops = workload.trace(net, shape(1, 6), shape(1, 6, 8), shape(8, 2), inputs=(0,))
    assert layers(ops) == [("reduce", "sum"), ("dense", "")]
    assert ops.ops[0].input_shape == (6, 8)
    assert operations(ops.ops[0]) == 48


def test_views_cost_nothing_until_they_must_be_stored():
    def net(x, w, token, positions):
        x = x @ w  # [1, 4, 3]
        x = jnp.flip(x.transpose(0, 2, 1).swapaxes(1, 2).astype(jnp.bfloat16), 1)
        x = lax.stop_gradient(x.reshape(4, 3)[None]).astype(jnp.float32)
        x = jnp.concatenate([token, x], 1) + positions  # [1, 5, 3]
        return jnp.tanh(jnp.pad(x, ((0, 0), (0, 0), (1, 0)))) @ jnp.ones((4, 2))

    params = shape(3, 3), shape(1, 1, 3), shape(1, 5, 3)
    ops = workload.trace(net, shape(1, 4, 3), *params, inputs=(0,))
    assert layers(ops) == [
        ("dense", ""),
        ("embedding", "parameter"),
        ("concat", ""),
        ("add", ""),
        ("resize", "pad"),
        ("activation", "tanh"),
        ("dense", ""),
    ]
    assert ops.ops[2].operands == (1, 0)
    assert ops.ops[4].output_shape == (5, 4)
    assert dict(ops.graph.parameters) == {"w": 9, "token": 3, "positions": 15}


def test_slices_gathers_and_resizes():
    def net(ids, table, kernel):
        x = jnp.take(table, ids, axis=0).reshape(1, 4, 4, 6)
        a, b = jnp.split(x, 2, -1)
        x = jax.image.resize(a * b, (1, 8, 8, 3), "nearest")
        return lax.conv_general_dilated(
            x[:, 1:], kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    ids = shape(1, 16, dtype=jnp.int32)
    ops = workload.trace(net, ids, shape(9, 6), shape(3, 3, 3, 2))
    assert layers(ops) == [
        ("embedding", ""),
        ("slice", ""),
        ("slice", ""),
        ("mul", ""),
        ("resize", "nearest"),
        ("slice", ""),
        ("conv", ""),
    ]
    assert ops.ops[0].operands == (-1,)
    assert ops.graph.parameters == (("table", 54), ("kernel", 54))


def test_what_reaches_no_output_is_dropped():
    def net(x, w, unused):
        jnp.tanh(x @ unused)
        return x @ w

    ops = workload.trace(net, shape(1, 3), shape(3, 3), shape(3, 5))
    assert ops.kinds == ("dense",)
    assert ops.graph.parameters == (("w", 9),)
