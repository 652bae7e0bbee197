"""What all figures share: style, colours, axes in SI units, placed labels.

Built on Matplotlib's objects: no pyplot, no current figure, and a user's own rcParams
are neither followed nor changed. The colours are those of Okabe and Ito, which people
with colour vision deficiencies can tell apart; shapes repeat what they say.
"""

import contextlib
import functools
import io
import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import ParamSpec

import matplotlib.style
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import LogFormatterSciNotation
from matplotlib.transforms import Bbox

from codesign.units import si_scale

BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, INK, GREY, PALE = "#CC79A7", "#56B4E9", "#1F2933", "#8A94A0", "#C3CCD5"
CYCLE = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, INK)
DASHES = ("-", "--", ":", "-.")
WIDTH_INCHES = 6.6

_STYLE = {
    "figure.constrained_layout.use": True,
    "font.size": 10.0,
    "text.color": INK,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#E4E8EC",
    "grid.linewidth": 0.8,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "lines.linewidth": 1.8,
    "text.parse_math": False,  # a stranger's name may hold `$`
}
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_P = ParamSpec("_P")


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Matplotlib's defaults with our changes, until the block ends."""
    with matplotlib.style.context(["default", _STYLE]):
        yield


def styled(draw: Callable[_P, Figure]) -> Callable[_P, Figure]:
    """Runs `draw` in our style, whatever the user's own settings are."""

    @functools.wraps(draw)
    def wrapper(*args: _P.args, **kwargs: _P.kwargs) -> Figure:
        with style():
            return draw(*args, **kwargs)

    return wrapper


def to_png(figure: Figure, dpi: int = 200) -> bytes:
    """Renders `figure`; equal figures give equal bytes, as no time is stored."""
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def blank(height: float, width: float = WIDTH_INCHES) -> Figure:
    """Makes an empty figure, sizes in inches, that draws itself without pyplot."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def single(height: float) -> tuple[Figure, Axes]:
    """Makes a figure of one panel, `height` in inches."""
    figure = blank(height)
    return figure, figure.subplots()


class _Powers(LogFormatterSciNotation):
    """Labels of a logarithmic axis, in plain text where Matplotlib's are formulas."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """Writes 10³ or 2×10³, or nothing where Matplotlib would write nothing."""
        text = (
            super().__call__(x, pos).removeprefix(r"$\mathdefault{").removesuffix("}$")
        )
        text = text.replace(r"\times", "×")
        return re.sub(r"\^\{(.*)\}", lambda power: power[1].translate(_RAISED), text)


def log_scale(axes: Axes, names: str) -> None:
    """Makes axes logarithmic; `names` is "x", "y" or "xy"."""
    for name in names:
        axes.set(**{f"{name}scale": "log"})
        axis = getattr(axes, f"{name}axis")
        axis.set_major_formatter(_Powers())
        axis.set_minor_formatter(_Powers())


def scaled_axis(
    values: Sequence[float | None] | np.ndarray, label: str, unit: str
) -> tuple[float, str]:
    """Returns the factor from `values` to what an axis shows, and the axis's label.

    With the unit "%", `values` are ratios.
    """
    if unit == "%":
        return 100.0, f"{label} (%)"
    factor, scaled_unit = si_scale(values, unit)
    return factor, f"{label} ({scaled_unit})" if scaled_unit else label


def limits(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Returns the limits of an axis that shows `values` with some air around them."""
    if not len(values):
        return 0.0, 1.0
    low, high = float(np.min(values)), float(np.max(values))
    air = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
    return low - air, high + air


def legend_above(figure: Figure, *panels: Axes, order: Sequence[str] = ()) -> None:
    """Puts one legend of `panels` above all of them, in as many columns as fit.

    Args:
        figure: Theirs.
        *panels: With labelled curves; those of one name stand there once.
        order: Names that come last, in this order; others as drawn.
    """
    shown: dict[str, Artist] = {}
    for axes in panels:
        handles, names = axes.get_legend_handles_labels()
        shown |= dict(zip(names, handles, strict=True))
    if shown:
        names = sorted(
            shown, key=lambda name: order.index(name) if name in order else -1
        )
        columns = round(12 * figure.get_figwidth() / (max(map(len, names)) + 7))
        figure.legend(
            [shown[name] for name in names],
            names,
            loc="outside upper center",
            ncols=min(len(names), max(1, columns)),
        )


def annotate(
    figure: Figure,
    axes: Axes,
    points: np.ndarray,
    labels: Sequence[str | None],
    *,
    line: np.ndarray,
    bold: int | None = None,
) -> None:
    """Writes labels beside their points where they cover nothing.

    Places are tried from near to far, and the first that covers least is taken; a thin
    line leads from a far one to its point. The layout of `figure` is fixed by this.

    Args:
        figure: Figure, otherwise finished.
        axes: Its panel.
        points: `[N, 2]` in data coordinates.
        labels: `[N]`, None for points without one.
        line: `[M, 2]` corners of a line to keep clear of, in data coordinates.
        bold: Index of a label in bold face.
    """
    figure.draw_without_rendering()  # Fixes the layout, and with it all distances.
    figure.set_layout_engine("none")
    frame = axes.get_window_extent()
    marks = axes.transData.transform(points)  # [N, 2] pixels
    taken = [Bbox.from_extents(*(mark - 8), *(mark + 8)) for mark in marks]
    corners = axes.transData.transform(line) if len(line) else line  # [M, 2] pixels
    for start, end in itertools.pairwise(corners):
        count = max(2, int(np.hypot(*(end - start)) / 4))
        dots = np.linspace(start, end, count)
        taken += [Bbox.from_extents(*(dot - 2), *(dot + 2)) for dot in dots]

    def place(
        index: int, radius: float, degrees: float, leader: bool = False
    ) -> Annotation:
        x, y = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        return axes.annotate(
            str(labels[index]),
            points[index],
            (radius * x, radius * y),
            textcoords="offset points",
            fontsize=9,
            fontweight="bold" if index == bold else "normal",
            ha=("center", "left", "right")[round(x)],
            va=("center", "bottom", "top")[round(y)],
            arrowprops={"arrowstyle": "-", "color": GREY, "lw": 0.7, "shrinkB": 3}
            if leader
            else None,
            zorder=5,
        )

    def covered(text: Annotation) -> float:
        box = text.get_window_extent().padded(1)
        hidden = box.width * box.height - _overlap(box, frame)
        return hidden + sum(_overlap(box, other) for other in taken)

    for index, label in enumerate(labels):
        if not label:
            continue
        best: tuple[float, float, float] = (math.inf, 0.0, 0.0)
        for radius in (9, 16, 26, 38, 54, 72):  # In points.
            for degrees in (0, 45, -45, 180, 135, -135, 90, -90):
                text = place(index, radius, degrees)
                best = min(best, (covered(text), radius, degrees), key=lambda b: b[0])
                text.remove()
            if best[0] == 0:
                break
        text = place(index, *best[1:])
        taken.append(
            text.get_window_extent()
        )  # Of the words: a leader would add to it.
        if best[1] > 9:
            text.remove()
            place(index, *best[1:], leader=True)


def _overlap(a: Bbox, b: Bbox) -> float:
    common = Bbox.intersection(a, b)
    return 0.0 if common is None else common.width * common.height
