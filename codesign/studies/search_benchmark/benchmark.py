"""Runs every optimiser on every problem and seed, keeping each run as it ends."""

import dataclasses
import itertools
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator

from codesign.records.journal import Event, FileJournal
from codesign.report import Progress
from codesign.search import optimizer as optimizers
from codesign.search import points
from codesign.studies.search_benchmark import ask_time as speed
from codesign.studies.search_benchmark import benchmark_report as report
from codesign.studies.search_benchmark import problems
from codesign.studies.search_benchmark.ask_time import Speed
from codesign.studies.search_benchmark.benchmark_result import Outcome, Run
from codesign.studies.search_benchmark.benchmark_settings import (
    PRESETS,
    BenchmarkConfig,
    Task,
    preset,
)

__all__ = ["PRESETS", "Benchmark", "BenchmarkConfig", "preset", "run"]


def run(config: BenchmarkConfig, *, workdir: str | os.PathLike[str]) -> Outcome:
    """Runs what `workdir` does not hold yet; writes results, figures and a report.

    The workdir receives `journal.jsonl`, a line for each finished run, `results.json`,
    figures and `report.html`. A kill loses the run under way; the next call goes on and
    finds the same, times apart.

    Args:
        config: See `PRESETS`.
        workdir: Made if it is not there.

    Raises:
        ValueError: For a setting out of range, an optimiser that is not installed, or
            a workdir made with other settings.
        OSError: For a workdir that cannot be read or written.
    """
    return Benchmark(config, workdir=workdir).run()


class Benchmark:
    """A checked benchmark, ready to run or to go on."""

    def __init__(self, config: BenchmarkConfig, *, workdir: str | os.PathLike[str]):
        """Checks the settings and opens the workdir; raises as `run`."""
        self._config = config.checked()
        self._workdir = pathlib.Path(workdir)
        self._store = _Store(config, self._workdir)

    def run(self) -> Outcome:
        start = time.monotonic()
        jobs = list(_jobs(self._config))
        total = sum(task.num_evaluations for task, _, _ in jobs)
        finished = [job[0] for job in jobs if self._store.find(*job)]
        done = sum(task.num_evaluations for task in finished)
        with Progress(total, "Search benchmark", initial_step=done) as progress:
            for task, seed, optimizer in jobs:
                if self._store.find(task, seed, optimizer):
                    continue

                def on_step(number: int, name=f"{task.problem}, seed {seed}", at=done):
                    progress.update(at + number, candidate=name)

                self._store.add_run(run_one(task, seed, optimizer, on_step))
                done += task.num_evaluations
            for size in self._sizes():
                if size not in self._store.speeds:
                    progress.update(done, candidate=f"timing C = {size[0]}")
                    self._store.add_speed(speed.measure(*size))
        runs = [self._store.find(*job) for job in jobs]
        outcome = Outcome(
            config=self._config,
            runs=tuple(found for found in runs if found),
            speeds=tuple(self._store.speeds[size] for size in self._sizes()),
        )
        wall_s = time.monotonic() - start
        report.write(outcome, workdir=self._workdir, wall_s=wall_s)
        return outcome

    def _sizes(self) -> Iterator[tuple[int, int]]:
        """C and N of the asks that are timed."""
        return itertools.product(
            self._config.speed_variables, self._config.speed_observations
        )


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
        x = optimizer.ask()
        while problems.is_hopeless(problem, x):
            num_rejected += 1
            optimizer.reject(x)
            x = optimizer.ask()
        ask_s.append(time.process_time() - start)
        value = problem.value(x)
        optimizer.tell(x, value)
        xs.append(points.encode(x))
        objectives.append(value - problem.sparsity_penalty * int(x.sum()))
        on_step(number + 1)
    return Run(
        problem=task.problem,
        seed=seed,
        optimizer=optimizer_name,
        num_initial=task.num_initial,
        optimum=problem.optimum,
        points=tuple(xs),
        objectives=tuple(objectives),
        ask_s=tuple(ask_s),
        num_rejected=num_rejected,
    )


def _jobs(config: BenchmarkConfig) -> Iterator[tuple[Task, int, str]]:
    for task in config.tasks:
        for seed in range(config.seed, config.seed + config.num_seeds):
            for optimizer in config.optimizers:
                yield task, seed, optimizer


class _Store:
    """Finished runs and timings, in a journal with checksums."""

    def __init__(self, config: BenchmarkConfig, workdir: pathlib.Path):
        workdir.mkdir(parents=True, exist_ok=True)
        settings = json.loads(json.dumps(dataclasses.asdict(config)))
        path = workdir / "journal.jsonl"
        self._journal = FileJournal(path, settings, recover=True)
        self._runs: dict[tuple[str, int, str], Run] = {}
        self.speeds: dict[tuple[int, int], Speed] = {}
        with self._journal.locked():
            self._read()

    def find(self, task: Task, seed: int, optimizer: str) -> Run | None:
        return self._runs.get((task.problem, seed, optimizer))

    def add_run(self, finished: Run) -> None:
        self._add({"run": dataclasses.asdict(finished)})

    def add_speed(self, measured: Speed) -> None:
        self._add({"speed": dataclasses.asdict(measured)})

    def _add(self, event: Event) -> None:
        with self._journal.locked():
            self._read()
            self._journal.append([{"event": "tell", **event}])
            self._read()

    def _read(self) -> None:
        for event in self._journal.read()[1]:
            if "run" in event:
                fields = event["run"]
                tuples = {k: tuple(v) for k, v in fields.items() if isinstance(v, list)}
                found = Run(**{**fields, **tuples})
                self._runs[found.problem, found.seed, found.optimizer] = found
            else:
                measured = Speed(**event["speed"])
                key = measured.num_variables, measured.num_observations
                self.speeds[key] = measured
