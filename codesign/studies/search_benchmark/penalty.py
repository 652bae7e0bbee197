"""What lambda does: the same search under each of a coarse grid, on trained placements."""

import dataclasses

import numpy as np

from codesign.report import Column, Quantity, Table
from codesign.search import points
from codesign.studies.deeptrain.placement_search import TOLERANCE
from codesign.studies.search_benchmark.benchmark_result import BenchmarkResult
from codesign.studies.search_benchmark.trained_placements import (
    LAMBDAS,
    placement_name,
    published,
)

_ENOUGH = 0.9  # of the searches must end with a valid placement


@dataclasses.dataclass(frozen=True)
class PenaltyRow:
    """What our search found under one lambda, as means over its runs."""

    penalty: float  # lambda
    num_bn: float  # of the incumbent
    accuracy: float  # of the incumbent, on validation, over all seeds of the table
    valid: float  # ratio of runs that end within 1 point of All-BN, over those seeds
    optimal: float  # ratio of runs that found the exact optimum


def rows(result: BenchmarkResult) -> list[PenaltyRow]:
    """One row for each lambda that was run, ascending."""
    mean_accuracy = published().accuracy.mean(axis=1)
    found = []
    for penalty in LAMBDAS:
        runs = result.of(placement_name(penalty), "codesign")
        if not runs:
            continue
        best = [points.decode(run.points[np.argmax(run.objectives)]) for run in runs]
        accuracy = np.array([mean_accuracy[published().row(x)] for x in best])
        means = (
            np.mean([x.sum() for x in best]),
            accuracy.mean(),
            np.mean(accuracy >= mean_accuracy[-1] - TOLERANCE),
            np.mean([run.regret[-1] == 0 for run in runs]),
        )
        found.append(PenaltyRow(penalty, *map(float, means)))
    return found


def chosen(found: list[PenaltyRow]) -> PenaltyRow | None:
    """The largest lambda under which nine runs in ten end with a valid placement."""
    valid = [row for row in found if row.valid >= _ENOUGH]
    return valid[-1] if valid else None


def table(found: list[PenaltyRow]) -> Table:
    """The effect of lambda, the chosen one marked."""
    made = Table(
        "Choice of lambda",
        [
            Column("lambda", format="g"),
            Column("Batch norms kept", format=".1f"),
            Column("Accuracy over seeds", format="percent"),
            Column("Valid", format="percent"),
            Column("Exact optimum", format="percent"),
        ],
        footnotes=[
            "Means over our searches on the trained placements of VGG-11 on digits. "
            "Valid: within 1 point of All-BN, both as means over all seeds of the table. "
            "Chosen (★): the largest lambda with at least 90 % valid.",
        ],
    )
    for row in found:
        marks = ("highlight", "★") if row is chosen(found) else ("", "")
        made.add(*dataclasses.astuple(row), style=marks[0], marker=marks[1])
    return made


def quantities(found: list[PenaltyRow]) -> list[Quantity]:
    """The numbers of `table`."""
    best = chosen(found)
    made = [
        Quantity(
            f"lambda_{name}", getattr(row, name), kind="measured",
            of={"lambda": f"{row.penalty:g}"},
        )
        for row in found
        for name in ("num_bn", "accuracy", "valid", "optimal")
    ]  # fmt: skip
    note = "largest of the grid with at least 90 % of the searches valid"
    value = best and best.penalty
    return [*made, Quantity("lambda_chosen", value, kind="measured", note=note)]
