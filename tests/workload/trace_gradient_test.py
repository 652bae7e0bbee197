"""The gradient as JAX computes it, against the rule: two products for each forward one."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax import lax

from codesign import models, workload
from tests.workload.graphs import shape


def test_two_layers_by_hand():
    def loss(x, w, v):
        return jnp.sum((jnp.tanh(x @ w) @ v) ** 2)

    # Forward 15 + 20; backward both weight gradients and the input's of the second.
    found = workload.trace_gradient(loss, shape(1, 3), shape(3, 5), shape(5, 4))
    assert [(p.phase, p.macs) for p in found.products] == [
        ("forward", 15),
        ("forward", 20),
        ("backward", 20),
        ("backward", 20),
        ("backward", 15),
    ]
    assert found.macs("forward") == 35
    assert found.macs() == 90
    assert found.products[-1].output_elements == 15
    assert sorted(found.products[-1].operand_elements) == [3, 5]


@pytest.mark.parametrize("name", ["vgg11", "resnet18"])
def test_networks_follow_the_rule(name):
    network = models.create(name)
    _, variables, image, mask = network.trace_args()

    def loss(variables, image, mask):
        return jnp.sum(network.apply(variables, image, mask, train=True)[0] ** 2)

    found = workload.trace_gradient(loss, variables, image, mask)
    ops = workload.trace(*network.trace_args())
    # Weight and input gradient of every layer, but no gradient of the image.
    assert found.macs("forward") == ops.total_macs
    assert found.macs("backward") == 2 * ops.total_macs - ops.ops[0].macs
    matrix = ops.select("conv", "dense")
    forward = {p.name for p in found.products if p.phase == "forward"}
    backward = {p.name for p in found.products if p.phase == "backward"}
    assert forward == backward == set(matrix.names)


def test_loops_and_recomputation():
    def loss(x, w):
        x = jax.checkpoint(lambda x: jnp.tanh(x @ w))(x)
        return jnp.sum(lax.fori_loop(0, 4, lambda i, x: jnp.tanh(x @ w), x) ** 2)

    # 1 + 4 products forward; backward 2 x 4 in the loop, the first product once more,
    # and its weight gradient.
    found = workload.trace_gradient(loss, shape(1, 3), shape(3, 3))
    assert found.macs("forward") == 9 * (1 + 4)
    assert found.macs("backward") == 9 * (2 * 4 + 1 + 1)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("strides", [(1, 1), (2, 1), (2, 2)])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("module", [nn.Conv, nn.ConvTranspose])
def test_gradients_of_a_convolution_cost_what_it_costs(
    module, strides, dilation, padding
):
    # Around an axis of stride 1 the padding is charged forward only.
    if module is nn.ConvTranspose and 1 in strides:
        padding = "SAME"
    conv = module(5, (2, 3), strides, padding=padding, kernel_dilation=dilation)
    x = shape(1, 10, 9, 4)
    variables = jax.eval_shape(conv.init, jax.random.key(0), x)

    def loss(variables, scale, x):
        return jnp.sum(conv.apply(variables, x * scale) ** 2)

    found = workload.trace_gradient(loss, variables, shape(), x, inputs=(2,))
    forward = workload.trace(conv.apply, variables, x).total_macs
    assert [p.phase for p in found.products] == ["forward", "backward", "backward"]
    assert [p.macs for p in found.products] == [forward] * 3


def test_a_transposed_convolution_by_hand():
    # Each of 10 x 10 positions meets 2 x 2 taps of 4 x 5 products, every time.
    conv = nn.ConvTranspose(5, (2, 2), strides=(2, 2))
    x = shape(1, 10, 10, 4)
    variables = jax.eval_shape(conv.init, jax.random.key(0), x)
    found = workload.trace_gradient(
        lambda v, x: jnp.sum(conv.apply(v, x) ** 2), variables, x
    )
    assert [p.macs for p in found.products] == [8000, 8000]


def test_experts():
    def loss(w, experts, sizes, x):
        return jnp.sum(lax.ragged_dot(jnp.tanh(x[0] @ w), experts, sizes) ** 2)

    sizes = jax.ShapeDtypeStruct((2,), jnp.int32)
    found = workload.trace_gradient(
        loss, shape(6, 6), shape(2, 6, 4), sizes, shape(1, 5, 6), inputs=(3,)
    )
    # 5 rows of 6 x 6, and of the 6 x 4 of one expert; no gradient of the input.
    assert found.macs("forward") == 180 + 120
    assert found.macs("backward") == 180 + 2 * 120


def test_a_gradient_inside_the_network_runs_forward():
    # 16 x 8 forward, its input gradient, and 16 x 2 behind; a field of physics does so.
    def score(p, x):
        energy = jax.grad(lambda z: jnp.sum(jnp.tanh(z @ p["w"]) ** 2))
        return energy(x) @ p["o"]

    p, x = {"w": shape(16, 8), "o": shape(16, 2)}, shape(1, 16)
    found = workload.trace_gradient(lambda p, x: jnp.sum(score(p, x)), p, x)
    assert found.macs("forward") == 2 * 16 * 8 + 16 * 2
    assert found.macs("forward") == workload.trace(score, p, x).total_macs

    def loop(p, x):
        return lax.fori_loop(
            0, 3, lambda i, x: score({**p, "o": p["w"] @ p["w"].T}, x), x
        )

    found = workload.trace_gradient(lambda p, x: jnp.sum(loop(p, x)), p, x)
    assert found.macs("forward") == 3 * (2 * 16 * 8 + 16 * 16)


def test_refuses():
    with pytest.raises(ValueError, match="no parameters to differentiate"):
        workload.trace_gradient(lambda x: jnp.sum(x), shape(1, 3))
