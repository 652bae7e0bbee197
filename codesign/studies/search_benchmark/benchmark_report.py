"""Writes what a benchmark found: results.json, figures and one HTML page."""

import pathlib
import sys

import numpy as np
import rich.console

from codesign import report
from codesign.records.files import write_atomic
from codesign.report import (
    Card,
    Column,
    FigureImage,
    Paragraph,
    Quantity,
    Section,
    Table,
    canvas,
    plots,
)
from codesign.report.format import NO_VALUE
from codesign.search import optimizer as optimizers
from codesign.studies.search_benchmark import penalty, targets
from codesign.studies.search_benchmark.benchmark_result import Outcome, Run

_FAMILIES = ("planted", "placement")  # have figures of their own


def write(outcome: Outcome, *, workdir: pathlib.Path, wall_s: float) -> None:
    """Writes `results.json`, PNG figures and `report.html`, and prints the tables."""
    config = outcome.config
    rows = targets.results(outcome)
    tables = [final_table(outcome)]
    if rows:
        tables.insert(0, targets.table(rows, config.num_seeds))
    by_penalty = penalty.rows(outcome)
    if len(by_penalty) > 1:
        tables.append(penalty.table(by_penalty))
    if outcome.speeds:
        tables.append(targets.speed_table(outcome.speeds))
    drawn = draw(outcome, workdir)
    results = report.Results(
        experiment="search_benchmark",
        preset=config.preset,
        seed=config.seed,
        environment=report.environment(),
        wall_s=wall_s,
        quantities=[
            *(row.quantity() for row in rows),
            *_quantities(outcome),
            *(penalty.quantities(by_penalty) if len(by_penalty) > 1 else ()),
            *_speed_quantities(outcome),
        ],
        figures=[path for path, _ in drawn],
    )
    page = report.render_page(
        "Sparse Bayesian search against its peers",
        summary(outcome, rows),
        cards=[
            Card(
                row.what,
                report.format_quantity(row.ours, row.unit),
                f"target {'≥' if row.at_least else '≤'} "
                f"{report.format_quantity(row.goal, row.unit)}",
            )
            for row in rows
        ],
        sections=[
            *([Section("Targets", [tables[0]])] if rows else []),
            Section(
                "Regret",
                [
                    Paragraph(
                        "Simple regret: the exact optimum less the best objective so "
                        "far, both with the penalty on ones. All optimisers begin with "
                        "the same random points."
                    ),
                    *(FigureImage(workdir / path, text) for path, text in drawn),
                ],
            ),
            Section("Tables", [*tables[1 if rows else 0 :]]),
        ],
        results=results,
        config=config,
    )
    write_atomic(workdir / "report.html", page)
    results.write(workdir / "results.json")
    console = rich.console.Console()
    for table in tables:
        if sys.stdout.isatty():
            console.print(table.to_rich())
        else:
            print(f"{table.to_text()}\n", flush=True)
    console.print(summary(outcome, rows), highlight=False)
    console.print(f"Report: {workdir / 'report.html'}", highlight=False, soft_wrap=True)


def summary(outcome: Outcome, rows: list[targets.Result]) -> str:
    """The answer in a paragraph."""
    config = outcome.config
    least, contests = 0, [task.problem for task in config.tasks]
    for problem in contests:
        peer = outcome.best_peer(problem, _mean_final_regret)
        ours = _mean_final_regret(outcome.of(problem, "codesign"))
        least += peer is None or ours <= peer[1]
    met = (
        f"{sum(row.met for row in rows)} of {len(rows)} targets are met. "
        if rows
        else ""
    )
    return (
        f"{met}Over {config.num_seeds} seeds our search ends with the least mean regret, "
        f"or as little as the best peer, on {least} of {len(contests)} problems."
    )


