"""What the search is to reach, and what it reached."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from codesign.report import Column, Quantity, Table, format_quantity
from codesign.report.format import NO_VALUE
from codesign.studies.search_benchmark.ask_time import Speed
from codesign.studies.search_benchmark.benchmark_result import Outcome, Run

_AT_MOST_S = {20: 0.05, 50: 0.2, 100: 1.5}  # an ask after about 60 observations
_NEAR = (40, 80)  # observations that count as about 60


@dataclasses.dataclass(frozen=True)
class Result:
    """One row of the table of targets.

    Attributes:
        name: Of the quantity in results.json.
        what: The quantity in words.
        ours: What was measured; None if our study did not get there.
        goal: What it is held against; the value must not be above, or with `at_least`
            not below.
        unit: As of `Quantity`.
        peer: The best peer of the same benchmark, and its value.
        published: The best value that a peer reached elsewhere.
        source: Which peer that was.
    """

    name: str
    what: str
    ours: float | None
    goal: float
    unit: str = ""
    at_least: bool = False
    peer: tuple[str, float] | None = None
    published: float | None = None
    source: str = ""

    @property
    def met(self) -> bool:
        if self.ours is None:
            return False
        return self.ours >= self.goal if self.at_least else self.ours <= self.goal

    def quantity(self) -> Quantity:
        sign = "at least" if self.at_least else "at most"
        note = f"target: {sign} {self.goal:g}, {'met' if self.met else 'missed'}"
        if self.ours is None:
            note += "; not reached within the budget"
        return Quantity(
            self.name, self.ours, self.unit, kind="measured", paper=self.published,
            source=self.source, note=note,
        )  # fmt: skip


def results(outcome: Outcome) -> list[Result]:
    """The targets that the benchmark's problems and sizes decide."""
    return [*_search_results(outcome), *_speed_results(outcome)]


def _search_results(outcome: Outcome) -> Iterator[Result]:
    """Of the problems whose budget is large enough."""
    budgets = {task.problem: task.num_guided for task in outcome.config.tasks}
    if budgets.get("bqp_10", 0) >= 30:
        yield _median_evaluations(outcome, "bqp_10", 8, "BOCS-SDP")
        yield _found_within(outcome, "bqp_10", 30, 100)
    if budgets.get("planted_20", 0) >= 20:
        source = "BOCS and Optuna TPE, within 15"
        yield _found_within(outcome, "planted_20", 20, 80, published=0, source=source)
    if budgets.get("contamination", 0) >= 30:
        yield _mean_regret(outcome, "contamination", 30, 0.38, "BOCS-SA")
    if budgets.get("ising", 0) >= 40:
        yield _mean_regret(outcome, "ising", 40, 0.70, "BOCS-SA")


def _median_evaluations(
    outcome: Outcome, problem: str, goal: float, source: str
) -> Result:
    def median(runs: list[Run]) -> float:
        return float(np.median([run.evaluations_to_optimum for run in runs]))

    ours = outcome.of(problem, "codesign")
    needed = median(ours)
    return Result(
        f"median_evaluations[{problem}]",
        f"{ours[0].title}: median evaluations to the optimum",
        needed if np.isfinite(needed) else None,
        goal,
        peer=outcome.best_peer(problem, median),
        published=goal,
        source=source,
    )


def _found_within(
    outcome: Outcome,
    problem: str,
    count: int,
    goal: float,
    published: float | None = None,
    source: str = "",
) -> Result:
    def missed(runs: list[Run]) -> float:
        missed = [run.evaluations_to_optimum > count for run in runs]
        return 100 * float(np.mean(missed))

    ours, peer = outcome.of(problem, "codesign"), outcome.best_peer(problem, missed)
    return Result(
        f"found_within_{count}[{problem}]",
        f"{ours[0].title}: seeds that reach the optimum in {count}",
        100 - missed(ours),
        goal,
        unit="%",
        at_least=True,
        peer=peer and (peer[0], 100 - peer[1]),
        published=published,
        source=source,
    )


def _mean_regret(
    outcome: Outcome, problem: str, count: int, goal: float, source: str
) -> Result:
    def mean(runs: list[Run]) -> float:
        return float(np.mean([run.guided_regret(count) for run in runs]))

    ours = outcome.of(problem, "codesign")
    return Result(
        f"mean_regret_at_{count}[{problem}]",
        f"{ours[0].title}: mean regret after {count}",
        mean(ours),
        goal,
        peer=outcome.best_peer(problem, mean),
        published=goal,
        source=source,
    )


def _speed_results(outcome: Outcome) -> Iterator[Result]:
    for speed in outcome.speeds:
        c, n = speed.num_variables, speed.num_observations
        if c not in _AT_MOST_S or not _NEAR[0] <= n <= _NEAR[1]:
            continue
        bocs = {"published": 0.2, "source": "BOCS in Python"} if c == 20 else {}
        yield Result(
            f"ask_s[{c},{n}]",
            f"One ask, C = {c}, {n} observations",
            speed.ask_s,
            _AT_MOST_S[c],
            unit="s",
            **bocs,
        )
        if c == 20:
            yield Result(
                f"batch_ask_s[{c},{n}]",
                f"Eight asks at once, C = {c}, {n} observations",
                speed.batch_ask_s,
                0.25,
                unit="s",
            )


def table(rows: list[Result], num_seeds: int) -> Table:
    """Target, ours and the best peer, row by row."""
    made = Table(
        "Targets",
        [
            "What",
            Column("Target", justify="right"),
            Column("Ours", justify="right"),
            Column("Best peer here", justify="right"),
            Column("Best peer elsewhere", justify="right"),
            "Met",
        ],
        footnotes=[
            f"Over {num_seeds} seeds. Evaluations are counted after the initial ones. "
            "Targets are the project's own; values elsewhere are of its trials of the "
            "peers on other seeds and machines.",
            "Times: medians of warm calls, in seconds of CPU.",
        ],
    )
    for row in rows:
        shown = format_quantity(row.goal, row.unit)
        peer = NO_VALUE
        if row.peer:
            value = row.peer[1]
            text = (
                format_quantity(value, row.unit) if np.isfinite(value) else "not found"
            )
            peer = f"{text} ({row.peer[0]})"
        elsewhere = format_quantity(row.published, row.unit)
        made.add(
            row.what,
            f"{'≥' if row.at_least else '≤'} {shown}",
            "not found" if row.ours is None else format_quantity(row.ours, row.unit),
            peer,
            f"{elsewhere} ({row.source})" if row.source else elsewhere,
            row.met,
            style="" if row.met else "bad",
        )
    return made


def speed_table(speeds: tuple[Speed, ...]) -> Table:
    """Where the time of an ask goes, by C and number of observations."""
    made = Table(
        "Seconds per ask",
        [
            Column("C", format="d"),
            Column("Observations", format="d"),
            Column("Posterior", "s", "si"),
            Column("Acquisition", "s", "si"),
            Column("ask()", "s", "si"),
            Column("ask(8)", "s", "si"),
        ],
        footnotes=["Medians of warm calls, in seconds of CPU over all threads."],
    )
    for speed in speeds:
        made.add(*dataclasses.astuple(speed))
    return made
