"""Figures 5.1 to 5.6 of the paper, reuse by scope and the policies, a panel a network."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from codesign import units
from codesign.report import canvas
from codesign.report.panels import draw_panels
from codesign.studies import frame
from codesign.studies.memory import roofline_figure
from codesign.studies.memory.capacity_measure import BASE, FAST, HBM
from codesign.studies.memory.capacity_result import NetworkSweep, or_none, ran
from codesign.studies.memory.memory_published import knee_mb, needed_mb

_GIGA = 1e9
_KIND_COLOURS = {  # type I in blues, type II in warm colours
    "conv": "#0072B2",
    "depthwise conv": "#56B4E9",
    "dense": "#003F66",
    "matmul": "#7FB3D5",
    "norm": "#E69F00",
    "activation": "#D55E00",
    "add": "#CC79A7",
    "dropout": "#F0C75E",
    "softmax": "#8C510A",
    "pool": "#A6611A",
    "mul": "#B8860B",
    "other": "#B9AFA0",
}
_SCOPE_COLOURS = (canvas.BLUE, canvas.SKY, canvas.GREEN, canvas.PURPLE)
_POLICY_LOOKS = (
    *((canvas.INK, "o"), (canvas.BLUE, "s"), (canvas.PURPLE, "D"), (canvas.GREEN, "^")),
    *((canvas.VERMILION, "v"), (canvas.ORANGE, "X"), (canvas.SKY, "*")),
)


def _traffic(axes: Axes, sweep: NetworkSweep) -> None:
    """Bytes from and to memory. Where weights recur, the bend is where they all stay."""
    curves = ran(sweep.paper)
    x = curves.capacities_mb
    for values, colour, name in (
        (curves.traffic_in_bytes, canvas.BLUE, "in"),
        (curves.traffic_out_bytes, canvas.VERMILION, "out"),
    ):
        axes.plot(x, values / _GIGA, color=colour, label=name)
    name, bend = "knee", or_none(knee_mb)(sweep)
    if needed := or_none(lambda each: needed_mb(each, "recurrent weight"))(sweep):
        name, bend = "recurrent\nweights stay", round(needed)
    if bend is not None and bend > x[0]:
        axes.axvline(bend, color=canvas.GREY, lw=1, ls=":")
        axes.text(
            bend + 0.015 * (x[-1] - x[0]), axes.get_ylim()[1] * 0.62,
            f"{name}\n{bend:g} MB", fontsize=8.5, color=canvas.INK,
        )  # fmt: skip
    axes.set_ylim(bottom=0)


def _times(axes: Axes, sweep: NetworkSweep) -> None:
    """Time at two throughputs, and the speed-up of the larger on an axis of its own."""
    curves = ran(sweep.paper)
    x = curves.capacities_mb
    for machine, colour, name in (
        (BASE, canvas.BLUE, "13.45 TFLOP/s"),
        (FAST, canvas.VERMILION, "23.04 TFLOP/s"),
    ):
        axes.plot(x, 1e3 * curves.total_s[machine], color=colour, label=name)
    right = axes.twinx()
    right.spines["right"].set_visible(True)
    right.grid(visible=False)
    ratio = curves.total_s[BASE] / curves.total_s[FAST]
    right.plot(x, ratio, color=canvas.GREEN, lw=1.3)
    axes.plot([], [], color=canvas.GREEN, lw=1.3, label="speed-up (right)")
    bound = curves.compute_s[BASE] / curves.compute_s[FAST]
    right.axhline(bound, color=canvas.GREEN, ls="--", lw=1)
    axes.plot([], [], color=canvas.GREEN, ls="--", lw=1, label="its bound, 1.71×")
    right.set_ylim(1.0, 1.78)
    right.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.1f}×"))
    axes.set_ylim(bottom=0)


def _bandwidths(axes: Axes, sweep: NetworkSweep) -> None:
    curves = ran(sweep.paper)
    for machine, colour, name in (
        (HBM, canvas.VERMILION, "HBM2e, 1555 GB/s"),
        (BASE, canvas.BLUE, "GDDR6, 616 GB/s"),
    ):
        average = curves.average_bandwidth[machine] / _GIGA
        axes.plot(curves.capacities_mb, average, color=colour, label=name)
    axes.set_ylim(bottom=0)


def _layer_types(axes: Axes, sweep: NetworkSweep) -> None:
    """Time by layer type at a few capacities, type I below type II."""
    found = ran(sweep.by_kind)
    places = np.arange(len(found.capacities_mb))
    base = np.zeros(len(places))
    for kind, time_s in zip(found.kinds, found.time_s.T, strict=True):
        is_short = time_s.max() < 0.005 * found.time_s.sum(1).max()
        name = "other" if is_short or kind not in _KIND_COLOURS else kind
        axes.bar(
            places, 1e3 * time_s, 0.72, base, color=_KIND_COLOURS[name], label=name,
            lw=0.4, edgecolor="white",
        )  # fmt: skip
        base += 1e3 * time_s
    type_ii = found.time_s[:, found.is_type_ii].sum(1) / found.time_s.sum(1)
    for place, top, share in zip(places, base, type_ii, strict=True):
        axes.annotate(
            f"{share:.0%}", (place, top), (0, 2), textcoords="offset points",
            ha="center", fontsize=8,
        )  # fmt: skip
    axes.set_xticks(places, [f"{mb:g}" for mb in found.capacities_mb])
    axes.grid(axis="x", visible=False)
    axes.set_ylim(0, 1.14 * base.max())


def _batch_sizes(axes: Axes, sweep: NetworkSweep) -> None:
    found = ran(sweep.batches)
    places = np.arange(len(found.sizes))
    width = 0.8 / len(found.capacities_mb)
    for c, mebibytes in enumerate(found.capacities_mb):
        axes.bar(
            places + (c + 0.5) * width - 0.4, found.samples_per_s[c], 0.94 * width,
            color=(canvas.BLUE, canvas.ORANGE)[c], label=f"{mebibytes:g} MB",
        )  # fmt: skip
    axes.set_xticks(places, [f"{size}" for size in found.sizes])
    axes.grid(axis="x", visible=False)


def _reuse_scopes(axes: Axes, sweep: NetworkSweep) -> None:
    """Where the traffic goes that a cache spares: stacked up to what nothing spares."""
    found = ran(sweep.reuse)
    x = found.capacities_mb
    remaining = found.streamed_bytes - found.saved_bytes.sum(1)
    parts = [remaining, *found.saved_bytes.T]
    names = ["still moved", *(f"spared: {scope}" for scope in found.scopes)]
    axes.stackplot(
        x, np.array(parts) / _GIGA, labels=names,
        colors=[canvas.PALE, *_SCOPE_COLOURS], lw=0,
    )  # fmt: skip
    axes.set_xlim(x[0], x[-1])
    axes.set_ylim(0, found.streamed_bytes / _GIGA)
    for scope, needed, colour in zip(
        found.scopes, found.needed_bytes / units.MIB, _SCOPE_COLOURS, strict=True
    ):
        if x[0] < needed <= x[-1] and scope != "forward-backward":
            axes.axvline(needed, color="white", lw=2.2)
            axes.axvline(needed, color=colour, lw=1.3, ls="--")


def _policies(axes: Axes, sweep: NetworkSweep) -> None:
    """What the ways to manage the cache cost, against the first."""
    found = ran(sweep.policies)
    places = np.arange(len(found.capacities_mb))
    axes.axhline(0, color=canvas.INK, lw=1.2)
    for p in range(1, len(found.names)):
        colour, marker = _POLICY_LOOKS[p]
        slower = 100 * (found.time_s[p] / found.time_s[0] - 1)
        axes.plot(
            places, slower, color=colour, marker=marker, ms=4.5, lw=1.4,
            label=found.names[p],
        )  # fmt: skip
    axes.set_xticks(places, [f"{mb:g}" for mb in found.capacities_mb])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:+.0f}%"))


def _fidelity(axes: Axes, sweep: NetworkSweep) -> None:
    found = ran(sweep.fidelity)
    # Every fourth capacity, as more points hide each other.
    exact, smooth = (1e3 * t[:, ::4].ravel() for t in (found.exact_s, found.smooth_s))
    ends = [min(exact.min(), smooth.min()), max(exact.max(), smooth.max())]
    axes.plot(ends, ends, color=canvas.GREY, lw=1, zorder=1)
    axes.scatter(exact, smooth, s=6, color=canvas.BLUE, alpha=0.35, lw=0, zorder=2)
    canvas.log_scale(axes, "xy")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(NullFormatter())
    axes.text(
        0.04, 0.96,
        f"Spearman {found.spearman:.4f}\nmedian error {found.median_error:.1%}\n"
        f"90th percentile {found.p90_error:.1%}",
        transform=axes.transAxes, va="top", fontsize=8.5,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Kind:
    """A figure with a panel for each network that has `part`."""

    name: str
    draw: Callable[[Axes, NetworkSweep], None]
    part: str  # of `NetworkSweep`
    x_label: str
    y_label: str
    caption: str


_CAPACITY = "Cache capacity (MB)"
_KINDS = (
    _Kind(
        "roofline", roofline_figure.small_panel, "layers",
        "Reuse frequency (operations per byte)", "Attainable (operations/s)",
        "Figure 5.1. Layers under the roof of the RTX 2080 Ti by their reuse frequency "
        "(equations 3.4 and 5.1). The dashed line parts point-wise layers from those "
        "with products.",
    ),
    _Kind(
        "traffic", _traffic, "paper", _CAPACITY, "Traffic (GB)",
        "Figure 5.2. Traffic from memory (in) and to it (out) over capacity. The knee "
        "is the first capacity that holds the working set of every step; weights that "
        "recur stay from the capacity of Section 3.3.4 on.",
    ),
    _Kind(
        "time", _times, "paper", _CAPACITY, "Time of an iteration (ms)",
        "Figure 5.3. Time of an iteration at two throughputs, and the speed-up of the "
        "larger with its bound.",
    ),
    _Kind(
        "bandwidth", _bandwidths, "paper", _CAPACITY, "Average bandwidth (GB/s)",
        "Figure 5.4. Average bandwidth behind two memories.",
    ),
    _Kind(
        "layer_types", _layer_types, "by_kind", _CAPACITY, "Time of an iteration (ms)",
        "Figure 5.5. Time by layer type; the share of type II stands above each bar.",
    ),
    _Kind(
        "batch", _batch_sizes, "batches", "Batch size", "Throughput (samples/s)",
        "Figure 5.6. Throughput over batch size (equation 5.2) at two capacities.",
    ),
    _Kind(
        "reuse", _reuse_scopes, "reuse", _CAPACITY, "Traffic if nothing stayed (GB)",
        "Traffic of a chip that keeps nothing between two steps, by what a cache of each "
        "capacity still moves and what it spares in each scope of reuse. Dashed: the "
        "capacity with which the formulas of Section 3.3 capture a scope whole. Reuse "
        "inside a layer is captured throughout.",
    ),
    _Kind(
        "policies", _policies, "policies", _CAPACITY, "Time against the paper's policy",
        "Time of other ways to manage the cache, against Belady's replacement with "
        "latency-aware prefetch and look-ahead offload.",
    ),
    _Kind(
        "fidelity", _fidelity, "fidelity", "Simulated time (ms)", "Surrogate's time (ms)",
        "The smooth surrogate against the exact simulator over capacities, bandwidths "
        "and throughputs.",
    ),
)  # fmt: skip


def figures(sweeps: Sequence[NetworkSweep]) -> Iterator[frame.Figure]:
    """Yields every figure that there is something for."""

    def panel(axes: Axes, kind: _Kind, sweep: NetworkSweep) -> None:
        kind.draw(axes, sweep)
        if axes.get_yscale() != "log":
            axes.yaxis.set_major_locator(MaxNLocator(5))

    for kind in _KINDS:
        draws = []
        for sweep in sweeps:
            if getattr(sweep, kind.part) is not None:
                batch = "" if kind.part == "batches" else f", batch {sweep.batch_size}"
                draw = functools.partial(panel, kind=kind, sweep=sweep)
                draws.append((sweep.label + batch, draw))
        if draws:
            drawn = draw_panels(
                draws,
                x_label=kind.x_label,
                y_label=kind.y_label,
                share=kind.part == "layers",
                order=tuple(_KIND_COLOURS),
            )
            yield frame.Figure(kind.name, drawn, kind.caption)