def final_table(outcome: Outcome) -> Table:
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
            Column("Needed", justify="right"),
            Column("CPU per ask", "s", "si"),
        ],
        footnotes=[
            "Budget: initial and further evaluations. Regret 0 is the exact optimum. "
            "Needed: evaluations to it after the initial ones, median over all seeds.",
        ],
    )
    for task in outcome.config.tasks:
        peers = [
            _mean_final_regret(outcome.of(task.problem, name))
            for name in outcome.config.optimizers
        ]
        for name in outcome.config.optimizers:
            runs = outcome.of(task.problem, name)
            needed = float(np.median([run.evaluations_to_optimum for run in runs]))
            best = _mean_final_regret(runs) == min(peers)
            made.add(
                runs[0].title,
                f"{task.num_initial} + {task.num_guided}",
                optimizers.LABELS[name],
                _mean_final_regret(runs),
                float(np.median([run.regret[-1] for run in runs])),
                f"{sum(run.regret[-1] == 0 for run in runs)} of {len(runs)}",
                f"{needed:g}" if np.isfinite(needed) else NO_VALUE,
                _median_ask_s(runs),
                style="highlight" if best else "",
                marker="★" if best else "",
            )
    return made


def draw(outcome: Outcome, workdir: pathlib.Path) -> list[tuple[str, str]]:
    """Saves the regret curves as PNG; returns their file names with captions."""
    groups: dict[str, list[str]] = {}
    for task in outcome.config.tasks:
        family = task.problem.partition("_")[0]
        group = family if family in _FAMILIES else "literature"
        groups.setdefault(group, []).append(task.problem)
    captions = []
    for group, names in groups.items():
        panels = {}
        for name in names:
            panels[outcome.of(name, "codesign")[0].title] = {
                optimizers.LABELS[optimizer]: np.array(
                    [r.regret[r.num_initial - 1 :] for r in outcome.of(name, optimizer)]
                )
                for optimizer in outcome.config.optimizers
            }
        path = f"regret_{group}.png"
        figure = plots.regret_curves(
            panels, x_label="Evaluations after the initial ones"
        )
        canvas.save(figure, workdir / path)
        captions.append(
            (
                path,
                f"Median regret over {outcome.config.num_seeds} seeds, and the middle "
                "half of them as a band. The foot is the optimum.",
            )
        )
    return captions


def _quantities(outcome: Outcome) -> list[Quantity]:
    found = []
    for task in outcome.config.tasks:
        for name in outcome.config.optimizers:
            runs = outcome.of(task.problem, name)
            index = f"[{task.problem},{name}]"
            budget = f"after {task.num_initial} + {task.num_guided} evaluations"
            needed = float(np.median([run.evaluations_to_optimum for run in runs]))
            measured = {
                "mean_regret": (_mean_final_regret(runs), budget),
                "median_regret": (
                    float(np.median([run.regret[-1] for run in runs])),
                    budget,
                ),
                "num_rejected": (
                    float(np.mean([run.num_rejected for run in runs])),
                    "mean over seeds; ruled out before they were evaluated",
                ),
                "num_optima": (
                    sum(bool(run.regret[-1] == 0) for run in runs),
                    f"of {len(runs)} seeds, {budget}",
                ),
                "evaluations_to_optimum": (
                    needed if np.isfinite(needed) else None,
                    "median over seeds; none if fewer than half found it",
                ),
            }
            found += [
                Quantity(f"{key}{index}", value, "", kind="measured", note=note)
                for key, (value, note) in measured.items()
            ]
            found.append(
                Quantity(
                    f"ask_s{index}", _median_ask_s(runs), "s", kind="measured",
                    note="median CPU time of a guided ask",
                )
            )  # fmt: skip
    return found


def _speed_quantities(outcome: Outcome) -> list[Quantity]:
    note = "median of warm calls, CPU time"
    return [
        Quantity(
            f"{part}_s[{speed.num_variables},{speed.num_observations}]",
            getattr(speed, f"{part}_s"),
            "s",
            kind="measured",
            note=note,
        )
        for speed in outcome.speeds
        for part in ("posterior", "acquisition")
    ]


def _mean_final_regret(runs: list[Run]) -> float:
    return float(np.mean([run.regret[-1] for run in runs]))


def _median_ask_s(runs: list[Run]) -> float:
    return float(np.median([run.ask_s[run.num_initial :] for run in runs]))
