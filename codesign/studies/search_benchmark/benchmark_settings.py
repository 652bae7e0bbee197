"""Settings of the search benchmark, and the presets."""

import dataclasses

from codesign.search import optimizer as optimizers
from codesign.studies.search_benchmark import problems
from codesign.studies.search_benchmark.trained_placements import LAMBDAS, placement_name


@dataclasses.dataclass(frozen=True)
class Task:
    """A problem and how many evaluations it gets.

    Attributes:
        problem: Name in `problems.PROBLEMS`.
        num_initial: Random points that every optimiser begins with.
        num_guided: Evaluations after those.
    """

    problem: str
    num_initial: int
    num_guided: int

    @property
    def num_evaluations(self) -> int:
        return self.num_initial + self.num_guided


@dataclasses.dataclass(frozen=True)
class BenchmarkConfig:
    """Settings of one benchmark; `PRESETS` has named ones.

    Attributes:
        preset: Name that the results carry.
        seed: First of the seeds that make problems, initial points and optimisers.
        num_seeds: Number of seeds.
        tasks: Problems with their budgets.
        optimizers: Names of `optimizers.OPTIMIZERS`.
        speed_variables: C of the asks that are timed.
        speed_observations: Numbers of observations that they follow.
    """

    preset: str
    seed: int = 0
    num_seeds: int = 10
    tasks: tuple[Task, ...] = ()
    optimizers: tuple[str, ...] = optimizers.OPTIMIZERS
    speed_variables: tuple[int, ...] = ()
    speed_observations: tuple[int, ...] = (60,)

    def checked(self) -> "BenchmarkConfig":
        """Validates; returns self.

        Raises:
            ValueError: Names the field, its value, the rule and the way out.
        """
        if self.num_seeds < 1:
            raise ValueError(f"`num_seeds` must be at least 1, got {self.num_seeds}.")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"`seed` must lie in 0..2**32 - 1, got {self.seed}.")
        if not self.tasks:
            raise ValueError(f"`tasks` is empty; take some of {[*problems.PROBLEMS]}.")
        for task in self.tasks:
            if task.problem not in problems.PROBLEMS:
                raise ValueError(
                    f"`problem` (={task.problem!r}) must be one of "
                    f"{list(problems.PROBLEMS)}."
                )
            if task.num_initial < 1 or task.num_guided < 1:
                raise ValueError(
                    "`num_initial` and `num_guided` must be at least 1, got "
                    f"{task.num_initial} and {task.num_guided} for {task.problem!r}."
                )
        if len({task.problem for task in self.tasks}) < len(self.tasks):
            raise ValueError("`tasks` holds a problem twice; give it one budget.")
        for name in self.optimizers:
            optimizers.check(name)
        if "codesign" not in self.optimizers:
            raise ValueError("`optimizers` must hold 'codesign', which is compared.")
        return self


_TASKS = (
    Task("bqp_1", 20, 100),
    Task("bqp_10", 20, 100),
    Task("bqp_100", 20, 100),
    Task("ising", 20, 40),
    Task("contamination", 20, 30),
    Task("planted_20", 5, 55),
    Task("planted_50", 10, 90),
    Task("planted_100", 20, 130),
)
_PLACEMENTS = (
    *(Task(placement_name(penalty), 5, 35) for penalty in LAMBDAS),
    Task("placement_screened", 5, 35),
)
PRESETS = {
    "quick": BenchmarkConfig(
        preset="quick",
        tasks=(
            Task("bqp_10", 20, 30),
            Task("ising", 20, 40),
            Task("contamination", 20, 30),
            Task("planted_20", 5, 35),
            Task(placement_name(0.005), 5, 35),
        ),
        speed_variables=(20,),
    ),
    "placement": BenchmarkConfig(preset="placement", tasks=_PLACEMENTS),
    "full": BenchmarkConfig(
        preset="full",
        tasks=(*_TASKS, *_PLACEMENTS),
        speed_variables=(20, 50, 100),
        speed_observations=(20, 60, 120),
    ),
}


def preset(name: str) -> BenchmarkConfig:
    """One of `PRESETS`.

    Raises:
        ValueError: If there is none of that name.
    """
    if name not in PRESETS:
        raise ValueError(f"`preset` (={name!r}) must be one of {list(PRESETS)}.")
    return PRESETS[name]
