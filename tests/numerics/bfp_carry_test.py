"""What rounds to a power of two: a block's exponent grows, and the mean stays."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.numerics import bfp
from codesign.numerics.bfp import Format

_KEYS = jax.random.split(jax.random.key(0), 20_000)


def _draws(x, fmt):
    """Results of all keys, [keys, ...] float64."""
    draw = jax.jit(jax.vmap(lambda key: bfp.quantize(x, fmt, key=key)))
    return np.asarray(draw(_KEYS), float)


def _assert_mean(draws, exact):
    error = np.std(draws, 0) / np.sqrt(len(draws))
    assert np.all(np.abs(np.mean(draws, 0) - exact) <= 4 * error + 1e-7)


def test_carry_by_hand():
    # 1.99 is 31.84 sixteenths. As 32 it does not fit: 31, or 16 eighths; then 0.19, 3.04
    # sixteenths, is 1.52 eighths.
    x = jnp.array([1.99, -0.19])
    fmt = functools.partial(Format, rounding="nearest_even")
    np.testing.assert_array_equal(bfp.quantize(x, fmt()), [31 / 16, -3 / 16])
    np.testing.assert_array_equal(bfp.quantize(x, fmt(carry="renorm")), [2, -2 / 8])
    # With 15 as the bias E = 0 is the last exponent, and there is no room for a carry.
    last = fmt(carry="renorm", bias=15)
    np.testing.assert_array_equal(bfp.quantize(x, last), [31 / 16, -3 / 16])


@pytest.mark.parametrize("bias", ["tensor", None, 7])
def test_the_mean_at_the_top_of_a_block(bias):
    # 1.99 is 31.84 sixteenths: 32, which is 16 eighths, in 84 of 100 cases; then 0.3 is
    # 2 or 3 eighths, and else 4 or 5 sixteenths.
    x = jnp.array([1.99] + 8 * [0.3])
    fmt = Format(bias=bias, rounding="stochastic", carry="renorm")
    q = _draws(x, fmt)
    assert set(q[:, 0]) == {2, 31 / 16}
    assert set(q[q[:, 0] == 2, 1]) == {2 / 8, 3 / 8}
    assert set(q[q[:, 0] < 2, 1]) == {4 / 16, 5 / 16}
    _assert_mean(q, np.asarray(x, float))


def test_the_mean_of_blocks_that_rise_with_the_window():
    # Of one exponent bit the exponents are E and E - 1. At the top 1.99 may be 2, and
    # then the second block, in steps of 1/32 before, has steps of 1/16.
    x = jnp.array([[1.99, 1.98], [0.3, 0.21]])
    fmt = Format(2, 5, 1, "tensor", "stochastic", "renorm")
    q = _draws(x, fmt)
    assert np.any(q[:, 1] * 16 % 1)
    assert not np.any(q[np.any(q[:, 0] == 2, -1), 1] * 16 % 1)
    _assert_mean(q, np.asarray(x, float))


@pytest.mark.parametrize(("carry", "passes"), [("renorm", True), ("saturate", False)])
def test_a_drifting_weight(carry, passes):
    # 600 steps of .005 from 1.5: the mean is 4.5. Cut at 31 sixteenths it stays below 2.
    fmt = Format(bias="tensor", rounding="stochastic", carry=carry)

    def last(key):
        def step(w, i):
            w = bfp.quantize(w + 0.005, fmt, key=jax.random.fold_in(key, i))
            return w, None

        start = jnp.full((1,), 1.5)
        return jax.lax.scan(step, start, jnp.arange(600))[0][0]

    w = np.asarray(jax.jit(jax.vmap(last))(_KEYS[:400]), float)
    if passes:
        assert np.max(w) > 4
        _assert_mean(w, 4.5)
    else:
        assert np.max(w) < 2


_STEPS = st.floats(-1000, 1000, width=32).map(lambda v: 0.0 if abs(v) < 1e-30 else v)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.lists(_STEPS, min_size=12, max_size=12),
    st.integers(0, 1000),
    st.sampled_from([1, 2, 4]),
)
def test_random_results_are_numbers_of_the_format(values, seed, exponent_bits):
    x = jnp.array(values, jnp.float32).reshape(4, 3)
    fmt = Format(3, 3, exponent_bits, "tensor", "stochastic", "renorm")
    q = bfp.quantize(x, fmt, key=jax.random.key(seed))
    again = bfp.quantize(q, fmt, key=jax.random.key(seed + 1))
    np.testing.assert_array_equal(again, q)
    _, exponents, is_saturated = bfp.encode(x, fmt, key=jax.random.key(seed))
    assert np.ptp(exponents) < 2**exponent_bits
    assert not np.any(is_saturated)
