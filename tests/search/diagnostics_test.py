import dataclasses

import numpy as np
import pytest
from numpyro.diagnostics import split_gelman_rubin

from codesign.search.diagnostics import diagnose
from codesign.search.surrogate import Posterior


def _posterior(draws, **changes):
    """A posterior of two sites whose noise is `draws` `[chains, samples]`."""
    num_chains, num_samples = draws.shape
    num_draws = num_chains * num_samples
    rng = np.random.default_rng(1)
    fields = {
        "intercept": rng.normal(size=num_draws),
        "linear": rng.normal(size=(num_draws, 2)),
        "pairwise": np.triu(rng.normal(size=(num_draws, 2, 2)), k=1),
        "noise_sd": draws.reshape(-1),
        "global_scale": rng.gamma(1.0, size=(num_draws, 2)),
        "linear_inclusion": np.zeros(2),
        "pairwise_inclusion": np.zeros((2, 2)),
        "y_sd": 1.0,
        "num_chains": num_chains,
        "sampler": "gibbs",
        "num_divergent": None,
    }
    return Posterior(**{**fields, **changes})


def _independent(num_chains=4, num_samples=500, seed=0):
    return np.random.default_rng(seed).normal(size=(num_chains, num_samples))


def test_independent_draws():
    found = diagnose(_posterior(_independent()))
    assert found.r_hat["noise_sd"] == pytest.approx(1.0, abs=0.01)
    # NumPyro's own, of draws that are normal already.
    assert found.r_hat["noise_sd"] == pytest.approx(
        split_gelman_rubin(_independent()), abs=1e-3
    )
    assert found.effective_size["noise_sd"] == pytest.approx(2000, rel=0.2)
    assert found.r_hat["site_effect"].shape == found.r_hat["linear"].shape == (2,)
    assert found.worst_r_hat == max(np.max(v) for v in found.r_hat.values())
    assert found.least_effective_size == min(
        np.min(v) for v in found.effective_size.values()
    )
    assert (found.sampler, found.num_chains, found.num_draws) == ("gibbs", 4, 2000)
    assert found.num_divergent is None


def test_effective_size_of_an_autoregression():
    # x_t = r x_(t-1) + noise is worth (1 - r)/(1 + r) of its draws: a third for 1/2.
    noise = _independent(num_samples=4000)
    draws = np.zeros_like(noise)
    for t in range(1, noise.shape[1]):
        draws[:, t] = 0.5 * draws[:, t - 1] + noise[:, t]
    found = diagnose(_posterior(draws))
    assert found.effective_size["noise_sd"] == pytest.approx(16000 / 3, rel=0.1)


@pytest.mark.parametrize("shift", ["chain", "trend"])
def test_chains_that_disagree(shift):
    draws = _independent()
    if shift == "chain":
        draws[0] += 2.0
    else:
        draws += np.linspace(0.0, 4.0, 500)  # all alike: only halves tell
    found = diagnose(_posterior(draws))
    assert found.worst_r_hat == found.r_hat["noise_sd"] > 1.2
    assert found.effective_size["noise_sd"] < 50


def test_depends_on_ranks_alone():
    draws = _independent()
    plain, heavy = (
        diagnose(_posterior(values)) for values in (draws, np.exp(draws**3))
    )
    assert heavy.r_hat["noise_sd"] == plain.r_hat["noise_sd"]
    assert heavy.effective_size["noise_sd"] == plain.effective_size["noise_sd"]


def test_one_chain_has_a_size_and_no_r_hat():
    found = diagnose(_posterior(_independent(num_chains=1)))
    assert found.worst_r_hat is None
    assert np.isnan(found.r_hat["linear"]).all()
    assert found.least_effective_size == pytest.approx(500, rel=0.3)


def test_too_few_samples_have_neither():
    found = diagnose(_posterior(_independent(num_samples=3)))
    assert found.worst_r_hat is None
    assert found.least_effective_size is None


def test_alternating_chains_have_a_capped_size():
    draws = _independent(num_samples=100)
    draws[:, ::2] -= 10.0  # a negative autocorrelation: the plain estimate is negative
    found = diagnose(_posterior(draws))
    assert found.effective_size["noise_sd"] == 400 * np.log10(400)


def test_a_quantity_without_draws_that_differ_is_left_out():
    found = diagnose(_posterior(np.ones((4, 100)), num_divergent=3))
    assert np.isnan(found.r_hat["noise_sd"])
    assert np.isnan(found.effective_size["noise_sd"])
    assert found.worst_r_hat == pytest.approx(1.0, abs=0.05)
    assert found.num_divergent == 3


def test_is_frozen():
    found = diagnose(_posterior(_independent(num_samples=4)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.num_chains = 1  # pyright: ignore[reportAttributeAccessIssue]
