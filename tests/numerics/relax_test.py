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

    def test_tends_to_the_exact_value_also_at_integers(self):
        x = jnp.array([0.0, 0.5, 1.0, 3.999, 7.0, 36.02])
        errors = [
            float(jnp.max(jnp.abs(smooth(t).ceil(x) - jnp.ceil(x))))
            for t in _TEMPERATURES
        ]
        assert errors[-1] < 1e-3
        assert errors[-1] < errors[-2] < errors[0]

    def test_is_nearly_the_identity_at_temperature_one(self):
        x = jnp.linspace(0.0, 9.0, 91)
        chex.assert_trees_all_close(smooth(1.0).ceil(x), x, atol=0.01)

    def test_never_decreases(self):
        x = jnp.linspace(0.0, 5.0, 5001)
        for t in _TEMPERATURES:
            assert float(jnp.min(jnp.diff(smooth(t).ceil(x)))) >= -1e-6

    def test_gradient_is_that_of_finite_differences(self):
        for t in (1.0, 0.3, 0.1):
            x = jnp.array([0.3, 1.02, 2.9])
            check_grads(
                smooth(t).ceil, (x,), order=1, modes=("rev",), eps=1e-2, rtol=0.1
            )


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
    # T = 1/2 is the Euclidean norm: sqrt(3^2 + 4^2) = 5.
    chex.assert_trees_all_close(smooth(0.5).max(3.0, 4.0), jnp.float32(5.0), rtol=1e-6)
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


@pytest.mark.parametrize("temperature", [0.0, -1.0, 1.5, float("nan")])
def test_refuses_temperatures_outside_its_range(temperature):
    with pytest.raises(ValueError, match=r"`temperature` must lie in \(0, 1\]"):
        smooth(temperature)
