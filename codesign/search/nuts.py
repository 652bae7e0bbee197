"""The audit sampler: NUTS on the horseshoe's scales, with all else integrated out."""

import functools

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS

from codesign.search import horseshoe
from codesign.search.horseshoe import Features
from codesign.types import Array

_TARGET_ACCEPT_RATE = 0.9


def scales_model(features: Features, y: Array, observed_mask: Array) -> None:
    """Declares the scales of `horseshoe.horseshoe_model` to NumPyro, and nothing else.

    Coefficients, intercept and noise variance are integrated out, after NumPyro's
    sparse-regression example (Agrawal et al., "The kernel interaction trick", ICML 2019,
    integrate the coefficients out), so that the funnels of the horseshoe are gone. NUTS
    samples the logarithms of the scales, whose prior is 1/(pi cosh u).

    Args:
        features, y, observed_mask: As for `horseshoe_model`; zeros where not observed.
    """
    sizes = horseshoe.group_sizes(features)
    global_scale = numpyro.sample(
        "global_scale", dist.HalfCauchy(1.0).expand([len(sizes)]).to_event(1)
    )
    local_scale = numpyro.sample(
        "local_scale", dist.HalfCauchy(1.0).expand([sum(sizes)]).to_event(1)
    )
    sd = horseshoe.prior_sd(jnp.asarray(global_scale), jnp.asarray(local_scale), sizes)
    system = horseshoe.linear_system(features, y, sd)
    numpyro.factor("y", system.log_marginal_likelihood(jnp.sum(observed_mask)))


@functools.partial(jax.jit, static_argnames=("num_chains", "num_warmup", "num_samples"))
def sample(
    key: Array,
    features: Features,
    y: Array,
    observed_mask: Array,
    *,
    num_chains: int,
    num_warmup: int,
    num_samples: int,
) -> dict[str, Array]:
    """Draws of the sites of `horseshoe_model`: scales by NUTS, the others given them.

    Args:
        key: `[]`, or one for each chain, `[num_chains]`; `[]` if there is one chain.
        features, y, observed_mask: As for `horseshoe_model`; zeros where not observed.
        num_chains, num_warmup, num_samples: As for NumPyro's `MCMC`.

    Returns:
        Every site with `num_chains * num_samples` draws, those of a chain adjacent, and
        `num_divergent`, `[]`.
    """
    # One program: a warm `MCMC.run` outside of jit compiles anew on every call.
    if key.ndim == 0 and num_chains > 1:
        key = jax.random.split(key, num_chains)
    pairs = jax.vmap(jax.random.split)(key.reshape(num_chains))  # [num_chains, 2]
    mcmc = MCMC(
        NUTS(scales_model, target_accept_prob=_TARGET_ACCEPT_RATE),
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=num_chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    data = features, y, observed_mask
    run_key = pairs[:, 0]
    mcmc.run(run_key if num_chains > 1 else run_key[0], *data)
    scales = mcmc.get_samples()

    def rest(arguments: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        key, global_scale, local_scale = arguments
        sizes = horseshoe.group_sizes(features)
        sd = horseshoe.prior_sd(global_scale, local_scale, sizes)
        return horseshoe.draw_coefficients(key, *data, sd)

    keys = jax.vmap(lambda key: jax.random.split(key, num_samples))(pairs[:, 1])
    noise_variance, coefficients, intercept = jax.lax.map(
        rest, (keys.reshape(-1), scales["global_scale"], scales["local_scale"])
    )
    return {
        **scales,
        "noise_variance": noise_variance,
        "coefficients": coefficients,
        "intercept": intercept,
        "num_divergent": jnp.sum(mcmc.get_extra_fields()["diverging"]),
    }
