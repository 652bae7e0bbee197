"""The surrogate: a sparse second-order Bayesian model of the objective."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike
from numpyro.infer import MCMC

from codesign.search import cpu, horseshoe, nuts
from codesign.search import features as features_lib
from codesign.types import Array

MOST_ROWS = 512  # that a sweep of "gibbs" goes over, where fewer say the same
_MIN_ROWS = 32  # the smallest bucket of observations
_CONSTANT_RATIO = 1e-12  # a smaller spread of y over its size is rounding


@dataclasses.dataclass(frozen=True)
class Posterior:
    """Draws of f(x) = intercept + linear'x + x' pairwise x, in the units of y.

    The draws of a chain are adjacent: `reshape(num_chains, -1, ...)` groups them.

    Attributes:
        intercept: `[S]`.
        linear: `[S, C]`.
        pairwise: `[S, C, C]`, upper triangular with a zero diagonal.
        noise_sd: `[S]`, standard deviation of an observation around f.
        global_scale: `[S, 2]`, scale of the linear and of the pairwise coefficients over
            the noise's; no unit.
        linear_inclusion: `[C]`, and
        pairwise_inclusion: `[C, C]`, upper triangular: mean of 1 - kappa, where

                kappa_j = 1 / (1 + sum_n phi_nj^2 * sd_j^2)

            is the share of coefficient j that the prior takes away (phi: the centred
            features, sd_j: the coefficient's prior standard deviation over the noise's).
            Carvalho, Polson & Scott (2010) read it as an inclusion probability and call
            a coefficient a signal above 1/2. It is 0 where the feature never varied.
        y_sd: Standard deviation of the observations.
        num_chains: Number of chains.
        sampler: What drew it, as for `sample_posterior`.
        num_divergent: Number of divergent transitions after the warm-up; None for
            "gibbs", which has none.
    """

    intercept: np.ndarray
    linear: np.ndarray
    pairwise: np.ndarray
    noise_sd: np.ndarray
    global_scale: np.ndarray
    linear_inclusion: np.ndarray
    pairwise_inclusion: np.ndarray
    y_sd: float
    num_chains: int
    sampler: str
    num_divergent: int | None

    def site_effect(self) -> np.ndarray:
        """Root mean square of f(x_i = 1) - f(x_i = 0) over uniform x, `[S, C]`."""
        pairs = self.pairwise + np.swapaxes(self.pairwise, -1, -2)  # [S, C, C]
        mean = self.linear + pairs.sum(axis=-1) / 2
        variance = (pairs**2).sum(axis=-1) / 4
        return np.sqrt(mean**2 + variance)

    def site_inclusion(self, threshold: float | None = None) -> np.ndarray:
        """Probability that a site matters: P(site effect > threshold), `[C]`.

        A site that never varied has the probability that the prior gives it.

        Args:
            threshold: In the units of y. If None, a tenth of the observations' standard
                deviation; where that is 0, no site matters.
        """
        if threshold is None:
            threshold = 0.1 * self.y_sd if self.y_sd > 0 else np.inf
        return np.mean(self.site_effect() > threshold, axis=0)


def sample_posterior(
    key: Array,
    x: ArrayLike,
    y: ArrayLike,
    *,
    num_chains: int = 1,
    num_warmup: int = 200,
    num_samples: int = 200,
    sampler: str = "gibbs",
) -> Posterior:
    """Draws from the posterior of the second-order horseshoe model.

    The features are centred and y is standardised; a y that does not vary is centred
    only. Everything runs in float64 on the CPU, in one compiled program per C, number of
    chains and sweeps, and bucket of observations (32, 64, 128, ...), padded with rows
    that change no draw. Beyond 512 observations of fewer than 512 features, "gibbs" works
    on P + 1 rows of the same second moments, [R, z] of [features, y] = Q [R, z], which is
    the same model: a draw takes the same time whatever N.

    Args:
        key: `[]` typed random key, or one for each chain, `[num_chains]`.
        x: `[N, C]` of 0 and 1; a point may be there more than once.
        y: `[N]` observations.
        num_chains, num_warmup, num_samples: As for NumPyro's `MCMC`; draws of the
            warm-up are dropped.
        sampler: "gibbs" (`HorseshoeGibbs`), or "nuts" (`nuts.scales_model`), which takes
            longer to compile and to run and is there to check the first.

    Returns:
        `num_chains * num_samples` draws.

    Raises:
        ValueError: If there are no observations, shapes disagree, x is not binary, y is
            not finite, a count is not positive or the sampler is unknown.
    """
    counts = {
        "num_chains": num_chains,
        "num_warmup": num_warmup,
        "num_samples": num_samples,
    }
    x, y = _checked_data(x, y)
    _check_settings(key, sampler, counts)
    scaled = _scale(x, y)
    is_long = len(x) > MOST_ROWS > scaled.phi.shape[1] and sampler == "gibbs"
    data = _compressed(scaled) if is_long else _padded(scaled)
    draws = _draw(key, data, sampler, counts)
    return _in_units_of_y(draws, scaled, num_chains=num_chains, sampler=sampler)


def bucket(num_observations: int) -> int:
    """Rows that so many observations are padded to: a power of two, at least 32."""
    return max(_MIN_ROWS, 1 << (num_observations - 1).bit_length())


def _checked_data(x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(x), np.asarray(y, np.float64)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(
            f"`x` must be [N, C] with at least one observation, got shape {x.shape}."
        )
    if y.shape != x.shape[:1]:
        raise ValueError(
            f"`y` must be [N] with N = {len(x)}, the rows of `x`, got shape {y.shape}."
        )
    if not np.all((x == 0) | (x == 1)):
        raise ValueError("`x` must hold only 0 and 1; round the points first.")
    if not np.all(np.isfinite(y)):
        raise ValueError(
            f"`y` must be finite, got {y[~np.isfinite(y)][0]}; leave failed "
            "evaluations out."
        )
    return x, y


def _check_settings(key: Array, sampler: str, counts: dict[str, int]) -> None:
    if sampler not in _SAMPLERS:
        raise ValueError(
            f"`sampler` must be one of {sorted(_SAMPLERS)}, got {sampler!r}."
        )
    for name, count in counts.items():
        least = 0 if name == "num_warmup" else 1
        if count < least:
            raise ValueError(f"`{name}` must be at least {least}, got {count}.")
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        raise ValueError(
            f"`key` must be a typed random key, got an array of {key.dtype}; make it "
            "with `jax.random.key(seed)`."
        )
    if key.shape not in ((), (counts["num_chains"],)):
        raise ValueError(
            f"`key` must be one key or one for each of {counts['num_chains']} chains, "
            f"got shape {key.shape}."
        )


_Data = tuple[tuple[np.ndarray, ...], np.ndarray, np.ndarray]  # as the samplers take it


@dataclasses.dataclass(frozen=True)
class _Scaled:
    """Observations as a sampler takes them, and what leads back to the units of y."""

    phi: np.ndarray  # [N, P] features less their means
    phi_mean: np.ndarray  # [P]
    y: np.ndarray  # [N] standardised, or centred only where it does not vary
    y_mean: float
    y_sd: float  # 0 where y does not vary
    num_variables: int  # C, of the P features those of single sites


def _scale(x: np.ndarray, y: np.ndarray) -> _Scaled:
    """Centres the features and standardises y."""
    phi = features_lib.second_order_features(x)  # [N, P]
    phi_mean = phi.mean(axis=0)
    y_mean, y_sd, standardised = _standardise(y)
    return _Scaled(phi - phi_mean, phi_mean, standardised, y_mean, y_sd, x.shape[1])


def _standardise(y: np.ndarray) -> tuple[float, float, np.ndarray]:
    """Mean, standard deviation (0 if y does not vary) and standardised y."""
    size = np.max(np.abs(y))
    if size == 0:
        return 0.0, 0.0, y
    ratio = y / size  # so that no square overflows
    mean, sd = ratio.mean(), ratio.std()
    if sd <= _CONSTANT_RATIO:
        return float(size * mean), 0.0, np.zeros_like(y)
    return float(size * mean), float(size * sd), (ratio - mean) / sd


def _padded(scaled: _Scaled) -> _Data:
    """Features by order, y and which rows were observed; a whole bucket of rows."""
    num_rows, num_added = len(scaled.y), bucket(len(scaled.y)) - len(scaled.y)
    phi = np.pad(scaled.phi, ((0, num_added), (0, 0)))
    by_order = tuple(np.split(phi, [scaled.num_variables], axis=1))
    observed = np.arange(num_rows + num_added) < num_rows
    return by_order, np.pad(scaled.y, (0, num_added)), observed


def _compressed(scaled: _Scaled) -> _Data:
    """P + 1 rows with the same second moments, padded, and the number observed."""
    together = np.column_stack([scaled.phi, scaled.y])
    rows = np.asarray(np.linalg.qr(together, mode="r"))  # [P + 1, P + 1]
    few = dataclasses.replace(scaled, phi=rows[:, :-1], y=rows[:, -1])
    by_order, y, _ = _padded(few)
    return by_order, y, np.asarray(len(scaled.y))


def _draw(
    key: Array,
    data: _Data,
    sampler: str,
    counts: dict[str, int],
) -> dict[str, np.ndarray]:
    """Runs the sampler; coefficients and scales are of the standardised y."""
    sizes = tuple(phi.shape[1] for phi in data[0])
    with cpu.float64_on_cpu() as device:
        key = jax.device_put(key, device)
        if counts["num_chains"] == 1:
            key = key.reshape(())
        elif key.ndim == 0:
            key = jax.random.split(key, counts["num_chains"])
        draws = _SAMPLERS[sampler](key, *data, **counts)
        draws["prior_sd"] = horseshoe.prior_sd(
            draws["global_scale"], draws["local_scale"], sizes
        )
        return jax.tree.map(np.asarray, draws)


def _in_units_of_y(
    draws: dict[str, np.ndarray], scaled: _Scaled, *, num_chains: int, sampler: str
) -> Posterior:
    """Undoes the scaling, and reads off what the prior left of each coefficient."""
    num_divergent = draws.get("num_divergent")
    scale = scaled.y_sd if scaled.y_sd > 0 else 1.0
    coefficients = scale * draws["coefficients"]  # [S, P]
    linear, pairwise = features_lib.split_coefficients(
        coefficients, scaled.num_variables
    )
    spread = np.sum(scaled.phi**2, axis=0)  # [P]
    kept = 1 - 1 / (1 + spread * draws["prior_sd"] ** 2)  # [S, P]
    linear_inclusion, pairwise_inclusion = features_lib.split_coefficients(
        kept.mean(axis=0), scaled.num_variables
    )
    centre = scaled.y_mean + scale * draws["intercept"]
    return Posterior(
        intercept=centre - coefficients @ scaled.phi_mean,
        linear=linear,
        pairwise=pairwise,
        noise_sd=scale * np.sqrt(draws["noise_variance"]),
        global_scale=draws["global_scale"],
        linear_inclusion=linear_inclusion,
        pairwise_inclusion=pairwise_inclusion,
        y_sd=scaled.y_sd,
        num_chains=num_chains,
        sampler=sampler,
        num_divergent=None if num_divergent is None else int(num_divergent),
    )


@functools.partial(jax.jit, static_argnames=("num_chains", "num_warmup", "num_samples"))
def _sample_gibbs(
    key: Array,
    phi: horseshoe.Features,
    y: Array,
    observed: Array,
    *,
    num_chains: int,
    num_warmup: int,
    num_samples: int,
) -> dict[str, Array]:
    # One program: a warm `MCMC.run` outside of jit compiles anew on every call.
    mcmc = MCMC(
        horseshoe.HorseshoeGibbs(),
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=num_chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(key, phi, y, observed)
    return mcmc.get_samples()


_SAMPLERS: dict[str, Callable[..., dict[str, Array]]] = {
    "gibbs": _sample_gibbs,
    "nuts": nuts.sample,
}
