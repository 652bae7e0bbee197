"""What a benchmark found, and the few numbers that are read off it."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from codesign.search import optimizer as optimizers
from codesign.studies.search_benchmark import problems
from codesign.studies.search_benchmark.ask_time import Speed
from codesign.studies.search_benchmark.benchmark_settings import BenchmarkConfig

_ROUNDING = 1e-9  # regrets below are 0: sums were taken in another order


@dataclasses.dataclass(frozen=True)
class Run:
    """One optimiser on one problem.

    Attributes:
        problem: Name in `problems.PROBLEMS`.
        seed: Of the problem, the initial points and the optimiser.
        optimizer: Name in `optimizers.OPTIMIZERS`.
        num_initial: Evaluations before the optimiser proposed.
        optimum: Exact maximum of the objective, penalty included.
        points: `[N]` evaluated points, encoded as text.
        objectives: `[N]` their objective, penalty included.
        ask_s: `[N]` CPU time of each proposal.
        num_rejected: Points that were ruled out without evaluating them.
    """

    problem: str
    seed: int
    optimizer: str
    num_initial: int
    optimum: float
    points: tuple[str, ...]
    objectives: tuple[float, ...]
    ask_s: tuple[float, ...]
    num_rejected: int = 0

    @property
    def title(self) -> str:
        """Of the problem, for people."""
        return problems.PROBLEMS[self.problem](self.seed).title

    @functools.cached_property
    def regret(self) -> np.ndarray:
        """Simple regret after each evaluation, `[N]`; 0 where the optimum was found."""
        regret = self.optimum - np.maximum.accumulate(self.objectives)
        return np.where(regret < _ROUNDING, 0.0, regret)

    @property
    def evaluations_to_optimum(self) -> float:
        """Guided evaluations; 0 if an initial point was optimal, inf if none was."""
        found = np.flatnonzero(self.regret == 0)
        return max(found[0] + 1 - self.num_initial, 0) if len(found) else np.inf

    def guided_regret(self, num_guided: int) -> float:
        """Simple regret after so many guided evaluations, or at the end."""
        return self.regret[: self.num_initial + num_guided][-1]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """All runs, and what an ask takes."""

    config: BenchmarkConfig
    runs: tuple[Run, ...]
    speeds: tuple[Speed, ...]

    def of(self, problem: str, optimizer: str) -> list[Run]:
        """Runs of an optimiser on a problem, by seed; empty if there are none."""
        return [
            r for r in self.runs if (r.problem, r.optimizer) == (problem, optimizer)
        ]

    def best_peer(
        self, problem: str, loss: Callable[[list[Run]], float]
    ) -> tuple[str, float] | None:
        """The least loss of an optimiser other than ours, with the labels of who has it."""
        losses = {
            optimizers.LABELS[name]: loss(self.of(problem, name))
            for name in self.config.optimizers
            if name != "codesign"
        }
        if not losses:
            return None
        least = min(losses.values())
        names = [label for label, found in losses.items() if found == least]
        whole = len(names) == len(losses) > 1
        return "every peer" if whole else ", ".join(names), least
