"""All three products of a convolution, against a count that knows nothing of JAX's."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from codesign import workload
from tests.workload.comparison import compare
from tests.workload.graphs import shape

_LAYOUTS = {1: ("NWC", "WIO", "NWC"), 2: ("NHWC", "HWIO", "NHWC")}


pytestmark = pytest.mark.usefixtures("any_ranks")


def _counts(conv, kernel, x):
    """Forward, and backward of both kinds; the input has a gradient as well."""

    def net(p, x):
        return conv(jnp.tanh(x * p["scale"]), p["kernel"])

    p = {"scale": shape(x.shape[-1]), "kernel": kernel}
    ops = workload.trace(net, p, x, inputs=(1,))
    found = workload.trace_gradient(
        lambda p, x: jnp.sum(jnp.sin(net(p, x))), p, x, inputs=(1,)
    )
    rows = compare(workload.training_iteration(ops), found)
    assert all(row.agrees_on_macs for row in rows)
    assert [p.phase for p in found.products] == ["forward", "backward", "backward"]
    return [ops.total_macs, *(p.macs for p in found.products)]


def _random(seed):
    """A convolution, or a transposed one: function, kernel, input, and its MACs."""
    rng = np.random.default_rng(seed)
    ndim = int(rng.integers(1, 3))
    groups = int(rng.choice([1, 1, 2, 3]))
    taps = tuple(map(int, rng.integers(1, 5, ndim)))
    size = tuple(map(int, rng.integers(max(taps), 9, ndim)))
    strides = tuple(map(int, rng.integers(1, 4, ndim)))
    per_group, channels = map(int, rng.integers(1, 4, 2))
    padding = str(rng.choice(["SAME", "VALID"]))
    if rng.random() < 0.3:
        padding = [tuple(map(int, rng.integers(0, 4, 2))) for _ in range(ndim)]
    layout = _LAYOUTS[ndim]
    if rng.random() < 0.5:
        groups = 1

        def conv(x, kernel):
            return lax.conv_transpose(
                x, kernel, strides, padding, dimension_numbers=layout
            )
    else:
        dilation = tuple(map(int, rng.integers(1, 3, ndim)))
        if any((k - 1) * d >= n for k, d, n in zip(taps, dilation, size, strict=True)):
            dilation = (1,) * ndim

        def conv(x, kernel):
            return lax.conv_general_dilated(
                x,
                kernel,
                strides,
                padding,
                rhs_dilation=dilation,
                dimension_numbers=layout,
                feature_group_count=groups,
            )

    x = shape(1, *size, per_group * groups)
    kernel = shape(*taps, per_group, channels * groups)
    made = jax.eval_shape(conv, x, kernel).shape[1:-1]
    positions = min(math.prod(size), math.prod(made))
    macs = math.prod(taps) * per_group * channels * groups * positions
    return conv, kernel, x, macs


@pytest.mark.parametrize("seed", range(24))
def test_random_convolutions(seed):
    conv, kernel, x, macs = _random(seed)
    assert _counts(conv, kernel, x) == [macs] * 4


@pytest.mark.slow
def test_four_hundred_random_convolutions():
    for seed in range(24, 424):
        conv, kernel, x, macs = _random(seed)
        assert _counts(conv, kernel, x) == [macs] * 4, f"configuration {seed}"


@pytest.mark.parametrize("taps", [1, 2, 3, 4])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_pairs_of_a_transposed_convolution(taps, stride):
    # Ones by ones, so each output is the number of pairs that it sums.
    def conv(x, kernel):
        return lax.conv_transpose(
            x,
            kernel,
            (stride, stride),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    x, kernel = jnp.ones((1, 3, 4, 1)), jnp.ones((taps, taps, 1, 1))
    pairs = int(jnp.sum(conv(x, kernel)))
    assert _counts(conv, shape(*kernel.shape), shape(*x.shape)) == [pairs] * 4


def test_first_layer_of_a_generator():
    # One position meets 4 x 4 taps of 100 x 512 products: what torch's counters say.
    conv = nn.ConvTranspose(512, (4, 4), padding="VALID", use_bias=False)
    x = shape(1, 1, 1, 100)
    variables = jax.eval_shape(conv.init, jax.random.key(0), x)
    ops = workload.trace(conv.apply, variables, x, inputs=(1,))
    assert ops.total_macs == 4 * 4 * 100 * 512


@pytest.mark.parametrize("channels", [1, 2])
def test_one_channel_out(channels):
    def conv(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    found = _counts(conv, shape(4, 4, 64, channels), shape(1, 12, 12, 64))
    assert found == [9 * 9 * 4 * 4 * 64 * channels] * 4


def test_patches_are_a_copy():
    def patches(x):
        return lax.conv_general_dilated_patches(
            x, (16, 16), (16, 16), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def net(p, x):
        return patches(x * p["scale"]) @ p["w"]

    p, x = {"w": shape(768, 64), "scale": shape(3)}, shape(1, 224, 224, 3)
    ops = workload.trace(net, p, x)
    cut = ops.ops[ops.names.index(next(n for n in ops.names if n.endswith("resize")))]
    assert (cut.variant, cut.macs, cut.parameters) == ("patches", 0, ())
    assert ops.total_macs == 14 * 14 * 768 * 64
    found = workload.trace_gradient(lambda p, x: jnp.sum(net(p, x) ** 2), p, x)
    assert [p.macs for p in found.products] == [ops.total_macs] * 3


def test_local_convolution_of_flax():
    conv = nn.ConvLocal(5, (2, 2), padding="VALID")
    x = shape(1, 4, 4, 3)
    variables = jax.eval_shape(conv.init, jax.random.key(0), x)
    ops = workload.trace(conv.apply, variables, x)
    assert ops.total_macs == 3 * 3 * (2 * 2 * 3) * 5
