"""Regret curves of optimisers: how far from the optimum after each evaluation."""

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from codesign.report import canvas
from codesign.report.format import format_number
from codesign.report.panels import draw_panels

_MOST_DECADES = 4  # shown above zero


def regret_curves(
    panels: Mapping[str, Mapping[str, np.ndarray]],
    *,
    x_label: str = "Evaluations",
    y_label: str = "Simple regret",
) -> Figure:
    """Draws medians over runs, with bands that hold the middle half of them.

    The vertical axis is logarithmic, with zero, the optimum, at the foot.

    Args:
        panels: Per problem and optimiser, regrets, not negative, before the first of
            N evaluations and after each, `[runs, N + 1]`. The first optimiser is drawn
            on top.
        x_label, y_label: What the axes show.

    Returns:
        One panel per problem, that share their legend.

    Raises:
        ValueError: If there are no panels, or a regret is negative or not finite.
    """
    if not panels or not all(panels.values()):
        raise ValueError("`panels` must hold a problem, and each an optimiser.")
    for name, curves in panels.items():
        for optimizer, regrets in curves.items():
            if not (np.isfinite(regrets).all() and np.min(regrets) >= 0):
                raise ValueError(
                    f"`panels` of {name!r} must be finite regrets of at least 0, got "
                    f"{np.min(regrets)} for {optimizer!r}."
                )
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    looks: dict[str, dict[str, Any]] = {
        name: {
            "color": canvas.CYCLE[index % 7],
            "ls": canvas.DASHES[index % 4],
            "zorder": 3 - 0.1 * index,
        }
        for index, name in enumerate(names)
    }

    def draw(axes: Axes, curves: Mapping[str, np.ndarray]) -> None:
        for name, regrets in curves.items():
            _curve(axes, np.asarray(regrets), looks[name], name)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
        _scale(axes, np.concatenate([np.ravel(r) for r in curves.values()]))

    draws = [
        (title, functools.partial(draw, curves=curves))
        for title, curves in panels.items()
    ]
    return draw_panels(draws, x_label=x_label, y_label=y_label)


def _curve(axes: Axes, regrets: np.ndarray, look: dict[str, Any], name: str) -> None:
    """One optimiser: a band and the median."""
    steps = np.arange(regrets.shape[1])
    low, median, high = np.quantile(regrets, [0.25, 0.5, 0.75], axis=0)
    axes.fill_between(
        steps, low, high, step="post", lw=0, alpha=0.15,
        color=look["color"], zorder=look["zorder"] - 1,
    )  # fmt: skip
    axes.step(steps, median, where="post", label=name, **look)


def _scale(axes: Axes, regrets: np.ndarray) -> None:
    """A logarithmic axis over the decades that `regrets` fill, and zero below them."""
    positive = regrets[regrets > 0]
    if not len(positive):
        axes.set_ylim(-0.05, 1)
        return
    high = float(positive.max())
    low = max(float(positive.min()), high * 10.0**-_MOST_DECADES)
    factors = (1, 2, 5) if high < 300 * low else (1,)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [factor * 10.0**decade for decade in decades for factor in factors]
    axes.set_yscale("symlog", linthresh=low, linscale=0.3)
    axes.set_ylim(-0.1 * low, 1.3 * high)
    axes.yaxis.set_major_locator(FixedLocator([0.0, *(t for t in ticks if t >= low)]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_number(value)))
