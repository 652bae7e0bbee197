"""Problems over binary vectors whose optimum is known exactly.

The first three are those of Baptista & Poloczek, "Bayesian Optimization of Combinatorial
Structures" (BOCS), ICML 2018, sections 4.1 to 4.3, and of the code published with it; the
paper's lambdas are 0, 1e-4 and 1e-2, of which 1e-2, the one that asks for most sparsity,
is taken here.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Protocol

import numpy as np

from codesign.search import points
from codesign.search.draws import Draws
from codesign.studies.search_benchmark.ising import IsingSparsification
from codesign.studies.search_benchmark.trained_placements import (
    LAMBDAS,
    TrainedPlacements,
    placement_name,
)

_MOST_ROWS = 1 << 12  # prefixes expanded together


class Problem(Protocol):
    """Maximise value(x) - sparsity_penalty * |x|_1 over x in {0, 1}^C."""

    @property
    def title(self) -> str: ...

    @property
    def num_variables(self) -> int: ...

    @property
    def sparsity_penalty(self) -> float: ...

    @property
    def optimum(self) -> float:
        """Exact maximum, penalty included."""
        ...

    def value(self, x: np.ndarray) -> float:
        """The objective of x `[C]` without the penalty, without noise."""
        ...


def is_hopeless(problem: Problem, x: np.ndarray) -> bool:
    """Whether cheap evidence rules a point out before it is evaluated."""
    return isinstance(problem, TrainedPlacements) and problem.is_hopeless(x)


@dataclasses.dataclass(frozen=True)
class BinaryQuadratic:
    """BOCS, section 4.1: x'Qx with Q_ij = N(0, 1) exp(-(i - j)^2 / length_scale^2).

    The length scales are L_c = 1, 10 and 100, squared as in the paper; the code published
    with it divides by L_c itself. The optimum is by enumeration.
    """

    seed: int
    length_scale: float = 10.0
    num_variables: int = 10
    sparsity_penalty: float = 1e-2

    @property
    def title(self) -> str:
        return f"Binary quadratic, Lc = {self.length_scale:g}"

    @functools.cached_property
    def quadratic(self) -> np.ndarray:
        """Q, `[C, C]`."""
        index = np.arange(self.num_variables)
        distance = (index[:, None] - index[None, :]) / self.length_scale
        draws = Draws(f"bqp_{self.length_scale:g}", self.seed)
        return draws.normal(*distance.shape) * np.exp(-(distance**2))

    def value(self, x: np.ndarray) -> float:
        return float(x @ self.quadratic @ x)

    @property
    @functools.cache  # noqa: B019, problems are settings: few and small
    def optimum(self) -> float:
        x = points.all_points(self.num_variables).astype(float)  # [2^C, C]
        values = np.sum((x @ self.quadratic) * x, 1) - self.sparsity_penalty * x.sum(1)
        return float(values.max())


@dataclasses.dataclass(frozen=True)
class Contamination:
    """BOCS, section 4.3: at which stages of a food supply chain to prevent contamination.

    After Hu et al. (2010). In scenario k the contaminated fraction after stage i is

        Z_ik = L_ik (1 - x_i) (1 - Z_{i-1,k}) + (1 - G_ik x_i) Z_{i-1,k}             (1)

    with Z_0k ~ Beta(1, 30), L_ik ~ Beta(1, 17/3) and G_ik ~ Beta(1, 3/7), drawn once for
    a seed, T = 100 scenarios. To be minimised is the cost of prevention, 1 a stage, and
    the fraction of scenarios above U = 0.1 at each stage, with the weight rho = 1:

        -value(x) = sum_i (x_i + sum_k [Z_ik > U] / T)                               (2)

    The constraint's epsilon = 0.05 would add -0.05 a stage and is left out, as in the
    paper's (2). The optimum: all prefixes of x, extended stage by stage and in chunks,
    less those that already cost more than some whole x.
    """

    seed: int
    num_variables: int = 21
    num_scenarios: int = 100
    limit: float = 0.1
    sparsity_penalty: float = 1e-2

    @property
    def title(self) -> str:
        return f"Contamination control, {self.num_variables} stages"

    @functools.cached_property
    def _scenarios(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Z_0 `[T]`, L `[C, T]` and G `[C, T]`."""
        draws = Draws("contamination", self.seed)
        shape = (self.num_variables, self.num_scenarios)
        return (
            draws.beta(30.0, self.num_scenarios),
            draws.beta(17 / 3, *shape),
            draws.beta(3 / 7, *shape),
        )

    def value(self, x: np.ndarray) -> float:
        initial, growth, restoration = self._scenarios
        return -contamination_cost(x, initial, growth, restoration, self.limit)

    @property
    @functools.cache  # noqa: B019, problems are settings: few and small
    def optimum(self) -> float:
        initial, growth, restoration = self._scenarios
        step_cost = (0.0, 1 + self.sparsity_penalty)
        best = np.inf

        def extend(stage: int, cost: np.ndarray, z: np.ndarray) -> None:
            nonlocal best
            if stage == self.num_variables:
                best = min(best, cost.min())
                return
            for first in range(0, len(cost), _MOST_ROWS):
                rows = slice(first, first + _MOST_ROWS)
                children = [
                    _next_fraction(x, z[rows], growth[stage], restoration[stage])
                    for x in (0, 1)
                ]
                costs = [
                    cost[rows] + step + np.mean(child > self.limit, 1)
                    for step, child in zip(step_cost, children, strict=True)
                ]
                grown, total = np.concatenate(children), np.concatenate(costs)
                is_open = total < best
                if is_open.any():
                    extend(stage + 1, total[is_open], grown[is_open])

        extend(0, np.zeros(1), initial[None, :])
        return -float(best)


