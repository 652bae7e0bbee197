"""Multiply-accumulates: by hand, by a slow count of whole networks, and by XLA."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from codesign import models, workload
from tests.workload.graphs import shape

NHWC = ("NHWC", "HWIO", "NHWC")


def only(fn, *args, **settings):
    """The single op of a function."""
    (op,) = workload.trace(fn, *args, **settings).ops
    return op


def _vgg(depth):
    """Simonyan & Zisserman, Table 1: 3 x 3 convolutions; a pool halves the map."""
    stages = {
        11: ((1, 64), (1, 128), (2, 256), (2, 512), (2, 512)),
        16: ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)),
        19: ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512)),
    }[depth]
    side, before, macs = 32, 3, 0
    for count, features in stages:
        for _ in range(count):
            macs += 9 * before * features * side**2
            before = features
        side //= 2
    return macs + 512 * 10


def _resnet(*depths):
    """He et al.: 3 x 3 stem, then four stages of blocks of two convolutions."""
    side, before, macs = 32, 64, 9 * 3 * 64 * 32**2
    for features, depth in zip((64, 128, 256, 512), depths, strict=True):
        if features != before:
            side //= 2
            macs += before * features * side**2  # projection
        macs += 9 * (before + (2 * depth - 1) * features) * features * side**2
        before = features
    return macs + 512 * 10


def _resnet50():
    """7 x 7 stem and a pool, then bottlenecks that stride in their first convolution."""
    macs, side, before = 49 * 3 * 64 * 16**2, 8, 64
    for stage, (features, count) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for block in range(count):
            after = side // 2 if stage and not block else side
            macs += before * features * after**2
            macs += (9 * features**2 + 4 * features**2) * after**2
            if not block:
                macs += before * 4 * features * after**2  # projection
            side, before = after, 4 * features
    return macs + 2048 * 10


def _mobilenetv2():
    """Sandler et al., Table 2, on 32 x 32 images."""
    macs, side, before = 9 * 3 * 32 * 16**2, 16, 32
    table = (
        *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
        *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
    )
    for expansion, features, count, stride in table:
        for block in range(count):
            wide = expansion * before
            after = side // stride if not block else side
            macs += before * wide * side**2 if expansion > 1 else 0
            macs += 9 * wide * after**2 + wide * features * after**2
            side, before = after, features
    return macs + 320 * 1280 * side**2 + 1280 * 10


COUNTS = {
    "vgg11": functools.partial(_vgg, 11),
    "vgg16": functools.partial(_vgg, 16),
    "vgg19": functools.partial(_vgg, 19),
    "resnet18": functools.partial(_resnet, 2, 2, 2, 2),
    "resnet34": functools.partial(_resnet, 3, 4, 6, 3),
    "resnet50": _resnet50,
    "mobilenetv2": _mobilenetv2,
}


@pytest.mark.parametrize("name", models.NETWORKS)
def test_every_network_by_a_slow_count(name):
    ops = workload.trace(*models.create(name).trace_args())
    assert ops.total_macs == COUNTS[name]()


@pytest.mark.parametrize(
    ("arguments", "x", "kernel", "groups", "weight", "output", "macs", "variant"),
    [
        # Images first and channels second, as PyTorch has them: 8 x 8 windows of 27.
        (None, (1, 3, 8, 8), (4, 3, 3, 3), 1, (3, 3, 3, 4), (8, 8, 4), 6912, ""),
        (NHWC, (1, 8, 8, 3), (3, 3, 3, 4), 1, (3, 3, 3, 4), (8, 8, 4), 6912, ""),
        (
            NHWC,
            (1, 8, 8, 6),
            (3, 3, 1, 6),
            6,
            (3, 3, 1, 6),
            (8, 8, 6),
            3456,
            "depthwise",
        ),
        (NHWC, (1, 8, 8, 6), (3, 3, 3, 4), 2, (3, 3, 3, 4), (8, 8, 4), 6912, "grouped"),
        (("NWC", "WIO", "NWC"), (1, 9, 2), (3, 2, 5), 1, (3, 2, 5), (9, 5), 270, ""),
    ],
)
def test_convolutions(arguments, x, kernel, groups, weight, output, macs, variant):
    def net(x, kernel):
        return lax.conv_general_dilated(
            x,
            kernel,
            (1,) * (len(x.shape) - 2),
            "SAME",
            dimension_numbers=arguments,
            feature_group_count=groups,
        )

    op = only(net, shape(*x), shape(*kernel))
    assert (op.kind, op.variant, op.macs) == ("conv", variant, macs)
    assert op.weight_shape == weight
    assert op.output_shape == output
    assert op.parameters == ("kernel",)


def test_strided_dilated_and_padded_convolutions():
    def net(x, kernel):
        x = jnp.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
        return lax.conv_general_dilated(
            x, kernel, (2, 2), "VALID", rhs_dilation=(2, 2), dimension_numbers=NHWC
        )

    # 12 positions, less 4 of a kernel that spans 5, in steps of 2: 4 x 4 windows.
    op = only(net, shape(1, 8, 8, 3), shape(3, 3, 3, 4))
    assert op.macs == 16 * 27 * 4
    assert op.input_shape == (8, 8, 3)
    assert op.output_shape == (4, 4, 4)


def test_a_transposed_convolution_counts_its_inputs():
    def net(x, kernel):
        return lax.conv_transpose(x, kernel, (2, 2), "SAME", dimension_numbers=NHWC)

    # Each of 4 x 4 x 6 inputs meets 2 x 2 weights for each of 5 outputs.
    op = only(net, shape(1, 4, 4, 6), shape(2, 2, 6, 5))
    assert (op.variant, op.macs) == ("transposed", 4 * 4 * 6 * 2 * 2 * 5)
    assert op.output_shape == (8, 8, 5)


def test_the_gradients_of_a_convolution_have_its_macs():
    def forward(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=NHWC
        )

    def both(x, kernel, grads):
        return jax.vjp(forward, x, kernel)[1](grads)

    x, kernel, grads = shape(1, 8, 8, 3), shape(3, 3, 3, 4), shape(1, 4, 4, 4)
    macs = only(forward, x, kernel).macs
    ops = workload.trace(both, x, kernel, grads, inputs=(0, 2))
    assert sorted((op.kind, op.macs) for op in ops.ops) == [
        ("conv", macs),
        ("matmul", macs),
    ]


@pytest.mark.parametrize(
    ("formula", "x", "w", "weight", "inputs", "output", "macs"),
    [
        ("bi,io->bo", (1, 3), (3, 5), (3, 5), (3,), (5,), 15),
        ("bti,io->bto", (1, 7, 3), (3, 5), (3, 5), (7, 3), (7, 5), 105),
        ("bti,ihd->bthd", (1, 7, 3), (3, 2, 4), (3, 8), (7, 3), (7, 8), 168),
        ("bthd,hdo->bto", (1, 7, 2, 4), (2, 4, 3), (8, 3), (7, 8), (7, 3), 168),
        ("oi,bti->obt", (1, 7, 3), (5, 3), (3, 5), (7, 3), (7, 5), 105),
        # 2 experts, each with its own [3, 5]: a product in groups
        ("beti,eio->beto", (1, 2, 7, 3), (2, 3, 5), (3, 10), (7, 6), (7, 10), 210),
    ],
)
def test_dense(formula, x, w, weight, inputs, output, macs):
    order = formula.split("->")[0].split(",")
    args = [shape(*(x if "b" in term else w)) for term in order]
    number = 0 if "b" in order[0] else 1
    op = only(functools.partial(jnp.einsum, formula), *args, inputs=(number,))
    assert (op.kind, op.weight_shape, op.macs) == ("dense", weight, macs)
    assert op.input_shape == inputs
    assert op.output_shape == output


def test_products_of_two_maps():
    def net(x, w):
        x = x @ w
        return jnp.einsum("bqd,bkd->bqk", x, x)

    ops = workload.trace(net, shape(1, 5, 3), shape(3, 4))
    assert ops.kinds == ("dense", "matmul")
    assert ops.ops[1].operands == (0, 0)
    assert ops.total_macs == 5 * 3 * 4 + 5 * 5 * 4
    assert ops.ops[1].parameters == ()


def test_biases_and_scales_join_the_product():
    def net(x, w, b, positions):
        x = (x @ w + b.reshape(1, 1, -1)) / 8.0
        return x + positions[None]

    params = shape(3, 4), shape(4), shape(5, 4)
    ops = workload.trace(net, shape(1, 5, 3), *params)
    assert ops.kinds == ("dense", "add")
    assert ops.graph.parameters == (("w", 16), ("positions", 20))


def test_shared_weights_are_one_tensor():
    def net(x, tied, head):
        x = jax.nn.relu(x @ tied) @ tied
        return x @ head @ tied

    ops = workload.trace(net, shape(1, 3), shape(3, 3), shape(3, 3))
    assert ops.graph.parameters == (("tied", 9), ("head", 9))
    assert [op.parameters for op in ops.ops if op.parameters] == [
        ("tied",),
        ("tied",),
        ("head",),
        ("tied",),
    ]


def test_what_parameters_alone_compute_is_free():
    def net(x, w, u):
        return x @ (jax.nn.softmax(w @ u) @ u)

    op = only(net, shape(1, 3), shape(3, 3), shape(3, 3))
    assert op.macs == 9
    assert op.weight_shape == (3, 3)
    (name,) = op.parameters
    assert (
        dict(workload.trace(net, *[shape(1, 3), *[shape(3, 3)] * 2]).graph.parameters)[
            name
        ]
        == 18
    )


def test_xla_counts_the_same_without_padding():
    def net(x, kernel, w):
        x = lax.conv_general_dilated(x, kernel, (2, 2), "VALID", dimension_numbers=NHWC)
        return x.reshape(1, -1) @ w

    args = shape(1, 9, 9, 3), shape(3, 3, 3, 4), shape(64, 7)
    assert xla_flops(net, *args) == 2 * workload.trace(net, *args).total_macs


@pytest.mark.parametrize("unroll", [False, True])
def test_xla_agrees_on_an_unrolled_network(unroll):
    # XLA also counts point-wise operations: at width 64 below 5 % of the products.
    def net(x, w, u, unroll):
        def cell(h, x):
            h = jnp.tanh(x @ w + h @ u)
            return h, h

        states = lax.scan(cell, jnp.ones((1, 64)), x.swapaxes(0, 1), unroll=unroll)[1]
        scores = jax.nn.softmax(states[:, 0] @ states[:, 0].T)
        return scores @ states[:, 0]

    args = shape(1, 8, 64), shape(64, 64), shape(64, 64)
    ops = workload.trace(functools.partial(net, unroll=1), *args, unroll_scans=unroll)
    flops = xla_flops(functools.partial(net, unroll=8), *args)
    assert ops.total_macs == 8 * 2 * 64 * 64 + 2 * 8 * 8 * 64
    np.testing.assert_allclose(flops, 2 * ops.total_macs, rtol=0.05)


def test_xla_agrees_on_vgg11():
    # XLA leaves out the products with padding, of 3 x 3 windows on maps of 32 to 2, and
    # counts norms and activations: within 25 %.
    network = models.create("vgg11")
    fn, *args = network.trace_args()
    macs = workload.trace(fn, *args).total_macs
    np.testing.assert_allclose(xla_flops(fn, *args), 2 * macs, rtol=0.25)


def test_attention_of_flax():
    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            y = nn.LayerNorm(name="norm1")(x)
            mask = nn.make_causal_mask(jnp.ones((1, 5)))
            y = nn.MultiHeadDotProductAttention(2, name="mha")(y, y, mask=mask)
            x = x + nn.Dropout(0.1, deterministic=not train, name="drop")(y)
            y = nn.LayerNorm(name="norm2")(x)
            y = nn.gelu(nn.Dense(32, name="up")(y))
            return x + nn.Dense(8, name="down")(y)

    x, key = shape(1, 5, 8), jax.random.key(0)
    variables = jax.eval_shape(functools.partial(Block().init, train=False), key, x)

    def net(variables, x, key):
        return Block().apply(variables, x, train=True, rngs={"dropout": key})

    ops = workload.trace(net, variables, x, key)
    # Four projections of 8 x 8, two products of 5 x 5 x 8, and 8 x 32 up and down.
    assert ops.total_macs == 4 * 5 * 64 + 2 * 25 * 8 + 2 * 5 * 256
    assert sorted(ops.names) == sorted(
        f"Block/{name}"
        for name in (
            *("norm1", "mha/query", "mha/key", "mha/value", "mha/matmul"),
            *("mha/softmax", "mha/matmul_2", "mha/out", "drop/dropout", "add"),
            *("norm2", "up", "activation", "down", "add_2"),
        )
    )
    assert sum(size for _, size in ops.graph.parameters) == sum(
        math.prod(leaf.shape) for leaf in jax.tree.leaves(variables)
    )
    without = workload.trace(
        lambda v, x: Block().apply(v, x, train=False), variables, x
    )
    assert "dropout" not in without.kinds
    assert without.total_macs == ops.total_macs


def xla_flops(fn, *args):
    return jax.jit(fn).lower(*args).cost_analysis()["flops"]


@pytest.mark.parametrize(
    ("rows", "kind", "weight", "output"),
    [(8, "dense", (6, 16), (2, 16)), (5, "matmul", (), (5, 4))],
)
def test_experts(rows, kind, weight, output):
    # Rows that spread evenly over 4 experts make a grouped layer; 5 do not.
    def net(x, router, experts):
        best = jnp.argmax(x[0] @ router, -1)
        sizes = jnp.bincount(best, length=4)
        return lax.ragged_dot(x[0][jnp.argsort(best)], experts, sizes)

    ops = workload.trace(net, shape(1, rows, 6), shape(6, 4), shape(4, 6, 4))
    op = ops.ops[-1]
    assert (op.kind, op.variant) == (kind, "grouped")
    assert (op.weight_shape, op.output_shape) == (weight, output)
    assert op.macs == rows * 6 * 4
    assert dict(ops.graph.parameters)["experts"] == 4 * 6 * 4
    if kind == "dense":
        last = [leaf[-1] for leaf in (ops.num_windows, ops.fan_in, ops.fan_out)]
        assert math.prod(map(int, last)) == op.macs
