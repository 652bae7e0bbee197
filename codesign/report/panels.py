"""A grid of small panels with one legend and one label for each axis."""

import math
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from codesign.report import canvas


@canvas.styled
def draw_panels(
    draws: Sequence[tuple[str, Callable[[Axes], object]]],
    *,
    x_label: str,
    y_label: str,
    height: float = 2.5,
    share: bool = False,
    order: Sequence[str] = (),
) -> Figure:
    """Draws every panel, two in a row.

    Args:
        draws: A title and what draws its panel; the legend has what has a `label`.
        x_label, y_label: What all axes show.
        height: Of a row, in inches.
        share: Whether all panels have the same limits.
        order: Names in the legend that come last, in this order; others as drawn.
    """
    columns = min(2, len(draws))
    rows = math.ceil(len(draws) / columns)
    figure = canvas.blank(height * rows + 0.7, width=7.6 if columns > 1 else 5.2)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=share, sharey=share)
    for axes, (title, draw) in zip(grid.flat, draws, strict=False):
        axes.set_title(title, loc="left")
        draw(axes)
    for axes in grid.flat[len(draws) :]:
        axes.remove()
    figure.supxlabel(x_label, fontsize=10)
    figure.supylabel(y_label, fontsize=10)
    canvas.legend_above(figure, *grid.flat[: len(draws)], order=order)
    return figure
