"""Loops counted and unrolled, branches, recomputation and calls."""

import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax import lax

from codesign import workload
from tests.workload.graphs import shape


def recurrent(x, w, u):
    """Two tanh layers over time, the second one backwards: 2 (3 x 16 + 3 x 16) MACs."""

    def cell(h, x):
        h = jnp.tanh(x @ w + h @ u)
        return h, h

    start = jnp.zeros((1, 4))
    _, first = lax.scan(cell, start, x.swapaxes(0, 1))
    _, second = lax.scan(cell, start, first, reverse=True)
    return second


RECURRENT = (recurrent, shape(1, 3, 4), shape(4, 4), shape(4, 4))


def test_a_counted_scan():
    ops = workload.trace(*RECURRENT)
    assert ops.total_macs == 2 * 3 * 2 * 16
    assert [(op.kind, op.repeats) for op in ops.ops] == 2 * [
        ("slice", 3),
        ("dense", 3),
        ("dense", 3),
        ("add", 3),
        ("activation", 3),
        ("resize", 1),  # puts the steps together
    ]
    assert ops.ops[2].operands == ()  # the state that it starts from
    assert ops.graph.parameters == (("w", 16), ("u", 16))


def test_an_unrolled_scan_links_its_steps():
    counted = workload.trace(*RECURRENT)
    ops = workload.trace(*RECURRENT, unroll_scans=True)
    assert ops.total_macs == counted.total_macs
    assert ops.graph.parameters == counted.graph.parameters
    by_name = {op.name.split(":")[1].split("/")[1]: op for op in ops.ops}
    position = {name: i for i, name in enumerate(by_name)}
    # Step 2 of the first layer is the first step of the second, with no op between.
    assert by_name["dense_3@2"].operands == (position["activation@2"],)
    assert by_name["dense_4@1"].operands == (position["activation_2@2"],)
    assert by_name["dense_2@1"].operands == (position["activation@0"],)
    assert by_name["slice@1"].operands == (-1,)
    # Only the output needs the whole map, in the order of time.
    last = ops.ops[-1]
    assert last.kind == "concat"
    assert last.operands == tuple(position[f"activation_2@{t}"] for t in range(3))
    assert last.output_shape == (3, 1, 4)


def test_a_step_of_a_stack_is_taken_without_a_copy():
    def net(x, w, u):
        return recurrent(x, w, u)[-1] @ w

    ops = workload.trace(net, *RECURRENT[1:], unroll_scans=True)
    assert "concat" not in ops.kinds
    assert ops.names[ops.ops[-1].operands[0]].endswith("activation_2@2")


def test_stacked_weights_are_shared_out():
    def net(x, weights):
        return lax.scan(lambda x, w: (jax.nn.relu(x @ w), None), x, weights)[0]

    args = shape(1, 4), shape(3, 4, 4)
    counted = workload.trace(net, *args)
    assert counted.graph.parameters == (("weights", 48),)
    assert counted.total_macs == 48
    ops = workload.trace(net, *args, unroll_scans=True)
    assert [size for _, size in ops.graph.parameters] == [16, 16, 16]
    assert [op.operands for op in ops.ops] == [(-1,), (0,), (1,), (2,), (3,), (4,)]


def test_layers_that_flax_scans_over():
    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return x + nn.relu(nn.Dense(4, name="dense")(x)), None

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            scan = nn.scan(
                Block,
                variable_axes={"params": 0},
                split_rngs={"params": True},
                length=2,
            )
            return scan(name="blocks")(x, None)[0]

    variables = jax.eval_shape(Net().init, jax.random.key(0), shape(1, 4))
    counted = workload.trace(Net().apply, variables, shape(1, 4))
    assert counted.graph.parameters == (("Net/blocks/dense", 40),)
    ops = workload.trace(Net().apply, variables, shape(1, 4), unroll_scans=True)
    assert dict(ops.graph.parameters) == {
        "Net/blocks/dense@0": 20,
        "Net/blocks/dense@1": 20,
    }


def test_an_associative_scan():
    def net(x, w):
        return lax.associative_scan(jnp.add, x @ w, axis=1)

    ops = workload.trace(net, shape(1, 4, 3), shape(3, 3))
    assert ops.total_macs == 36
    assert ops.output_shapes[-1] == (4, 3)


