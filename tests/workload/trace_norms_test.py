"""What a norm holds, and what leaves the network beside its map."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from codesign import workload
from codesign.workload.iteration import training_iteration
from tests.workload.graphs import shape


class Net(nn.Module):
    train: bool
    is_flat: bool = False

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3), name="conv")(x)
        if self.is_flat:
            x = nn.Dense(6, name="dense")(x.reshape(1, -1))
        return nn.relu(nn.BatchNorm(not self.train, name="norm")(x))


@pytest.mark.parametrize("is_flat", [False, True])
def test_statistics_are_held_but_are_no_outputs(is_flat):
    x = shape(1, 8, 8, 3)
    keys = jax.random.key(0)
    variables = jax.eval_shape(Net(train=False, is_flat=is_flat).init, keys, x)

    def both(variables, x, *, train):
        net = Net(train=train, is_flat=is_flat)
        return net.apply(variables, x, mutable=["batch_stats"])

    found = [
        workload.trace(fn, variables, x)
        for fn in (
            lambda v, x: both(v, x, train=True),
            lambda v, x: both(v, x, train=True)[0],
            lambda v, x: both(v, x, train=False),
            lambda v, x: both(v, x, train=False)[0],
        )
    ]
    for ops in found:
        # Scale, bias, mean and variance, whether they are updated, kept or neither.
        assert dict(ops.graph.parameters)["Net/norm"] == 4 * (6 if is_flat else 4)
        assert [ops.names[i] for i in ops.graph.outputs] == ["Net/activation"]
        assert ops.graph == found[0].graph
    program = training_iteration(found[0])
    ready = zip(program.tensors, program.in_memory, strict=True)
    # Only the gradient of the output is there when the iteration starts.
    assert [t for t, is_ready in ready if is_ready and t[0] == "G"] == [
        "G:Net/activation"
    ]


class NnxNet(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)

    def __call__(self, x):
        return nnx.relu(self.norm(self.conv(x)))


@pytest.mark.parametrize("is_returned", [False, True])
@pytest.mark.parametrize("train", [False, True])
def test_nnx_state(train, is_returned):
    definition, state = nnx.split(NnxNet(nnx.Rngs(0)))

    def fn(state, x):
        net = nnx.merge(definition, state)
        net.train() if train else net.eval()
        y = net(x)
        return (y, nnx.state(net)) if is_returned else y

    ops = workload.trace(fn, state, shape(1, 8, 8, 3))
    assert ops.kinds == ("conv", "norm", "activation")
    assert ops.graph.outputs == (2,)
    assert dict(ops.graph.parameters) == {"conv": 112, "norm": 16}


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        x = nn.Conv(3, (3, 3), name="conv")(x)
        return nn.relu(nn.BatchNorm(False, name="norm")(x)), None


class Stack(nn.Module):
    @nn.compact
    def __call__(self, x):
        axes = {"params": 0, "batch_stats": 0}
        block = nn.scan(Block, variable_axes=axes, split_rngs={"params": 1}, length=2)
        return block(name="block")(x, None)[0]


@pytest.mark.parametrize("unroll_scans", [False, True])
def test_statistics_that_a_loop_stacks(unroll_scans):
    x = shape(1, 8, 8, 3)
    variables = jax.eval_shape(Stack().init, jax.random.key(0), x)
    ops = workload.trace(
        lambda v, x: Stack().apply(v, x, mutable=["batch_stats"]),
        variables,
        x,
        unroll_scans=unroll_scans,
    )
    steps = 2 if unroll_scans else 1
    assert ops.kinds == ("conv", "norm", "activation") * steps
    assert ops.graph.outputs == (3 * steps - 1,)
    assert sum(size for _, size in ops.graph.parameters) == 2 * (84 + 12)


def test_other_values_that_leave_are_outputs():
    def net(x, w):
        y = jnp.tanh(x @ w)
        return y, y.mean(-1), y.std(-1)

    ops = workload.trace(net, shape(1, 5, 8), shape(8, 8))
    assert ops.kinds == ("dense", "activation", "reduce", "reduce")
    assert sorted(ops.graph.outputs) == [1, 2, 3]


@pytest.mark.parametrize(
    ("groups", "variant"), [(1, "layer"), (2, "group"), (4, "group"), (8, "group")]
)
@pytest.mark.parametrize("side", [1, 2, 4, 8])
def test_group_norms(groups, variant, side):
    # 4 groups at 4 x 4: 4 * 4 * 4 values each, as many as a row of 4 x 16.
    def fn(make):
        ops = workload.trace(make, shape(1, side, side, 16), train_constants=True)
        return [(op.kind, op.variant) for op in ops.ops][1:]

    linen = nn.Sequential([nn.Dense(16), nn.GroupNorm(groups)])
    x = jnp.ones((1, side, side, 16))
    variables = linen.init(jax.random.key(0), x)
    rngs = nnx.Rngs(0)
    dense = nnx.Linear(16, 16, rngs=rngs)
    norm = nnx.GroupNorm(16, groups, rngs=rngs)
    assert fn(lambda x: linen.apply(variables, x)) == [("norm", variant)]
    assert fn(lambda x: norm(dense(x))) == [("norm", variant)]
