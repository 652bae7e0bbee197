import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from codesign.numerics.relax import EXACT, smooth

_TEMPERATURES = (1.0, 0.3, 0.1, 0.03, 0.01, 1e-3, 1e-4)


class CeilTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_exact(self):
        x = jnp.array([0.0, 0.2, 1.0, 4.5, 128.0])
        out = self.variant(EXACT.ceil)(x)
        np.testing.assert_array_equal(out, [0, 1, 1, 5, 128])

    @chex.variants(with_jit=True, without_jit=True)
    def test_value_is_exact_at_every_temperature(self):
        x = jnp.array([0.0, 1 / 128, 0.5, 1.0, 1.0001, 3.999, 7.0, 36.02, 1e6])
        for t in _TEMPERATURES:
            out = self.variant(smooth(t).ceil)(x)
            np.testing.assert_array_equal(out, jnp.ceil(x))

    @chex.variants(with_jit=True, without_jit=True)
    def test_slope_is_the_secant_of_the_staircase(self):
        # From x / 1.5 to 1.5 x: at 2 from 1.33 to 3, (3 - 2) / 1.667; at 0.5
        # from 0.33 to 0.75, where nothing changes; at 0.9 from 0.6 to 1.35, 1 / 0.75; at
        # 128 from 85.3 to 192, (192 - 86) / 106.67; at 0 there is no secant.
        x = jnp.array([2.0, 0.5, 0.9, 128.0, 0.0])
        grad = self.variant(jax.grad(lambda x: smooth(0.1).ceil(x).sum()))
        np.testing.assert_allclose(grad(x), [0.6, 0, 4 / 3, 0.99375, 0], rtol=1e-5)

    def test_slope_is_bounded_at_every_temperature(self):
        # A step of 1 in a window of 0.83 x; on integers, too, where it is steepest.
        x = jnp.array([0.7, 1.0, 2.0, 36.02, 128.0])
        for t in _TEMPERATURES:
            elasticity = x * jax.grad(lambda x, t=t: smooth(t).ceil(x).sum())(x)
            assert float(jnp.max(elasticity / jnp.ceil(x))) <= 1.25


@pytest.mark.parametrize("variant", [jax.jit, lambda fn: fn], ids=["jit", "eager"])
def test_secant_by_hand(variant):
    # ceil(8 / n) tasks of work w at n = 3: 3 w, 2 w at 4.5 and 4 w at 2. The
    # elasticity is log(2 / 4) / log(2.25) = -0.8548, so d / dn = 3 w / 3 of it.
    # By w the slope is that of the function itself, 3.
    def total(w, n):
        return smooth(0.1).secant(lambda relax, n: w * relax.ceil(8 / n), n)

    value, slopes = variant(jax.value_and_grad(total, (0, 1)))(5.0, 3.0)
    assert float(value) == 15
    np.testing.assert_allclose(slopes, [3, -5 * 0.854756], rtol=1e-5)


def test_secant_of_a_longest_stage_that_may_change():
    # Stages of 12 / m and 12 / n, at m = n = 3 both 4. Half as much again of m
    # leaves the other, 4; two thirds of it take 6: log(4 / 6) / log(2.25) = -0.5.
    def longest(m, n):
        return smooth(1e-3).secant(lambda r, m, n: r.max(12 / m, 12 / n), m, n)

    slopes = jax.grad(lambda *x: jnp.log(longest(*x)), (0, 1))(3.0, 3.0)
    np.testing.assert_allclose(slopes, [-0.5 / 3, -0.5 / 3], rtol=1e-3)


def test_secant_of_nothing_is_flat():
    def tree(n):
        return smooth(0.1).secant(lambda relax, n: {"a": jnp.zeros(2) / n}, n)["a"]

    np.testing.assert_array_equal(jax.jacrev(tree)(2.0), [0, 0])


def test_exact_secant_is_the_function():
    assert float(EXACT.secant(lambda relax, n: relax.ceil(8 / n), 3.0)) == 3


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(0, 1e9, width=32), min_size=1, max_size=8),
    st.sampled_from(_TEMPERATURES),
)
def test_smooth_maximum_lies_between_maximum_and_sum(values, temperature):
    x = jnp.array(values, jnp.float32)
    value = float(smooth(temperature).reduce_max(x))
    assert float(jnp.max(x)) * (1 - 1e-5) <= value <= float(jnp.sum(x)) * (1 + 1e-5)


def test_maximum_does_not_depend_on_the_unit():
    x = jnp.array([3.0, 2.0, 2.5])
    for scale in (1e-9, 1.0, 1e9):
        scaled = smooth(0.2).reduce_max(x * scale) / scale
        chex.assert_trees_all_close(scaled, smooth(0.2).reduce_max(x), rtol=1e-5)


def test_maximum_by_hand():
    # T = 1 is the 4-norm: (3^4 + 4^4)^(1/4) = 337^(1/4) = 4.28457.
    out = smooth(1.0).max(3.0, 4.0)
    chex.assert_trees_all_close(out, jnp.float32(4.28457), rtol=1e-5)
    assert float(EXACT.max(3.0, 4.0)) == 4.0
    out = EXACT.reduce_max(jnp.array([[1.0, 2.0], [4.0, 3.0]]), axis=1)
    np.testing.assert_array_equal(out, [2.0, 4.0])


def test_gradients_of_the_maximum_are_finite_at_ties_and_zeros():
    for values in ([0.0, 0.0], [1.0, 1.0], [0.0, 1e-20], [1e-6, 1e9]):
        for t in (1.0, 0.1, 1e-3):
            grad = jax.grad(lambda x, t=t: smooth(t).reduce_max(x))(jnp.array(values))
            chex.assert_tree_all_finite(grad)
    x = jnp.array([3.0, 2.5, 1.0])
    check_grads(lambda x: smooth(0.2).reduce_max(x), (x,), 1, modes=("rev",), rtol=0.01)


@pytest.mark.parametrize("temperature", [0.0, -1.0, 1.5, float("nan"), True])
def test_refuses_temperatures_outside_its_range(temperature):
    with pytest.raises(ValueError, match=r"`temperature` must lie in \(0, 1\]"):
        smooth(temperature)


def test_smooth_max_hides_nothing():
    for fn in (smooth(0.1).max, EXACT.max):
        assert np.isnan(fn(jnp.nan, 3.0))
        assert fn(jnp.inf, 3.0) == jnp.inf
        assert fn(3, 4) == pytest.approx(4, rel=0.01)


def test_smooth_max_of_nothing_has_the_slope_of_what_grows():
    # max(0 m, 3 m) is 3 m above 0, where a mask begins.
    slope = jax.grad(lambda m: smooth(0.1).max(0 * m, 3 * m))(0.0)
    assert slope == pytest.approx(3.0)
