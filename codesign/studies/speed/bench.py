"""How fast, smooth and exact is the library? A piece at one size is a unit of work."""

import dataclasses
import importlib.util
import itertools

from matplotlib.figure import Figure

from codesign.records.settings import setting
from codesign.report import Column, Quantity, Table, canvas, comparison, environment
from codesign.studies import frame
from codesign.studies.speed import (
    format_speed,
    kernel_speed,
    memory_speed,
    search_speed,
    smooth_error,
    trace_peers,
    training_speed,
)

GROUPS = {  # by name of a piece: `measure(size, repeats, seed)`, and sizes, least first
    "training": training_speed.PIECES,
    "convolution": kernel_speed.PIECES,
    "search": search_speed.PIECES,
    "memory": memory_speed.PIECES,
    "smooth": smooth_error.PIECES,
    "tracing": trace_peers.PIECES,
    "formats": format_speed.PIECES,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchConfig(frame.Config):
    """What is measured; all of it may change in a workdir, as units hold it."""

    only: tuple[str, ...] = setting(
        tuple(GROUPS), "Groups to measure.", one_of=GROUPS, distinct=True, free=True
    )
    repeats: int = setting(30, "Runs of each timed piece.", least=3, free=True)
    num_sizes: int = setting(4, "Sizes of each piece, at most.", least=1, free=True)


PRESETS = {
    "full": BenchConfig(preset="full"),
    "smoke": BenchConfig(preset="smoke", repeats=3, num_sizes=1),
}


def units(config: BenchConfig) -> list[tuple[str, str, float | str, int, str]]:
    """Lists group, piece, size, runs and machine: on another one all is timed anew."""
    here = environment()
    machine = f"{here['os']}, {here['num_cpus']} CPUs, JAX on {here['device_kind']}"
    return [
        (group, piece, size, config.repeats, machine)
        for group in config.only
        for piece, (_, sizes) in GROUPS[group].items()
        for size in sizes[: config.num_sizes]
    ]


def measure(config: BenchConfig, unit: tuple, job: frame.Job) -> list[Quantity]:
    """Measures one piece at one size."""
    group, piece, size, repeats, _ = unit
    job.update(0, f"{piece}, {size}")
    return GROUPS[group][piece][0](size, repeats, config.seed)


def report(config: BenchConfig, found: dict[tuple, list[Quantity]]) -> frame.Report:
    """Compares what has a target, and shows the rest."""
    rows = list(itertools.chain(*found.values()))
    asked = [row for row in rows if row.asked is not None]
    others = (smooth_error, trace_peers)
    timed = [row for row in rows if not any(other.is_ours(row) for other in others)]
    rest = [row for row in timed if row.asked is None]
    machine = next(iter(found))[-1]
    notes = [
        f"Medians of {config.repeats} interleaved runs in one process; of asks, Optuna's "
        "too, of the CPU time of 5 warm calls over all threads. Times are the machine's "
        f"own ({machine}); ratios travel better."
    ]
    absent = [n for n in ("optuna", "cvxpy") if not importlib.util.find_spec(n)]
    notes += [f"No peer, as {name} is not installed." for name in absent]

    def table(title, rows, *notes):
        columns = ["Figure", Column("Measured", justify="right"), "Peer in this run"]
        cells = [(r.title, comparison.ours(r), comparison.peer(r)) for r in rows]
        return Table(title, columns, cells, notes)

    caption = (
        "Left of 1 a target is met; a diamond is a peer in the same run. Bars end at "
        f"{_LEAST:g}."
    )
    bars = frame.Figure("bench", _bars(asked), caption)
    if not timed:
        notes = []
    tables = [each for other in others for each in other.tables(rows)]
    everything = [table("All", timed, *notes)] if timed else []
    met = sum(row.verdict == "met" for row in asked)
    return frame.Report(
        title="Speed, smoothness and counts against targets and peers",
        summary=f"{met} of {len(asked)} targets met on {machine}.",
        sections=[frame.Section("Figures", [bars, *everything, *tables])],
        quantities=rows,
        shown=[*([table("Without a target", rest)] if rest else []), *tables],
        compared=["Targets", *notes],
    )


@canvas.styled
def _bars(rows: list[Quantity]) -> Figure:
    """Draws measured over asked, from 1."""
    figure, axes = canvas.single(1.0 + 0.26 * len(rows))
    canvas.log_scale(axes, "x")
    axes.set(xlabel="Measured over asked", yticks=range(len(rows)))
    axes.set_yticklabels([row.title for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.axvline(1, color=canvas.INK, lw=1)
    for y, row in enumerate(rows):
        color = canvas.BLUE if row.verdict == "met" else canvas.VERMILION
        ratio = _over_asked(row, row.value)
        axes.barh(y, ratio - 1, left=1, color=color, height=0.6)
        if row.peer and row.peer[1] is not None:
            axes.plot(_over_asked(row, row.peer[1]), y, "D", color=canvas.GREY, ms=4)
    return figure


_LEAST = 1e-3  # of measured over asked, as a logarithm has no place for 0


def _over_asked(row: Quantity, value: float | None) -> float:
    if not row.asked:  # none is allowed
        return 1 / _LEAST if value else _LEAST
    return max((value or 0) / row.asked, _LEAST)


STUDY = frame.Study(
    name="bench", presets=PRESETS, units=units, measure=measure, report=report,
    found=list[Quantity],
)  # fmt: skip
