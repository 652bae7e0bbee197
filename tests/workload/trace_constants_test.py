"""What is an input, what is trained, and what is a fixed tensor."""

import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codesign import models, workload
from codesign.kernels.named_op import uncounted
from tests.workload.graphs import shape

pytestmark = pytest.mark.usefixtures("any_ranks")


def _roles(ops, role):
    program = workload.training_iteration(ops)
    return [name for name in program.tensors if name.startswith(f"{role}:")]


def _backward(ops, kind):
    """Operations of the backward steps of ops of one kind."""
    program = workload.training_iteration(ops)
    return [
        int(count)
        for count, is_backward, op in zip(
            program.operations, program.is_backward, program.op, strict=True
        )
        if is_backward and ops.kinds[op] == kind
    ]


@pytest.mark.parametrize("library", [np, jnp])
def test_statistics_of_images_have_no_gradient(library):
    mean = library.array([0.485, 0.456, 0.406], "float32")
    deviation = library.array([0.229, 0.224, 0.225], "float32")

    def net(p, x):
        x = jax.lax.conv_general_dilated(
            (x - mean) / deviation,
            p,
            (2, 2),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return jax.nn.relu(x)

    p, x = shape(7, 7, 3, 64), shape(1, 224, 224, 3)
    with pytest.warns(UserWarning, match=r"closes over 2 array\(s\).*train_constants"):
        ops = workload.trace(net, p, x)
    assert ops.graph.parameters == (("p", 7 * 7 * 3 * 64),)
    assert sum(size for _, size in ops.graph.constants) == 6
    assert _roles(ops, "D") == ["D:p"]
    assert len(_roles(ops, "W")) == 2
    # The image has no gradient, so only that of the kernel is computed.
    assert _backward(ops, "conv") == [112 * 112 * 7 * 7 * 3 * 64]
    found = workload.trace_gradient(lambda p, x: jnp.sum(net(p, x) ** 2), p, x)
    assert found.macs("backward") == _backward(ops, "conv")[0]


def test_the_warning_names_the_largest_and_where_it_is_read():
    small, large = np.ones(3, np.float32), np.ones((3, 4), np.float32)
    with pytest.warns(UserWarning, match="closes over") as caught:
        ops = workload.trace(
            lambda w, x: (x * small) @ w @ large, shape(3, 3), shape(1, 3)
        )
    (message,) = (str(warning.message) for warning in caught)
    assert caught[0].filename == __file__  # it points at the caller
    assert "2 array(s), the largest float32 (3, 4)" in message
    assert "trace_constants_test.py:" in message
    assert ops.ops[-1].fixed == ops.ops[-1].parameters


def test_all_that_is_closed_over_can_be_trained():
    w = np.ones((3, 4), np.float32)
    ops = workload.trace(lambda x: x @ w, shape(1, 3), train_constants=True)
    assert (ops.graph.constants, ops.ops[0].fixed) == ((), ())
    assert len(_roles(ops, "D")) == 1
    with pytest.warns(UserWarning, match="closes over"):
        fixed = workload.trace(lambda x: x @ w, shape(1, 3))
    with pytest.raises(ValueError, match="no parameters that are trained"):
        workload.training_iteration(fixed)


def test_what_cannot_be_trained_or_is_made_inside_warns_of_nothing():
    order, mask = np.array([2, 0, 1]), np.array([[True, False, True]])

    def net(w, x):
        table = jnp.cos(jnp.arange(3.0))
        return jnp.where(mask, (x[:, order] * table) @ w, 0.0)

    ops = workload.trace(net, shape(3, 3), shape(1, 3))
    assert ops.graph.constants == ()


class _Rotary(nn.Module):
    """A block as Llama's: rotary tables, a causal mask, a gated product."""

    tables: str = "numpy"

    @nn.compact
    def __call__(self, x):
        library = np if self.tables == "numpy" else jnp
        length, width = x.shape[1:]
        heads, size = 2, width // 2
        angles = library.outer(
            library.arange(length), 1e4 ** (-library.arange(0, size, 2) / size)
        )
        cos, sin = (
            library.concatenate([f(angles)] * 2, -1).astype("float32")[None, :, None]
            for f in (library.cos, library.sin)
        )
        mask = library.where(library.tri(length), 0.0, -1e9).astype("float32")

        def rotated(y):
            left, right = jnp.split(y, 2, -1)
            return y * cos + jnp.concatenate([-right, left], -1) * sin

        y = nn.RMSNorm()(x)
        q, k, v = (
            nn.DenseGeneral((heads, size), use_bias=False, name=name)(y)
            for name in ("q", "k", "v")
        )
        scores = jnp.einsum("bqhd,bkhd->bhqk", rotated(q), rotated(k)) / size**0.5
        y = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores + mask), v)
        x = x + nn.DenseGeneral(width, (-2, -1), use_bias=False, name="o")(y)
        y = nn.RMSNorm()(x)
        gate, up = (nn.Dense(24, use_bias=False, name=n)(y) for n in ("gate", "up"))
        return x + nn.Dense(width, use_bias=False, name="down")(nn.silu(gate) * up)


