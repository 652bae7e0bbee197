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
_MIN_SCALE, _MAX_GLOBAL_SCALE = 1e-8, 1e4  # of one half-Cauchy scale
_MAX_PRIOR_SD = 1e5  # of a coefficient over the noise: I + F D F' stays factorisable
_STEP = 0.8  # of the Metropolis walk on log(global_scale); a third is accepted
_TINY = 1e-300  # least uniform number: its logarithm is finite


Features = tuple[Array, ...]  # one array [N, P_g] a group; P is the sum of P_g


def horseshoe_model(features: Features, y: Array, observed_mask: Array) -> None:
    """Declares a grouped horseshoe regression to NumPyro.

        y            ~ Normal(intercept + features @ coefficients, noise_variance)
        coefficients ~ Normal(0, noise_variance * global_scale_g^2 * local_scale^2)
        local_scale, global_scale_g ~ HalfCauchy(1),  intercept ~ flat on the real line
        noise_variance ~ InverseGamma(1, 1e-4)

    With one group it is the horseshoe of Carvalho, Polson & Scott (2010). Main effects
    and pairs are groups of their own in the surrogate, since pairs are far sparser.

    Args:
        features: `[N, P_g]` for each of G groups, each column with mean 0 over the
            observed rows.
        y: `[N]`, with mean 0 and standard deviation 1 over the observed rows.
        observed_mask: `[N]` bool; a row where it is False says nothing.
    """
    sizes = group_sizes(features)
    noise_variance = numpyro.sample(
        "noise_variance", dist.InverseGamma(NOISE_SHAPE, NOISE_SCALE)
    )
    global_scale = numpyro.sample(
        "global_scale", dist.HalfCauchy(1.0).expand([len(sizes)]).to_event(1)
    )
    local_scale = numpyro.sample(
        "local_scale", dist.HalfCauchy(1.0).expand([sum(sizes)]).to_event(1)
    )
    scale = by_coefficient(jnp.asarray(global_scale), sizes) * local_scale  # [P]
    scale = jnp.sqrt(noise_variance) * scale
    coefficients = numpyro.sample("coefficients", dist.Normal(0.0, scale).to_event(1))
    intercept = numpyro.sample(
        "intercept", dist.ImproperUniform(dist.constraints.real, (), ())
    )
    mean = intercept + jnp.concatenate(features, axis=1) @ coefficients  # [N]
    noise = dist.Normal(mean, jnp.sqrt(noise_variance)).mask(observed_mask)
    numpyro.sample("y", noise, obs=y)


def group_sizes(features: Features) -> tuple[int, ...]:
    """P_g of each group."""
    return tuple(group.shape[1] for group in features)


def by_coefficient(of_groups: Array, sizes: tuple[int, ...]) -> Array:
    """`[..., G]` to `[..., P]`: each group's number at each of its coefficients."""
    shape = of_groups.shape[:-1]
    parts = [
        jnp.broadcast_to(of_groups[..., g, None], (*shape, size))
        for g, size in enumerate(sizes)
    ]
    return jnp.concatenate(parts, axis=-1)


class GibbsState(NamedTuple):
    """One chain's state; every leaf has a leading axis of chains where there are several.

    Attributes:
        z: The sites of `horseshoe_model`.
        auxiliary: `[P]`, the mixing variables of the local half-Cauchys, squared.
        rng_key: `[]`.
    """

    z: dict[str, Array]
    auxiliary: Array
    rng_key: Array