def contamination_cost(
    x: np.ndarray,  # [C]
    initial: np.ndarray,  # Z_0, [T]
    growth: np.ndarray,  # L, [C, T]
    restoration: np.ndarray,  # G, [C, T]
    limit: float,  # U
) -> float:
    """Equation (2) of `Contamination`."""
    cost, z = 0.0, initial
    for prevented, l_i, g_i in zip(x, growth, restoration, strict=True):
        z = _next_fraction(prevented, z, l_i, g_i)
        cost += float(prevented) + float(np.mean(z > limit))
    return cost


def _next_fraction(
    prevented: int, z: np.ndarray, growth: np.ndarray, restoration: np.ndarray
) -> np.ndarray:
    """Equation (1) of `Contamination`, `[..., T]`."""
    if prevented:
        return (1 - restoration) * z
    return z + growth * (1 - z)


@dataclasses.dataclass(frozen=True)
class PlantedQuadratic:
    """A quadratic of few terms, as an accuracy may depend on a placement; ours.

    The base is 0.35. C/5 sites have an effect of their own and C/7 pairs of neighbours
    (i, i + 1) a joint one, rounded down, each of size U[0.02, 0.08], its sign a fair coin.
    The optimum: along the chain, the best value of all sites so far for either state of
    the last one.
    """

    seed: int
    num_variables: int = 20
    sparsity_penalty: float = 1e-3

    @property
    def title(self) -> str:
        return f"Planted quadratic, C = {self.num_variables}"

    @functools.cached_property
    def effects(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the sites, `[C]`, and of the pairs (i, i + 1), `[C - 1]`."""
        draws = Draws(f"planted_{self.num_variables}", self.seed)

        def sparse(size: int, count: int) -> np.ndarray:
            effects = np.zeros(size)
            chosen = draws.permutation(size)[:count]
            sizes = 0.02 + 0.06 * draws.uniform(count)
            effects[chosen] = draws.signs(count) * sizes
            return effects

        c = self.num_variables
        return sparse(c, c // 5), sparse(c - 1, c // 7)

    def value(self, x: np.ndarray) -> float:
        main, pair = self.effects
        return float(0.35 + main @ x + pair @ (x[:-1] * x[1:]))

    @property
    @functools.cache  # noqa: B019, problems are settings: few and small
    def optimum(self) -> float:
        main, pair = self.effects
        off, on = 0.0, main[0] - self.sparsity_penalty
        for i in range(1, self.num_variables):
            gain = main[i] - self.sparsity_penalty
            off, on = max(off, on), gain + max(off, on + pair[i - 1])
        return float(0.35 + max(off, on))


PROBLEMS: dict[str, Callable[[int], Problem]] = {
    **{
        f"bqp_{scale:g}": functools.partial(BinaryQuadratic, length_scale=scale)
        for scale in (1.0, 10.0, 100.0)
    },
    "ising": IsingSparsification,
    "contamination": Contamination,
    **{
        f"planted_{c}": functools.partial(PlantedQuadratic, num_variables=c)
        for c in (20, 50, 100)
    },
    **{
        placement_name(penalty): functools.partial(
            TrainedPlacements, sparsity_penalty=penalty
        )
        for penalty in LAMBDAS
    },
    "placement_screened": functools.partial(TrainedPlacements, screened=True),
}