def test_a_fixed_number_of_runs():
    def net(x, w):
        return lax.fori_loop(0, 3, lambda i, x: jnp.tanh(x @ w), x)

    args = net, shape(1, 3), shape(3, 3)
    ops = workload.trace(*args)
    assert ops.total_macs == 27
    assert [op.repeats for op in ops.ops] == [3, 3]
    assert workload.trace(*args, unroll_scans=True).total_macs == 27


def test_nested_loops_multiply():
    def net(x, w):
        def inner(i, x):
            return x @ w

        return lax.fori_loop(0, 2, lambda i, x: lax.fori_loop(0, 5, inner, x), x)

    ops = workload.trace(net, shape(1, 3), shape(3, 3))
    assert ops.total_macs == 90
    unrolled = workload.trace(net, shape(1, 3), shape(3, 3), unroll_scans=True)
    assert unrolled.num_ops == 10
    assert unrolled.names[6].endswith("@1@1")


def test_flax_recurrence():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, ids):
            x = nn.Embed(20, 6)(ids)
            x = nn.RNN(nn.OptimizedLSTMCell(4), name="rnn")(x)
            return nn.Dense(3)(x)

    ids = jnp.ones((1, 5), int)
    variables = Net().init(jax.random.key(0), ids)
    # A step multiplies 6 + 4 values by 16 gates; the head 5 x 4 by 3.
    expected = 5 * (6 * 16 + 4 * 16) + 60
    counted = workload.trace(Net().apply, variables, ids)
    ops = workload.trace(Net().apply, variables, ids, unroll_scans=True)
    assert counted.total_macs == ops.total_macs == expected
    assert counted.graph.parameters == ops.graph.parameters
    # kernel of the input; kernel and bias of the state, each one tensor of all steps
    sizes = sorted(size for _, size in ops.graph.parameters)
    assert sizes == [15, 80, 96, 120]
    assert "Net/rnn/OptimizedLSTMCell_0@3" in ops.names


def test_a_long_unrolled_network_takes_seconds():
    def net(x, w):
        def cell(h, x):
            for _ in range(4):
                h = jnp.tanh(x @ w + h @ w) * jax.nn.sigmoid(h)
                x = x + h
            return h, x

        return lax.scan(cell, x[:, 0], x.swapaxes(0, 1))[1]

    start = time.monotonic()
    ops = workload.trace(net, shape(1, 200, 8), shape(8, 8), unroll_scans=True)
    assert ops.num_ops == 200 * (1 + 4 * 7) + 2
    assert time.monotonic() - start < 10


def test_the_costliest_branch_counts():
    def net(x, w, v):
        branches = (lambda x: 2 * x, lambda x: x @ w @ v, lambda x: x @ w)
        return lax.switch(jnp.int32(x.sum()), branches, x)

    ops = workload.trace(net, shape(1, 3), shape(3, 3), shape(3, 3))
    assert ops.total_macs == 18
    assert ops.kinds == ("dense", "dense")


def test_calls_are_entered():
    @jax.custom_vjp
    def layer(x, w):
        return jnp.tanh(x @ w)

    layer.defvjp(
        lambda x, w: (layer(x, w), (x, w)), lambda saved, g: (g @ saved[1].T, saved[1])
    )

    def net(x, w):
        with jax.named_scope("outer"):
            x = layer(x, w)
        return jax.checkpoint(lambda x: jax.nn.gelu(x @ w))(x)

    ops = workload.trace(net, shape(1, 3), shape(3, 3))
    assert ops.kinds == ("dense", "activation", "dense", "activation")
    assert ops.names[:2] == ("outer", "outer/activation")


def test_refuses_an_unknown_number_of_runs():
    def net(x, w):
        return lax.while_loop(lambda x: x.sum() > 0, lambda x: x @ w, x)

    with pytest.raises(ValueError, match=r"`while` at 'trace_loops_test.py:\d+'.*scan"):
        workload.trace(net, shape(1, 3), shape(3, 3))

    def harmless(x, w):
        return lax.while_loop(lambda x: x.sum() > 0, lambda x: x - 1, x) @ w

    assert workload.trace(harmless, shape(1, 3), shape(3, 3)).total_macs == 9
