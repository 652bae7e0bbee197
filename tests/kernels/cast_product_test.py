"""Products in number formats against loops in NumPy, in float64."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codesign.kernels.cast_product import Casts, cast_product
from codesign.kernels.convolution import convolution
from codesign.kernels.dense import dense
from codesign.kernels.product import around_products
from codesign.numerics import bfp, formats
from tests.kernels.slow_casts import along, tiled

_X = bfp.Format(block_size=3, mantissa_bits=2, bias=None)
_W = bfp.Format(block_size=4, mantissa_bits=3, bias=None)
_G = bfp.Format(block_size=5, mantissa_bits=4, bias=None)
_RANDOM = bfp.Format(mantissa_bits=2, bias=None, rounding="stochastic")


def _normal(seed, *shape):
    """Drawn by NumPy, which compiles nothing."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _pulled(fn, casts, x, w, g, **extra):
    """The product in formats, and its two gradients."""
    y, pull = jax.vjp(functools.partial(_in_formats, fn, casts, extra), x, w)
    return y, *pull(g)


def _in_formats(fn, casts, extra, x, w):
    def cast(product, x, w):
        return cast_product(product, casts, x, w, **extra)

    with around_products(cast):
        return fn(x, w)


def _assert_close(found, expected):
    for ours, slow in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, slow, rtol=1e-5, atol=1e-5)


def test_dense_product_and_gradients_have_blocks_along_what_each_adds():
    x, w = _normal(0, 7, 8), _normal(1, 8, 6)
    g = _normal(2, 7, 6)
    _assert_close(
        _pulled(dense, Casts(_X, _W, _G), x, w, g),
        (
            along(x, _X, 1) @ along(w, _W, 0),
            along(g, _G, 1) @ along(w, _W, 1).T,
            along(x, _X, 0).T @ along(g, _G, 0),
        ),
    )


def test_of_several_axes_that_a_gradient_adds_along_blocks_take_the_last():
    x, w, g = _normal(0, 2, 4, 8), _normal(1, 8, 3), _normal(2, 2, 4, 3)
    _, _, dw = _pulled(dense, Casts(_X, _W, _G), x, w, g)
    slow = np.einsum("btc,btk->ck", along(x, _X, 1), along(g, _G, 1))
    _assert_close((dw,), (slow,))


