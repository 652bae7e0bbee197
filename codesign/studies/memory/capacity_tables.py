"""Tables of a memory sweep, and the rows of sweep.csv."""

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from codesign import units
from codesign.report import Column, Quantity, Table
from codesign.report.format import NO_VALUE, format_number, format_quantity
from codesign.report.table import RowStyle
from codesign.studies.memory.capacity_result import Outcome
from codesign.studies.memory.memory_published import TITLES
from codesign.studies.memory.observations import Observation

CSV_COLUMNS = (
    *("network", "batch", "hardware", "capacity_mb", "time_s"),
    *("traffic_in_bytes", "traffic_out_bytes", "average_bandwidth", "active_time"),
    *("utilisation", "type2_time_share"),
)
_STYLES: dict[bool | None, RowStyle] = {True: "", False: "bad", None: "muted"}


def csv_text(outcomes: Sequence[Outcome]) -> str:
    """All rows of sweep.csv under their heading."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    writer.writerows(_csv_rows(outcomes))
    return buffer.getvalue()


def _csv_rows(outcomes: Sequence[Outcome]) -> Iterator[tuple[Any, ...]]:
    for outcome in outcomes:
        for hardware, curves in outcome.sweeps.items():
            for c, mebibytes in enumerate(curves.capacities_mb):
                yield (
                    outcome.network,
                    outcome.batch_size,
                    hardware,
                    f"{mebibytes:.10g}",
                    float(curves.total_s[0, c]),
                    int(curves.traffic_in[c]),
                    int(curves.traffic_out[c]),
                    float(curves.average_bandwidth[0, c]),
                    float(curves.active_time[0, c]),
                    float(curves.utilisation[0, c]),
                    float(curves.type_ii_share[0, c]),
                )


def comparison(outcomes: Sequence[Outcome], quantities: Sequence[Quantity]) -> Table:
    """The paper's numbers and ours."""
    labels = {outcome.network: outcome.label for outcome in outcomes}
    table = Table(
        "The paper's numbers and ours",
        ["Network", "Quantity", Column("Paper", justify="right"),
         Column("Ours", justify="right"), Column("Deviation", justify="right"),
         "Source"],
        footnotes=[
            "Deviation in points for percentages, else relative. Reasons for those that "
            "miss stand with each quantity in results.json and below.",
        ],
    )  # fmt: skip
    for quantity in quantities:
        name, _, network = quantity.name.rstrip("]").partition("[")
        if quantity.paper is None or network not in labels:
            continue
        table.add(
            labels[network],
            TITLES[name],
            _paper(quantity),
            _ours(quantity),
            deviation(quantity),
            quantity.source,
        )
    return table


def deviation(quantity: Quantity) -> str:
    """Ours less the paper's: points of a percentage, else a part of the paper's."""
    ours, paper = quantity.value, quantity.paper
    if ours is None or paper is None:
        return NO_VALUE
    if isinstance(paper, bool):
        return "same" if ours == paper else "differs"
    if quantity.unit == "%":
        return f"{ours - paper:+.1f} points".replace("-", "−")
    if ours == paper:
        return "exact"
    return f"{(ours - paper) / paper:+.1%}".replace("-", "−")


def _paper(quantity: Quantity) -> str:
    """With all the digits that are printed."""
    if quantity.unit == "%":
        return f"{quantity.paper:g}%"
    return format_quantity(quantity.paper, quantity.unit)


def _ours(quantity: Quantity) -> str:
    if quantity.unit == "%" and quantity.value is not None:
        return f"{quantity.value:.1f}%"
    return format_quantity(quantity.value, quantity.unit)


def observations(found: Sequence[Observation]) -> Table:
    """The 14 observations."""
    table = Table(
        "The paper's 14 observations",
        [Column("No.", justify="right"), "Observation", "Verdict", "Our numbers",
         "Asked"],
    )  # fmt: skip
    for each in found:
        table.add(
            each.number, each.claim, each.verdict, each.evidence, each.rule,
            style=_STYLES[each.holds],
        )  # fmt: skip
    return table


