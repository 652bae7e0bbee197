import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from codesign import models, workload
from codesign.kernels.pooling import global_average_pool
from codesign.models.layers import Conv, Dense


@functools.cache
def traced(name):
    """A full-width network for 32x32 images, and its workload."""
    network = models.create(name)
    return network, workload.trace(*network.trace_args())


def test_vgg11_by_hand():
    # k k C_in C_out H W: 1.8 + 18.9 + 18.9 + 37.7 + 18.9 + 37.7 + 9.4 + 9.4 million and
    # 5,120 of the classifier.
    _, ops = traced("vgg11")
    matrix = ops.select("conv", "dense")
    expected = [
        9 * 3 * 64 * 32**2,
        9 * 64 * 128 * 16**2,
        9 * 128 * 256 * 8**2,
        9 * 256 * 256 * 8**2,
        9 * 256 * 512 * 4**2,
        9 * 512 * 512 * 4**2,
        9 * 512 * 512 * 2**2,
        9 * 512 * 512 * 2**2,
        512 * 10,
    ]
    np.testing.assert_array_equal(matrix.macs, expected)
    assert ops.total_macs == sum(expected) == 152_769_536
    np.testing.assert_array_equal(matrix.fan_in[:3], [27, 576, 1152])
    np.testing.assert_array_equal(matrix.fan_out[-2:], [512, 10])
    np.testing.assert_array_equal(
        matrix.num_windows, [1024, 256, 64, 64, 16, 16, 4, 4, 1]
    )
    assert matrix.names[0] == "VGG/conv1"
    assert matrix.names[-1] == "VGG/classifier"
    assert matrix.edges == tuple((i, i + 1) for i in range(8))


@pytest.mark.parametrize(
    ("name", "macs", "elements"),
    [
        # Elements of the BN sites, by map size: VGG-11 65536 + 32768 + 2 x 16384 +
        # 2 x 8192 + 2 x 2048; ResNet-18 5 each of 65536, 32768, 16384 and 8192.
        ("vgg11", 152_769_536, 151_552),
        ("vgg16", 313_201_664, 276_480),
        ("vgg19", 398_136_320, 303_104),
        ("resnet18", 555_422_720, 614_400),
    ],
)
def test_totals(name, macs, elements):
    network, ops = traced(name)
    assert ops.total_macs == macs
    norms = ops.select("norm")
    assert float(norms.elements.sum()) == elements
    assert sorted(norms.sites) == list(range(network.num_sites))
    for op, site in enumerate(norms.sites):
        assert norms.names[op].endswith(f"norm{site + 1}")


def test_resnet_edges_and_projections():
    _, ops = traced("resnet18")
    matrix = ops.select("conv", "dense")
    names = [name.split("/")[1] for name in matrix.names]
    fed_by = {
        name: sorted(names[s] for s, e in matrix.edges if e == op)
        for op, name in enumerate(names)
    }
    assert fed_by["conv1"] == []
    assert fed_by["conv4"] == ["conv1", "conv3"]  # the sum of the first block
    assert fed_by["conv6"] == fed_by["conv18"]  # a projection sees its block's input
    assert fed_by["conv8"] == ["conv18", "conv7"]
    assert names[-1] == "classifier"
    strided = names.index("conv6")
    assert float(matrix.num_windows[strided]) == 16**2
    assert float(matrix.num_input_windows[strided]) == 32**2


def test_masked_scales_norms_only():
    network, ops = traced("vgg11")
    masked = ops.masked(network.mask((4, 6)))
    assert float(masked.select("norm").elements.sum()) == 8192 + 2048
    np.testing.assert_array_equal(
        masked.select("conv").elements, ops.select("conv").elements
    )
    half = ops.masked(jnp.full(8, 0.5))
    assert float(half.select("norm").elements.sum()) == 151_552 / 2
    with pytest.raises(ValueError, match=r"\(7,\).*8 batch-norm sites"):
        ops.masked(jnp.ones(7))


