"""The marginal likelihood against plain formulas, and NUTS against Gibbs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer.util import log_density
from scipy import stats

from codesign.search import cpu, horseshoe, nuts, surrogate
from codesign.search.diagnostics import diagnose

_SHAPES = [(4, 6), (9, 3)]  # wide and tall


def _data(num_rows, num_coefficients, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.integers(0, 2, (num_rows, num_coefficients)).astype(float)
    features -= features.mean(axis=0)
    y = features[:, 0] + 0.3 * rng.normal(size=num_rows)
    y = (y - y.mean()) / y.std()
    return _two_groups(features), y, np.ones(num_rows, bool)


def _two_groups(features):
    """A third of the columns, and the others."""
    return tuple(np.split(features, [(features.shape[1] + 1) // 3], axis=1))


def _sites(num_coefficients, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "global_scale": rng.gamma(2.0, size=2),
        "local_scale": rng.gamma(2.0, size=num_coefficients),
    }


def _padded(data, num_rows):
    more = num_rows - len(data[1])
    return (
        tuple(np.pad(group, ((0, more), (0, 0))) for group in data[0]),
        *(np.pad(a, (0, more)) for a in data[1:]),
    )


def _likelihood(data, sd):
    features, y, observed = jax.tree.map(jnp.asarray, data)
    system = horseshoe.linear_system(features, y, jnp.asarray(sd))
    return float(system.log_marginal_likelihood(jnp.sum(observed)))


@pytest.mark.parametrize(("num_rows", "num_coefficients"), _SHAPES)
def test_likelihood_is_a_multivariate_t_of_the_contrasts(num_rows, num_coefficients):
    # A normal whose variance has an InverseGamma(a, b) factor is a t with 2a degrees of
    # freedom and b/a times its covariance; a flat intercept leaves the contrasts.
    data = _data(num_rows, num_coefficients)
    features, y = np.concatenate(data[0], axis=1), data[1]
    contrasts = np.linalg.svd(np.ones((1, num_rows)))[2][1:]  # [N - 1, N]
    a, b = horseshoe.NOISE_SHAPE, horseshoe.NOISE_SCALE

    def expected(sd):
        covariance = np.eye(num_rows) + features @ np.diag(sd**2) @ features.T
        shape = b / a * contrasts @ covariance @ contrasts.T
        return stats.multivariate_t(shape=shape, df=2 * a).logpdf(contrasts @ y)

    with cpu.float64_on_cpu():
        scales = np.random.default_rng(1).gamma(1.0, 2.0, (5, num_coefficients))
        found = [_likelihood(data, sd) for sd in scales]
    constant = [value - expected(sd) for value, sd in zip(found, scales, strict=True)]
    np.testing.assert_allclose(constant, constant[0], rtol=1e-9)


def test_scales_model_is_an_integral_of_the_horseshoe_model():
    # Over log(noise variance) and, in units of the noise, coefficient and intercept.
    data = _data(4, 1)
    log_variance = np.linspace(-7.0, 14.0, 85)
    coefficient, intercept = np.linspace(-30, 30, 241), np.linspace(-6, 6, 49)

    def integral(sites):
        def joint(u, b, a):
            noise_sd = jnp.exp(u / 2)
            rest = {
                "noise_variance": noise_sd**2,
                "coefficients": (noise_sd * b)[None],
                "intercept": noise_sd * a,
            }
            jacobian = 2 * u  # d variance = variance du, and the noise's sd twice
            value = log_density(horseshoe.horseshoe_model, data, {}, {**sites, **rest})
            return value[0] + jacobian

        for axes in ((None, None, 0), (None, 0, None), (0, None, None)):
            joint = jax.vmap(joint, axes)
        values = jax.jit(joint)(log_variance, coefficient, intercept)
        return float(jax.nn.logsumexp(values))

    def model(sites):
        return float(log_density(nuts.scales_model, data, {}, sites)[0])

    with cpu.float64_on_cpu():
        data = jax.tree.map(jnp.asarray, data)
        one, other = (
            {"global_scale": jnp.array([1.0, scale]), "local_scale": jnp.asarray([0.7])}
            for scale in (0.5, 5.0)
        )
        expected = integral(one) - integral(other)
        assert abs(expected) > 0.05
        assert model(one) - model(other) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("num_rows", "num_coefficients"), [(5, 70), (9, 3)])
def test_padding_changes_neither_density_nor_gradient(num_rows, num_coefficients):
    data = _data(num_rows, num_coefficients)

    @jax.jit
    @jax.value_and_grad
    def density(sites, data):
        return log_density(nuts.scales_model, data, {}, sites)[0]

    with cpu.float64_on_cpu():
        sites = jax.tree.map(jnp.asarray, _sites(num_coefficients))
        plain, same = (
            density(sites, jax.tree.map(jnp.asarray, arrays))
            for arrays in (data, _padded(data, 16))
        )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12),
        same,
        plain,
    )


def test_scales_are_clipped_as_for_gibbs():
    # Beyond the largest prior standard deviation only the prior still falls.
    def likelihood(local_scale):
        scales = {
            "global_scale": np.array([1e4, 1.0]),
            "local_scale": np.array([local_scale, 1.0, 1.0]),
        }
        value = log_density(
            nuts.scales_model, data, {}, jax.tree.map(jnp.array, scales)
        )
        return float(value[0]) + np.log1p(local_scale**2)

    with cpu.float64_on_cpu():
        data = jax.tree.map(jnp.asarray, _data(9, 3))
        assert likelihood(1e9) == pytest.approx(likelihood(1e2), rel=1e-9)
        assert likelihood(1e-3) != pytest.approx(likelihood(1e2), rel=1e-2)


_NUM_RUNS = 8


def _run(sampler, x, y, *, seed=0, key=None):
    # The same counts in every test: one compiled program.
    return surrogate.sample_posterior(
        jax.random.key(seed) if key is None else key,
        x,
        y,
        num_chains=4,
        num_warmup=250,
        num_samples={"gibbs": 4000, "nuts": 400}[sampler],
        sampler=sampler,
    )


def _sparse_truth():
    rng = np.random.default_rng(1)
    x = rng.integers(0, 2, (24, 5))  # 15 coefficients
    y = 1 + 2.0 * x[:, 0] - 3.0 * x[:, 1] * x[:, 2] + 0.25 * x[:, 3]
    return x, y, y + 0.2 * rng.normal(size=24)


def _summaries(posterior):
    pairs = np.triu_indices(posterior.linear.shape[1], k=1)
    return {
        "intercept": posterior.intercept.mean(),
        "noise_sd": posterior.noise_sd.mean(),
        "log_global_scale": np.log(posterior.global_scale).mean(axis=0),
        "linear": posterior.linear.mean(axis=0),
        "pairwise": posterior.pairwise.mean(axis=0)[pairs],
        "site_inclusion": posterior.site_inclusion(0.15),
        "linear_inclusion": posterior.linear_inclusion,
        "pairwise_inclusion": posterior.pairwise_inclusion[pairs],
    }


@pytest.mark.slow
def test_gibbs_and_nuts_agree_on_a_sparse_truth():
    # Weak effects and few observations, so that probabilities are not 0 or 1 and the
    # density of the scales matters. Independent runs give each mean its Monte-Carlo
    # error: Welch's t-test at the level of four standard errors.
    x, _, y = _sparse_truth()
    gibbs = [_run("gibbs", x, y, seed=seed) for seed in range(_NUM_RUNS)]
    audit = [_run("nuts", x, y, seed=_NUM_RUNS + seed) for seed in range(_NUM_RUNS)]
    for posterior in (*gibbs, *audit):
        found = diagnose(posterior)
        assert found.worst_r_hat < 1.03
        assert found.least_effective_size > 200
        assert (found.num_divergent or 0) <= 0.01 * found.num_draws
    assert gibbs[0].num_divergent is None
    probabilities = np.mean([p.site_inclusion(0.15) for p in audit], axis=0)
    assert np.any((probabilities > 0.05) & (probabilities < 0.95))
    ours = [_summaries(posterior) for posterior in gibbs]
    theirs = [_summaries(posterior) for posterior in audit]
    for name in ours[0]:
        a = np.stack([np.atleast_1d(summary[name]) for summary in ours])
        b = np.stack([np.atleast_1d(summary[name]) for summary in theirs])
        vary = (a.var(axis=0) + b.var(axis=0)) > 0  # else all are certain, and equal
        np.testing.assert_array_equal(a[0][~vary], b[0][~vary], err_msg=name)
        result = stats.ttest_ind(a[:, vary], b[:, vary], equal_var=False)
        assert np.all(result.pvalue > 2 * stats.norm.sf(4.0)), (name, result.pvalue)  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.slow
def test_nuts_without_noise():
    x, y, _ = _sparse_truth()
    posterior = _run("nuts", x, y)
    found = diagnose(posterior)
    assert (found.sampler, found.num_chains, found.num_draws) == ("nuts", 4, 1600)
    assert found.worst_r_hat < 1.05
    assert found.num_divergent <= 16
    mean = posterior.linear.mean(axis=0)
    np.testing.assert_allclose(mean, [2.0, 0.0, 0.0, 0.25, 0.0], atol=0.05)


@pytest.mark.parametrize("num_points", [1, 6])
def test_nuts_of_constant_observations(num_points):
    x, _, _ = _sparse_truth()
    posterior = _run("nuts", x[:num_points], np.full(num_points, 0.7))
    for name in ("intercept", "linear", "pairwise", "noise_sd", "global_scale"):
        assert np.all(np.isfinite(getattr(posterior, name)))
    assert not posterior.site_inclusion().any()
    assert diagnose(posterior).num_divergent <= 16


def test_nuts_is_deterministic_and_takes_a_key_for_each_chain():
    x, _, y = _sparse_truth()
    one = _run("nuts", x, y)
    np.testing.assert_array_equal(_run("nuts", x, y).linear, one.linear)
    keys = jax.random.split(jax.random.key(0), 4)
    np.testing.assert_array_equal(_run("nuts", x, y, key=keys).linear, one.linear)
    chains = one.linear.reshape(4, 400, 5)
    assert not np.any(chains[0] == chains[1])
