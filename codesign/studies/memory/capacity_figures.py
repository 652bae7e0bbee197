"""Figures 5.2 to 5.6 of the paper, reuse by scope and the policies, a panel a network."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from codesign import units
from codesign.report import canvas
from codesign.studies.memory.capacity_measure import BASE, FAST, HBM
from codesign.studies.memory.capacity_result import Outcome
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
}
_OTHER = "#B9AFA0"
_SCOPE_COLOURS = (canvas.BLUE, canvas.SKY, canvas.GREEN, canvas.PURPLE)
_CAPACITY = "Cache capacity (MB)"


@canvas.styled
def traffic(outcomes: Sequence[Outcome]) -> Figure:
    """Fig. 5.2: bytes from and to memory over capacity, with the knee.

    A network whose weights recur has its bend elsewhere: where they all stay.
    """

    def draw(axes: Axes, outcome: Outcome) -> None:
        curves = outcome.paper
        assert curves is not None
        x = curves.capacities_mb
        for values, colour, name in (
            (curves.traffic_in, canvas.BLUE, "in"),
            (curves.traffic_out, canvas.VERMILION, "out"),
        ):
            axes.plot(x, values / _GIGA, color=colour, label=name)
        name, bend = "knee", knee_mb(outcome)
        recurrent = needed_mb(outcome, "recurrent weight")
        if recurrent:
            name, bend = "recurrent\nweights stay", round(recurrent)
        if bend is not None and bend > x[0]:
            axes.axvline(bend, color=canvas.GREY, lw=1, ls=":")
            axes.text(
                bend + 0.015 * (x[-1] - x[0]), axes.get_ylim()[1] * 0.62,
                f"{name}\n{bend:g} MB", fontsize=8.5, color=canvas.INK,
            )  # fmt: skip

    return _panels(
        [o for o in outcomes if o.paper], draw, _CAPACITY, "Traffic (GB)", keys=True
    )


@canvas.styled
def times(outcomes: Sequence[Outcome]) -> Figure:
    """Fig. 5.3: time at two throughputs, and the speed-up of the larger."""

    def draw(axes: Axes, outcome: Outcome) -> None:
        curves = outcome.paper
        assert curves is not None
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

    return _panels(
        [o for o in outcomes if o.paper], draw, _CAPACITY,
        "Time of an iteration (ms)", keys=True,
    )  # fmt: skip


@canvas.styled
def bandwidths(outcomes: Sequence[Outcome]) -> Figure:
    """Fig. 5.4: average bandwidth behind two memories."""

    def draw(axes: Axes, outcome: Outcome) -> None:
        curves = outcome.paper
        assert curves is not None
        for machine, colour, name in (
            (HBM, canvas.VERMILION, "HBM2e, 1555 GB/s"),
            (BASE, canvas.BLUE, "GDDR6, 616 GB/s"),
        ):
            average = curves.average_bandwidth[machine] / _GIGA
            axes.plot(curves.capacities_mb, average, color=colour, label=name)

    return _panels(
        [o for o in outcomes if o.paper], draw, _CAPACITY,
        "Average bandwidth (GB/s)", keys=True,
    )  # fmt: skip


@canvas.styled
def layer_types(outcomes: Sequence[Outcome]) -> Figure:
    """Fig. 5.5: time by layer type at a few capacities, type I below type II."""

    def draw(axes: Axes, outcome: Outcome) -> None:
        found = outcome.by_kind
        assert found is not None
        places = np.arange(len(found.capacities_mb))
        base = np.zeros(len(places))
        for k, kind in enumerate(found.kinds):
            values = 1e3 * found.time_s[:, k]
            if values.max() < 0.005 * 1e3 * found.time_s.sum(1).max():
                colour, name = _OTHER, "other"
            else:
                colour, name = _KIND_COLOURS.get(kind, _OTHER), kind
            if kind not in _KIND_COLOURS:
                name = "other"
            axes.bar(
                places, values, 0.72, base, color=colour, label=name, lw=0.4,
                edgecolor="white",
            )  # fmt: skip
            base += values
        type_ii = found.time_s[:, found.is_type_ii].sum(1) / found.time_s.sum(1)
        for place, top, share in zip(places, base, type_ii, strict=True):
            axes.annotate(
                f"{share:.0%}", (place, top), (0, 2), textcoords="offset points",
                ha="center", fontsize=8,
            )  # fmt: skip
        axes.set_xticks(places, [f"{mb:g}" for mb in found.capacities_mb])
        axes.grid(axis="x", visible=False)
        axes.set_ylim(0, 1.14 * base.max())

    return _panels(
        [o for o in outcomes if o.by_kind], draw, _CAPACITY,
        "Time of an iteration (ms)", keys=True,
    )  # fmt: skip


@canvas.styled
def batch_sizes(outcomes: Sequence[Outcome]) -> Figure:
    """Fig. 5.6: samples per second over the batch, eq. 5.2."""

    def draw(axes: Axes, outcome: Outcome) -> None:
        found = outcome.batches
        assert found is not None
        places = np.arange(len(found.sizes))
        width = 0.8 / len(found.capacities_mb)
        for c, mebibytes in enumerate(found.capacities_mb):
            axes.bar(
                places + (c + 0.5) * width - 0.4, found.samples_per_s[c], 0.94 * width,
                color=(canvas.BLUE, canvas.ORANGE)[c], label=f"{mebibytes:g} MB",
            )  # fmt: skip
        axes.set_xticks(places, [f"{size}" for size in found.sizes])
        axes.grid(axis="x", visible=False)

    return _panels(
        [o for o in outcomes if o.batches], draw, "Batch size",
        "Throughput (samples/s)", keys=True, with_batch=False,
    )  # fmt: skip


@canvas.styled
def reuse_scopes(outcomes: Sequence[Outcome]) -> Figure:
    """Where the traffic goes that a cache spares: stacked up to what nothing spares."""

    def draw(axes: Axes, outcome: Outcome) -> None:
        found = outcome.reuse
        assert found is not None
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

    return _panels(
        [o for o in outcomes if o.reuse], draw, _CAPACITY, "Traffic if nothing stayed (GB)",
        keys=True,
    )  # fmt: skip


@canvas.styled
def policies(outcomes: Sequence[Outcome]) -> Figure:
    """What the ways to manage the cache cost, against the paper's."""
    colours = (
        *(canvas.INK, canvas.BLUE, canvas.PURPLE),
        *(canvas.GREEN, canvas.VERMILION, canvas.ORANGE, canvas.SKY),
    )
    markers = "osD^vX*"

    def draw(axes: Axes, outcome: Outcome) -> None:
        found = outcome.policies
        assert found is not None
        places = np.arange(len(found.capacities_mb))
        for p, name in enumerate(found.names):
            if p == 0:
                axes.axhline(0, color=canvas.INK, lw=1.2)
                continue
            slower = 100 * (found.time_s[p] / found.time_s[0] - 1)
            axes.plot(
                places, slower, color=colours[p], marker=markers[p], ms=4.5, lw=1.4,
                label=name,
            )  # fmt: skip
        axes.set_xticks(places, [f"{mb:g}" for mb in found.capacities_mb])
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:+.0f}%"))

    return _panels(
        [o for o in outcomes if o.policies], draw, _CAPACITY,
        "Time against the paper's policy", keys=True, from_zero=False,
    )  # fmt: skip


