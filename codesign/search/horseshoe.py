"""The horseshoe prior on a linear model: its declaration and its Gibbs sampler."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.scipy.linalg import cho_solve, solve_triangular
from numpyro.infer.mcmc import MCMCKernel

from codesign.types import Array

# The noise prior is for a standardised y: its weight is that of two observations with a
# standard deviation of 1 %. Jeffreys' 1/noise_variance would make the posterior improper
# when a few coefficients fit noise-free observations exactly.
NOISE_SHAPE = 1  # assumed
NOISE_SCALE = 1e-4  # assumed
_MIN_SCALE, _MAX_SCALE = 1e-8, 1e8  # of one half-Cauchy scale
_MAX_PRIOR_SD = 1e5  # of a coefficient over the noise: I + F D F' stays factorisable


def horseshoe_model(features: Array, y: Array, observed_mask: Array) -> None:
    """Declares the horseshoe regression of Carvalho, Polson & Scott (2010) to NumPyro.

        y            ~ Normal(intercept + features @ coefficients, noise_variance)
        coefficients ~ Normal(0, noise_variance * global_scale^2 * local_scale^2)
        local_scale, global_scale ~ HalfCauchy(1),  intercept ~ flat on the real line
        noise_variance ~ InverseGamma(1, 1e-4)

    Args:
        features: `[N, P]`, each column with mean 0 over the observed rows.
        y: `[N]`, with mean 0 and standard deviation 1 over the observed rows.
        observed_mask: `[N]` bool; a row where it is False says nothing.
    """
    num_coefficients = features.shape[1]
    noise_variance = numpyro.sample(
        "noise_variance", dist.InverseGamma(NOISE_SHAPE, NOISE_SCALE)
    )
    global_scale = numpyro.sample("global_scale", dist.HalfCauchy(1.0))
    local_scale = numpyro.sample(
        "local_scale", dist.HalfCauchy(1.0).expand([num_coefficients]).to_event(1)
    )
    scale = jnp.sqrt(noise_variance) * global_scale * local_scale  # [P]
    coefficients = numpyro.sample("coefficients", dist.Normal(0.0, scale).to_event(1))
    intercept = numpyro.sample(
        "intercept", dist.ImproperUniform(dist.constraints.real, (), ())
    )
    mean = intercept + features @ coefficients  # [N]
    noise = dist.Normal(mean, jnp.sqrt(noise_variance)).mask(observed_mask)
    numpyro.sample("y", noise, obs=y)


class GibbsState(NamedTuple):
    """One chain's state; every leaf has a leading axis of chains where there are several.

    Attributes:
        z: The sites of `horseshoe_model`.
        local_auxiliary: `[P]`, and
        global_auxiliary: `[]`: the mixing variables of the half-Cauchys, squared.
        rng_key: `[]`.
    """

    z: dict[str, Array]
    local_auxiliary: Array
    global_auxiliary: Array
    rng_key: Array


class HorseshoeGibbs(MCMCKernel):
    """A blocked Gibbs kernel for `horseshoe_model`, run by NumPyro's `MCMC`.

    After Makalic & Schmidt, "A simple sampler for the horseshoe estimator", IEEE Signal
    Processing Letters 2016: a half-Cauchy scale s is, with an auxiliary variable a,

        s^2 | a ~ InverseGamma(1/2, 1/a),   a ~ InverseGamma(1/2, 1),                (1)

    which makes every conditional a standard one. Noise variance, coefficients and
    intercept are drawn as one block, the noise variance with the other two integrated
    out, so that they mix well also where P > N. The scales are clipped to [1e-8, 1e8]
    and a coefficient's prior standard deviation to 1e5 of the noise's.

    Rows that are not observed must hold zeros in `features` and `y`; they change no
    draw, since their random numbers come last and meet only zeros.
    """

    @property
    def sample_field(self) -> str:
        return "z"

    def init(
        self,
        rng_key: Array,
        num_warmup: int,
        init_params: Any,
        model_args: tuple[Any, ...],
        model_kwargs: dict[str, Any],
    ) -> GibbsState:
        """All scales start at 1 and all coefficients at 0, in every chain."""
        features, _, _ = model_args
        num_coefficients = features.shape[1]
        ones = jnp.ones((num_coefficients,), features.dtype)
        one = jnp.ones((), features.dtype)
        z = {
            "coefficients": 0 * ones,
            "global_scale": one,
            "intercept": 0 * one,
            "local_scale": ones,
            "noise_variance": one,
        }
        state = GibbsState(z, ones, one, rng_key)
        if not _is_batched(rng_key):
            return state
        num_chains = rng_key.shape[0]
        repeated = jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (num_chains, *leaf.shape)),
            state._replace(rng_key=one),
        )
        return repeated._replace(rng_key=rng_key)

    def sample(
        self,
        state: GibbsState,
        model_args: tuple[Any, ...],
        model_kwargs: dict[str, Any],
    ) -> GibbsState:
        """One sweep over all blocks, of every chain."""
        if _is_batched(state.rng_key):
            return jax.vmap(lambda one: _sweep(one, *model_args))(state)
        return _sweep(state, *model_args)


def local_variance_scale(
    coefficients: Array, noise_variance: Array, global_scale: Array, auxiliary: Array
) -> Array:
    """The c `[P]` of local_scale^2 | rest ~ InverseGamma(1, c)."""
    return 1 / auxiliary + coefficients**2 / (2 * noise_variance * global_scale**2)


def global_variance_scale(
    coefficients: Array, noise_variance: Array, local_scale: Array, auxiliary: Array
) -> Array:
    """The c `[]` of global_scale^2 | rest ~ InverseGamma((P + 1) / 2, c)."""
    ratio = jnp.sum((coefficients / local_scale) ** 2)
    return 1 / auxiliary + ratio / (2 * noise_variance)


def auxiliary_scale(scale: Array) -> Array:
    """The c of auxiliary | scale ~ InverseGamma(1, c), for local and global scales."""
    return 1 + 1 / scale**2


def prior_sd(global_scale: Array, local_scale: Array) -> Array:
    """A coefficient's prior standard deviation over that of the noise, `[P]`."""
    return jnp.minimum(global_scale * local_scale, _MAX_PRIOR_SD)


