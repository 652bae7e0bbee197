"""Layers under the roof by their reuse frequency: Fig. 5.1, eq. 3.3, 3.4 and 5.1."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from codesign.hardware.memory import SYSTEMS
from codesign.report import canvas
from codesign.studies.memory.capacity_result import Layers, NetworkSweep
from codesign.studies.memory.observations import ridge_point

TYPE_I, TYPE_II = canvas.BLUE, canvas.ORANGE
_HARDWARE = "RTX 2080 Ti"
_SOFT = "#52606D"


def split(layers: Layers) -> float:
    """The reuse frequency that parts type II (below) from type I with fewest errors."""
    frequency = np.sort(np.unique(layers.reuse_frequency))
    middles = np.sqrt(frequency[1:] * frequency[:-1])
    if not middles.size:
        return float(frequency[0])
    above = layers.reuse_frequency[None] > middles[:, None]
    wrong = (above == layers.is_type_ii[None]).sum(1)
    best = np.flatnonzero(wrong == wrong.min())
    return float(middles[best[len(best) // 2]])


@canvas.styled
def slide(sweep: NetworkSweep) -> Figure:
    """One network for a talk: the roof with its layers, and where the time goes."""
    layers, spec = sweep.layers, SYSTEMS[_HARDWARE]
    figure = canvas.blank(7.2, width=12.8)
    figure.set_layout_engine("none")
    has_times = len(layers.capacities_mb) > 0
    bottom = figure.add_axes((0.085, 0.1, 0.9, 0.235))
    top = figure.add_axes((0.085, 0.385, 0.9, 0.47), sharex=bottom)
    _frame(top, layers)
    _bubbles(top, layers)
    top.set_ylabel("Attainable performance\n(operations/s)", fontsize=14)
    top.tick_params(labelbottom=False)
    _time_strip(bottom, layers) if has_times else bottom.set_visible(False)
    bottom.set_xlabel("Reuse frequency (operations per byte)", fontsize=14)
    for axes in (top, bottom):
        axes.tick_params(labelsize=12.5)
    work = layers.operations[layers.is_type_ii].sum() / layers.operations.sum()
    headline = f"{sweep.label}: point-wise layers do {work:.1%} of the work"
    if has_times:
        share = layers.time_s[0, layers.is_type_ii].sum() / layers.time_s[0].sum()
        headline += f" and take {share:.{0 if share >= 0.01 else 1}%} of the time"
    figure.text(0.015, 0.945, headline, fontsize=20, fontweight="bold")
    figure.text(
        0.015, 0.9,
        f"{_HARDWARE}: {_peak() / 1e12:g} TFLOP/s, "
        f"{float(spec.bandwidth_bytes_per_s) / 1e9:g} GB/s, batch {sweep.batch_size}, "
        "fp32. Bubble: layers of a kind with equal reuse, its area their time with "
        f"a cache of {layers.capacities_mb[0]:g} MB" if has_times else _HARDWARE,
        fontsize=13, color=_SOFT,
    )  # fmt: skip
    return figure


def _peak() -> float:
    return float(SYSTEMS[_HARDWARE].throughput_ops_per_s)


def _bandwidth() -> float:
    return float(SYSTEMS[_HARDWARE].bandwidth_bytes_per_s)


def _frame(axes: Axes, layers: Layers, large: bool = True) -> None:
    """The roof, its two regions, and the line between the types."""
    frequency = layers.reuse_frequency
    low = 10 ** np.floor(np.log10(min(frequency.min(), 0.1)))
    high = 10 ** np.ceil(np.log10(max(frequency.max(), 10 * ridge_point())))
    x = np.geomspace(low, high, 200)
    canvas.log_scale(axes, "xy")
    axes.set_xlim(low, high)
    axes.set_ylim(low * _bandwidth() * 0.6, _peak() * (9 if large else 2.5))
    axes.plot(x, np.minimum(x * _bandwidth(), _peak()), color=canvas.INK, lw=2 + large)
    axes.axvspan(low, ridge_point(), color="#F3F5F7", lw=0, zorder=0)
    axes.axvline(
        split(layers), color=canvas.VERMILION, ls="--", lw=1.3 + 0.5 * large,
        label="between the types",
    )  # fmt: skip
    axes.axvline(ridge_point(), color=canvas.GREY, ls=":", lw=1.2, label="ridge point")


def small_panel(axes: Axes, sweep: NetworkSweep) -> None:
    """The roof of one network with a mark a layer."""
    layers = sweep.layers
    _frame(axes, layers, large=False)
    attainable = np.minimum(layers.reuse_frequency * _bandwidth(), _peak())  # eq. 5.1
    for chosen, colour, marker, name in (
        (layers.is_type_ii, TYPE_II, "s", "type II, point-wise"),
        (~layers.is_type_ii, TYPE_I, "o", "type I, products"),
    ):
        axes.scatter(
            layers.reuse_frequency[chosen], attainable[chosen], s=34, color=colour,
            alpha=0.7, marker=marker, edgecolor="white", lw=0.5, label=name, zorder=3,
        )  # fmt: skip


def _groups(layers: Layers) -> list[np.ndarray]:
    """Layers of one type whose reuse frequencies agree within a few percent."""
    keys = np.round(np.log10(layers.reuse_frequency) * 25).astype(int)
    found: dict[tuple[bool, int], list[int]] = {}
    for i, (is_type_ii, key) in enumerate(zip(layers.is_type_ii, keys, strict=True)):
        found.setdefault((bool(is_type_ii), int(key)), []).append(i)
    return [np.array(places) for places in found.values()]


def _bubbles(axes: Axes, layers: Layers) -> None:
    """A bubble a group, names beside those that matter, and the regions of the roof."""
    weights = layers.time_s[0] if len(layers.time_s) else layers.operations
    total = weights.sum()
    for places in sorted(_groups(layers), key=lambda group: -weights[group].sum()):
        x = float(np.median(layers.reuse_frequency[places]))
        share = weights[places].sum() / total
        axes.scatter(
            x, min(x * _bandwidth(), _peak()), s=40 + 6500 * share, alpha=0.72,
            color=TYPE_II if layers.is_type_ii[places[0]] else TYPE_I,
            edgecolor="white", lw=1, zorder=3,
        )  # fmt: skip
    _label_kinds(axes, layers, weights / total)
    for x, side, text in (
        (0.012, "left", "memory-bound"),
        (0.988, "right", "compute-bound"),
    ):
        axes.text(
            x, 0.93, text, fontsize=15, ha=side, va="center", color=_SOFT,
            transform=axes.transAxes,
        )  # fmt: skip
    foot, head = axes.get_ylim()
    axes.annotate(
        f"ridge point {ridge_point():.1f}", (ridge_point(), foot), (6, 10), fontsize=13,
        textcoords="offset points", color=_SOFT,
    )  # fmt: skip
    for side, text in (("right", "type II "), ("left", " type I")):
        axes.annotate(
            text, (split(layers), head), (-3 if side == "right" else 3, -14),
            textcoords="offset points", fontsize=13, color=canvas.VERMILION, ha=side,
            va="center",
        )  # fmt: skip


def _label_kinds(axes: Axes, layers: Layers, share: np.ndarray) -> None:
    """Names each kind that takes time once, those at the same place together."""
    kinds = np.array(layers.kinds)
    found: list[tuple[float, bool, list[str], float]] = []
    for kind in dict.fromkeys(layers.kinds):
        chosen = kinds == kind
        middle = np.exp(np.average(np.log(layers.reuse_frequency[chosen])))
        found.append(
            (
                float(middle),
                bool(layers.is_type_ii[chosen][0]),
                [f"{chosen.sum()} {kind}"],
                float(share[chosen].sum()),
            )
        )
    found.sort(key=lambda entry: entry[0])
    merged: list[tuple[float, bool, list[str], float]] = []
    for x, is_type_ii, names, part in found:
        if merged and merged[-1][1] == is_type_ii and x < 1.35 * merged[-1][0]:
            x0, _, before, part0 = merged[-1]
            merged[-1] = (np.sqrt(x * x0), is_type_ii, before + names, part + part0)
        else:
            merged.append((x, is_type_ii, names, part))
    merged = [entry for entry in merged if entry[3] >= 0.005]
    for i, (x, is_type_ii, names, part) in enumerate(merged):
        if x >= ridge_point():
            shift, side = (0, -66), "center"
        elif is_type_ii and (i % 2 or len(names) > 1):
            shift, side = (38, -34), "left"
        else:  # In turn above and below the roof, so that neighbours keep apart.
            shift, side = (-38, 36), "right"
        axes.annotate(
            f"{_wrapped(names)}\n{part:.0%} of the time",
            (x, min(x * _bandwidth(), _peak())), shift, ha=side, va="center",
            textcoords="offset points", fontsize=13, linespacing=1.25,
            color="#8A5A00" if is_type_ii else "#004A75",
            bbox={"facecolor": "#F3F5F7", "edgecolor": "none", "pad": 1}
            if x < ridge_point()
            else None,
            arrowprops={"arrowstyle": "-", "color": canvas.GREY, "lw": 0.8},
        )  # fmt: skip


def _wrapped(names: list[str]) -> str:
    """Two names a line."""
    lines = [" + ".join(names[i : i + 2]) for i in range(0, len(names), 2)]
    return " +\n".join(lines)


def _time_strip(axes: Axes, layers: Layers) -> None:
    """Time of layers by reuse frequency, at a small and at a large cache."""
    low, high = axes.get_xlim()
    edges = np.geomspace(low, high, round(6 * np.log10(high / low)) + 1)
    place = np.digitize(layers.reuse_frequency, edges) - 1
    total = layers.time_s[0].sum()
    centres, widths = np.sqrt(edges[1:] * edges[:-1]), np.diff(edges)
    for c in range(len(layers.capacities_mb)):
        base = np.zeros(len(centres))
        for chosen, colour in (
            (~layers.is_type_ii, TYPE_I),
            (layers.is_type_ii, TYPE_II),
        ):
            times = np.bincount(place[chosen], layers.time_s[c, chosen], len(centres))[
                : len(centres)
            ]
            if c == 0:
                axes.bar(
                    centres, 100 * times / total, 0.92 * widths, 100 * base / total,
                    color=colour, alpha=0.35,
                )  # fmt: skip
            else:
                axes.bar(
                    centres, 100 * times / total, 0.55 * widths, 100 * base / total,
                    color=colour,
                )  # fmt: skip
            base += times
    axes.set_ylabel("Time of layers\n(% of all)", fontsize=14)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.0f}%"))
    axes.grid(axis="x", visible=False)
    axes.axvline(ridge_point(), color=canvas.GREY, ls=":", lw=1.2)
    small, *rest = layers.capacities_mb
    text = f"pale: {small:g} MB cache"
    if rest:
        saved = 1 - layers.time_s[1].sum() / total
        text += f"    solid: {rest[0]:g} MB, {saved:.0%} less time"
    axes.set_title(text, fontsize=13, fontweight="normal", loc="right", pad=4)