class HorseshoeGibbs(MCMCKernel):
    """A blocked Gibbs kernel for `horseshoe_model`, run by NumPyro's `MCMC`.

    Local scales after Makalic & Schmidt, "A simple sampler for the horseshoe estimator",
    IEEE Signal Processing Letters 2016: a half-Cauchy scale s is, with an auxiliary
    variable a,

        s^2 | a ~ InverseGamma(1/2, 1/a),   a ~ InverseGamma(1/2, 1),                (1)

    which makes its conditionals standard ones. The global scales, noise variance,
    coefficients and intercept are drawn as one block given the local scales: one of the
    first, at random, by a Metropolis step on its logarithm with the other three
    integrated out, as in Johndrow, Orenstein & Bhattacharya, "Scalable approximate MCMC
    algorithms for the horseshoe prior", JMLR 2020; then the rest exactly. Given the
    coefficients instead, a global scale moves by about 1/sqrt(P) a sweep and takes a
    thousand to arrive.

    Local scales are clipped to [1e-8, 1e5 / global scale], so that matrices stay
    factorisable. Rows that are not observed must be the last ones and hold zeros in
    `features` and `y`; they change no draw, since their random numbers come last and
    meet only zeros. In place of the mask the number of observations `[]` may stand, for
    rows that are fewer and have the same F'F, F'y and y'y.
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
        sizes, dtype = group_sizes(features), features[0].dtype
        ones = jnp.ones((sum(sizes),), dtype)
        one = jnp.ones((), dtype)
        z = {
            "coefficients": 0 * ones,
            "global_scale": jnp.ones((len(sizes),), dtype),
            "intercept": 0 * one,
            "local_scale": ones,
            "noise_variance": one,
        }
        state = GibbsState(z, ones, rng_key)
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
    """The c `[P]` of local_scale^2 | rest ~ InverseGamma(1, c); global_scale `[P]`."""
    return 1 / auxiliary + coefficients**2 / (2 * noise_variance * global_scale**2)


def auxiliary_scale(local_scale: Array) -> Array:
    """The c `[P]` of auxiliary | local_scale ~ InverseGamma(1, c)."""
    return 1 + 1 / local_scale**2


def prior_sd(global_scale: Array, local_scale: Array, sizes: tuple[int, ...]) -> Array:
    """A coefficient's prior standard deviation over that of the noise, `[..., P]`.

    Args:
        global_scale: `[..., G]`.
        local_scale: `[..., P]`.
        sizes: P_g of each group.
    """
    return jnp.minimum(by_coefficient(global_scale, sizes) * local_scale, _MAX_PRIOR_SD)


class LinearSystem(NamedTuple):
    """The regression at one set of scales, factorised.

    With F the features, D = diag(sd^2) and S = F D^1/2 the scaled features, of the
    matrices I + S S' (N x N) and I + S'S (P x P) the smaller one.

    Attributes:
        factor: Its lower Cholesky factor.
        whitened: factor^-1 y, or factor^-1 S'y.
        misfit: y'(I + F D F')^-1 y, `[]`.
    """

    factor: Array
    whitened: Array
    misfit: Array

    def log_marginal_likelihood(self, num_observed: Array) -> Array:
        """The log density of y given the scales, up to a constant that n sets, `[]`.

        With n observations and the noise prior InverseGamma(a, b),

            log p = -log|I + F D F'| / 2
                    - (a + (n - 1)/2) log(b + y'(I + F D F')^-1 y / 2)               (2)

        a multivariate t with 2a degrees of freedom on the n - 1 contrasts of y that the
        flat intercept leaves.
        """
        half_log_det = jnp.sum(jnp.log(jnp.diagonal(self.factor)))
        shape = NOISE_SHAPE + (num_observed - 1) / 2
        return -half_log_det - shape * jnp.log(NOISE_SCALE + self.misfit / 2)


def linear_system(features: Features, y: Array, sd: Array) -> LinearSystem:
    """Factorises the regression for coefficients of prior standard deviation `sd` `[P]`.

    Args:
        features, y: As for `horseshoe_model`; zeros where not observed.
        sd: Over the noise's standard deviation.
    """
    scaled = jnp.concatenate(features, axis=1) * sd[None, :]
    if _is_wide(scaled):
        return _factorised(scaled @ scaled.T, y, y, wide=True)
    return _factorised(scaled.T @ scaled, scaled.T @ y, y, wide=False)


def draw_coefficients(
    rng_key: Array, features: Features, y: Array, observed_mask: Array, sd: Array
) -> tuple[Array, Array, Array]:
    """Draws noise variance, coefficients and intercept given the scales, as one block.

    With F the features, D = diag(sd^2) and n the number of observations,

        noise_variance ~ InverseGamma(1 + (n - 1)/2, 1e-4 + y'(I + F D F')^-1 y / 2) (3)
        coefficients   ~ Normal((F'F + D^-1)^-1 F'y, noise_variance (F'F + D^-1)^-1) (4)
        intercept      ~ Normal(0, noise_variance / n)                               (5)

    For P > N, (4) is drawn in O(N^2 P) after Bhattacharya, Chakraborty & Mallick, "Fast
    sampling with Gaussian scale mixture priors", Biometrika 2016; otherwise from the
    Cholesky factor of the precision, after Rue (2001), scaled by D^1/2.

    Args:
        rng_key: `[]`.
        features, y, observed_mask: As for `horseshoe_model`; zeros where not observed,
            in the last rows.
        sd: `[P]`, prior standard deviation of a coefficient over that of the noise.

    Returns:
        `[]`, `[P]` and `[]`.
    """
    system = linear_system(features, y, sd)
    together = jnp.concatenate(features, axis=1)
    normals = jax.random.normal(rng_key, (_num_normals(together),), y.dtype)
    num_observed = jnp.sum(observed_mask)
    noise_variance, whitened, intercept = _draw_block(
        normals, system, together, sd, y, num_observed
    )
    return noise_variance, jnp.sqrt(noise_variance) * sd * whitened, intercept


def _sweep(
    state: GibbsState, features: Features, y: Array, observed_mask: Array
) -> GibbsState:
    # Few random calls a sweep: each costs as much as all of the algebra at C = 8.
    rng_key, key_normal, key_uniform = jax.random.split(state.rng_key, 3)
    sizes = group_sizes(features)
    together = jnp.concatenate(features, axis=1)  # hoisted out of the loop of sweeps
    num_coefficients = sum(sizes)
    normals = jax.random.normal(key_normal, (_num_normals(together) + 1,), y.dtype)
    uniforms = jax.random.uniform(
        key_uniform, (2 * num_coefficients + 2,), y.dtype, minval=_TINY
    )
    num_observed = jnp.sum(observed_mask)
    local_scale = state.z["local_scale"]
    scaled = together * local_scale[None, :]
    if _is_wide(scaled):
        splits = [sum(sizes[: g + 1]) for g in range(len(sizes) - 1)]
        grams = [group @ group.T for group in jnp.split(scaled, splits, axis=1)]

        def system_at(scale: Array) -> LinearSystem:
            parts = [s**2 * gram for s, gram in zip(scale, grams, strict=True)]
            return _factorised(jnp.asarray(sum(parts)), y, y, wide=True)

    else:
        gram, target = scaled.T @ scaled, scaled.T @ y

        def system_at(scale: Array) -> LinearSystem:
            each = by_coefficient(scale, sizes)
            total = each[:, None] * gram * each[None, :]
            return _factorised(total, each * target, y, wide=False)

    def at(log_scale: Array) -> tuple[LinearSystem, Array]:
        """The system, and the log density of log(global scales) given local scales."""
        scale = jnp.exp(log_scale)  # [G]
        system = system_at(scale)
        prior = jnp.sum(log_scale - jnp.log1p(scale**2))
        return system, system.log_marginal_likelihood(num_observed) + prior

    current = jnp.log(state.z["global_scale"])
    moved = jnp.arange(len(sizes)) == jnp.floor(uniforms[1] * len(sizes))
    proposed = current + _STEP * normals[0] * moved
    proposed = jnp.clip(proposed, jnp.log(_MIN_SCALE), jnp.log(_MAX_GLOBAL_SCALE))
    (old, old_density), (new, new_density) = at(current), at(proposed)
    accepted = jnp.log(uniforms[0]) < new_density - old_density
    system = jax.tree.map(lambda a, b: jnp.where(accepted, a, b), new, old)
    global_scale = jnp.exp(jnp.where(accepted, proposed, current))  # [G]

    each = by_coefficient(global_scale, sizes)  # [P]
    squares = None
    if observed_mask.ndim == 0:  # there is no row, and no normal, for each observation
        key_gamma = jax.random.fold_in(key_normal, 1)
        squares = 2 * jax.random.gamma(key_gamma, (num_observed - 1) / 2, dtype=y.dtype)
    noise_variance, whitened, intercept = _draw_block(
        normals[1:], system, scaled, each, y, num_observed, squares
    )
    coefficients = jnp.sqrt(noise_variance) * each * local_scale * whitened
    # InverseGamma(1, c) is c / Exponential(1).
    for_scale, for_auxiliary = jnp.split(-jnp.log(uniforms[2:]), 2)
    variance = (
        local_variance_scale(coefficients, noise_variance, each, state.auxiliary)
        / for_scale
    )
    local_scale = jnp.clip(jnp.sqrt(variance), _MIN_SCALE, _MAX_PRIOR_SD / each)
    z = {
        "coefficients": coefficients,
        "global_scale": global_scale,
        "intercept": intercept,
        "local_scale": local_scale,
        "noise_variance": noise_variance,
    }
    return GibbsState(z, auxiliary_scale(local_scale) / for_auxiliary, rng_key)


def _is_wide(features: Array) -> bool:
    return features.shape[1] > features.shape[0]


def _factorised(gram: Array, target: Array, y: Array, *, wide: bool) -> LinearSystem:
    factor = jnp.linalg.cholesky(jnp.eye(len(gram), dtype=y.dtype) + gram)
    whitened = solve_triangular(factor, target, lower=True)
    explained = whitened @ whitened
    misfit = explained if wide else jnp.maximum(y @ y - explained, 0.0)
    return LinearSystem(factor, whitened, misfit)


def _num_normals(features: Array) -> int:
    return features.shape[1] + 1 + 2 * NOISE_SHAPE + 2 * features.shape[0]


def _draw_block(
    normals: Array,
    system: LinearSystem,
    features: Array,
    sd: Array,
    y: Array,
    num_observed: Array,
    row_squares: Array | None = None,
) -> tuple[Array, Array, Array]:
    """Noise variance, coefficients over their prior's standard deviation, intercept.

    `normals` are `[_num_normals]`; those of padding rows come last. `system` is that of
    `features` `[N, P]`, multiplied by `sd` `[P]`. `row_squares` `[]`, a chi square of
    `num_observed` - 1, is None where `normals` have one for each observation.
    """
    num_rows, num_coefficients = features.shape
    fixed = num_coefficients + 1 + 2 * NOISE_SHAPE
    prior_draw = normals[:num_coefficients]
    by_row = normals[fixed:].reshape(num_rows, 2)
    # A gamma variate of half-integer shape, from as many normals as it has halves.
    shape_draws = normals[num_coefficients + 1 : fixed]
    if row_squares is None:
        counted = jnp.arange(num_rows) < num_observed - 1
        row_squares = jnp.sum(jnp.where(counted, by_row[:, 0] ** 2, 0.0))
    squares = jnp.sum(shape_draws**2) + row_squares
    noise_variance = (NOISE_SCALE + system.misfit / 2) / (squares / 2)
    noise_sd = jnp.sqrt(noise_variance)
    if _is_wide(features):
        residual = y / noise_sd - features @ (sd * prior_draw) - by_row[:, 1]
        weights = cho_solve((system.factor, True), residual)
        whitened = prior_draw + sd * (features.T @ weights)
    else:
        whitened = solve_triangular(
            system.factor,
            system.whitened / noise_sd + prior_draw,
            lower=True,
            trans=1,
        )
    intercept = noise_sd * normals[num_coefficients] / jnp.sqrt(num_observed)
    return noise_variance, whitened, intercept


def _is_batched(rng_key: Array) -> bool:
    return rng_key.ndim > 0  # of typed keys
