"""What a memory sweep says: numbers beside the paper's, figures, tables, sweep.csv."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from codesign.report import Card, Paragraph, Quantity, comparison
from codesign.studies import frame
from codesign.studies.memory import (
    capacity_figures,
    capacity_tables,
    memory_published,
    observations,
    roofline_figure,
    timeline_figure,
)
from codesign.studies.memory.capacity_measure import HBM, HBM_PRINTED
from codesign.studies.memory.capacity_result import NetworkSweep
from codesign.studies.memory.capacity_settings import MemoryConfig
from codesign.studies.memory.observations import Observation
from codesign.studies.memory.paper_networks import RESNET

_SCALES = (
    "MB are 2^20 bytes; GB, GB/s and TFLOP/s are decimal. All figures stand for the RTX "
    "2080 Ti (616 GB/s, 13.45 TFLOP/s) unless they say otherwise."
)


def report(config: MemoryConfig, found: Mapping[Any, NetworkSweep]) -> frame.Report:
    """Everything that is written and shown about the networks in `found`."""
    sweeps = list(found.values())
    # ResNet-50 before others: its pictures are those that the paper talks about.
    ordered = sorted(sweeps, key=lambda each: each.family != RESNET)
    slides = list(zip(ordered, _file_names(ordered), strict=True))
    checked = observations.check_all(sweeps)
    compared = memory_published.quantities(sweeps)
    networks = capacity_tables.networks(sweeps)
    machines = capacity_tables.machines(sweeps)
    policies = [capacity_tables.policies(each) for each in sweeps if each.policies]
    reuse = [capacity_tables.reuse(each) for each in sweeps if each.reuse]
    return frame.Report(
        title="One training iteration behind a cache",
        summary=_summary(sweeps, checked, compared),
        sections=[
            frame.Section("The picture", list(_slides(*slides[0]))),
            frame.Section(
                "Figures", [Paragraph(_SCALES), *capacity_figures.figures(sweeps)]
            ),
            frame.Section(
                "Other networks",
                [each for pair in slides[1:] for each in _slides(*pair)],
            ),
            frame.Section("Observations", [capacity_tables.observations(checked)]),
            frame.Section("Reuse by scope", reuse),
            frame.Section("Policies", policies),
            frame.Section("Networks and chips", [networks, machines]),
        ],
        quantities=[
            *compared,
            *(each.quantity for each in checked),
            *(each for sweep in sweeps for each in _measured(sweep)),
        ],
        cards=[
            Card(each.title, comparison.ours(each), f"paper {comparison.wanted(each)}")
            for each in compared
            if each.name in ("knee_mb", "time_drop_24_to_500")
            and each.value is not None
        ],
        shown=[networks, machines],
        compared=(
            "The paper's numbers and ours",
            "Reasons for those that miss stand in results.json and on the page.",
        ),
        files={"sweep.csv": capacity_tables.csv_text(sweeps)},
        extras={"sweep_s": {each.network: each.sweep_s for each in sweeps}},
    )


def _summary(
    sweeps: Sequence[NetworkSweep],
    checked: Sequence[Observation],
    compared: Sequence[Quantity],
) -> str:
    """The answer in a paragraph."""
    texts = []
    if knees := [each for each in compared if each.name == "knee_mb"]:
        met = sum(each.value == each.paper for each in knees)
        texts.append(f"{met} of {len(knees)} knees are met exactly.")
    points = [
        abs(each.value - each.paper)
        for each in compared
        if each.unit == "%" and each.value is not None and each.paper is not None
    ]
    if points:
        texts.append(
            f"The {len(points)} percentages of the paper are met within "
            f"{np.median(points):.1f} points in the median and {max(points):.1f} at "
            "worst."
        )
    if judged := [each.holds for each in checked if each.holds is not None]:
        texts.append(f"{sum(judged)} of {len(judged)} observations hold.")
    hardware, curves = next(iter(sweeps[0].sweeps.items()))
    low, high = curves.capacities_mb[[0, -1]]
    first_s = curves.total_s[0, 0]
    change = f"{curves.total_s[0, -1] / first_s - 1:+.0%}".replace("-", "−")
    if low < high:
        texts.append(
            f"{sweeps[0].label}: {low:g} to {high:g} MB of cache on {hardware} changes "
            f"the time of an iteration by {change}."
        )
    else:
        texts.append(
            f"{sweeps[0].label}: an iteration takes {1e3 * first_s:.3g} ms on {hardware} "
            f"with {low:g} MB of cache."
        )
    return " ".join(texts)


def _file_names(sweeps: Sequence[NetworkSweep]) -> list[str]:
    """Their networks as parts of file names, no two alike."""
    names: list[str] = []
    for sweep in sweeps:
        name = re.sub(r"[^A-Za-z0-9]+", "_", sweep.network).strip("_")
        names.append(name if name not in names else f"{name}-{len(names)}")
    return names


def _slides(sweep: NetworkSweep, name: str) -> Iterator[frame.Figure]:
    """A timeline and a roofline of one network, as they stand in a talk."""
    found = sweep.timeline
    if found is not None:
        yield frame.Figure(
            f"timeline_{name}",
            timeline_figure.slide(sweep),
            f"{sweep.label} on {found.hardware} with {found.capacity_mb:g} MB: compute "
            "unit and channel in time, and what the cache holds; below, one block of "
            "layers.",
        )
    yield frame.Figure(
        f"roofline_{name}",
        roofline_figure.slide(sweep),
        f"{sweep.label}: layers under the roof, and where the time goes.",
    )


def _measured(sweep: NetworkSweep) -> Iterator[Quantity]:
    """What has no published number."""
    of = {"network": sweep.network}
    yield Quantity(
        "sweep_s", sweep.sweep_s, "s", kind="measured", of=of,
        note="all of sweep.csv on the first machine, warm, best of three",
    )  # fmt: skip
    if sweep.paper is not None:
        yield Quantity(
            "last_steep_step_mb", memory_published.last_drop_mb(sweep.paper), "MB",
            kind="derived", of=of,
            note="last step of the figures' capacities that spares 3 % of the traffic at "
            "the first: the knee as a curve alone shows it",
        )  # fmt: skip
        first_s = sweep.paper.total_s[:, 0]
        yield Quantity(
            "time_1536_over_1555", float(first_s[HBM_PRINTED] / first_s[HBM]),
            kind="derived", of=of,
            note="at the smallest capacity; the paper prints both GB/s for HBM2e",
        )  # fmt: skip
    fidelity = sweep.fidelity
    if fidelity is not None:
        for name in (
            *("spearman", "median_error", "p90_error", "max_error"),
            *("slower_pairs", "wrong_signs"),
        ):
            yield Quantity(
                f"surrogate_{name}", getattr(fidelity, name), kind="measured", of=of,
                note=f"surrogate's time against the simulator's, {fidelity.num_points} "
                f"points; monotony and gradients on {fidelity.num_designs} random "
                "designs",
            )  # fmt: skip