@canvas.styled
def fidelity(outcomes: Sequence[Outcome]) -> Figure:
    """The surrogate's times against the simulator's."""

    def draw(axes: Axes, outcome: Outcome) -> None:
        found = outcome.fidelity
        assert found is not None
        exact, ours = 1e3 * found.exact_s, 1e3 * found.surrogate_s
        low, high = min(exact.min(), ours.min()), max(exact.max(), ours.max())
        axes.plot([low, high], [low, high], color=canvas.GREY, lw=1, zorder=1)
        axes.scatter(exact, ours, s=6, color=canvas.BLUE, alpha=0.35, lw=0, zorder=2)
        axes.set(xscale="log", yscale="log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_formatter(NullFormatter())
        axes.text(
            0.04, 0.96,
            f"Spearman {found.spearman:.4f}\nmedian error {found.median_error:.1%}\n"
            f"90th percentile {found.p90_error:.1%}",
            transform=axes.transAxes, va="top", fontsize=8.5,
        )  # fmt: skip

    return _panels(
        [o for o in outcomes if o.fidelity], draw, "Simulated time (ms)",
        "Surrogate's time (ms)", from_zero=False,
    )  # fmt: skip


def _panels(
    outcomes: Sequence[Outcome],
    draw: Callable[[Axes, Outcome], None],
    x_label: str,
    y_label: str,
    *,
    keys: bool = False,
    from_zero: bool = True,
    with_batch: bool = True,
) -> Figure:
    """Draws one panel for each network, two in a row."""
    columns = min(2, len(outcomes))
    rows = -(-len(outcomes) // columns)
    figure = canvas.blank(2.35 * rows + 0.7, width=7.6 if columns > 1 else 5.2)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(outcomes) :]:
        axes.set_visible(False)
    shown: dict[str, Artist] = {}
    for axes, outcome in zip(grid.flat, outcomes, strict=False):
        batch = f", batch {outcome.batch_size}" if with_batch else ""
        axes.set_title(outcome.label + batch, loc="left")
        draw(axes, outcome)
        if from_zero:
            axes.set_ylim(bottom=0)
        if axes.get_yscale() != "log":
            axes.yaxis.set_major_locator(MaxNLocator(5))
        handles, names = axes.get_legend_handles_labels()
        shown |= dict(zip(names, handles, strict=True))
    figure.supxlabel(x_label, fontsize=10)
    figure.supylabel(y_label, fontsize=10)
    if keys:
        order = [*_KIND_COLOURS, "other"]  # kinds in this order, all else as drawn
        shown = dict(sorted(shown.items(), key=lambda item: _place(order, item[0])))
        widest = max(map(len, shown), default=1)
        columns = min(
            len(shown), max(1, round(12 * figure.get_figwidth() / (widest + 6)))
        )
        figure.legend(
            list(shown.values()), list(shown), loc="outside upper center", ncols=columns
        )
    return figure


def _place(order: Sequence[str], name: str) -> int:
    return order.index(name) if name in order else -1
