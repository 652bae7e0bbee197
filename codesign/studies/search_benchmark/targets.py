"""What the search is to reach: the project's own targets, beside what peers reach."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from codesign.studies.published import Published
from codesign.studies.search_benchmark import ask_time
from codesign.studies.search_benchmark.benchmark_result import BenchmarkResult, Run
from codesign.studies.search_benchmark.benchmark_settings import BenchmarkConfig
from codesign.studies.search_benchmark.problems import PROBLEMS

Row = Published[BenchmarkResult]
_NEAR = range(40, 81)  # observations that count as about 60


def rows(config: BenchmarkConfig) -> list[Row]:
    """The targets that the benchmark's problems, budgets and sizes decide."""
    budgets = {task.problem: task.num_guided for task in config.tasks}
    found = [row for n, row in _SEARCH if budgets.get(row.of["problem"], 0) >= n]
    sizes = itertools.product(config.speed_variables or (), config.speed_observations)
    for c, n in sizes:
        if c not in ask_time.MOST_S or n not in _NEAR:
            continue
        target: dict[str, Any] = {"asked": ask_time.MOST_S[c]}
        if c == 20:
            target |= {"value": 0.2, "source": "BOCS in Python"}
        found.append(_ask("ask_s", "One ask", c, n, **target))
        if c == 20:
            asked = ask_time.MOST_BATCH_S
            found.append(_ask("batch_ask_s", "Eight asks at once", c, n, asked=asked))
    return found


def _ask(name: str, title: str, c: int, n: int, **target: Any) -> Row:
    return Published(
        name=name,
        of={"variables": str(c), "observations": str(n)},
        ours=lambda result: getattr(result.found[c, n].speed, name),
        title=f"{title}, C = {c}, {n} observations",
        unit="s",
        **target,
    )


def _search(
    name: str,
    problem: str,
    statistic: Callable[[list[Run]], float],
    title: str,
    at_least: bool = False,
    **target: Any,
) -> Row:
    """A row on what our runs of a problem come to, beside those of every peer."""

    def ours(result: BenchmarkResult) -> float | None:
        value = statistic(result.of(problem, "codesign"))
        return value if np.isfinite(value) else None

    return Published(
        name=name,
        of={"problem": problem},
        ours=ours,
        peer=lambda result: result.best_peer(problem, statistic, most=at_least),
        title=f"{PROBLEMS[problem](0).title}: {title}",
        at_least=at_least,
        missing="not reached within the budget",
        **target,
    )


def _median_evaluations(problem: str, **target: Any) -> Row:
    def median(runs: list[Run]) -> float:
        return float(np.median([run.evaluations_to_optimum for run in runs]))

    title = "median evaluations to the optimum"
    return _search("median_evaluations", problem, median, title, **target)


def _found_within(n: int, problem: str, **target: Any) -> Row:
    def percentage(runs: list[Run]) -> float:
        return 100 * sum(run.evaluations_to_optimum <= n for run in runs) / len(runs)

    target |= {"at_least": True, "unit": "%"}
    title = f"seeds that reach the optimum in {n}"
    return _search(f"found_within_{n}", problem, percentage, title, **target)


def _mean_regret(n: int, problem: str, **target: Any) -> Row:
    def mean(runs: list[Run]) -> float:
        return float(np.mean([run.guided_regret(n) for run in runs]))

    title = f"mean regret after {n}"
    return _search(f"mean_regret_at_{n}", problem, mean, title, **target)


_WITHIN_15 = "BOCS and Optuna TPE, within 15"
_SEARCH = (  # each behind the evaluations after the initial ones that decide it
    (30, _median_evaluations("bqp_10", asked=8, value=8, source="BOCS-SDP")),
    (30, _found_within(30, "bqp_10", asked=100)),
    (20, _found_within(20, "planted_20", asked=80, value=0, source=_WITHIN_15)),
    (30, _mean_regret(30, "contamination", asked=0.38, value=0.38, source="BOCS-SA")),
    (40, _mean_regret(40, "ising", asked=0.70, value=0.70, source="BOCS-SA")),
)
