"""Runs every optimiser on every problem and seed; one run is one unit of work."""

import itertools
import time
from collections.abc import Callable

from codesign.records import StrPath
from codesign.search import optimizer as optimizers
from codesign.search import points
from codesign.studies import frame
from codesign.studies.search_benchmark import ask_time, benchmark_report, problems
from codesign.studies.search_benchmark.benchmark_result import (
    BenchmarkResult,
    Measured,
    Run,
    Unit,
)
from codesign.studies.search_benchmark.benchmark_settings import (
    PRESETS,
    BenchmarkConfig,
    Task,
)

__all__ = ["PRESETS", "STUDY", "BenchmarkConfig", "Task", "run", "run_one"]


def units(config: BenchmarkConfig) -> list[Unit]:
    """All runs, then the asks that are timed."""
    seeds = range(config.seed, config.seed + config.num_seeds)
    runs = itertools.product(config.tasks, seeds, config.optimizers)
    sizes = itertools.product(config.speed_variables or (), config.speed_observations)
    return [*runs, *sizes]


def measure(config: BenchmarkConfig, unit: Unit, job: frame.Job) -> Measured:
    """Does one run, or times asks of one size."""
    if len(unit) == 2:
        job.update(0, f"time of an ask, C = {unit[0]}", observations=unit[1])
        return Measured(speed=ask_time.measure(*unit))
    task, seed, name = unit

    def on_step(number: int) -> None:
        job.update(number, task.problem, seed=seed, optimizer=optimizers.LABELS[name])

    return Measured(run=run_one(task, seed, name, on_step))


def run_one(
    task: Task,
    seed: int,
    optimizer_name: str,
    on_step: Callable[[int], None] = lambda number: None,
) -> Run:
    """Lets one optimiser spend its budget on one problem.

    Args:
        task: The problem and the budget.
        seed: Makes the problem, the initial points and what is random in the optimiser.
        optimizer_name: One of `optimizers.OPTIMIZERS`.
        on_step: Called with the number of evaluations after each.
    """
    problem = problems.PROBLEMS[task.problem](seed)
    optimizer = optimizers.create(
        optimizer_name,
        num_variables=problem.num_variables,
        sparsity_penalty=problem.sparsity_penalty,
        num_initial=task.num_initial,
        seed=seed,
    )
    xs, objectives, ask_s, num_rejected = [], [], [], 0
    for number in range(task.num_evaluations):
        start = time.process_time()
        x = optimizer.ask()[0]
        while problems.is_hopeless(problem, x):
            num_rejected += 1
            optimizer.fail(x, "not worth evaluating")
            x = optimizer.ask()[0]
        ask_s.append(time.process_time() - start)
        value = problem.value(x)
        optimizer.tell(x, value)
        xs.append(points.encode(x))
        objectives.append(value - problem.sparsity_penalty * int(x.sum()))
        on_step(number + 1)
    return Run(
        num_initial=task.num_initial,
        optimum=problem.optimum,
        points=tuple(xs),
        objectives=tuple(objectives),
        ask_s=tuple(ask_s),
        num_rejected=num_rejected,
    )


STUDY = frame.Study(
    name="search_benchmark",
    presets=PRESETS,
    units=units,
    measure=measure,
    report=benchmark_report.report,
    found=Measured,
    steps=lambda config, unit: unit[0].num_evaluations if len(unit) == 3 else 0,
    formerly=("journal.jsonl",),
)


def run(config: BenchmarkConfig, *, workdir: StrPath) -> BenchmarkResult:
    """Runs what `workdir` does not hold yet; see `frame.Study.run`."""
    return BenchmarkResult(config, STUDY.run(config, workdir=workdir))