@pytest.mark.parametrize("tables", ["numpy", "jax"])
def test_a_rotary_block(tables):
    block, x = _Rotary(tables), shape(1, 6, 16)
    variables = jax.eval_shape(block.init, jax.random.key(0), x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ops = workload.trace(block.apply, variables, x)
    count = sum(leaf.size for leaf in jax.tree.leaves(variables))
    assert sum(size for _, size in ops.graph.parameters) == count
    trained = {name.removeprefix("D:") for name in _roles(ops, "D")}
    assert trained == {name for name, _ in ops.graph.parameters}
    assert ops.total_macs == 6 * (4 * 16 * 16 + 3 * 16 * 24) + 2 * 6 * 6 * 16
    found = workload.trace_gradient(
        lambda p, x: jnp.sum(block.apply(p, x) ** 2), variables, x
    )
    # The first three products need no gradient of the input below the norm; RMSNorm's
    # scale is trained, so they do.
    assert found.macs("backward") == 2 * ops.total_macs


class _UNet(nn.Module):
    """Of diffusion: a time step of shape [B] goes through sines and two layers."""

    @nn.compact
    def __call__(self, x, time):
        angles = time[:, None] * 2.0 ** jnp.arange(8)
        embedding = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)
        embedding = nn.Dense(32, name="time1")(
            nn.silu(nn.Dense(32, name="time0")(embedding))
        )
        y = nn.Conv(8, (3, 3), name="in")(x)
        skip = y = y + nn.Dense(8, name="at0")(nn.silu(embedding))[:, None, None]
        y = nn.Conv(16, (3, 3), (2, 2), name="down")(nn.silu(y))
        y = y + nn.Dense(16, name="at1")(nn.silu(embedding))[:, None, None]
        y = nn.ConvTranspose(8, (4, 4), (2, 2), name="up")(nn.silu(y))
        return nn.Conv(3, (3, 3), name="out")(jnp.concatenate([y, skip], -1))


def test_a_time_step_is_an_input_with_a_warning():
    net, args = _UNet(), (shape(1, 8, 8, 3), shape(1))
    variables = jax.eval_shape(net.init, jax.random.key(0), *args)
    with pytest.warns(UserWarning, match=r"`time` is a single float.*inputs=\(1, 2\)"):
        ops = workload.trace(
            lambda variables, x, time: net.apply(variables, x, time), variables, *args
        )
    assert ops.graph.inputs == ((8, 8, 3), (1,))
    count = sum(leaf.size for leaf in jax.tree.leaves(variables))
    assert sum(size for _, size in ops.graph.parameters) == count
    dense = 16 * 32 + 32 * 32 + 32 * 8 + 32 * 16
    convs = 9 * (64 * 3 * 8 + 16 * 8 * 16 + 64 * 16 * 3) + 16 * 16 * 16 * 8
    assert ops.total_macs == dense + convs
    told = workload.trace(net.apply, variables, *args, inputs=(1, 2))
    assert told.total_macs == ops.total_macs


def test_a_target_is_an_input_of_a_loss():
    def loss(w, x, target):
        return jnp.sum((x @ w - target) ** 2)

    args = shape(3, 1), shape(1, 3), shape(1)
    with pytest.warns(UserWarning, match="`target` is a single float") as caught:
        found = workload.trace_gradient(loss, *args)
    assert caught[0].filename == __file__
    assert [p.macs for p in found.products] == [3, 3]


def test_a_single_float_can_be_a_parameter():
    def net(w, x, scale):
        return (x @ w) * scale

    args = shape(3, 3), shape(1, 3), shape(1)
    ops = workload.trace(net, *args, inputs=(1,))
    assert ops.graph.inputs == ((3,),)
    with pytest.warns(UserWarning, match=r"parameter or a mask, say `inputs=\(1,\)`"):
        ops = workload.trace(net, *args)
    assert ops.graph.inputs == ((3,), (1,))


def test_a_mask_of_one_batch_norm_is_no_input():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, bn_mask, *, train):
            x = models.MaskedBatchNorm(0)(nn.Conv(4, (3, 3))(x), bn_mask, train=train)
            return nn.Dense(10)(x.mean((1, 2)))

    network = models.Network(Net(), image_shape=(8, 8, 1))
    ops = workload.trace(*network.trace_args())
    assert ops.graph.inputs == ((8, 8, 1),)
    assert ops.num_sites == 1


def test_what_no_chip_does_is_not_counted():
    def forward(w, x):
        y = x @ w
        y = uncounted(_spoilt, y)  # of y's shape: y itself
        return y, uncounted(_count, y)  # of another: a constant

    shapes = jnp.zeros((4, 3)), jnp.zeros((1, 4))
    ops = workload.trace(forward, *shapes)
    assert ops.kinds == ("dense",)


def _spoilt(y):
    return jnp.where(y > 0, jnp.nan, y) * 2 + 1


def _count(y):
    return jnp.sum(y > 0)
