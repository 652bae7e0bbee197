"""What a benchmark found, and the few numbers that are read off it."""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import numpy as np

from codesign.search import optimizer as optimizers
from codesign.studies.search_benchmark.ask_time import Speed
from codesign.studies.search_benchmark.benchmark_settings import BenchmarkConfig, Task

# Task, seed and optimiser of a run; or variables and observations of asks to be timed.
Unit = tuple[Task, int, str] | tuple[int, int]
_ROUNDING = 1e-9  # regrets below are 0: sums were taken in another order


@dataclasses.dataclass(frozen=True)
class Run:
    """One optimiser on one problem from one seed; N evaluations."""

    num_initial: int  # evaluations before the optimiser proposed
    optimum: float  # exact maximum of the objective, penalty included
    points: tuple[str, ...]  # [N] encoded as text
    objectives: tuple[float, ...]  # [N] penalty included
    ask_s: tuple[float, ...]  # [N] CPU time of each proposal
    num_rejected: int = 0  # points that were ruled out without evaluating them

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
class Measured:
    """What one unit of work found: a run, or what an ask takes."""

    run: Run | None = None
    speed: Speed | None = None


@dataclasses.dataclass(frozen=True)
class BenchmarkResult:
    """What all units found."""

    config: BenchmarkConfig
    found: Mapping[Unit, Measured]

    def of(self, problem: str, optimizer: str) -> list[Run]:
        """Runs of an optimiser on a problem, by seed; empty if there are none."""
        return [
            each.run
            for unit, each in self.found.items()
            if each.run and len(unit) == 3
            if (unit[0].problem, unit[2]) == (problem, optimizer)
        ]

    @property
    def speeds(self) -> list[Speed]:
        return [each.speed for each in self.found.values() if each.speed]

    def best_peer(
        self, problem: str, statistic: Callable[[list[Run]], float], *, most=False
    ) -> tuple[str, float | None] | None:
        """The least statistic of an optimiser other than ours, and whose it is.

        Args:
            problem: Name in `problems.PROBLEMS`.
            statistic: Of the runs of one optimiser.
            most: Whether the largest is the best.

        Returns:
            Labels and value, None if no peer has a finite one; None without peers.
        """
        values = {
            optimizers.LABELS[name]: statistic(self.of(problem, name))
            for name in self.config.optimizers
            if name != "codesign"
        }
        if not values:
            return None
        best = (max if most else min)(values.values())
        names = [label for label, value in values.items() if value == best]
        is_shared = len(names) == len(values) > 1
        label = "every peer" if is_shared else ", ".join(names)
        return label, best if np.isfinite(best) else None
