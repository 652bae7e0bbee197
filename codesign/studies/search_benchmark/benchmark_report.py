"""What a benchmark found, in tables, figures and numbers."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from codesign.report import Card, Column, Paragraph, Quantity, Table, comparison, plots
from codesign.search import optimizer as optimizers
from codesign.studies import frame
from codesign.studies.published import quantities
from codesign.studies.search_benchmark import penalty, targets
from codesign.studies.search_benchmark.benchmark_result import (
    BenchmarkResult,
    Measured,
    Run,
    Unit,
)
from codesign.studies.search_benchmark.benchmark_settings import BenchmarkConfig
from codesign.studies.search_benchmark.problems import PROBLEMS

_FAMILIES = ("planted", "placement")  # have figures of their own
_NOTES = {
    "mean_regret": "after {budget} evaluations",
    "median_regret": "after {budget} evaluations",
    "num_rejected": "mean over seeds; ruled out before they were evaluated",
    "num_optima": "of {num_seeds} seeds, after {budget} evaluations",
    "evaluations_to_optimum": "median over seeds; none if fewer than half found it",
    "ask_s": "median CPU time of a guided ask",
}


def report(config: BenchmarkConfig, found: Mapping[Unit, Measured]) -> frame.Report:
    """Targets first, then regret curves, then where each optimiser ended."""
    result = BenchmarkResult(config, found)
    reached = quantities(targets.rows(config), result)
    by_penalty = penalty.rows(result)
    numbers = [*reached, *final_quantities(result)]
    tables = [final_table(result)]
    if len(by_penalty) > 1:
        numbers += penalty.quantities(by_penalty)
        tables.append(penalty.table(by_penalty))
    if result.speeds:
        numbers += speed_quantities(result)
        tables.append(speed_table(result))
    compared = (
        "Targets",
        f"Over {config.num_seeds} seeds. Evaluations are counted after the initial ones. "
        "Targets are the project's own; values elsewhere are of its trials of the peers "
        "on other seeds and machines.",
        "Times: medians of warm calls, in seconds of CPU.",
    )
    table = comparison.table(reached, compared[0], compared[1:])
    about = Paragraph(
        "Simple regret: the exact optimum less the best objective so far, both with the "
        "penalty on ones. All optimisers begin with the same random points."
    )
    return frame.Report(
        title="Sparse Bayesian search against its peers",
        summary=summary(result, reached),
        sections=[
            frame.Section("Targets", [table] if reached else []),
            frame.Section("Regret", [about, *figures(result)]),
            frame.Section("Tables", tables),
        ],
        quantities=numbers,
        cards=[
            Card(q.title, comparison.ours(q), f"target {comparison.wanted(q)}")
            for q in reached
        ],
        shown=tables,
        compared=compared,
    )


def summary(result: BenchmarkResult, reached: list[Quantity]) -> str:
    """The answer in a paragraph."""
    tasks, least = result.config.tasks, 0
    for task in tasks:
        peer = result.best_peer(task.problem, _mean_regret)
        ours = _mean_regret(result.of(task.problem, "codesign"))
        least += peer is None or peer[1] is None or ours <= peer[1]
    num_met = sum(quantity.verdict == "met" for quantity in reached)
    met = f"{num_met} of {len(reached)} targets are met. " if reached else ""
    return (
        f"{met}Over {result.config.num_seeds} seeds our search ends with the least mean "
        f"regret, or as little as the best peer, on {least} of {len(tasks)} problems."
    )


def _mean_regret(runs: list[Run]) -> float:
    return float(np.mean([run.regret[-1] for run in runs]))


def _ends(runs: list[Run]) -> dict[str, Any]:
    """How one optimiser ended on one problem, by the names of `_NOTES`."""
    needed = float(np.median([run.evaluations_to_optimum for run in runs]))
    asks_s = [run.ask_s[run.num_initial :] for run in runs]
    return {
        "mean_regret": _mean_regret(runs),
        "median_regret": float(np.median([run.regret[-1] for run in runs])),
        "num_rejected": float(np.mean([run.num_rejected for run in runs])),
        "num_optima": sum(bool(run.regret[-1] == 0) for run in runs),
        "evaluations_to_optimum": needed if np.isfinite(needed) else None,
        "ask_s": float(np.median(asks_s)),
    }


def final_table(result: BenchmarkResult) -> Table:
    """How each optimiser ended on each problem."""
    made = Table(
        "At the end of the budget",
        [
            "Problem",
            Column("Budget", justify="right"),
            "Optimiser",
            Column("Mean regret"),
            Column("Median regret"),
            Column("Optimum found", justify="right"),
            Column("Needed", format="g"),
            Column("CPU per ask", "s", "si"),
        ],
        footnotes=[
            "Budget: initial and further evaluations. Regret 0 is the exact optimum. "
            "Needed: evaluations to it after the initial ones, median over all seeds.",
        ],
    )
    for task in result.config.tasks:
        names = result.config.optimizers
        ends = [_ends(result.of(task.problem, name)) for name in names]
        least = min(end["mean_regret"] for end in ends)
        for name, end in zip(names, ends, strict=True):
            is_best = end["mean_regret"] == least
            made.add(
                PROBLEMS[task.problem](0).title,
                task.budget,
                optimizers.LABELS[name],
                end["mean_regret"],
                end["median_regret"],
                f"{end['num_optima']} of {result.config.num_seeds}",
                end["evaluations_to_optimum"],
                end["ask_s"],
                style="highlight" if is_best else "",
                marker="★" if is_best else "",
            )
    return made


def final_quantities(result: BenchmarkResult) -> Iterator[Quantity]:
    """The numbers of `final_table`."""
    num_seeds = result.config.num_seeds
    for task, name in itertools.product(result.config.tasks, result.config.optimizers):
        of = {"problem": task.problem, "optimizer": name}
        for key, value in _ends(result.of(task.problem, name)).items():
            note = _NOTES[key].format(budget=task.budget, num_seeds=num_seeds)
            unit = "s" if key == "ask_s" else ""
            yield Quantity(key, value, unit, kind="measured", note=note, of=of)


def figures(result: BenchmarkResult) -> Iterator[frame.Figure]:
    """Regret over evaluations, a panel a problem, a figure a family of problems."""
    groups: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    for task in result.config.tasks:
        family = task.problem.partition("_")[0]
        group = groups.setdefault(family if family in _FAMILIES else "literature", {})
        group[PROBLEMS[task.problem](0).title] = {
            optimizers.LABELS[name]: np.array(
                [r.regret[r.num_initial - 1 :] for r in result.of(task.problem, name)]
            )
            for name in result.config.optimizers
        }
    caption = (
        f"Median regret over {result.config.num_seeds} seeds, and the middle half of "
        "them as a band. The foot is the optimum."
    )
    for name, panels in groups.items():
        drawn = plots.regret_curves(
            panels, x_label="Evaluations after the initial ones"
        )
        yield frame.Figure(f"regret_{name}", drawn, caption)


def speed_table(result: BenchmarkResult) -> Table:
    """Where the time of an ask goes, by C and number of observations."""
    seconds = ("Posterior", "Acquisition", "ask()", "ask(8)")
    return Table(
        "Seconds per ask",
        ["C", "Observations", *(Column(name, "s", "si") for name in seconds)],
        rows=[dataclasses.astuple(speed) for speed in result.speeds],
        footnotes=["Medians of warm calls, in seconds of CPU over all threads."],
    )


def speed_quantities(result: BenchmarkResult) -> Iterator[Quantity]:
    """The numbers of `speed_table` that no target is about."""
    note = "median of warm calls, CPU time"
    for speed in result.speeds:
        c, n = str(speed.num_variables), str(speed.num_observations)
        of = {"variables": c, "observations": n}
        for name in ("posterior_s", "acquisition_s"):
            value = getattr(speed, name)
            yield Quantity(name, value, "s", kind="measured", note=note, of=of)
