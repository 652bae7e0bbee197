"""Plots that no paper owns: values in order, a Pareto front, curves, regrets.

Each function returns one Matplotlib figure; `canvas.to_png` renders it.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from codesign.report import canvas
from codesign.report.format import format_number
from codesign.report.regret import regret_curves

__all__ = ["best_so_far", "curves", "pareto", "regret_curves", "same_length"]

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
    same_length(values=values, statuses=statuses)
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
    same_length(x=x, y=y, front=front, labels=labels)
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
def curves(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float | None]]],
    *,
    x_label: str,
    y_label: str,
    x_unit: str = "",
    y_unit: str = "",
    references: Mapping[str, float] | None = None,
) -> Figure:
    """Draws one line per name, such as the accuracy of each candidate over epochs.

    Args:
        lines: Per name `[N]` places and `[N]` values; None or NaN leaves a gap. Names
            come in the order of importance: the first seven have colours of their own.
        x_label, y_label: What the axes show; places that are integers get such ticks.
        x_unit, y_unit: SI units; "%" for ratios to be shown in percent.
        references: Horizontal lines by name, e.g. "chance".

    Returns:
        One panel.

    Raises:
        ValueError: If the places and values of a name differ in length.
    """
    references = dict(references or {})
    for x, y in lines.values():
        same_length(x=x, y=y)
    places = [place for x, _ in lines.values() for place in x]
    every = [value for _, y in lines.values() for value in y]
    x_factor, x_text = canvas.scaled_axis(places, x_label, x_unit)
    y_factor, y_text = canvas.scaled_axis(
        [*every, *references.values()], y_label, y_unit
    )
    figure, axes = canvas.single(3.6)
    axes.set(xlabel=x_text, ylabel=y_text)
    if all(float(place * x_factor).is_integer() for place in places):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    for index, (name, (x, y)) in enumerate(lines.items()):
        values = np.array([math.nan if v is None else v for v in y], float) * y_factor
        axes.plot(
            np.asarray(x, float) * x_factor, values, label=name,
            color=canvas.CYCLE[index % 7], ls=canvas.DASHES[index // 7 % 4],
            marker="o" if len(y) <= 15 else None, ms=3.5, zorder=3 - 0.01 * index,
        )  # fmt: skip
    for index, (name, value) in enumerate(references.items()):
        axes.axhline(
            value * y_factor,
            color=canvas.GREY,
            lw=1.1,
            ls=canvas.DASHES[(index + 1) % 4],
            label=name,
        )
    canvas.legend_above(figure, axes)
    return figure


def same_length(**given: Sequence[Any] | None) -> None:
    """Raises ValueError if what is given, None aside, differs in length."""
    lengths = {name: len(each) for name, each in given.items() if each is not None}
    if len(set(lengths.values())) > 1:
        names = ", ".join(f"`{name}` (of {length})" for name, length in lengths.items())
        raise ValueError(f"{names} must have the same length.")
