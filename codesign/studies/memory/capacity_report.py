"""Writes what a memory sweep found: sweep.csv, results.json, figures and one page."""

import pathlib
import re
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import rich.console
from matplotlib.figure import Figure

from codesign import report
from codesign.records.files import write_atomic
from codesign.report import Card, FigureImage, Paragraph, Quantity, Section
from codesign.studies.memory import capacity_figures as figures
from codesign.studies.memory import capacity_tables as tables
from codesign.studies.memory import memory_published as published
from codesign.studies.memory import observations
from codesign.studies.memory import roofline_figure as roofline
from codesign.studies.memory import timeline_figure as timelines
from codesign.studies.memory.capacity_measure import HBM, HBM_PRINTED
from codesign.studies.memory.capacity_result import Outcome
from codesign.studies.memory.capacity_settings import MemoryConfig
from codesign.studies.memory.observations import Observation

_SCALES = (
    "MB are 2^20 bytes; GB, GB/s and TFLOP/s are decimal. All figures stand for the RTX "
    "2080 Ti (616 GB/s, 13.45 TFLOP/s) unless they say otherwise."
)
_FIGURES: tuple[tuple[str, Callable, str, str], ...] = (
    (
        "roofline.png", roofline.rooflines, "layers",
        "Figure 5.1. Layers under the roof of the RTX 2080 Ti by their reuse frequency "
        "(equations 3.4 and 5.1). The dashed line parts point-wise layers from those "
        "with products.",
    ),
    (
        "traffic.png", figures.traffic, "paper",
        "Figure 5.2. Traffic from memory (in) and to it (out) over capacity. The knee "
        "is the first capacity that holds the working set of every step; weights that "
        "recur stay from the capacity of Section 3.3.4 on.",
    ),
    (
        "time.png", figures.times, "paper",
        "Figure 5.3. Time of an iteration at two throughputs, and the speed-up of the "
        "larger with its bound.",
    ),
    (
        "bandwidth.png", figures.bandwidths, "paper",
        "Figure 5.4. Average bandwidth behind two memories.",
    ),
    (
        "layer_types.png", figures.layer_types, "by_kind",
        "Figure 5.5. Time by layer type; the share of type II stands above each bar.",
    ),
    (
        "batch.png", figures.batch_sizes, "batches",
        "Figure 5.6. Throughput over batch size (equation 5.2) at two capacities.",
    ),
    (
        "reuse.png", figures.reuse_scopes, "reuse",
        "Traffic of a chip that keeps nothing between two steps, by what a cache of each "
        "capacity still moves and what it spares in each scope of reuse. Dashed: the "
        "capacity with which the formulas of Section 3.3 capture a scope whole. Reuse "
        "inside a layer is captured throughout.",
    ),
    (
        "policies.png", figures.policies, "policies",
        "Time of other ways to manage the cache, against Belady's replacement with "
        "latency-aware prefetch and look-ahead offload.",
    ),
    (
        "fidelity.png", figures.fidelity, "fidelity",
        "The smooth surrogate against the exact simulator over capacities, bandwidths "
        "and throughputs.",
    ),
)  # fmt: skip


