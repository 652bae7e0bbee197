"""Operands that are read as constants: no gradient flows back to them."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from codesign import workload
from codesign.workload.iteration import training_iteration
from tests.workload.comparison import compare
from tests.workload.graphs import shape


def detached(fn, *args):
    """Names of what each op reads as a constant, of the ops that do."""
    ops = workload.trace(fn, *args).ops
    return {
        op.kind: [ops[i].kind if i >= 0 else i for i in op.detached]
        for op in ops
        if op.detached
    }


X, W, V = shape(1, 6), shape(6, 6), shape(6, 3)


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (lambda x: x, {}),
        (lax.stop_gradient, {"dense": ["activation"]}),
        (lambda x: lax.stop_gradient(x).reshape(1, 2, 3), {"dense": ["activation"]}),
        (lambda x: lax.stop_gradient(x) + x, {}),
        # Of a chain, what counts is whether any path is open.
        (lambda x: 2 * lax.stop_gradient(x + 1), {"elementwise": ["activation"]}),
        (lambda x: x + lax.stop_gradient(jnp.round(x) - x), {}),
        (lambda x: jnp.exp(x - lax.stop_gradient(x.max())), {}),
        (lambda x: x * (x > 0), {}),
        (lambda x: 1.0 * (x > 0), {"elementwise": ["activation"]}),
        (jnp.round, {"dense": ["activation"]}),
        (lambda x: x.astype(jnp.int8).astype(x.dtype), {"dense": ["activation"]}),
    ],
)
def test_paths(fn, expected):
    def net(x, w, v):
        h = fn(jax.nn.sigmoid(x @ w))
        return h @ v if h.ndim == 2 else jnp.einsum("bij,ijk->bk", h, v)

    v = shape(2, 3, 4) if fn(jnp.ones((1, 6))).ndim == 3 else V
    assert detached(net, X, W, v) == expected


def test_indices_and_masks():
    def route(ids, table, w):
        x = table[ids]
        kept = x @ w
        best = jnp.argmax(kept, -1)
        first = jnp.take_along_axis(kept, jnp.argsort(kept, 1), 1)
        return first * jax.nn.one_hot(best, 6)

    ids = shape(1, 5, dtype=jnp.int32)
    assert detached(route, ids, shape(9, 6), shape(6, 6)) == {
        "slice": ["elementwise"],
        "embedding": ["reduce"],  # not of the table, by number, but of the best
    }


def test_a_rule_of_its_own_passes_a_gradient():
    @jax.custom_vjp
    def straight_through(x):
        return jnp.round(x).astype(jnp.int8).astype(x.dtype)

    straight_through.defvjp(
        lambda x: (straight_through(x), None), lambda _, gradient: (gradient,)
    )
    assert detached(lambda x, w, v: straight_through(x @ w) @ v, X, W, V) == {}


@pytest.mark.parametrize("unroll_scans", [False, True])
def test_a_stack_that_is_stopped(unroll_scans):
    def net(x, w, v):
        def body(carry, _):
            carry = jnp.tanh(carry @ w)
            return carry, carry

        _, stack = lax.scan(body, x, None, length=3)
        return lax.stop_gradient(stack).swapaxes(0, 1) @ v

    ops = workload.trace(net, X, W, V, unroll_scans=unroll_scans).ops
    assert ops[-1].kind == "dense"
    assert ops[-1].detached == ops[-1].operands
    assert not any(op.detached for op in ops[:-1])


def _frozen(x, w, v):
    return lax.stop_gradient(jax.nn.relu(jnp.tanh(x @ w) @ w)) @ v


def _routed(x, w, v):
    gates = jax.nn.softmax(x @ w)
    best = jnp.argmax(gates, -1)
    return (x * jax.nn.one_hot(best, 6)) @ v


@pytest.mark.parametrize("net", [_frozen, _routed])
def test_a_frozen_backbone_has_no_backward_products(net):
    def loss(*args):
        return jnp.sum(net(*args) ** 2)

    program = training_iteration(workload.trace(net, X, W, V))
    rows = compare(program, workload.trace_gradient(loss, X, W, V))
    backward = sum(row.rule_macs["backward"] for row in rows)
    assert backward == sum(row.traced_macs["backward"] for row in rows) == 6 * 3
    assert not any(
        "tanh" in name or "softmax" in name
        for name, is_back in zip(program.step_names, program.is_backward, strict=True)
        if is_back
    )


def fixed(fn, *args):
    """What each op reads as constant weights, of the ops that do."""
    ops = workload.trace(fn, *args).ops
    return {op.kind: op.fixed for op in ops if op.fixed}


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        (lambda w: w, ()),
        (lax.stop_gradient, ("w",)),
        (lambda w: 2 * lax.stop_gradient(w).T + 1, ("w",)),
        (lambda w: w + lax.stop_gradient(jnp.round(w) - w), ()),
        (jnp.round, ("w",)),
        (jax.checkpoint(lambda w: lax.stop_gradient(jnp.tanh(w))), ("w",)),
    ],
)
def test_a_weight_that_is_stopped(weight, expected):
    def net(x, w, v):
        return jax.nn.relu(x @ weight(w)) @ v

    ops = workload.trace(net, X, W, V).ops
    assert [op.fixed for op in ops] == [expected, (), ()]
    assert [op.parameters for op in ops] == [("w",), (), ("v",)]


def test_integer_weights():
    def net(x, w, v):
        return (x @ w.astype(x.dtype)) @ v

    assert fixed(net, X, shape(6, 6, dtype=jnp.int8), V) == {"dense": ("w",)}


def test_a_weight_that_is_merged():
    def net(x, w, a, b):
        return x @ (lax.stop_gradient(w) + a @ b)

    traced = workload.trace(net, X, W, shape(6, 2), shape(2, 6))
    (dense,) = traced.ops
    sizes = dict(traced.graph.parameters)
    assert [sizes[name] for name in dense.fixed] == [36]
    assert [sizes[name] for name in dense.trained] == [24]


def test_a_trained_bias_of_a_fixed_weight_stands_alone():
    def net(x, w, b):
        return x @ lax.stop_gradient(w) + b[None]

    dense, add = workload.trace(net, X, W, shape(6)).ops
    assert (dense.kind, dense.parameters, dense.fixed) == ("dense", ("w",), ("w",))
    assert (add.kind, add.parameters, add.fixed) == ("add", ("b",), ())


def test_a_layer_that_is_fixed_in_part():
    def net(x, w, scale, shift):
        x = x @ w
        x = (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)
        return x * lax.stop_gradient(scale)[None] + shift[None]

    *_, norm = workload.trace(net, X, W, shape(6), shape(6)).ops
    assert norm.kind == "norm"
    assert set(norm.parameters) == {"scale", "shift"}
    assert norm.fixed == ("scale",)


@pytest.mark.parametrize("unroll_scans", [False, True])
def test_fixed_weights_of_a_loop(unroll_scans):
    def net(x, w, v):
        return lax.scan(lambda x, w: (x @ w, None), x, lax.stop_gradient(w))[0] @ v

    args = X, shape(3, 6, 6), V
    ops = workload.trace(net, *args, unroll_scans=unroll_scans).ops
    assert all(op.fixed == op.parameters for op in ops[:-1])
    assert ops[-1].fixed == ()


def _frozen_weights(x, p):
    w, _, v = lax.stop_gradient((p["w"], p["a"], p["v"]))
    return jnp.tanh(jnp.tanh(x @ w) @ w) @ v @ p["head"]


def _low_rank(x, p):
    h = jnp.tanh(x @ lax.stop_gradient(p["w"]) + x @ p["a"] @ p["b"])
    return h @ lax.stop_gradient(p["w"]) @ p["v"]


def _encode(x, p):
    return jnp.tanh(x @ p["w"]) @ p["v"]


def _momentum(x, p):
    return _encode(x, p) * _encode(2 * x, lax.stop_gradient(p))


def _biases_alone(x, p):
    w, v = lax.stop_gradient((p["w"], p["v"]))
    bias = p["bias"][None]
    return jnp.tanh(jnp.tanh(x @ w + bias) @ w + bias) @ v


@pytest.mark.parametrize("net", [_frozen_weights, _low_rank, _momentum, _biases_alone])
def test_fixed_weights_agree_with_the_gradient(net):
    def loss(x, p):
        return jnp.sum(net(x, p) ** 2)

    shapes = {"w": (6, 6), "a": (6, 2), "b": (2, 6), "v": (6, 3), "head": (3, 2)}
    p = {name: shape(*dims) for name, dims in (shapes | {"bias": (6,)}).items()}
    program = training_iteration(workload.trace(net, X, p))
    rows = compare(program, workload.trace_gradient(loss, X, p))
    for phase in ("forward", "backward"):
        macs = sum(row.rule_macs[phase] for row in rows)
        assert macs == sum(row.traced_macs[phase] for row in rows), phase
    made = sorted(size for row in rows for size in row.rule_outputs)
    assert made == sorted(size for row in rows for size in row.traced_outputs)


def test_a_weight_that_one_op_trains_and_another_does_not():
    p = {"w": W, "v": V}
    traced = workload.trace(_momentum, X, p)
    assert traced.graph.parameters == (("w", 36), ("v", 18))
    products = [op for op in traced.ops if op.kind == "dense"]
    assert [op.parameters for op in products] == 2 * [("w",), ("v",)]
    assert [op.fixed for op in products] == [(), (), ("w",), ("v",)]


@pytest.mark.parametrize(
    "gate",
    [
        lambda h, a: h * (h > a),
        lambda h, a: jnp.where(h > a, h, 0.0),
    ],
)
def test_a_parameter_that_is_only_compared_is_not_trained(gate):
    def net(p, x):
        return gate(x @ p["w"], p["a"]) @ p["b"]

    p = {"w": shape(16, 8), "a": shape(1, 8), "b": shape(8, 4)}
    program = workload.training_iteration(workload.trace(net, p, shape(1, 16)))
    gradients = {name for name in program.tensors if name.startswith("D:")}
    assert gradients == {"D:w", "D:b"}