def _loops(forward, by_input, by_weights, shape, strides, groups):
    """A convolution and its gradients, each of its own two operands; x is padded."""
    (x, w), (g, w_back), (x_back, g_back) = forward, by_input, by_weights
    y, dx, dw = np.zeros(shape), np.zeros(x.shape), np.zeros(w.shape)
    height, width, size, num = w.shape
    for i, j, p, q, n in itertools.product(
        *map(range, (*shape[1:3], height, width, groups))
    ):
        at = np.s_[:, i * strides[0] + p, j * strides[1] + q, n * size : (n + 1) * size]
        made = np.s_[n * num // groups : (n + 1) * num // groups]
        y[:, i, j, made] += x[at] @ w[p, q][:, made]
        dx[at] += g[:, i, j, made] @ w_back[p, q][:, made].T
        dw[p, q][:, made] += x_back[at].T @ g_back[:, i, j, made]
    return y, dx, dw


@pytest.mark.parametrize(
    ("strides", "pads", "groups", "implementation"),
    [
        ((1, 1), ((1, 1), (1, 1)), 1, "xla"),
        ((2, 1), ((0, 1), (2, 0)), 1, "unfold"),
        ((1, 2), ((0, 0), (0, 0)), 2, "xla"),
    ],
)
def test_convolution_and_gradients(strides, pads, groups, implementation):
    x, w = _normal(0, 4, 5, 4, 8), _normal(1, 3, 2, 8 // groups, 6)
    conv = functools.partial(
        convolution,
        strides=strides,
        padding=pads,
        groups=groups,
        implementation=implementation,
    )
    g = _normal(2, *jax.eval_shape(conv, x, w).shape)
    y, dx, dw = _pulled(conv, Casts(_X, _W, _G), x, w, g)

    def padded(x):
        return np.pad(x, ((0, 0), *pads, (0, 0)))

    slow_y, slow_dx, slow_dw = _loops(
        (padded(along(x, _X, 3)), along(w, _W, 2)),
        (along(g, _G, 3), along(w, _W, 3)),
        (padded(along(x, _X, 0)), along(g, _G, 0)),
        y.shape,
        strides,
        groups,
    )
    (top, bottom), (left, right) = pads
    inside = np.s_[:, top : 5 + top, left : 4 + left]
    assert slow_dx.shape == (4, 5 + top + bottom, 4 + left + right, 8)
    _assert_close((y, dx, dw), (slow_y, slow_dx[inside], slow_dw))


@pytest.mark.parametrize("tile", [(3, 3), (2, 3)])
def test_one_tile_serves_all_three_products(tile):
    size = tile[0] * tile[1]
    fmts = [dataclasses.replace(fmt, block_size=size) for fmt in (_X, _W, _G)]
    operands = _normal(0, 7, 8), _normal(1, 8, 6), _normal(2, 7, 6)
    cx, cw, cg = (tiled(v, f, tile) for v, f in zip(operands, fmts, strict=True))
    tap = jnp.zeros((3, 7))
    for extra in ({}, {"tap": tap}):  # which casts again instead of keeping the casts
        found = _pulled(dense, Casts(*fmts, tile=tile), *operands, **extra)
        _assert_close(found, (cx @ cw, cg @ cw.T, cx.T @ cg))


@pytest.mark.parametrize("implementation", ["xla", "unfold"])
def test_float32_is_the_plain_product(implementation):
    x, w = _normal(0, 2, 4, 4, 3), _normal(1, 3, 3, 3, 2)
    conv = functools.partial(convolution, implementation=implementation)
    g = _normal(2, 2, 4, 4, 2)
    y, dx, dw = _pulled(conv, Casts(), x, w, g)

    @jax.jit
    def plain(x, w, g):
        y, pull = jax.vjp(conv, x, w)
        return y, *pull(g)

    plain_y, plain_dx, plain_dw = plain(x, w, g)
    np.testing.assert_array_equal(y, plain_y)
    np.testing.assert_array_equal(dx, plain_dx)
    np.testing.assert_allclose(dw, plain_dw, rtol=1e-5, atol=1e-5)


def test_each_format_acts_on_its_own_operand_only():
    # y = x w, dx = g w and dw = x g: each class is absent from one of the three.
    x, w, one_bit = _normal(0, 6, 7), _normal(1, 7, 5), formats.by_name("bfp1")
    g = _normal(2, 6, 5)
    plain = _pulled(dense, Casts(), x, w, g)
    for name, absent in (("g", 0), ("x", 1), ("w", 2)):
        found = _pulled(dense, Casts(**{name: one_bit}), x, w, g)
        is_same = [
            bool(np.array_equal(*pair)) for pair in zip(found, plain, strict=True)
        ]
        assert is_same == [i == absent for i in range(3)], name


@pytest.mark.parametrize("fmt", ["bfloat16", "mxfp4_e2m1"])
def test_formats_without_settings(fmt):
    x, w = _normal(0, 6, 40), _normal(1, 40, 5)
    g = _normal(2, 6, 5)

    @jax.jit
    def parts(x, w, g):
        pairs = [(x, 1), (w, 0), (g, 1), (w, 1), (x, 0), (g, 0)]
        return [formats.cast(value, fmt, axis) for value, axis in pairs]

    cx, cw, g_x, w_x, x_w, g_w = (np.float64(each) for each in parts(x, w, g))
    found = _pulled(dense, Casts(fmt, fmt, fmt), x, w, g)
    _assert_close(found, (cx @ cw, g_x @ w_x.T, x_w.T @ g_w))


_WIDE = bfp.Format(bias=None)


@pytest.mark.parametrize(
    "casts",
    [
        Casts(_WIDE, _WIDE, tile=(3, 3)),  # both operands alike, forth and back
        Casts(x=_WIDE, g=_WIDE, tile=(3, 3)),
        Casts(x=_WIDE),  # along an axis, and the gradient by it is exact
        Casts(w=_WIDE),
    ],
)
def test_slope_of_a_width_is_that_of_the_product(casts):
    # Between whole widths a cast is linear in its width, and so is the product in each
    # one: a difference is the slope. It is 0 where a format has no width.
    widths = jnp.array([2.5, 3.25])
    x, w = _normal(0, 12, 13), _normal(1, 13, 11)
    g = _normal(2, 12, 11)

    @jax.jit
    def loss(widths):
        return jnp.vdot(g, _in_formats(dense, casts, {"widths": widths}, x, w))

    slopes = jax.jit(jax.grad(loss))(widths)
    for i, fmt in enumerate((casts.x, casts.w)):
        step = jnp.zeros(2).at[i].set(0.125)
        slope = (loss(widths + step) - loss(widths - step)) / 0.25
        np.testing.assert_allclose(slopes[i], slope, rtol=1e-3)
        assert (slope != 0) == (fmt is _WIDE)


@pytest.mark.parametrize("tile", [None, (3, 3)])
@pytest.mark.parametrize("gradients", ["float32", formats.by_name("bfp5")])
@pytest.mark.parametrize("widths", [(1.5, 1.5), (4.3, 5.6)])
def test_slope_of_a_width_is_the_difference_of_whole_widths(widths, gradients, tile):
    # y = x w with x = (1 - a) x4 + a x5 and so on: by a the slope is (x5 - x4) w. What g
    # is cast to, and along which axes its products have their blocks, is none of it.
    x, w, g = _normal(0, 12, 20), _normal(1, 20, 7), _normal(2, 12, 7)
    casts = Casts(_WIDE, _WIDE, gradients, tile)

    @jax.jit
    @jax.grad
    def slopes(widths):
        return jnp.vdot(g, _in_formats(dense, casts, {"widths": widths}, x, w))

    def between(value, width, axis):
        low, high = (
            np.float64(tiled(value, fmt, tile) if tile else along(value, fmt, axis))
            for fmt in (
                dataclasses.replace(_WIDE, mantissa_bits=int(width) + i) for i in (0, 1)
            )
        )
        return low + width % 1 * (high - low), high - low

    (cast_x, by_x), (cast_w, by_w) = between(x, widths[0], 1), between(w, widths[1], 0)
    expected = np.sum(g * (by_x @ cast_w)), np.sum(g * (cast_x @ by_w))
    np.testing.assert_allclose(slopes(jnp.array(widths)), expected, rtol=1e-4)


def test_each_use_of_an_operand_has_random_bits_of_its_own():
    # 1.25 is 2.5 steps: either 1 or 1.5. A product by the identity, which every format
    # holds, shows what was drawn of one cast; 256 of them agree by chance with 2^-256.
    v, one = jnp.full((16, 16), 1.25), jnp.eye(16)
    casts = Casts(_RANDOM, _RANDOM, _RANDOM)

    @jax.jit
    def drawn(words):
        def pulled(x, w, g):
            return _pulled(dense, casts, x, w, g, key=words)

        y, dx, _ = pulled(v, one, v)  # forward x, dx g
        y_w, _, dw = pulled(one, v, v)  # forward w, dw g
        _, dx_w, dw_x = pulled(v, v, one)  # dx w and dw x, transposed
        return jnp.stack([y, y_w, dx, dw, dx_w.T, dw_x.T])

    words = jax.random.key_data(jax.random.key(0))
    found = np.asarray(drawn(words))
    assert set(np.unique(found)) == {1.0, 1.5}
    for a, b in itertools.combinations(found, 2):
        assert np.mean(a == b) < 0.7  # 1/2 where they are independent
    np.testing.assert_array_equal(found, drawn(words))
    other = drawn(jax.random.key_data(jax.random.key(1)))
    assert np.mean(found == other) < 0.6


def test_a_random_format_asks_for_a_key():
    with pytest.raises(ValueError, match="needs `key`"):
        _in_formats(dense, Casts(_RANDOM), {}, jnp.ones((2, 3)), jnp.ones((3, 2)))


def test_transformations_change_nothing():
    x, w, g = _normal(0, 4, 3, 8), _normal(1, 8, 5), _normal(2, 4, 3, 5)
    casts = Casts(_RANDOM, _RANDOM, _RANDOM)
    key = jax.random.key_data(jax.random.key(0))

    def one(x, g):
        return _pulled(dense, casts, x, w, g, key=key)

    def scanned(_, each):
        return None, one(*each)

    def checkpointed(x, g):
        run = functools.partial(_in_formats, dense, casts, {"key": key})
        y, pull = jax.vjp(jax.checkpoint(run), x, w)
        return y, *pull(g)

    alone = [np.stack(each) for each in zip(*map(one, x, g), strict=True)]
    for found in (
        jax.jit(jax.vmap(one))(x, g),
        jax.jit(lambda: jax.lax.scan(scanned, None, (x, g)))()[1],
        jax.jit(lambda: jax.lax.map(lambda each: checkpointed(*each), (x, g)))(),
    ):
        _assert_close(found, alone)


def test_second_derivatives_of_what_a_format_holds_are_the_plain_ones():
    # Whole numbers; what is made of them stays below 2^23 or loses what rounding does.
    fmt = bfp.Format(mantissa_bits=23, bias=None)
    x = jnp.round(3 * _normal(0, 4, 5))
    w = jnp.round(3 * _normal(1, 5, 3))

    def slope(run, x, w):
        def loss(x, w):
            return jnp.sum(run(x, w) ** 3)

        return jnp.sum(jax.grad(loss)(x, w) ** 2)

    def both(run):
        return jax.jit(jax.grad(functools.partial(slope, run), (0, 1)))(x, w)

    plain = both(dense)
    for casts in (Casts(), Casts(fmt, fmt, fmt), Casts(fmt, fmt, fmt, tile=(3, 3))):
        _assert_close(both(functools.partial(_in_formats, dense, casts, {})), plain)


def test_forward_derivatives_are_refused():
    x, w = jnp.ones((2, 3)), jnp.ones((3, 2))
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(lambda x: _in_formats(dense, Casts(), {}, x, w), (x,), (x,))


def test_the_gradient_of_a_tap_is_the_statistics_of_every_run():
    x, w, g = _normal(0, 2, 3, 8), _normal(1, 8, 5), _normal(2, 2, 3, 5)

    def rows(tap, x, g):
        y = _in_formats(dense, Casts(_X, _W, _G), {"tap": tap}, x, w)
        return jnp.vdot(g, y)

    def total(tap):
        return jnp.sum(jax.vmap(rows, (None, 0, 0))(tap, x, g))

    found = jax.jit(jax.grad(total))(jnp.zeros((3, 7)))
    np.testing.assert_array_equal(found[:, -1], [2, 2, 2])  # two examples
    # All examples have equal sizes, so that zeros of all are the mean of each one's.
    casts = (along(w, _W, 0), along(x, _X, 2), along(g, _G, 2))
    zeros = [2 * np.mean(each == 0) for each in casts]
    np.testing.assert_allclose(found[:, 1], zeros, rtol=1e-5)
