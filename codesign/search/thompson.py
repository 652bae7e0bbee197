"""Thompson sampling: each proposal is the best point of one posterior draw."""

import jax
import numpy as np
from numpy.typing import ArrayLike

from codesign.search import bqp, checks, features, surrogate
from codesign.types import Array

_MOST_WARMUP, _MIN_WARMUP = 800, 200  # sweeps before the draw that proposes
_NUM_AVERAGED = 4  # sweeps behind a proposal
_TAIL_RATIO, _MIN_FOR_TAIL = 3, 8  # of `without_long_tail`


def num_sweeps(num_observations: int) -> int:
    """Sweeps before a draw: 800 up to 32 observations, then as many as cost the same.

    Few observations leave many models possible, and a chain that starts from all of them
    takes long to settle on a likely one: on noise-free sparse quadratics of 20 variables
    the optimum was met within 20 proposals from 58, 85, 90 and 93 % of 60 starts with
    200, 600, 1200 and 2400 sweeps.
    """
    rows = surrogate.bucket(num_observations)
    return max(_MIN_WARMUP, round(_MOST_WARMUP * (32 / rows) ** 1.3))


def without_long_tail(y: ArrayLike) -> np.ndarray:
    """`y` `[N]`, with values far below the median raised to where they say only "bad".

    The bound lies 3 times as far below the median as the best value lies above it, from 8
    observations on. A network that cannot learn stays at chance, and a quadratic through
    such a cliff has no eye for the thousandths that tell good placements apart: of 32
    searches over all placements of a VGG-11, 34 % met the optimum within 40 evaluations
    without the bound, 75 % with it, and random search 23 %. Objectives without such a
    tail are left as they are.
    """
    y = np.asarray(y, np.float64)
    if len(y) < _MIN_FOR_TAIL:
        return y
    middle = np.median(y)
    reach = _TAIL_RATIO * (y.max() - middle)
    return np.maximum(y, middle - reach) if reach > 0 else y


def that_matter(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Which observations a proposal learns from: all `[N]`, or the indices of 512.

    All of them up to 512, and as long as there are fewer features than that (C of at most
    31), where more cost nothing. Beyond, a sweep would take time with the square of N. The
    best 256 are kept, among which the optimum is sought, and of the others 256 that are
    evenly spread over their ranks, for contrast.
    """
    most = surrogate.MOST_ROWS
    if len(y) <= most or features.num_features(x.shape[1]) < most:
        return np.arange(len(y))
    best, others = np.split(np.argsort(-y, kind="stable"), [most // 2])
    spread = np.linspace(0, len(others) - 1, most - most // 2).round().astype(int)
    return np.sort(np.concatenate([best, others[spread]]))


def programme(
    key: Array,
    x: np.ndarray,
    y: np.ndarray,
    *,
    sparsity_penalty: float,
    num_warmup: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The binary quadratic programme of one posterior draw; see `propose`.

    Args:
        key: `[]` typed random key of the draw's chain.
        x, y, sparsity_penalty, num_warmup: As for `propose`.

    Returns:
        A `[C, C]` and b `[C]`, as `bqp.solve` takes them.
    """
    y = without_long_tail(y)
    kept = that_matter(x, y)
    posterior = surrogate.sample_posterior(
        key,
        x[kept],
        y[kept],
        num_warmup=num_sweeps(len(x)) if num_warmup is None else num_warmup,
        num_samples=_NUM_AVERAGED,
    )
    return (
        -posterior.pairwise.mean(axis=0),
        sparsity_penalty - posterior.linear.mean(axis=0),
    )


def propose(
    key: Array,
    x: ArrayLike,
    y: ArrayLike,
    *,
    num_proposals: int = 1,
    sparsity_penalty: float = 0.0,
    exclude: ArrayLike | None = None,
    num_warmup: int | None = None,
) -> np.ndarray:
    """Proposes distinct points to evaluate next, for maximising f(x) - penalty |x|_1.

    A proposal is the maximiser under a draw theta of the posterior (Thompson, 1933; for
    this model Baptista & Poloczek, "BOCS", ICML 2018), in the form that `bqp.solve`
    minimises:

        A_ij = -theta_ij,   b_i = sparsity_penalty - theta_i                         (1)

    DeepTrain's eq. (2) has these signs the other way round. Draws are in the units of
    y, and so is the penalty; the model is of y `without_long_tail`, at the points
    `that_matter`. If the maximiser is excluded or already among the proposals, the next
    best point of the same draw is taken.

    As theta stands the mean of the last 4 sweeps of a chain. Of one sweep alone, dozens of
    coefficients that hardly matter are random enough to switch their sites on; the mean
    keeps what the chain has settled on, which differs from chain to chain.

    Proposal i comes from a chain of its own with the key `fold_in(key, i)`; chains run
    one after another, in one compiled program whatever their number, since a chain
    vectorised with others differs from the same chain alone in the last bits, which
    a Gibbs sampler soon makes different draws of.

    Args:
        key: `[]` typed random key.
        x: `[N, C]` evaluated points.
        y: `[N]` their objective, larger is better, without the penalty.
        num_proposals: Q.
        sparsity_penalty: Loss of objective that one more 1 in x must win back.
        exclude: `[K, C]` points not to propose, such as those evaluated or pending.
        num_warmup: Sweeps before a chain's draw; None for `num_sweeps`.

    Returns:
        `[Q, C]` int8.

    Raises:
        ValueError: If the data are unfit (see `surrogate.sample_posterior`), the penalty
            is negative or not finite, or fewer than Q points remain.
    """
    checked_penalty(sparsity_penalty)
    if num_proposals < 1:
        raise ValueError(f"`num_proposals` must be at least 1, got {num_proposals}.")
    x = np.asarray(x)
    num_variables = x.shape[-1]
    taken = np.zeros((0, num_variables), np.int8)
    if exclude is not None and np.size(exclude):
        taken = np.asarray(exclude)
    y = np.asarray(y, np.float64)
    proposals = []
    for i in range(num_proposals):
        quadratic, linear = programme(
            jax.random.fold_in(key, i),
            x,
            y,
            sparsity_penalty=sparsity_penalty,
            num_warmup=num_warmup,
        )
        result = bqp.solve(quadratic, linear, exclude=taken)
        proposals.append(result.x)
        taken = np.concatenate([taken, result.x[None, :]])
    return np.stack(proposals)


def checked_penalty(sparsity_penalty: float) -> float:
    """The penalty as a float.

    Raises:
        ValueError: If it is no number, negative or not finite.
    """
    sparsity_penalty = checks.checked_float("sparsity_penalty", sparsity_penalty)
    if not np.isfinite(sparsity_penalty) or sparsity_penalty < 0:
        raise ValueError(
            "`sparsity_penalty` must be finite and not negative, got "
            f"{sparsity_penalty}; 0 searches without a preference for few ones."
        )
    return sparsity_penalty
