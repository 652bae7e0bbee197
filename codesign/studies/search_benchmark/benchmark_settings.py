"""Settings of the search benchmark, and the presets."""

import dataclasses

from codesign.records.settings import setting
from codesign.search import optimizer as optimizers
from codesign.studies import frame
from codesign.studies.search_benchmark import ask_time, problems
from codesign.studies.search_benchmark.trained_placements import LAMBDAS, placement_name


@dataclasses.dataclass(frozen=True)
class Task:
    """A problem and how many evaluations it gets."""

    problem: str = setting(
        "bqp_10", "Name in `problems.PROBLEMS`.", one_of=problems.PROBLEMS
    )
    num_initial: int = setting(20, "Random points of every optimiser.", least=1)
    num_guided: int = setting(30, "Evaluations after those.", least=1)

    @property
    def num_evaluations(self) -> int:
        return self.num_initial + self.num_guided

    @property
    def budget(self) -> str:
        return f"{self.num_initial} + {self.num_guided}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkConfig(frame.Config):
    """Settings of one benchmark.

    A run is kept under its own task, seed and optimiser. So any of these may change in a
    workdir: what is there already is read, the rest is run.
    """

    seed: int = setting(0, "First of the seeds.", least=0, below=frame.SEEDS, free=True)
    num_seeds: int = setting(10, "Runs of each.", least=1, grows=True)
    tasks: tuple[Task, ...] = setting((), "Problems with their budgets.", free=True)
    optimizers: tuple[str, ...] = setting(
        optimizers.OPTIMIZERS, "Those compared.", distinct=True, free=True
    )
    speed_variables: tuple[int, ...] | None = setting(
        None,
        "Variables of the asks that are timed, or none.",
        least=8,
        most=128,
        free=True,
    )
    speed_observations: tuple[int, ...] = setting(
        (60,),
        "Observations before the asks that are timed.",
        least=1,
        most=2000,
        free=True,
    )

    def check(self) -> None:
        if len({task.problem for task in self.tasks}) < len(self.tasks):
            raise ValueError("`tasks` holds a problem twice; give it one budget.")
        for name in self.optimizers:
            optimizers.check(name)
        if "codesign" not in self.optimizers:
            raise ValueError("`optimizers` must hold 'codesign', which is compared.")
        for c in self.speed_variables or ():
            if 2**c < max(self.speed_observations) + ask_time.NUM_ASKED:
                raise ValueError(
                    f"`speed_variables` (={self.speed_variables}): {c} have too few "
                    f"points for {max(self.speed_observations)} observations; take more."
                )


_PLACEMENTS = tuple(
    Task(name, 5, 35) for name in (*map(placement_name, LAMBDAS), "placement_screened")
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
    "smoke": BenchmarkConfig(
        preset="smoke",
        num_seeds=2,
        tasks=(Task("bqp_10", 5, 5),),
        optimizers=("codesign", "random", "local_search"),
    ),
    "placement": BenchmarkConfig(preset="placement", tasks=_PLACEMENTS),
    "full": BenchmarkConfig(
        preset="full",
        tasks=(
            Task("bqp_1", 20, 100),
            Task("bqp_10", 20, 100),
            Task("bqp_100", 20, 100),
            Task("ising", 20, 40),
            Task("contamination", 20, 30),
            Task("planted_20", 5, 55),
            Task("planted_50", 10, 90),
            Task("planted_100", 20, 130),
            *_PLACEMENTS,
        ),
        speed_variables=(20, 50, 100),
        speed_observations=(20, 60, 120),
    ),
}