def write(
    config: MemoryConfig,
    outcomes: Sequence[Outcome],
    *,
    workdir: pathlib.Path,
    measured_s: float,
) -> None:
    """Writes all files, and prints the tables that answer the question.

    Args:
        config: Settings.
        outcomes: In the order of `config.networks`.
        workdir: Where to.
        measured_s: Seconds that the outcomes took; `wall_s` adds the drawing.
    """
    start = time.monotonic()
    write_atomic(workdir / "sweep.csv", tables.csv_text(outcomes))
    drawn = draw(outcomes, workdir)
    # ResNet-50 before others: its pictures are those that the paper talks about.
    ordered = sorted(outcomes, key=lambda each: each.family != "resnet50")
    first = draw_slides(ordered[:1], workdir)
    rest = draw_slides(ordered[1:], workdir)
    checked = observations.check_all(outcomes)
    compared = published.quantities(outcomes)
    every = [*compared, *_observed(checked), *_measured(outcomes)]
    results = report.Results(
        experiment="memory_sweep",
        preset=config.preset,
        seed=config.seed,
        environment=report.environment(),
        wall_s=measured_s + time.monotonic() - start,
        quantities=every,
        figures=[path for path, _ in (*drawn, *first, *rest)],
        extras={"sweep_s": {o.network: o.sweep_s for o in outcomes}},
    )
    answer = tables.comparison(outcomes, compared)
    page = report.render_page(
        "One training iteration behind a cache",
        summary(outcomes, checked, compared),
        cards=_cards(outcomes, compared),
        sections=[
            *([Section("Paper, ours, deviation", [answer])] if answer.rows else []),
            Section("The picture", _images(workdir, first)),
            Section("Figures", [Paragraph(_SCALES), *_images(workdir, drawn)]),
            *([Section("Other networks", _images(workdir, rest))] if rest else []),
            Section("Observations", [tables.observations(checked)]),
            Section(
                "Reuse by scope",
                [made for each in outcomes if (made := tables.reuse(each))],
            ),
            Section(
                "Policies",
                [made for each in outcomes if (made := tables.policies(each))],
            ),
            Section(
                "Networks and chips",
                [tables.networks(outcomes), tables.machines(outcomes)],
            ),
        ],
        results=results,
        config=config,
    )
    write_atomic(workdir / "report.html", page)
    results.write(workdir / "results.json")
    console = rich.console.Console()
    shown = [tables.networks(outcomes)]
    if any(each.holds is not None for each in checked):
        shown.append(tables.verdicts(checked))
    shown.append(tables.machines(outcomes))
    if answer.rows:
        shown.append(answer)
    for table in shown:
        if sys.stdout.isatty():
            console.print(table.to_rich())
        else:
            print(f"{table.to_text()}\n", flush=True)
    console.print(summary(outcomes, checked, compared), highlight=False)
    console.print(f"Report: {workdir / 'report.html'}", highlight=False, soft_wrap=True)


def summary(
    outcomes: Sequence[Outcome],
    checked: Sequence[Observation],
    compared: Sequence[Quantity],
) -> str:
    """The answer in a paragraph."""
    knees = [q for q in compared if q.name.startswith("knee_mb")]
    texts = []
    if knees:
        met = sum(q.value == q.paper for q in knees)
        texts.append(f"{met} of {len(knees)} knees are met exactly.")
    points = [
        abs(q.value - q.paper)
        for q in compared
        if q.unit == "%" and q.value is not None and q.paper is not None
    ]
    if points:
        texts.append(
            f"The {len(points)} percentages of the paper are met within "
            f"{np.median(points):.1f} points in the median and {max(points):.1f} at "
            "worst."
        )
    judged = [each for each in checked if each.holds is not None]
    if judged:
        count = sum(bool(each.holds) for each in judged)
        texts.append(f"{count} of {len(judged)} observations hold.")
    first = outcomes[0]
    curves = next(iter(first.sweeps.values()))
    low, high = curves.capacities_mb[[0, -1]]
    drop = 1 - curves.total_s[0, -1] / curves.total_s[0, 0]
    hardware = next(iter(first.sweeps))
    if low < high:
        texts.append(
            f"{first.label}: {low:g} to {high:g} MB of cache on {hardware} takes "
            f"{abs(drop):.0%} {'off' if drop >= 0 else 'more than'} the time of an "
            "iteration."
        )
    else:
        texts.append(
            f"{first.label}: an iteration takes {1e3 * curves.total_s[0, 0]:.3g} ms on "
            f"{hardware} with {low:g} MB of cache."
        )
    return " ".join(texts)


def draw(outcomes: Sequence[Outcome], workdir: pathlib.Path) -> list[tuple[str, str]]:
    """Saves the figures of all networks; returns file names with captions."""
    made = []
    for path, draw_figure, needs, caption in _FIGURES:
        shown = [each for each in outcomes if getattr(each, needs) is not None]
        if shown:
            _save(draw_figure(shown), workdir / path)
            made.append((path, caption))
    return made