def _sweep(
    state: GibbsState, features: Array, y: Array, observed_mask: Array
) -> GibbsState:
    rng_key, *keys = jax.random.split(state.rng_key, 4)
    sd = prior_sd(state.z["global_scale"], state.z["local_scale"])
    noise_variance, coefficients, intercept = draw_coefficients(
        keys[0], features, y, observed_mask, sd
    )
    # InverseGamma(1, c) is c / Exponential(1).
    draws = jax.random.exponential(keys[1], (2 * sd.size + 1,), sd.dtype)
    for_scale, for_auxiliary, for_global = jnp.split(draws, [sd.size, 2 * sd.size])
    variance = (
        local_variance_scale(
            coefficients, noise_variance, state.z["global_scale"], state.local_auxiliary
        )
        / for_scale
    )
    local_scale = _clipped_sqrt(variance)
    scale = global_variance_scale(
        coefficients, noise_variance, local_scale, state.global_auxiliary
    )
    num_normals = jnp.asarray(sd.size + 1)
    global_scale = _clipped_sqrt(scale / _gamma(keys[2], num_normals, sd.size + 1, sd))
    z = {
        "coefficients": coefficients,
        "global_scale": global_scale,
        "intercept": intercept,
        "local_scale": local_scale,
        "noise_variance": noise_variance,
    }
    local_auxiliary = auxiliary_scale(local_scale) / for_auxiliary
    global_auxiliary = auxiliary_scale(global_scale) / for_global[0]
    return GibbsState(z, local_auxiliary, global_auxiliary, rng_key)


def draw_coefficients(
    rng_key: Array, features: Array, y: Array, observed_mask: Array, sd: Array
) -> tuple[Array, Array, Array]:
    """Draws noise variance, coefficients and intercept given the scales, as one block.

    With F the features, D = diag(sd^2) and n the number of observations,

        noise_variance ~ InverseGamma(1 + (n - 1)/2, 1e-4 + y'(I + F D F')^-1 y / 2) (2)
        coefficients   ~ Normal((F'F + D^-1)^-1 F'y, noise_variance (F'F + D^-1)^-1) (3)
        intercept      ~ Normal(0, noise_variance / n)                               (4)

    For P > N, (3) is drawn in O(N^2 P) after Bhattacharya, Chakraborty & Mallick, "Fast
    sampling with Gaussian scale mixture priors", Biometrika 2016; otherwise from the
    Cholesky factor of the precision, after Rue (2001), scaled by D^1/2.

    Args:
        rng_key: `[]`.
        features, y, observed_mask: As for `horseshoe_model`; zeros where not observed.
        sd: `[P]`, prior standard deviation of a coefficient over that of the noise.

    Returns:
        `[]`, `[P]` and `[]`.
    """
    key_noise, key_prior, key_data, key_intercept = jax.random.split(rng_key, 4)
    num_rows, num_coefficients = features.shape
    num_observed = jnp.sum(observed_mask)
    scaled = features * sd[None, :]  # F D^1/2
    wide = num_coefficients > num_rows
    gram, target = (scaled @ scaled.T, y) if wide else (scaled.T @ scaled, scaled.T @ y)
    factor = jnp.linalg.cholesky(jnp.eye(len(gram), dtype=y.dtype) + gram)
    whitened = solve_triangular(factor, target, lower=True)
    explained = whitened @ whitened
    misfit = explained if wide else jnp.maximum(y @ y - explained, 0.0)
    num_normals = 2 * NOISE_SHAPE + num_observed - 1
    gamma = _gamma(key_noise, num_normals, 2 * NOISE_SHAPE + num_rows - 1, y)
    noise_variance = (NOISE_SCALE + misfit / 2) / gamma
    noise_sd = jnp.sqrt(noise_variance)
    prior_draw = jax.random.normal(key_prior, (num_coefficients,), y.dtype)
    if wide:
        data_draw = jax.random.normal(key_data, (num_rows,), y.dtype)
        residual = y / noise_sd - scaled @ prior_draw - data_draw
        weights = cho_solve((factor, True), residual)
        coefficients = prior_draw + scaled.T @ weights
    else:
        coefficients = solve_triangular(
            factor, whitened / noise_sd + prior_draw, lower=True, trans=1
        )
    intercept = jax.random.normal(key_intercept, (), y.dtype) / jnp.sqrt(num_observed)
    return noise_variance, noise_sd * sd * coefficients, noise_sd * intercept


def _gamma(rng_key: Array, num_normals: Array, most: int, like: Array) -> Array:
    """Gamma(num_normals / 2, 1) as half a chi-square, from the first of `most` normals.

    Exact like a rejection sampler, and it compiles in half the time; `num_normals` may
    be traced, and the draw does not depend on `most`.
    """
    squares = jax.random.normal(rng_key, (most,), like.dtype) ** 2
    return jnp.sum(jnp.where(jnp.arange(most) < num_normals, squares, 0.0)) / 2


def _clipped_sqrt(variance: Array) -> Array:
    return jnp.clip(jnp.sqrt(variance), _MIN_SCALE, _MAX_SCALE)


def _is_batched(rng_key: Array) -> bool:
    return rng_key.ndim > 0  # of typed keys
