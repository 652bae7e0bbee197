"""One iteration in time: compute unit, channel to memory, and what the cache holds."""

import itertools

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch, Patch

from codesign import units
from codesign.report import canvas
from codesign.studies.memory.capacity_result import NetworkSweep, Timeline, ran

TYPE_I, TYPE_II = canvas.BLUE, canvas.ORANGE
_PALE_I, _PALE_II = "#CFE3F1", "#FBE7BF"  # the same colours, while a step waits
_DIRECTIONS = ("#009E73", "#CC79A7", "#8A94A0")  # load, offload, pass through
_SOFT = "#52606D"
_COMPUTE, _CHANNEL = 1.15, 0.0  # feet of the two lanes, each 0.9 high
_HEIGHT = 0.9
_FEWEST, _MOST = 5, 16  # steps of the part that is enlarged


@canvas.styled
def slide(sweep: NetworkSweep) -> Figure:
    """The whole iteration, the occupancy below it, and a block of layers enlarged.

    Raises:
        NotRun: If the sweep has no timeline.
    """
    found = ran(sweep.timeline)
    figure = canvas.blank(7.2, width=12.8)
    figure.set_layout_engine("none")
    whole = figure.add_axes((0.085, 0.665, 0.83, 0.17))
    held = figure.add_axes((0.085, 0.475, 0.83, 0.165), sharex=whole)
    zoom = figure.add_axes((0.085, 0.14, 0.83, 0.19))
    factor, unit = _time_unit(found.total_s)
    _lanes(whole, found, factor, slice(None))
    whole.set_xlim(0, found.total_s * factor)
    whole.tick_params(labelbottom=False, length=0)
    _shares(whole, found)
    _passes(whole, found, factor)
    _occupancy(held, found, factor)
    held.set_xlabel(f"Time ({unit})", fontsize=13, labelpad=1, loc="right")
    part = enlarged(found)
    begin, end = _span(found, part)
    small_factor, small_unit = _time_unit(end - begin)
    _lanes(zoom, found, small_factor, part, origin=begin)
    zoom.set_xlim(0, (end - begin) * small_factor)
    _name_steps(zoom, found, part, begin, small_factor)
    first, last = (found.names[i].split("/")[-1] for i in (part.start, part.stop - 1))
    zoom.set_xlabel(
        f"Enlarged, {first} to {last}: time since {begin * factor:.2f} {unit} "
        f"({small_unit})",
        fontsize=13,
    )
    for axes in (whole, held):
        axes.axvspan(
            begin * factor, end * factor, color=canvas.INK, alpha=0.10, lw=0, zorder=0.5
        )
    for x, corner in ((begin, 0.0), (end, 1.0)):  # above the names of the steps
        figure.add_artist(
            ConnectionPatch(
                (x * factor, 0), (corner, 1.17), held.transData, zoom.transAxes,
                color=canvas.GREY, lw=0.9, ls=(0, (4, 3)),
            )
        )  # fmt: skip
    _titles(figure, sweep, found)
    return figure


