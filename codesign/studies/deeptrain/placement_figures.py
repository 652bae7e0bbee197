"""The figures of a placement search."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from codesign.hardware import chips
from codesign.hardware.reram_gpu import ReramGpuSpec
from codesign.report import canvas, plots
from codesign.report.format import format_number, format_percent, si_scale
from codesign.search import pareto, points
from codesign.search.surrogate import Posterior, sample_posterior
from codesign.search.thompson import without_long_tail
from codesign.studies import frame
from codesign.studies.claims import TOLERANCE
from codesign.studies.deeptrain.placement_result import (
    PlacementResult,
    PlacementRow,
    found_status,
)

LABELS = {"all_bn": "All-BN", "no_bn": "No-BN", "paper": "Paper's", "bo_n": "BO-N"}
_STACKS = ((2, 2), (3, 1))  # R, G: those of the paper's Figs. 7 and 11
_SHOWN_BELOW = 0.15  # accuracies so far below All-BN stand at the edge of a front


def fit_surrogate(result: PlacementResult) -> Posterior | None:
    """Four chains of the search's surrogate on every told trial; None without any."""
    if not result.told:
        return None
    return sample_posterior(
        jax.random.key(0),
        np.array([trial.x for trial in result.told]),
        without_long_tail([float(np.mean(trial.values)) for trial in result.told]),
        num_chains=4,
        num_warmup=2000,
        num_samples=1000,
    )


def draw(
    result: PlacementResult, posterior: Posterior | None, prefix: str, *, effect: float
) -> list[frame.Figure]:
    """Draws what was found, under names that begin with `prefix`.

    A site is included where a batch norm changes the accuracy by more than `effect`.
    Figures that need an accuracy are left out when every candidate failed.
    """
    drawn: dict[str, tuple[Figure, str]] = {}
    if result.told:
        drawn["best_so_far"] = (
            _best_so_far(result),
            "Validation accuracy of each evaluation, in order, and the best so far.",
        )
        drawn["pareto_period"] = (
            _front(result, "period_s", "Time of an image", "s"),
            "Validation accuracy against the time of an image. The front is over "
            "accuracy, period and energy.",
        )
        drawn["pareto_energy"] = (
            _front(result, "energy_j", "Energy per image", "J"),
            "The same against the energy of one image.",
        )
    if isinstance(result.chip.spec, ReramGpuSpec):
        drawn["stages"] = (
            _stages(result),
            "Slowest pipeline stages, each over its Conv/FC stage: before (the paper's "
            "Fig. 7) and after the search (Fig. 11).",
        )
    if posterior is not None:
        drawn["inclusion"] = (
            _inclusion(result, posterior, effect),
            "Posterior probability that a batch norm at a site changes the accuracy by "
            f"more than {effect:.2%}, and what it costs.",
        )
        drawn["training_curves"] = (
            plots.curves(
                {
                    LABELS[key]: (range(1, len(row.history) + 1), row.history)
                    for key, row in result.rows.items()
                },
                x_label="Epoch",
                y_label="Validation accuracy",
                y_unit="%",
            ),
            "Validation accuracy over epochs, first seed.",
        )
    return [frame.Figure(prefix + name, *each) for name, each in drawn.items()]


def _best_so_far(result: PlacementResult) -> Figure:
    def status(trial):
        if trial.status == "failed":
            return "failed"
        return "at chance" if found_status(trial) == "at_chance" else trial.origin

    reference = _reference(result)
    return plots.best_so_far(
        [trial.value for trial in result.trained],
        [status(trial) for trial in result.trained],
        references={} if reference is None else {"All-BN": reference},
        tolerance=TOLERANCE,
    )


def _front(result: PlacementResult, metric: str, label: str, unit: str) -> Figure:
    names = {points.encode(row.mask): LABELS[key] for key, row in result.rows.items()}
    keys = [points.encode(trial.x) for trial in result.told]
    chosen = points.encode(result.rows["bo_n"].mask)
    reference = _reference(result)
    found = np.array(
        [(t.value, t.metrics["period_s"], t.metrics["energy_j"]) for t in result.told],
        float,
    )
    return plots.pareto(
        [trial.metrics[metric] for trial in result.told],
        [float(np.mean(trial.values)) for trial in result.told],
        front=list(pareto.pareto_front(found, ("max", "min", "min"))),
        labels=[names.get(key) for key in keys],
        highlight=keys.index(chosen) if chosen in keys else None,
        y_floor=None if reference is None else reference - _SHOWN_BELOW,
        x_label=label,
        x_unit=unit,
        y_label="Validation accuracy",
    )


def _stages(result: PlacementResult) -> Figure:
    def slowest(row: PlacementRow, r: int, g: int) -> tuple[float, float]:
        chip = chips.by_name(f"deeptrain:{r}R{g}G")
        parts = result.cost(row.mask, chip).breakdown
        return float(parts["slowest_conv_s"]), float(parts["slowest_bn_s"])

    return stage_bars(
        {
            LABELS[key]: {
                f"{r}R{g}G": slowest(result.rows[key], r, g) for r, g in _STACKS
            }
            for key in ("all_bn", "bo_n")
        }
    )


def _inclusion(result: PlacementResult, posterior: Posterior, effect: float) -> Figure:
    mask = result.rows["bo_n"].mask
    norms = result.ops.select("norm")
    elements = dict(zip(norms.sites, np.array(norms.elements), strict=True))
    return inclusion_probability(
        list(posterior.site_inclusion(effect)),
        list(mask),
        [f"C{site + 1}" for site in range(len(mask))],
        elements=[float(elements[site]) for site in range(len(mask))],
    )


def _reference(result: PlacementResult) -> float | None:
    """Validation accuracy of All-BN in the search."""
    return next((t.value for t in result.told if t.x.all()), None)


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
    plots.same_length(
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
