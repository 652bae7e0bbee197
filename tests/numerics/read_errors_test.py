"""Errors of a memory that reads a stored value as noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from codesign.numerics.read_errors import (
    NOMINAL_RATE,
    ReadErrors,
    rate_of,
    read,
    read_gradient,
)

_KEY = jax.random.key(7)


def _values(*shape):
    return jax.random.normal(jax.random.key(1), shape)


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.3])
def test_as_many_values_are_wrong_as_the_rate_says(rate):
    x = _values(300, 1000)
    num_wrong = int(jnp.sum(read(x, rate, _KEY) != x))
    # All but one in a million binomial counts lie within five deviations.
    deviation = np.sqrt(x.size * rate * (1 - rate))
    assert abs(num_wrong - rate * x.size) < 5 * deviation


def test_no_value_is_wrong_at_a_rate_of_zero_and_every_one_at_one():
    x = _values(1000)
    np.testing.assert_array_equal(read(x, 0.0, _KEY), x)
    assert np.all(np.asarray(read(x, 1.0, _KEY)) != np.asarray(x))


def test_noise_is_uniform_over_the_range_of_the_values_and_independent_of_them():
    x = _values(200_000)
    noise = np.asarray(read(x, 1.0, _KEY))
    most = float(jnp.max(jnp.abs(x)))
    assert np.abs(noise).max() <= most
    uniform = stats.kstest(noise, stats.uniform(-most, 2 * most).cdf)
    assert uniform.pvalue > 1e-4
    assert abs(np.corrcoef(noise, x)[0, 1]) < 0.02


def test_two_keys_hit_other_values_and_one_key_the_same():
    x = _values(10_000)
    first, again = read(x, 0.01, _KEY), read(x, 0.01, _KEY)
    other = read(x, 0.01, jax.random.key(8))
    np.testing.assert_array_equal(first, again)
    both = jnp.sum((first != x) & (other != x))
    assert int(both) < 15  # one in ten thousand by chance


def test_a_rate_may_be_traced_and_the_gradient_is_that_of_the_value():
    x = _values(500)

    @jax.jit
    def loss(x, rate):
        return jnp.sum(3 * read(x, rate, _KEY))

    np.testing.assert_array_equal(jax.grad(loss)(x, 0.5), np.full(500, 3.0))
    assert jax.grad(loss, 1)(x, 0.5) == 0


def test_gradients_are_read_with_errors_too():
    x, weights = _values(2000), _values(2000) + 1
    found = jax.grad(lambda x: jnp.sum(weights * read_gradient(x, 0.1, _KEY)))(x)
    np.testing.assert_array_equal(found, read(weights, 0.1, _KEY))
    np.testing.assert_array_equal(read_gradient(x, 0.1, _KEY), x)


def test_the_rate_at_the_retention_time_is_the_nominal_one_and_grows_with_life():
    assert float(rate_of(3.35e-6, 3.35e-6)) == pytest.approx(NOMINAL_RATE, rel=1e-3)
    rates = rate_of(jnp.array([0.5, 1.0, 1.26, 2.0, 5.0, 100.0]), 1.0)
    assert np.all(np.diff(rates) >= 0)
    # By hand: Phi(ln(1.26) / .3 - 3.0902) = Phi(-2.3199) = .0102.
    assert float(rates[2]) == pytest.approx(0.0102, abs=1e-4)
    assert float(rates[-1]) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("errors", "match"),
    [
        (ReadErrors(1.5), r"`rate` \(=1.5\) must be from 0 to 1"),
        (ReadErrors(0.1, -0.1), r"`kept_rate` \(=-0.1\)"),
        (ReadErrors((0.1, 0.2)), r"`rate` has shape \(2,\).*each of 3 blocks"),
        (ReadErrors(float("nan")), r"`rate` \(=nan\)"),
    ],
)
def test_rates_that_are_no_probabilities_are_refused(errors, match):
    with pytest.raises(ValueError, match=match):
        errors.rates(3)