def enlarged(found: Timeline) -> slice:
    """Steps of one block in the forward pass: between two additions where there are."""
    forward = int((~found.is_backward).sum())
    joins = [i + 1 for i in range(forward) if found.kinds[i] == "add"]
    blocks = [
        (first, last)
        for first, last in itertools.pairwise(joins)
        if _FEWEST <= last - first <= _MOST
    ]
    if blocks:
        # The block that a cache treats worst, as that is what there is to see.
        first, last = max(blocks[: max(1, len(blocks) // 2)], key=_waits(found))
        return slice(first, last)
    first = max(0, forward // 2 - _MOST // 4)
    return slice(first, min(forward, first + _MOST // 2))


def _waits(found: Timeline):
    steps = np.diff(found.end_s, prepend=0.0) - found.compute_s
    total = np.concatenate([[0.0], np.cumsum(steps)])
    return lambda block: total[block[1]] - total[block[0]]


def _span(found: Timeline, part: slice) -> tuple[float, float]:
    begin = found.end_s[part.start - 1] if part.start else 0.0
    return float(begin), float(found.end_s[part.stop - 1])


def _time_unit(seconds: float) -> tuple[float, str]:
    for factor, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "µs")):
        if seconds * factor >= 2:
            return factor, unit
    return 1e6, "µs"


def _lanes(
    axes: Axes, found: Timeline, factor: float, part: slice, origin: float = 0.0
) -> None:
    """Compute unit above, channel below."""
    before = np.concatenate([[0.0], found.end_s[:-1]])
    # So that the shortest steps are seen, where they are not too many.
    hairline = 0.4 if len(found.end_s[part]) < 1000 else 0.0
    for is_type_ii, solid, pale in (
        (False, TYPE_I, _PALE_I),
        (True, TYPE_II, _PALE_II),
    ):
        chosen = np.zeros(len(found.end_s), bool)
        chosen[part] = True
        chosen &= found.is_type_ii == is_type_ii
        for start, width, colour in (
            (before[chosen], (found.end_s - before)[chosen], pale),
            (found.start_s[chosen], found.compute_s[chosen], solid),
        ):
            spans = np.stack([(start - origin) * factor, width * factor], 1).tolist()
            axes.broken_barh(
                spans, (_COMPUTE, _HEIGHT), facecolor=colour,
                edgecolor=colour if colour == solid else "none", lw=hairline,
            )  # fmt: skip
    end = _span(found, part)[1] if part.stop else np.inf
    for direction, colour in enumerate(_DIRECTIONS):
        chosen = found.direction == direction
        chosen &= (found.transfer_end_s > origin) & (found.transfer_start_s < end)
        start = (found.transfer_start_s[chosen] - origin) * factor
        width = (found.transfer_end_s - found.transfer_start_s)[chosen] * factor
        axes.broken_barh(
            np.stack([start, width], 1).tolist(), (_CHANNEL, _HEIGHT), facecolor=colour,
            edgecolor="white", lw=0.0 if part.stop is None else 0.8,
        )  # fmt: skip
    axes.set_ylim(-0.1, _COMPUTE + _HEIGHT + 0.1)
    axes.set_yticks(
        [_COMPUTE + _HEIGHT / 2, _CHANNEL + _HEIGHT / 2],
        ["compute\nunit", "channel to\nmemory"],
        fontsize=12.5,
    )
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=12)
    axes.grid(visible=False)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(side == "bottom" and part.stop is not None)


def _shares(axes: Axes, found: Timeline) -> None:
    """How busy each lane is, at its end."""
    computes = found.compute_s.sum() / found.total_s
    moves = (found.transfer_end_s - found.transfer_start_s).sum() / found.total_s
    for y, share in ((_COMPUTE, computes), (_CHANNEL, moves)):
        axes.text(
            1.008, y + _HEIGHT / 2, f"busy\n{share:.0%}", fontsize=12.5, va="center",
            transform=axes.get_yaxis_transform(),
        )  # fmt: skip


def _passes(axes: Axes, found: Timeline, factor: float) -> None:
    forward = found.end_s[~found.is_backward][-1]
    axes.axvline(forward * factor, color=canvas.INK, lw=1.2)
    top = _COMPUTE + _HEIGHT + 0.16
    for begin, end, name in (
        (0.0, forward, "forward"),
        (forward, found.total_s, "backward"),
    ):
        axes.text(
            (begin + end) / 2 * factor, top, name, fontsize=12.5, ha="center",
            va="bottom", color=_SOFT,
        )  # fmt: skip


def _occupancy(axes: Axes, found: Timeline, factor: float) -> None:
    edges = np.concatenate([[0.0], found.end_s]) * factor
    held = found.held_bytes / units.MIB
    axes.stairs(held, edges, fill=True, color="#C9D3DD")
    axes.stairs(held, edges, color=_SOFT, lw=0.8)
    axes.axhline(found.capacity_mb, color=canvas.VERMILION, lw=1.4, ls="--")
    axes.set_ylim(0, found.capacity_mb * 1.22)
    axes.text(
        1.008, found.capacity_mb / (1.22 * found.capacity_mb),
        f"cache\n{found.capacity_mb:g} MB", color=canvas.VERMILION, fontsize=12.5,
        va="center", transform=axes.transAxes,
    )  # fmt: skip
    axes.set_ylabel("held (MB)", fontsize=12.5)
    axes.tick_params(labelsize=12)
    axes.grid(axis="x", visible=False)


def _name_steps(
    axes: Axes, found: Timeline, part: slice, origin: float, factor: float
) -> None:
    """The kind of each step above it; those too short for their name share a line."""
    before = np.concatenate([[0.0], found.end_s[:-1]])
    left, right = axes.get_xlim()
    taken = left
    for step in range(part.start, part.stop):
        middle = (before[step] + found.end_s[step]) / 2 - origin
        name = (
            found.kinds[step].split()[-1]
            if "norm" in found.kinds[step]
            else (found.kinds[step])
        )
        width = 0.0085 * (len(name) + 1) * (right - left)
        x = middle * factor
        if x - width / 2 < taken:
            continue
        taken = x + width / 2
        axes.text(
            x, _COMPUTE + _HEIGHT + 0.08, name, fontsize=11.5, ha="center", va="bottom",
            color="#9A6700" if found.is_type_ii[step] else "#004A75",
        )  # fmt: skip


def _titles(figure: Figure, sweep: NetworkSweep, found: Timeline) -> None:
    stalls = np.diff(found.end_s, prepend=0.0) - found.compute_s
    waits = 1 - found.compute_s.sum() / found.total_s
    part = stalls[found.is_type_ii].sum() / max(stalls.sum(), 1e-30)
    factor, unit = _time_unit(found.total_s)
    figure.text(
        0.015, 0.955,
        f"{sweep.label} behind a {found.capacity_mb:g} MB cache waits for memory "
        f"{waits:.0%} of the time",
        fontsize=20, fontweight="bold",
    )  # fmt: skip
    figure.text(
        0.015, 0.912,
        f"One training iteration of batch {sweep.batch_size} on the memory of "
        f"{found.hardware}: {found.total_s * factor:.1f} {unit}; point-wise layers cause "
        f"{part:.0%} of the waiting",
        fontsize=13.5, color=_SOFT,
    )  # fmt: skip
    handles = [
        Patch(color=TYPE_I, label="products compute"),
        Patch(color=_PALE_I, label="products wait"),
        Patch(color=TYPE_II, label="point-wise compute"),
        Patch(color=_PALE_II, label="point-wise wait"),
        *(
            Patch(color=colour, label=name)
            for colour, name in zip(
                _DIRECTIONS, ("load", "offload", "pass through: no room"), strict=True
            )
        ),
    ]
    figure.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0.01, -0.005), ncols=7,
        fontsize=12, handlelength=1.1, columnspacing=1.4,
    )  # fmt: skip
