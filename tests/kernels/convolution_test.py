import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from codesign.kernels.convolution import convolution
from codesign.kernels.dense import dense
from codesign.kernels.pooling import global_average_pool, max_pool

_CASES = list(
    itertools.product((1, 3, 5), (1, 2), ("SAME", "VALID", ((1, 1), (1, 1))), (5, 8))
)


def _arrays(kernel_size, size):
    keys = jax.random.split(jax.random.key(0))
    x = jax.random.normal(keys[0], (2, size, size + 1, 3))
    return x, jax.random.normal(keys[1], (kernel_size, kernel_size, 3, 4))


@pytest.mark.parametrize(("kernel_size", "stride", "padding", "size"), _CASES)
def test_unfolding_equals_xla_with_both_gradients(kernel_size, stride, padding, size):
    x, kernel = _arrays(kernel_size, size)

    def run(implementation):
        def fn(x, kernel):
            y = convolution(
                x,
                kernel,
                strides=(stride, stride),
                padding=padding,
                implementation=implementation,
            )
            return jnp.sum(jnp.sin(y)), y

        grad = jax.jit(jax.value_and_grad(fn, (0, 1), has_aux=True))
        (_, y), grads = grad(x, kernel)
        return y, *grads

    chex.assert_trees_all_close(run("unfold"), run("xla"), rtol=2e-4, atol=2e-4)


def test_equals_loops_in_numpy():
    x, kernel = _arrays(3, 5)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = np.zeros((2, 5, 6, 4))
    for i, j in itertools.product(range(5), range(6)):
        window = padded[:, i : i + 3, j : j + 3]
        expected[:, i, j] = np.einsum("bhwc,hwck->bk", window, kernel)
    np.testing.assert_allclose(convolution(x, kernel), expected, rtol=1e-4, atol=1e-4)


def test_groups_go_to_xla():
    x = jnp.ones((1, 4, 4, 4))
    kernel = jnp.ones((3, 3, 1, 4))
    y = convolution(x, kernel, groups=4)
    expected = lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=4,
    )
    chex.assert_trees_all_close(y, expected)


@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_equals_loops_in_numpy(stride):
    keys = jax.random.split(jax.random.key(0))
    x = jax.random.normal(keys[0], (2, 5, 5, 3))
    kernel = jax.random.normal(keys[1], (3, 3, 1, 3))
    y = convolution(x, kernel, strides=(stride, stride), groups=3)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = np.zeros((2, 5, 5, 3))
    for i, j in itertools.product(range(5), repeat=2):
        window = padded[:, i : i + 3, j : j + 3]
        expected[:, i, j] = np.einsum("bhwc,hwc->bc", window, kernel[:, :, 0])
    expected = expected[:, ::stride, ::stride]
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("x", "kernel", "more", "match"),
    [
        ((1, 4, 4, 3), (3, 3, 4, 2), {}, "`kernel`.*same C"),
        ((4, 4, 3), (3, 3, 3, 2), {}, r"must be \[B, H, W, C\]"),
        ((1, 4, 4, 3), (3, 3, 3, 2), {"implementation": "magic"}, "magic.*one of"),
        (
            (1, 4, 4, 4),
            (3, 3, 1, 4),
            {"implementation": "unfold", "groups": 4},
            "groups=1",
        ),
    ],
)
def test_refuses(x, kernel, more, match):
    with pytest.raises(ValueError, match=match):
        convolution(jnp.ones(x), jnp.ones(kernel), **more)


def test_max_pool_by_hand_and_gradient():
    x = jnp.array([[1.0, 2.0, 9.0], [3.0, 0.0, 9.0], [9.0, 9.0, 9.0]])
    y = max_pool(x.reshape(1, 3, 3, 1))
    np.testing.assert_array_equal(y, [[[[3.0]]]])  # the odd border is dropped
    grad = jax.grad(lambda x: max_pool(x.reshape(1, 3, 3, 1)).sum())(x)
    np.testing.assert_array_equal(grad, [[0, 0, 0], [1, 0, 0], [0, 0, 0]])


@pytest.mark.parametrize("size", [1, 2, 7, 8])
@pytest.mark.parametrize(("stride", "padding"), [(2, 1), (1, 0), (3, 2)])
def test_overlapping_max_pool_is_that_of_xla(size, stride, padding):
    x = jax.random.normal(jax.random.key(0), (2, size, size + 1, 3))
    if size + 2 * padding < 3:
        assert max_pool(x, 3, stride=stride, padding=padding) is x
        return

    def reference(x):
        pads = ((0, 0), (padding, padding), (padding, padding), (0, 0))
        window, strides = (1, 3, 3, 1), (1, stride, stride, 1)
        return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, pads)

    def pool(x):
        return max_pool(x, 3, stride=stride, padding=padding)

    np.testing.assert_array_equal(pool(x), reference(x))
    grads = [jax.grad(lambda x: jnp.sum(jnp.sin(f(x))))(x) for f in (pool, reference)]
    chex.assert_trees_all_close(*grads, rtol=1e-5)


def test_gradient_of_ties_in_overlapping_windows_is_shared():
    # One window over four equal values and padding: nothing is lost, no NaN.
    grad = jax.grad(lambda x: max_pool(x, 3, stride=2, padding=1).sum())
    shares = grad(jnp.zeros((1, 2, 2, 1)))
    np.testing.assert_allclose(shares, jnp.full((1, 2, 2, 1), 0.25))


def test_pool_of_a_smaller_map_is_the_identity():
    x = jnp.ones((2, 1, 1, 3))
    assert max_pool(x) is x


def test_pool_refuses_windows_of_padding_alone():
    with pytest.raises(ValueError, match=r"`padding` \(=2\).*less than `size` \(=2\)"):
        max_pool(jnp.ones((1, 4, 4, 1)), 2, padding=2)


def test_average_pool_and_dense():
    x = jnp.arange(8.0).reshape(1, 2, 2, 2)
    np.testing.assert_array_equal(global_average_pool(x), [[3.0, 4.0]])
    np.testing.assert_array_equal(dense(jnp.ones((1, 2)), jnp.eye(2)), [[1.0, 1.0]])
    with pytest.raises(ValueError, match=r"\[\.\.\., C\] and \[C, K\]"):
        dense(jnp.ones((1, 3)), jnp.eye(2))


@pytest.mark.parametrize("groups", [1, 4])
def test_promotes_as_a_product_does(groups):
    # XLA's own convolution refuses operands of different types.
    x = jnp.ones((1, 5, 5, 4), jnp.bfloat16)
    kernel = jnp.ones((3, 3, 4 // groups, 4), jnp.float32)
    for implementation in ("xla", "unfold") if groups == 1 else ("xla",):
        y = convolution(x, kernel, groups=groups, implementation=implementation)
        assert y.dtype == jnp.float32
        assert float(y[0, 2, 2, 0]) == 9 * 4 / groups
