"""Whether the chains of a posterior agree, and how many draws they are worth."""

import dataclasses

import numpy as np
from numpyro.diagnostics import effective_sample_size, gelman_rubin
from scipy import stats

from codesign.search.surrogate import Posterior

_MIN_SAMPLES = 4  # of one chain: two in each half


@dataclasses.dataclass(frozen=True)
class Diagnostics:
    """Convergence of a posterior's chains.

    After Vehtari et al., "Rank-normalization, folding, and localization: an improved
    R-hat", Bayesian Analysis 2021: draws are replaced by the normal scores of their
    ranks, since the scales and the effects of sites that never varied have heavy tails,
    and each chain is split in halves. Both are NumPyro's functions of these.

    Attributes:
        sampler: As for `surrogate.sample_posterior`.
        num_chains: Number of chains.
        num_draws: Number of draws, over all chains.
        r_hat: Split R-hat of `noise_sd` and `intercept`, each `[]`, of `global_scale`
            `[2]`, and of `linear` and `site_effect`, each `[C]`. 1 where chains agree;
            NaN with one chain, with fewer than 4 samples a chain, or where no draw
            differs.
        effective_size: Effective sample size of the same; NaN where no draw differs or
            with fewer than 4 samples a chain.
        num_divergent: Number of divergent transitions after the warm-up, or None for a
            sampler that has none.
    """

    sampler: str
    num_chains: int
    num_draws: int
    r_hat: dict[str, np.ndarray]
    effective_size: dict[str, np.ndarray]
    num_divergent: int | None

    @property
    def worst_r_hat(self) -> float | None:
        """The largest R-hat, or None if there is none."""
        values = _numbers(self.r_hat)
        return float(values.max()) if values.size else None

    @property
    def least_effective_size(self) -> float | None:
        """The smallest effective sample size, or None if there is none."""
        values = _numbers(self.effective_size)
        return float(values.min()) if values.size else None


def diagnose(posterior: Posterior) -> Diagnostics:
    """R-hat and effective sample sizes of a posterior, by the name of the quantity."""
    r_hat, effective_size = {}, {}
    for name, draws in (
        ("noise_sd", posterior.noise_sd),
        ("global_scale", posterior.global_scale),
        ("intercept", posterior.intercept),
        ("linear", posterior.linear),
        ("site_effect", posterior.site_effect()),
    ):
        chains = draws.reshape(posterior.num_chains, -1, *draws.shape[1:])
        r_hat[name], effective_size[name] = _convergence(chains)
    return Diagnostics(
        sampler=posterior.sampler,
        num_chains=posterior.num_chains,
        num_draws=len(posterior.intercept),
        r_hat=r_hat,
        effective_size=effective_size,
        num_divergent=posterior.num_divergent,
    )


def _convergence(chains: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """R-hat and effective sample size of draws `[chains, samples, ...]`."""
    num_chains, num_samples = chains.shape[:2]
    nothing = np.full(chains.shape[2:], np.nan)
    if num_samples < _MIN_SAMPLES:
        return nothing, nothing
    flat = chains.reshape(num_chains * num_samples, -1)
    ranks = stats.rankdata(flat, axis=0)  # equal draws share their mean rank
    scores = stats.norm.ppf((ranks - 3 / 8) / (len(flat) + 1 / 4)).reshape(chains.shape)
    half = num_samples // 2
    halves = np.concatenate([scores[:, :half], scores[:, -half:]])
    with np.errstate(invalid="ignore", divide="ignore"):
        effective_size = effective_sample_size(halves)
    # Chains that alternate can have any size, of either sign; the cap is Stan's.
    most = len(flat) * np.log10(len(flat))
    absurd = (effective_size <= 0) | (effective_size > most)
    effective_size = np.where(absurd, most, effective_size)
    return gelman_rubin(halves) if num_chains > 1 else nothing, effective_size


def _numbers(values: dict[str, np.ndarray]) -> np.ndarray:
    flat = np.concatenate([np.ravel(value) for value in values.values()])
    return flat[~np.isnan(flat)]
