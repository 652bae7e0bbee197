"""Operands that are read as constants: no gradient flows back to them."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from codesign import workload
from codesign.workload.comparison import compare
from codesign.workload.training import training_iteration


def shape(*dims, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(dims, dtype)


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
