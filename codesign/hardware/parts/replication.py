"""Integer copies of parallel workers that shorten the slowest stage the most."""

import chex
import jax
import jax.numpy as jnp

from codesign.numerics.relax import EXACT, Relax
from codesign.types import Array, Scalar


def slowest_share(
    work: Array, unit_cost: Array, budget: Scalar, *, relax: Relax = EXACT
) -> Array:
    """Least share n of work a worker such that all workers fit the budget.

    If no worker does more than n, stage l needs ceil(work_l / n) workers. So n solves

        min n  subject to  sum_l unit_cost_l ceil(work_l / n) <= budget.

    For example, stages of work 8 and 4 with a budget of 3 workers of cost 1: n = 4 needs
    2 + 1 workers; any smaller n needs a third for the first stage. This n is also the
    time of the slowest stage under the best choice of integer numbers of workers r_l,
    min over r of max_l work_l / r_l.

    The cost never grows with n, so bisection finds it, to an ulp or two above. When
    smooth, one Newton step from the last n that does not fit, where one more worker is
    due, carries the gradient (implicit function theorem with the slopes of `Relax.ceil`).

    Args:
        work: [L] non-negative work of each stage, in any unit.
        unit_cost: [L] cost of one worker of each stage.
        budget: [] total cost allowed; below one worker each, n is max_l work_l.

    Returns:
        [] n, in the unit of `work`.
    """
    chex.assert_rank(work, 1)
    chex.assert_equal_shape((work, unit_cost))
    has_work = jnp.max(work) > 0
    largest = jnp.where(has_work, jnp.max(work), 1.0)

    def excess(n, work, unit_cost, budget):
        return jnp.sum(unit_cost * relax.ceil(work / n)) - budget

    # No tangent enters the loop: the Newton step below carries the gradient.
    fixed = jax.lax.stop_gradient((work, unit_cost, jnp.asarray(budget)))
    top = jax.lax.stop_gradient(largest)

    def halve(_, bounds):
        low, high = bounds
        middle = jnp.clip(jnp.exp((jnp.log(low) + jnp.log(high)) / 2), low, high)
        fits = excess(middle, *fixed) <= 0
        return jnp.where(fits, low, middle), jnp.where(fits, middle, high)

    # In log space 1e9 is 30 halvings from a float32 ulp and 59 from a float64's.
    num_halvings = jnp.finfo(top.dtype).bits
    low, root = jax.lax.fori_loop(0, num_halvings, halve, (top * 1e-9, top))
    if relax.is_exact:
        return jnp.where(has_work, root, 0.0)
    low = jax.lax.stop_gradient(low)
    slope = jax.grad(excess)(low, *fixed)
    at_bound = (root >= top) | (slope == 0)
    step = excess(low, work, unit_cost, budget) / jnp.where(at_bound, 1.0, slope)
    # At the bound n is the largest work itself.
    share = jnp.where(at_bound, largest, root - (step - jax.lax.stop_gradient(step)))
    return jnp.where(has_work, share, 0.0)


def copies(
    num_windows: Array, unit_cost: Array, budget: Scalar, *, relax: Relax = EXACT
) -> tuple[Array, Array]:
    """Replicates stages to minimise the slowest, max_l ceil(num_windows_l / r_l).

    This is PipeLayer's weight replication (Song et al., HPCA 2017) solved exactly: the
    least integer stage length is the ceiling of `slowest_share`, and each stage takes
    the fewest copies that keep to it.

    Args:
        num_windows: [L] sequential steps of a stage with one copy, at least 1.
        unit_cost: [L] cost of one copy.
        budget: [] total cost allowed.

    Returns:
        r: [L] copies, at least 1; and n: [] steps of the slowest stage.
    """
    # The root is found to a few ulp; ratios of integers lie further from the next
    # integer than this as long as num_windows < 2e6.
    share = (1 - 4e-7) * slowest_share(num_windows, unit_cost, budget, relax=relax)
    steps = jnp.maximum(relax.ceil(share), 1.0)
    return jnp.maximum(relax.ceil(num_windows / steps), 1.0), steps
