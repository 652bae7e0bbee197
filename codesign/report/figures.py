"""Figures of search, cost and training: each function returns one Matplotlib figure.

Written to disk by `figures.save(figures.pareto(...), workdir / "pareto.png")`.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from codesign.report import canvas
from codesign.report.canvas import save, to_png
from codesign.report.format import format_number, format_percent, si_scale
from codesign.report.regret import regret_curves

__all__ = [
    "best_so_far",
    "inclusion_probability",
    "pareto",
    "regret_curves",
    "save",
    "stage_bars",
    "to_png",
    "training_curves",
]

# What became of an evaluation: its colour and marker.
_STATUSES = {
    "initial": (canvas.SKY, "o"),
    "enqueued": (canvas.PURPLE, "D"),
    "guided": (canvas.BLUE, "o"),
    "told": (canvas.BLUE, "o"),
    "at chance": (canvas.ORANGE, "v"),
    "failed": (canvas.VERMILION, "x"),
}


@canvas.styled
def best_so_far(
    values: Sequence[float | None],
    statuses: Sequence[str],
    *,
    references: Mapping[str, float] | None = None,
    tolerance: float = 0.0,
    y_label: str = "Validation accuracy",
    y_unit: str = "%",
    maximize: bool = True,
) -> Figure:
    """Draws every evaluation of a search in order, and the best one so far.

    Args:
        values: `[N]` objective values; None or NaN where an evaluation failed.
        statuses: `[N]`: "initial", "enqueued", "guided", "told", "at chance", "failed",
            or a word of one's own. Failed evaluations are never the best.
        references: Horizontal lines, by name; the first is usually All-BN.
        tolerance: Height of the band on the worse side of the first reference: values
            in it count as equally good.
        y_label: What `values` measure.
        y_unit: "%" if they are ratios to be shown in percent, else their SI unit.
        maximize: Whether larger values are better.

    Returns:
        One panel.

    Raises:
        ValueError: If `values` and `statuses` differ in length.
    """
    _same_length(values=values, statuses=statuses)
    references = dict(references or {})
    factor, label = canvas.scaled_axis([*values, *references.values()], y_label, y_unit)
    y = np.array([math.nan if v is None else v for v in values], float) * factor  # [N]
    kinds = np.array(statuses, str)  # [N]
    failed = (kinds == "failed") | ~np.isfinite(y)
    sign = 1.0 if maximize else -1.0
    best = sign * np.maximum.accumulate(np.where(failed, -np.inf, sign * y))
    levels = {name: value * factor for name, value in references.items()}
    band = [level - sign * tolerance * factor for level in list(levels.values())[:1]]
    learnt = y[~failed & (kinds != "at chance")]
    low, high = canvas.limits(
        [*learnt, *list(levels.values())[:1], *band] or [*y[~failed]]
    )

    figure, axes = canvas.single(3.6)
    axes.set(xlabel="Evaluation", ylabel=label, ylim=(low, high))
    axes.set_xlim(0.4, max(len(y), 1) + 0.6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(axis="x", visible=False)
    for index, (name, level) in enumerate(levels.items()):
        look = {"color": canvas.INK, "lw": 1.2, "ls": canvas.DASHES[(index + 1) % 4]}
        if low <= level <= high:
            axes.axhline(level, label=name, **look)
        else:
            axes.plot([], [], label=f"{name} (off the scale)", **look)
        if index == 0 and tolerance:
            width = format_number(tolerance * factor)
            width += " points" if y_unit == "%" else label[len(y_label) :]
            text = f"within {width} of {name}".replace(
                "within 1 points", "within 1 point"
            )
            axes.axhspan(
                level,
                band[0],
                color=canvas.GREEN,
                alpha=0.15,
                lw=0,
                zorder=0,
                label=text,
            )
    steps = np.arange(1, len(y) + 1)
    known = np.isfinite(best)
    if known.any():
        (line,) = axes.step(steps[known], np.clip(best[known], low, high), where="post")
        line.set(color=canvas.BLUE, label="best so far")
    colours = itertools.cycle((canvas.GREEN, canvas.INK, canvas.GREY))
    for status in sorted(set(statuses), key=[*_STATUSES, *statuses].index):
        colour, marker = _STATUSES.get(status) or (next(colours), "s")
        look: dict[str, Any] = {"s": 32, "zorder": 3, "color": colour, "marker": marker}
        if marker != "x":
            look |= {"edgecolor": "white", "linewidth": 0.6}
        chosen = kinds == status
        # A failed value means nothing, and chance is far off: along the worse edge.
        edge = low + 0.03 * (high - low) if maximize else high - 0.03 * (high - low)
        heights = np.where(failed | (y < low) | (y > high), edge, y)
        axes.scatter(steps[chosen], heights[chosen], label=status, **look)
    canvas.legend_above(figure, axes)
    return figure


@canvas.styled
def pareto(
    x: Sequence[float],
    y: Sequence[float],
    *,
    front: Sequence[bool],
    labels: Sequence[str | None] | None = None,
    highlight: int | None = None,
    y_floor: float | None = None,
    x_label: str = "Pipeline period",
    x_unit: str = "s",
    y_label: str = "Test accuracy",
    y_unit: str = "%",
) -> Figure:
    """Draws points of two objectives, the Pareto front, and the points with a name.

    Args:
        x: `[N]` costs, e.g. the period or the energy of each placement.
        y: `[N]` what they buy, e.g. accuracies as ratios.
        front: `[N]` whether a point is on the Pareto front.
        labels: `[N]` names, e.g. "All-BN"; None for points without one.
        highlight: Index of the chosen point.
        y_floor: Points below stand at the lower edge, as triangles with their value, so
            that one at chance does not flatten all others.
        x_label, y_label: What the axes show.
        x_unit, y_unit: SI units; "%" for ratios to be shown in percent.

    Returns:
        One panel.

    Raises:
        ValueError: If the lengths differ.
    """
    labels = [None] * len(x) if labels is None else labels
    _same_length(x=x, y=y, front=front, labels=labels)
    x_factor, x_text = canvas.scaled_axis(x, x_label, x_unit)
    y_factor, y_text = canvas.scaled_axis(y, y_label, y_unit)
    points = np.stack([np.asarray(x, float), np.asarray(y, float)], 1)  # [N, 2]
    points *= [x_factor, y_factor]
    on_front = np.asarray(front, bool)  # [N]
    floor = -math.inf if y_floor is None else y_floor * y_factor
    below = points[:, 1] < floor  # [N]
    percent = "%" if y_unit == "%" else ""
    names = [
        f"{name} ({format_number(value)}{percent})" if name and low else name
        for name, value, low in zip(labels, points[:, 1], below, strict=True)
    ]
    shown = points[~below, 1]
    low, high = canvas.limits(shown)
    points[below, 1] = low + 0.03 * (high - low)

    figure, axes = canvas.single(4.0)
    axes.set(xlabel=x_text, ylabel=y_text, ylim=(low, high))
    for mask, colour, size, name in (
        (~on_front, canvas.GREY, 26, "dominated"),
        (on_front, canvas.BLUE, 36, "Pareto front"),
    ):
        dots, triangles = points[mask & ~below], points[mask & below]
        axes.scatter(*dots.T, s=size, color=colour, lw=0, zorder=3, label=name)
        axes.scatter(*triangles.T, s=size, color=colour, marker="v", zorder=3)
    line = points[on_front & ~below]
    # Between two points nothing is better than the cheaper one: a staircase.
    line = np.repeat(line[np.lexsort((line[:, 1], line[:, 0]))], 2, axis=0)
    corners = np.stack([line[1:, 0], line[:-1, 1]], 1)
    axes.plot(*corners.T, color=canvas.BLUE, lw=1.4, alpha=0.8)
    if highlight is not None:
        axes.scatter(
            *points[highlight], s=210, marker="*", color=canvas.VERMILION, zorder=4,
            edgecolor="white", linewidth=0.8, label="chosen",
        )  # fmt: skip
    axes.margins(x=0.08)
    canvas.legend_above(figure, axes)
    canvas.annotate(figure, axes, points, names, line=corners, bold=highlight)
    return figure


@canvas.styled
def stage_bars(
    panels: Mapping[str, Mapping[str, tuple[float, float]]],
    *,
    normalize: bool = True,
    stages: tuple[str, str] = (
        "slowest Conv/FC stage (ReRAM)",
        "slowest BN stage (GPU)",
    ),
) -> Figure:
    """Draws the slowest stage of each kind of a pipeline, per configuration.

    As DeepTrain's Figs. 7 and 11 side by side: the panels share their y axis.

    Args:
        panels: Per panel, e.g. "All-BN" and "BO-N", and configuration, e.g. "2R2G", the
            times of the two slowest stages in seconds. A line break in the name of a
            configuration is kept.
        normalize: Whether to divide both by the first, as the paper does; else they are
            drawn in seconds with a prefix.
        stages: What the two times belong to.

    Returns:
        One panel per entry.

    Raises:
        ValueError: If `panels` is empty, or a first stage to divide by takes no time.
    """
    if not panels or not all(panels.values()):
        raise ValueError("`panels` must hold a panel, and each a configuration.")
    times = [t for panel in panels.values() for pair in panel.values() for t in pair]
    if normalize and not all(p[0] > 0 for ps in panels.values() for p in ps.values()):
        raise ValueError("`panels` must have positive first times to divide by.")
    factor, unit = si_scale(times, "s")
    counts = [len(panel) for panel in panels.values()]
    stacked = sum(counts) > 8  # Side by side they would be too small to read.
    figure = canvas.blank(2.4 * len(panels) + 0.6 if stacked else 3.5)
    shape = (len(panels), 1) if stacked else (1, len(panels))
    shared: dict[str, Any] = {"sharex": stacked, "sharey": True, "squeeze": False}
    grid = figure.subplots(*shape, **shared, width_ratios=None if stacked else counts)
    for axes, (title, panel) in zip(grid.flat, panels.items(), strict=True):
        pairs = np.array(list(panel.values()), float)  # [configurations, 2]
        pairs = pairs / pairs[:, :1] if normalize else pairs * factor
        centres = np.arange(len(panel))
        for side, colour in enumerate((canvas.BLUE, canvas.ORANGE)):
            heights, look = pairs[:, side], {"color": colour, "label": stages[side]}
            bars = axes.bar(centres + 0.4 * side - 0.2, heights, 0.38, **look)
            if side or not normalize:
                texts = [format_number(height, 2 + (height > 9)) for height in heights]
                axes.bar_label(bars, texts, padding=2, fontsize=9)
        axes.set_xticks(centres, list(panel), fontsize=9 - 0.8 * stacked)
        axes.set_title(title)
        axes.set_xlim(-0.6, len(panel) - 0.4)
        axes.tick_params(axis="x", length=0, labelbottom=True)
        axes.grid(axis="x", visible=False)
        axes.margins(y=0.12)
    figure.supylabel(
        "Time / slowest Conv/FC stage" if normalize else f"Time of the stage ({unit})",
        fontsize=10,
    )
    handles, names = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=2)
    return figure


@canvas.styled
def inclusion_probability(
    probabilities: Sequence[float],
    kept: Sequence[float],
    sites: Sequence[str],
    *,
    intervals: Sequence[tuple[float, float]] | None = None,
    elements: Sequence[float] | None = None,
    x_label: str = "Site of a batch norm",
) -> Figure:
    """Draws how probable it is, after the search, that each site needs a batch norm.

    Args:
        probabilities: `[C]` posterior probabilities that the site matters.
        kept: `[C]` 1 where the chosen placement keeps a batch norm.
        sites: `[C]` names, in network order.
        intervals: `[C]` pairs of lower and upper ends, if known.
        elements: `[C]` feature-map elements of each site, for a panel below: what a
            batch norm there costs.
        x_label: What a site is.

    Returns:
        One panel, or two that share their x axis.

    Raises:
        ValueError: If the lengths differ.
    """
    _same_length(
        probabilities=probabilities,
        kept=kept,
        sites=sites,
        intervals=intervals,
        elements=elements,
    )
    centres = np.arange(len(probabilities))
    chosen = np.asarray(kept) > 0.5  # [C]
    heights = np.asarray(probabilities, float)  # [C]
    width = max(canvas.WIDTH_INCHES, 1.2 + 0.24 * len(sites))
    figure = canvas.blank(3.3 if elements is None else 4.3, width=width)
    ratios = [1] if elements is None else [2.2, 1]
    grid = figure.subplots(
        len(ratios), 1, sharex=True, squeeze=False, height_ratios=ratios
    )
    top, bottom = grid[0, 0], grid[-1, 0]
    for mask, colour, name in (
        (chosen, canvas.BLUE, "batch norm kept (▼)"),
        (~chosen, canvas.PALE, "left out"),
    ):
        top.bar(centres[mask], heights[mask], 0.72, color=colour, label=name)
    if intervals is not None:
        ends = np.asarray(intervals, float).T  # [2, C]
        errors = np.maximum([heights - ends[0], ends[1] - heights], 0)
        top.errorbar(
            centres, heights, errors, fmt="none", ecolor=canvas.INK, lw=1, capsize=2
        )
    marks = np.full(chosen.sum(), 1.08)
    top.scatter(centres[chosen], marks, marker="v", s=30, color=canvas.BLUE)
    top.set(ylabel="Inclusion probability", ylim=(0, 1.14), yticks=np.linspace(0, 1, 6))
    top.yaxis.set_major_formatter(FuncFormatter(lambda p, _: format_percent(p, 0)))
    canvas.legend_above(figure, top)
    if elements is not None:
        bottom.bar(centres, np.asarray(elements, float), 0.72, color=canvas.GREEN)
        bottom.set_ylabel("Elements")
        bottom.yaxis.set_major_formatter(FuncFormatter(lambda n, _: format_number(n)))
    for axes in grid[:, 0]:
        axes.grid(axis="x", visible=False)
        axes.tick_params(axis="x", length=0)
    small = len(sites) > 14
    bottom.set_xticks(centres, sites, fontsize=8 if small else 9, rotation=90 * small)
    bottom.set(xlabel=x_label, xlim=(-0.7, len(sites) - 0.3))
    return figure


@canvas.styled
def training_curves(
    histories: Mapping[str, Sequence[float | None]],
    *,
    references: Mapping[str, float] | None = None,
    y_label: str = "Validation accuracy",
    y_unit: str = "%",
) -> Figure:
    """Draws one line per candidate over the epochs of its training.

    Args:
        histories: Per name, a value after each epoch from the first on; None or NaN
            leaves a gap. Names come in the order of importance: the first seven have
            colours of their own.
        references: Horizontal lines by name, e.g. "chance".
        y_label: What the values measure.
        y_unit: "%" for ratios to be shown in percent, else their SI unit.

    Returns:
        One panel.
    """
    references = dict(references or {})
    every = [v for history in histories.values() for v in history]
    factor, label = canvas.scaled_axis([*every, *references.values()], y_label, y_unit)
    figure, axes = canvas.single(3.6)
    axes.set(xlabel="Epoch", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    for index, (name, history) in enumerate(histories.items()):
        y = np.array([math.nan if v is None else v for v in history], float) * factor
        axes.plot(
            np.arange(1, len(y) + 1), y, label=name,
            color=canvas.CYCLE[index % 7], ls=canvas.DASHES[index // 7 % 4],
            marker="o" if len(y) <= 15 else None, ms=3.5, zorder=3 - 0.01 * index,
        )  # fmt: skip
    for index, (name, value) in enumerate(references.items()):
        axes.axhline(
            value * factor,
            color=canvas.GREY,
            lw=1.1,
            ls=canvas.DASHES[(index + 1) % 4],
            label=name,
        )
    canvas.legend_above(figure, axes)
    return figure


def _same_length(**given: Sequence[Any] | None) -> None:
    lengths = {name: len(each) for name, each in given.items() if each is not None}
    if len(set(lengths.values())) > 1:
        names = ", ".join(f"`{name}` (of {length})" for name, length in lengths.items())
        raise ValueError(f"{names} must have the same length.")
