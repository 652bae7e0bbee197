import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codesign.search import surrogate
from codesign.search.diagnostics import diagnose


def _planted(num_variables, num_points, seed=0, noise=0.01):
    """y = 1 + 2 x_0 - 3 x_1 x_2 and points to see it at."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 2, (num_points, num_variables))
    y = 1 + 2.0 * x[:, 0] - 3.0 * x[:, 1] * x[:, 2]
    return x, y + noise * rng.normal(size=num_points)


def _sample(x, y, seed=0, **kwargs):
    settings: dict[str, Any] = {"num_chains": 2, "num_warmup": 150, "num_samples": 100}
    settings |= kwargs
    return surrogate.sample_posterior(jax.random.key(seed), x, y, **settings)


def test_recovers_a_sparse_truth_from_fewer_points_than_coefficients():
    x, y = _planted(10, 40)  # 55 coefficients
    posterior = _sample(x, y)
    linear, pairwise = posterior.linear.mean(axis=0), posterior.pairwise.mean(axis=0)
    assert linear[0] == pytest.approx(2.0, abs=0.05)
    assert pairwise[1, 2] == pytest.approx(-3.0, abs=0.05)
    assert posterior.intercept.mean() == pytest.approx(1.0, abs=0.05)
    linear[0] = pairwise[1, 2] = 0.0
    assert max(np.abs(linear).max(), np.abs(pairwise).max()) < 0.05
    assert np.median(posterior.noise_sd) < 0.05
    signal = np.zeros(10, bool)
    signal[0] = True
    np.testing.assert_array_equal(posterior.linear_inclusion > 0.5, signal)
    assert np.argwhere(posterior.pairwise_inclusion > 0.5).tolist() == [[1, 2]]
    np.testing.assert_array_equal(posterior.site_inclusion() > 0.5, np.arange(10) < 3)


def test_chains_agree():
    posterior = _sample(*_planted(5, 30, noise=0.3))
    draws = posterior.linear[:, 0].reshape(posterior.num_chains, -1)
    assert draws.shape == (2, 100)
    assert not np.any(draws[0] == draws[1])
    found = diagnose(posterior)
    assert found.r_hat["linear"].max() < 1.1
    assert found.effective_size["linear"].min() > 20
    assert (found.sampler, found.num_draws) == ("gibbs", 200)
    assert found.num_divergent is None


def test_units_of_y_carry_over():
    x, y = _planted(5, 20)
    plain, scaled = _sample(x, y), _sample(x, 1e6 * y - 3e6)
    np.testing.assert_allclose(scaled.linear, 1e6 * plain.linear, rtol=1e-3, atol=1e3)
    np.testing.assert_allclose(scaled.noise_sd, 1e6 * plain.noise_sd, rtol=1e-3)
    np.testing.assert_allclose(
        scaled.intercept, 1e6 * plain.intercept - 3e6, rtol=1e-3, atol=1e3
    )


def test_draws_predict_the_observations():
    x, y = _planted(5, 30, noise=0.0)
    posterior = _sample(x, y)
    fitted = (
        posterior.intercept[:, None]
        + posterior.linear @ x.T
        + np.einsum("ni,sij,nj->sn", x, posterior.pairwise, x)
    )
    np.testing.assert_allclose(fitted.mean(axis=0), y, atol=0.05)


@pytest.mark.parametrize("value", [0.0, 0.1, -3e5, 1e-300])
def test_constant_observations(value):
    x, _ = _planted(5, 6)
    posterior = _sample(x, np.full(6, value))
    assert posterior.y_sd == 0.0
    assert not posterior.site_inclusion().any()
    for name in ("intercept", "linear", "pairwise", "noise_sd"):
        assert np.all(np.isfinite(getattr(posterior, name)))
    at_points = posterior.linear @ x.T + np.einsum(
        "ni,sij,nj->sn", x, posterior.pairwise, x
    )
    at_points += posterior.intercept[:, None] - value
    assert np.median(np.abs(at_points)) < 0.1


def test_one_observation():
    posterior = _sample(np.array([[0, 1, 0, 1, 1]]), np.array([0.7]))
    assert np.all(np.isfinite(posterior.linear))
    assert not posterior.linear_inclusion.any()  # no feature has varied


def test_huge_observations_do_not_overflow():
    x, y = _planted(5, 12)
    assert np.all(np.isfinite(_sample(x, y * 1e300).linear))


def test_growing_data_compile_once_in_a_bucket():
    x, y = _planted(5, 64)
    compiled: Any = surrogate._sample_gibbs
    _sample(x[:1], y[:1])
    count = compiled._cache_size()
    for n in (2, 3, 17, 31, 32):
        _sample(x[:n], y[:n], seed=n)
    assert compiled._cache_size() == count
    for n in (33, 50, 64):
        _sample(x[:n], y[:n])
    assert compiled._cache_size() == count + 1


@pytest.mark.slow
def test_many_observations_are_few_rows_of_the_same_model(monkeypatch):
    # 21 features: 22 rows have the same second moments as 2000.
    x, y = _planted(6, 2000, noise=1.0)
    short = {"num_chains": 4, "num_warmup": 200, "num_samples": 500}
    few = _sample(x, y, **short)
    data = surrogate._compressed(surrogate._scale(x, y))
    assert data[1].shape == (32,)
    monkeypatch.setattr(surrogate, "MOST_ROWS", 2048)
    all_rows = _sample(x, y, **short)
    for name in ("intercept", "linear", "pairwise", "noise_sd"):
        ours, theirs = getattr(few, name), getattr(all_rows, name)
        spread = theirs.std(axis=0) + 1e-9
        assert np.all(np.abs(ours.mean(axis=0) - theirs.mean(axis=0)) < 0.2 * spread)
        ratio = (ours.std(axis=0) + 1e-9) / spread
        assert np.all((ratio > 0.8) & (ratio < 1.25)), name
    assert np.median(few.noise_sd) == pytest.approx(1.0, abs=0.05)


def test_beyond_512_observations_no_further_program_is_compiled():
    x, y = _planted(5, 5000)
    compiled: Any = surrogate._sample_gibbs
    _sample(x[:513], y[:513])
    count = compiled._cache_size()
    for n in (600, 1025, 5000):
        _sample(x[:n], y[:n])
    assert compiled._cache_size() == count


def test_buckets():
    sizes = [surrogate.bucket(n) for n in (1, 32, 33, 64, 65, 1000)]
    assert sizes == [32, 32, 64, 64, 128, 1024]


def test_float64_inside_and_no_global_setting_changed():
    posterior = _sample(*_planted(5, 8))
    assert posterior.linear.dtype == np.float64
    assert jnp.ones(()).dtype == jnp.float32


def test_settings_of_the_caller_do_not_change_the_draws():
    x, y = _planted(5, 8)
    plain = _sample(x, y).linear
    with jax.enable_x64(True):
        np.testing.assert_array_equal(_sample(x, y).linear, plain)


def test_a_key_for_each_chain():
    x, y = _planted(5, 8)
    keys = jax.random.split(jax.random.key(0), 2)
    settings: dict[str, Any] = {"num_chains": 2, "num_warmup": 150, "num_samples": 100}
    by_key = surrogate.sample_posterior(keys, x, y, **settings)
    np.testing.assert_array_equal(by_key.linear, _sample(x, y).linear)
    swapped = surrogate.sample_posterior(keys[::-1], x, y, **settings)
    np.testing.assert_allclose(swapped.linear[:100], by_key.linear[100:], rtol=1e-3)


def test_site_effect_is_that_of_enumeration():
    posterior = _sample(*_planted(5, 10))
    points = np.array(list(itertools.product((0, 1), repeat=5)))

    def f(x):
        return posterior.linear @ x.T + np.einsum(
            "ni,sij,nj->sn", x, posterior.pairwise, x
        )

    for site in range(5):
        on, off = points.copy(), points.copy()
        on[:, site], off[:, site] = 1, 0
        effect = np.sqrt(np.mean((f(on) - f(off)) ** 2, axis=1))
        np.testing.assert_allclose(posterior.site_effect()[:, site], effect, rtol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros((0, 3)), "y": np.zeros(0)}, r"`x` must be \[N, C\]"),
        ({"x": np.zeros(3)}, r"`x` must be \[N, C\]"),
        ({"y": np.zeros(3)}, r"`y` must be \[N\] with N = 2"),
        ({"x": [[0, 2], [0, 1]]}, r"`x` must hold only 0 and 1"),
        ({"y": [0.0, np.nan]}, r"`y` must be finite, got nan"),
        ({"num_chains": 0}, r"`num_chains` must be at least 1"),
        ({"num_samples": 0}, r"`num_samples` must be at least 1"),
        ({"num_warmup": -1}, r"`num_warmup` must be at least 0"),
        (
            {"sampler": "magic"},
            r"`sampler` must be one of \['gibbs', 'nuts'\], got 'magic'",
        ),
        ({"key": jnp.zeros(2, jnp.uint32)}, r"`key` must be a typed random key"),
        ({"key": jax.random.split(jax.random.key(0), 3)}, r"`key` must be one key"),
    ],
)
def test_rejects(change, message):
    arguments = {
        "key": jax.random.key(0),
        "x": np.zeros((2, 2)),
        "y": np.zeros(2),
        "num_chains": 1,
        **change,
    }
    key, x, y = (arguments.pop(name) for name in ("key", "x", "y"))
    with pytest.raises(ValueError, match=message):
        surrogate.sample_posterior(key, x, y, **arguments)