def test_the_implementation_of_a_convolution_does_not_change_its_count():
    def net(x, kernel, implementation):
        from codesign.kernels.convolution import convolution

        return convolution(x, kernel, implementation=implementation)

    x, kernel = jnp.ones((1, 6, 6, 2)), jnp.ones((3, 3, 2, 5))
    counted = [
        workload.trace(functools.partial(net, implementation=name), x, kernel)
        for name in ("xla", "unfold")
    ]
    assert counted[0].total_macs == counted[1].total_macs == 9 * 2 * 5 * 36
    assert counted[0].kinds == counted[1].kinds == ("conv",)


def test_plain_jax_and_nested_transformations():
    @jax.jit
    def inner(x, w):
        return jax.nn.relu(x @ w)

    def net(x, kernel, w):
        numbers = ("NHWC", "HWIO", "NHWC")
        x = lax.conv_general_dilated(
            x, kernel, (2, 2), "SAME", dimension_numbers=numbers
        )
        x = jax.checkpoint(jnp.tanh)(x)
        return inner(x.reshape(1, -1), w)

    shapes = ((1, 8, 8, 3), (3, 3, 3, 4), (64, 7))
    ops = workload.trace(net, *(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes))
    assert ops.kinds == ("conv", "activation", "dense", "activation")
    assert [op.variant for op in ops.ops] == ["", "tanh", "", "relu"]
    assert ops.edges == ((0, 1), (1, 2), (2, 3))
    assert ops.total_macs == 4 * 4 * 27 * 4 + 64 * 7
    assert ops.output_shapes == ((4, 4, 4), (4, 4, 4), (7,), (7,))


def test_a_network_of_ones_own_becomes_searchable():
    class Tiny(nn.Module):
        @nn.compact
        def __call__(self, x, bn_mask, *, train):
            x = Conv(6, name="first")(x)
            x = models.MaskedBatchNorm(site=1, name="late")(x, bn_mask, train=train)
            x = models.MaskedBatchNorm(site=0, name="odd")(x, bn_mask, train=train)
            return Dense(3, name="head")(global_average_pool(x))

    network = models.Network(Tiny(), 2, (8, 8, 1), 3)
    ops = workload.trace(*network.trace_args())
    assert ops.names[:3] == ("Tiny/first", "Tiny/late", "Tiny/odd")
    assert ops.kinds == ("conv", "norm", "norm", "pool", "dense")
    assert ops.sites == (-1, 1, 0, -1, -1)
    only_second = ops.masked(jnp.array([0.0, 1.0]))
    np.testing.assert_array_equal(only_second.elements, [384, 384, 0, 6, 3])


def test_width_scales_every_channel():
    network = models.create("vgg16", width=0.25)
    matrix = workload.trace(*network.trace_args()).select("conv")
    assert [shape[-1] for shape in matrix.weight_shapes][:4] == [16, 16, 32, 32]


def test_a_kernel_that_looks_like_an_input_is_refused():
    def net(x, kernel, w):
        x = lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return x.reshape(1, -1) @ w

    shapes = ((1, 4, 4, 3), (1, 1, 3, 8), (128, 2))
    args = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    with pytest.raises(ValueError, match=r"`kernel` as it stands.*inputs=\(0, 1\)"):
        workload.trace(net, *args)
    ops = workload.trace(net, *args, inputs=(0,))
    assert ops.kinds == ("conv", "dense")
    assert ops.total_macs == 16 * 3 * 8 + 128 * 2
    assert workload.trace(net, *args, inputs=(0, 1)).kinds == ("matmul", "dense")


def test_refuses():
    with pytest.raises(ValueError, match="no convolution or dense layer"):
        workload.trace(jnp.tanh, jnp.ones((1, 3)))
    with pytest.raises(ValueError, match="batch of 2"):
        workload.trace(lambda x, w: x @ w, jnp.ones((2, 3)), jnp.ones((3, 4)))


def test_counts_are_exact_beyond_float32():
    # 2**24 + 1 has no float32; the static count keeps it.
    ops = workload.trace(
        lambda x, w: x @ w,
        jax.ShapeDtypeStruct((1, 2**24 + 1), jnp.float32),
        jax.ShapeDtypeStruct((2**24 + 1, 1), jnp.float32),
    )
    assert ops.total_macs == 2**24 + 1
    assert math.isclose(float(ops.macs[0]), 2**24 + 1, rel_tol=1e-6)