def draw_slides(
    outcomes: Sequence[Outcome], workdir: pathlib.Path
) -> list[tuple[str, str]]:
    """Saves a timeline and a roofline of each network, as they stand in a talk."""
    made = []
    for outcome in outcomes:
        name = re.sub(r"[^A-Za-z0-9]+", "_", outcome.network).strip("_")
        found = outcome.timeline
        if found is not None:
            path = f"timeline_{name}.png"
            _save(timelines.slide(outcome), workdir / path)
            made.append(
                (
                    path,
                    f"{outcome.label} on {found.hardware} with {found.capacity_mb:g} MB: "
                    "compute unit and channel in time, and what the cache holds; below, "
                    "one block of layers.",
                )
            )
        path = f"roofline_{name}.png"
        _save(roofline.slide(outcome), workdir / path)
        made.append(
            (path, f"{outcome.label}: layers under the roof, and where the time goes.")
        )
    return made


def _save(figure: Figure, path: pathlib.Path) -> None:
    figures.canvas.save(figure, path, dpi=160)


def _images(
    workdir: pathlib.Path, drawn: Sequence[tuple[str, str]]
) -> list[FigureImage]:
    return [FigureImage(workdir / path, caption) for path, caption in drawn]


def _cards(outcomes: Sequence[Outcome], compared: Sequence[Quantity]) -> list[Card]:
    labels = {outcome.network: outcome.label for outcome in outcomes}
    cards = []
    for quantity in compared:
        name, _, network = quantity.name.rstrip("]").partition("[")
        if name in ("knee_mb", "time_drop_24_to_500") and quantity.value is not None:
            cards.append(
                Card(
                    f"{labels[network]}: {published.TITLES[name]}",
                    report.format_quantity(quantity.value, quantity.unit),
                    f"paper {report.format_quantity(quantity.paper, quantity.unit)}",
                )
            )
    return cards


def _observed(checked: Sequence[Observation]) -> list[Quantity]:
    return [
        Quantity(
            f"observation_{each.number}",
            each.holds,
            "",
            kind="derived",
            paper=True,
            source=f"Obs. {each.number}",
            note=f"{each.claim}: {each.evidence} (asked: {each.rule})",
        )
        for each in checked
    ]


def _measured(outcomes: Sequence[Outcome]) -> list[Quantity]:
    """What has no published number."""
    found = []
    for outcome in outcomes:
        index = f"[{outcome.network}]"
        found.append(
            Quantity(
                f"sweep_s{index}", outcome.sweep_s, "s", kind="measured",
                note="all of sweep.csv on the first machine, warm, best of three",
            )
        )  # fmt: skip
        curves = outcome.paper
        if curves is not None:
            found += [
                Quantity(
                    f"last_steep_step_mb{index}",
                    published.last_drop_mb(curves),
                    "MB",
                    kind="derived",
                    note="last step of the figures' capacities that spares 3 % of the "
                    "traffic at the first: the knee as a curve alone shows it",
                ),
                Quantity(
                    f"time_1536_over_1555{index}",
                    float(curves.total_s[HBM_PRINTED, 0] / curves.total_s[HBM, 0]),
                    "",
                    kind="derived",
                    note="at the smallest capacity; the paper prints both GB/s for HBM2e",
                ),
            ]
        fidelity = outcome.fidelity
        if fidelity is not None:
            for name, value in (
                ("spearman", fidelity.spearman),
                ("median_error", fidelity.median_error),
                ("p90_error", fidelity.p90_error),
                ("max_error", fidelity.max_error),
                ("slower_pairs", fidelity.slower_pairs),
                ("wrong_signs", fidelity.wrong_signs),
            ):
                found.append(
                    Quantity(
                        f"surrogate_{name}{index}", value, "", kind="measured",
                        note=f"surrogate's time against the simulator's, "
                        f"{fidelity.num_points} points; monotony and gradients on "
                        f"{fidelity.num_designs} random designs",
                    )
                )  # fmt: skip
    return found