def verdicts(found: Sequence[Observation]) -> Table:
    """The same without the rules, narrow enough for a terminal."""
    table = Table(
        "Observations", [Column("No.", justify="right"), "Verdict", "Our numbers"]
    )
    for each in found:
        table.add(each.number, each.verdict, each.evidence, style=_STYLES[each.holds])
    return table


def networks(outcomes: Sequence[Outcome]) -> Table:
    """What was swept, and how long that took."""
    table = Table(
        "Networks",
        [
            "Network",
            Column("Batch"),
            Column("Steps"),
            Column("Smallest cache", "MB", ".3g"),
            Column("Largest step", "MB", ".4g"),
            Column("Capacity sweep", "s", "si"),
            Column("Capacities"),
        ],
        footnotes=[
            "Smallest cache: a row of each map and the largest weight of some step, at 32 "
            "bits a value. "
            "Sweep: all capacities of sweep.csv on the first machine, warm, in one "
            "process, best of three.",
        ],
    )
    for outcome in outcomes:
        first = next(iter(outcome.sweeps.values()))
        table.add(
            outcome.label,
            outcome.batch_size,
            outcome.num_steps,
            outcome.smallest_capacity_mb,
            outcome.largest_step_mb,
            outcome.sweep_s,
            len(first.capacities_mb),
        )
    return table


def machines(outcomes: Sequence[Outcome]) -> Table:
    """Each network on each chip, with the smallest and the largest cache."""
    table = Table(
        "Time of an iteration with the smallest and the largest cache",
        [
            "Network",
            "Hardware",
            Column("Smallest", "MB", "g"),
            Column("Time", "s", "si"),
            Column("Utilisation", format="percent"),
            Column("Largest", "MB", "g"),
            Column("Time", "s", "si"),
            Column("Utilisation", format="percent"),
        ],
    )
    for outcome in outcomes:
        for hardware, curves in outcome.sweeps.items():
            cells = [
                float(values[place])
                for place in (0, -1)
                for values in (
                    curves.capacities_mb,
                    curves.total_s[0],
                    curves.utilisation[0],
                )
            ]
            table.add(outcome.label, hardware, *cells)
    return table


def policies(outcome: Outcome) -> Table | None:
    """Time and traffic of each policy at some capacities."""
    found = outcome.policies
    if found is None:
        return None
    table = Table(
        f"{outcome.label}: time and traffic of an iteration",
        [
            "Policy",
            *(
                Column(f"{mebibytes:g} MB", justify="right")
                for mebibytes in found.capacities_mb
            ),
        ],
    )
    for p, name in enumerate(found.names):
        table.add(
            name,
            *(
                f"{1e3 * seconds:.2f} ms, {moved / 1e9:.2f} GB"
                for seconds, moved in zip(
                    found.time_s[p], found.traffic_bytes[p], strict=True
                )
            ),
            style="highlight" if p == 0 else "",
        )
    return table


def reuse(outcome: Outcome) -> Table | None:
    """What each scope of reuse is worth and what it needs."""
    found = outcome.reuse
    if found is None:
        return None
    shown = (0, len(found.capacities_mb) // 4, -1)
    table = Table(
        f"{outcome.label}: reuse by scope",
        [
            "Scope",
            Column("Spares at most", "GB", ".3f"),
            Column("Captured whole with", "MB", ".4g"),
            *(
                Column(f"Captured at {found.capacities_mb[c]:g} MB", format="percent")
                for c in shown
            ),
        ],
        footnotes=[
            "Captured whole with: the formulas of Section 3.3. Reuse inside a layer "
            f"spares {format_number(found.intra_layer_bytes / 1e12)} TB more, which the "
            "smallest cache that runs captures already.",
        ],
    )
    for r, scope in enumerate(found.scopes):
        possible = float(found.possible_bytes[r])
        table.add(
            scope,
            possible / 1e9,
            float(found.needed_bytes[r]) / units.MIB if possible else None,
            *(
                float(found.saved_bytes[c, r]) / possible if possible else None
                for c in shown
            ),
        )
    return table
