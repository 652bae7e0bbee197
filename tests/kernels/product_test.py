"""What stands around a product, and for how long."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codesign.kernels.convolution import convolution
from codesign.kernels.dense import dense
from codesign.kernels.product import around_products

_X, _W = jnp.arange(6.0).reshape(2, 3), jnp.eye(3)


def _doubled(product, x, w):
    return 2 * product(x, w)


def _negated(product, x, w):
    return -product(x, w)


def test_the_innermost_stands_around_and_leaves_with_its_block():
    with around_products(_doubled):
        with around_products(_negated):
            np.testing.assert_array_equal(dense(_X, _W), -_X)
        np.testing.assert_array_equal(dense(_X, _W), 2 * _X)
    np.testing.assert_array_equal(dense(_X, _W), _X)


_jitted = jax.jit(dense)
_checkpointed = jax.checkpoint(dense)


def _scanned(x, w):
    return jax.lax.scan(_step, w, x[None])[1][0]


def _step(w, row):
    return w, dense(row, w)


@pytest.mark.parametrize("fn", [_jitted, _checkpointed, _scanned])
@pytest.mark.parametrize("run", [lambda fn: fn, jax.jit], ids=["eager", "jit"])
def test_a_function_that_was_traced_elsewhere_is_traced_anew(fn, run):
    def inside(around, alike):
        def call(x, w):
            with around_products(around, alike=alike):
                return fn(x, w)

        return run(call)(_X, _W)

    for _ in range(2):
        np.testing.assert_array_equal(fn(_X, _W), _X)
        np.testing.assert_array_equal(inside(_doubled, None), 2 * _X)
        np.testing.assert_array_equal(inside(_negated, None), -_X)
        np.testing.assert_array_equal(inside(_doubled, "doubled"), 2 * _X)
        np.testing.assert_array_equal(inside(_negated, "negated"), -_X)
    with around_products(_doubled, alike="doubled"):
        with around_products(_negated):
            np.testing.assert_array_equal(fn(_X, _W), -_X)
        np.testing.assert_array_equal(fn(_X, _W), 2 * _X)


def test_an_array_that_stands_around_is_of_its_own_trace():
    @jax.jit
    def scaled(x, factor):
        with around_products(lambda product, x, w: factor * product(x, w)):
            return _checkpointed(x, _W)

    np.testing.assert_array_equal(scaled(_X, 3.0), 3 * _X)
    np.testing.assert_array_equal(scaled(_X[:1], 5.0), 5 * _X[:1])  # traced again
    found = jax.vmap(scaled, (None, 0))(_X, jnp.array([2.0, 4.0]))
    np.testing.assert_array_equal(found, jnp.stack([2 * _X, 4 * _X]))


def test_only_what_is_alike_shares_a_trace():
    traces = []

    @jax.jit
    def counted(x, w):
        traces.append(x)
        return dense(x, w)

    def num_traces(*alikes):
        traces.clear()
        for alike in alikes:
            with around_products(_doubled, alike=alike):
                np.testing.assert_array_equal(counted(_X, _W), 2 * _X)
        return len(traces)

    assert num_traces(None, None) == 2
    assert num_traces(("a", 1), ("a", 1), ("a", 2)) == 2
    traces.clear()
    np.testing.assert_array_equal(counted(_X, _W), _X)
    np.testing.assert_array_equal(counted(_X, _W), _X)
    assert len(traces) == 1


def test_within_what_stands_around_products_are_plain():
    with around_products(lambda product, x, w: 3 * dense(x, w)):
        np.testing.assert_array_equal(dense(_X, _W), 3 * _X)


def test_another_thread_sees_nothing_of_it():
    found = []
    thread = threading.Thread(target=lambda: found.append(_jitted(_X, _W)))
    with around_products(_doubled):
        np.testing.assert_array_equal(_jitted(_X, _W), 2 * _X)
        thread.start()
        thread.join()
    np.testing.assert_array_equal(found[0], _X)


def test_an_error_inside_leaves_nothing_behind():
    with pytest.raises(ValueError, match="inner"), around_products(_doubled):
        raise ValueError("inner")
    np.testing.assert_array_equal(dense(_X, _W), _X)
    np.testing.assert_array_equal(_jitted(_X, _W), _X)

    def fails(product, x, w):
        raise ValueError("inner")

    with around_products(_doubled):
        with pytest.raises(ValueError, match="inner"), around_products(fails):
            _jitted(_X, _W)
        np.testing.assert_array_equal(_jitted(_X, _W), 2 * _X)


@pytest.mark.parametrize("implementation", ["xla", "unfold"])
def test_alone_is_the_same_product(implementation):
    seen = []

    def note(product, x, w):
        seen.append((product(x, w), product.alone(x, w)))
        return seen[-1][0]

    rng = np.random.default_rng(0)
    x, w = (
        jnp.float32(rng.normal(size=shape)) for shape in ((2, 5, 4, 3), (3, 2, 3, 4))
    )
    with around_products(note):
        convolution(x, w, strides=(2, 1), implementation=implementation)
    np.testing.assert_allclose(*seen[0], rtol=1e-5, atol=1e-5)
