"""The Gibbs kernel against the log density of the NumPyro model, and integrals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer import MCMC
from numpyro.infer.util import log_density
from scipy import stats

from codesign.search import cpu, horseshoe


@pytest.fixture(autouse=True)
def _float64():
    with cpu.float64_on_cpu():
        yield


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
        "noise_variance": rng.gamma(2.0),
        "global_scale": rng.gamma(2.0, size=2),
        "local_scale": rng.gamma(2.0, size=num_coefficients),
        "coefficients": rng.normal(size=num_coefficients),
        "intercept": rng.normal(),
    }


def _joint(data, sites):
    value, _ = log_density(horseshoe.horseshoe_model, data, {}, sites)
    return float(value)


def _log_inverse_gamma(value, shape, scale):
    return float(np.sum(stats.invgamma.logpdf(value, shape, scale=scale)))


def test_local_scales_have_the_conditional_of_the_model():
    # p(l^2, a | rest) ~ model(l) |dl/dl^2| p(a | l); a fixed, two values of l compared.
    data, sites = _data(5, 3), _sites(3)
    auxiliary = np.array([0.3, 1.0, 2.5])
    other = {**sites, "local_scale": np.array([0.4, 2.0, 1.1])}

    def joint(z):
        local = z["local_scale"]
        jacobian = -np.sum(np.log(2 * local))
        return (
            _joint(data, z)
            + jacobian
            + _log_inverse_gamma(auxiliary, 1.0, horseshoe.auxiliary_scale(local))
        )

    scale = horseshoe.local_variance_scale(
        sites["coefficients"],
        sites["noise_variance"],
        np.asarray(horseshoe.by_coefficient(sites["global_scale"], (1, 2))),
        auxiliary,
    )

    def conditional(z):
        return _log_inverse_gamma(z["local_scale"] ** 2, 1.0, scale)

    difference = conditional(other) - conditional(sites)
    assert difference == pytest.approx(joint(other) - joint(sites), abs=1e-9)


def _sd(data, sites):
    sizes = horseshoe.group_sizes(data[0])
    return np.asarray(
        horseshoe.prior_sd(sites["global_scale"], sites["local_scale"], sizes)
    )


def _block(data, sites):
    """Parameters of equations (3), (4) and (5) by plain inverses."""
    features, y, sd = np.concatenate(data[0], axis=1), data[1], _sd(data, sites)
    marginal = np.eye(len(y)) + features @ np.diag(sd**2) @ features.T
    shape = horseshoe.NOISE_SHAPE + (len(y) - 1) / 2
    scale = horseshoe.NOISE_SCALE + y @ np.linalg.inv(marginal) @ y / 2
    covariance = np.linalg.inv(features.T @ features + np.diag(sd**-2.0))
    return shape, scale, covariance @ features.T @ y, covariance


@pytest.mark.parametrize(("num_rows", "num_coefficients"), [(4, 6), (9, 3)])
def test_block_of_coefficients_has_the_conditional_of_the_model(
    num_rows, num_coefficients
):
    data = _data(num_rows, num_coefficients)
    sites = _sites(num_coefficients)
    other = {
        **_sites(num_coefficients, seed=1),
        "global_scale": sites["global_scale"],
        "local_scale": sites["local_scale"],
    }
    shape, scale, mean, covariance = _block(data, sites)

    def conditional(z):
        variance = z["noise_variance"]
        normal = stats.multivariate_normal(mean, variance * covariance)
        intercept = stats.norm(0.0, np.sqrt(variance / num_rows))
        return (
            _log_inverse_gamma(variance, shape, scale)
            + normal.logpdf(z["coefficients"])
            + intercept.logpdf(z["intercept"])  # pyright: ignore[reportAttributeAccessIssue]
        )

    difference = conditional(other) - conditional(sites)
    expected = _joint(data, other) - _joint(data, sites)
    assert difference == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(("num_rows", "num_coefficients"), [(4, 6), (9, 3)])
def test_draws_of_the_block_have_their_distribution(num_rows, num_coefficients):
    data, sites = _data(num_rows, num_coefficients), _sites(num_coefficients)
    shape, scale, mean, covariance = _block(data, sites)
    sd = _sd(data, sites)
    keys = jax.random.split(jax.random.key(0), 20000)
    draw = jax.jit(
        jax.vmap(lambda key: horseshoe.draw_coefficients(key, *data, sd)),
    )
    variance, coefficients, intercept = map(np.asarray, draw(keys))
    noise = stats.kstest(variance, stats.invgamma(shape, scale=scale).cdf)
    assert noise.pvalue > 1e-3
    whitened = (coefficients - mean[None, :]) / np.sqrt(variance)[:, None]
    root = np.linalg.cholesky(np.linalg.inv(covariance))
    standard = np.append(
        whitened @ root, (intercept * np.sqrt(num_rows / variance))[:, None], axis=1
    )
    for column in standard.T:
        assert stats.kstest(column, stats.norm.cdf).pvalue > 1e-3
    np.testing.assert_allclose(
        standard.T @ standard / len(keys), np.eye(num_coefficients + 1), atol=0.05
    )


@functools.cache
def _sampler(num_chains, num_warmup, num_samples):
    def run(key, *args):
        mcmc = MCMC(
            horseshoe.HorseshoeGibbs(),
            num_warmup=num_warmup,
            num_samples=num_samples,
            num_chains=num_chains,
            chain_method="vectorized",
            progress_bar=False,
        )
        mcmc.run(key, *args)
        return mcmc.get_samples(group_by_chain=True)

    return jax.jit(run)


def _run(data, *, num_chains=1, num_warmup=0, num_samples=5, seed=0):
    run = _sampler(num_chains, num_warmup, num_samples)
    return run(jax.random.key(seed), *jax.tree.map(jnp.asarray, data))


def _padded(data, num_rows):
    more = num_rows - len(data[1])
    return (
        tuple(np.pad(group, ((0, more), (0, 0))) for group in data[0]),
        *(np.pad(a, (0, more)) for a in data[1:]),
    )


@pytest.mark.parametrize(
    ("num_rows", "most_rows", "num_coefficients"),
    [(5, 64, 70), pytest.param(9, 16, 3, marks=pytest.mark.slow)],
)
def test_padding_changes_no_draw(num_rows, most_rows, num_coefficients):
    data = _data(num_rows, num_coefficients)
    plain, same = _run(data), _run(_padded(data, most_rows))
    for site, draws in plain.items():
        np.testing.assert_allclose(same[site], draws, rtol=1e-7, atol=1e-12)


def test_posterior_mean_is_that_of_an_integral_over_the_scales():
    # One coefficient f with s = local * global: the likelihood with noise, coefficient
    # and intercept integrated out is (1 + f'f s^2)^-1/2 (2 d + y'M^-1 y)^-(n + 1)/2, d
    # the noise prior's scale, and the mean of the coefficient is s^2 f'y / (1 + f'f s^2).
    features, y, observed = _data(6, 1)
    f = np.concatenate(features, axis=1)[:, 0]
    ff, fy = f @ f, f @ y
    log_scale = np.linspace(-16.0, 16.0, 1601)
    scale = np.exp(log_scale)
    half_cauchy = scale / (1 + scale**2)  # a density in the logarithm
    s = scale[:, None] * scale[None, :]
    shrunk = s**2 / (1 + ff * s**2)
    misfit = 2 * horseshoe.NOISE_SCALE + y @ y - fy**2 * shrunk
    power = -(2 * horseshoe.NOISE_SHAPE + len(y) - 1) / 2
    weight = half_cauchy[:, None] * half_cauchy[None, :] / np.sqrt(1 + ff * s**2)
    weight *= misfit**power
    expected = np.sum(weight * shrunk * fy) / np.sum(weight)
    draws = _run(
        (features, y, observed), num_chains=8, num_warmup=500, num_samples=5000
    )
    means = np.asarray(draws["coefficients"]).mean(axis=(1, 2))  # [8]
    error = means.std() / np.sqrt(8)
    assert error < 0.02
    assert means.mean() == pytest.approx(expected, abs=4 * error + 0.005)


@pytest.mark.parametrize("num_coefficients", [36, 80])
def test_stays_finite_without_noise(num_coefficients):
    # An exact fit: the noise prior and the clipped scales keep it from collapsing.
    rng = np.random.default_rng(3)
    for num_rows in (1, 2, 12, 60):
        features = rng.integers(0, 2, (num_rows, num_coefficients)).astype(float)
        features -= features.mean(axis=0)
        y = features[:, 0] * 3 - features[:, 5] * 2
        y /= y.std() if y.any() else 1.0
        data = _padded((_two_groups(features), y, np.ones(num_rows, bool)), 64)
        for site, values in _run(data, num_samples=300).items():
            assert np.all(np.isfinite(values)), (num_rows, site)
