"""Tables of a memory sweep, and the text of sweep.csv."""

import csv
import io
from collections.abc import Sequence

from codesign import units
from codesign.report import Column, Table
from codesign.report.format import format_number
from codesign.report.table import RowStyle
from codesign.studies.memory.capacity_result import NetworkSweep, ran
from codesign.studies.memory.observations import Observation

CSV_COLUMNS = (
    *("network", "batch", "hardware", "capacity_mb", "time_s"),
    *("traffic_in_bytes", "traffic_out_bytes", "average_bandwidth", "active_time"),
    *("utilisation", "type2_time_share"),
)
_STYLES: dict[bool | None, RowStyle] = {True: "", False: "bad", None: "muted"}


def csv_text(sweeps: Sequence[NetworkSweep]) -> str:
    """All rows of sweep.csv under their heading."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for sweep in sweeps:
        for hardware, curves in sweep.sweeps.items():
            columns = (
                [f"{mebibytes:.10g}" for mebibytes in curves.capacities_mb],
                curves.total_s[0].tolist(),
                curves.traffic_in_bytes.tolist(),
                curves.traffic_out_bytes.tolist(),
                curves.average_bandwidth[0].tolist(),
                curves.active_time[0].tolist(),
                curves.utilisation[0].tolist(),
                curves.type_ii_share[0].tolist(),
            )
            for cells in zip(*columns, strict=True):
                writer.writerow([sweep.network, sweep.batch_size, hardware, *cells])
    return buffer.getvalue()


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


def networks(sweeps: Sequence[NetworkSweep]) -> Table:
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
    for sweep in sweeps:
        first = next(iter(sweep.sweeps.values()))
        table.add(
            sweep.label,
            sweep.batch_size,
            sweep.num_steps,
            sweep.smallest_capacity_mb,
            sweep.largest_step_mb,
            sweep.sweep_s,
            len(first.capacities_mb),
        )
    return table


def machines(sweeps: Sequence[NetworkSweep]) -> Table:
    """Each network on each chip, with the smallest and the largest cache."""
    numbers = (Column("Time", "s", "si"), Column("Utilisation", format="percent"))
    table = Table(
        "Time of an iteration with the smallest and the largest cache",
        [
            *("Network", "Hardware"),
            *(Column("Smallest", "MB", "g"), *numbers),
            *(Column("Largest", "MB", "g"), *numbers),
        ],
    )
    for sweep in sweeps:
        for hardware, curves in sweep.sweeps.items():
            rows = (curves.capacities_mb, curves.total_s[0], curves.utilisation[0])
            cells = [float(values[place]) for place in (0, -1) for values in rows]
            table.add(sweep.label, hardware, *cells)
    return table


def policies(sweep: NetworkSweep) -> Table:
    """Time and traffic of each policy at some capacities."""
    found = ran(sweep.policies)
    table = Table(
        f"{sweep.label}: time and traffic of an iteration",
        [
            "Policy",
            *(Column(f"{mb:g} MB", justify="right") for mb in found.capacities_mb),
        ],
    )
    for p, name in enumerate(found.names):
        pairs = zip(found.time_s[p], found.traffic_bytes[p], strict=True)
        cells = [
            f"{1e3 * time_s:.2f} ms, {moved / 1e9:.2f} GB" for time_s, moved in pairs
        ]
        table.add(name, *cells, style="highlight" if p == 0 else "")
    return table


def reuse(sweep: NetworkSweep) -> Table:
    """What each scope of reuse is worth and what it needs."""
    found = ran(sweep.reuse)
    shown = (0, len(found.capacities_mb) // 4, -1)
    table = Table(
        f"{sweep.label}: reuse by scope",
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
