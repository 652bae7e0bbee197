"""Accuracy over epochs and over bits, and error by layer, of training in number formats."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from codesign.kernels.cast_product import CLASSES
from codesign.report import canvas
from codesign.report.panels import draw_panels
from codesign.studies import claims, frame
from codesign.studies.camel.number_formats_result import (
    FormatRun,
    Runs,
    SchemeRow,
    errors,
    mean_curve,
    of_scheme,
)
from codesign.studies.camel.number_formats_settings import (
    REFERENCE,
    NumberFormatsConfig,
)

_NAMED = 8  # products whose names fit under an axis
_FAMILIES = {
    "block floating point": ("bfp",),
    "microscaling": ("mx",),
    "floating point": (REFERENCE, "bfloat16"),
}


def figures(
    config: NumberFormatsConfig,
    found: Runs,
    compared: Sequence[SchemeRow],
    operands: Mapping[str, FormatRun],
) -> Iterator[frame.Figure]:
    """The figures of the page; `operands` holds the runs whose operands were looked at."""
    curves = {name: mean_curve(of_scheme(found, name)) for name in config.schemes}
    others = [name for name in config.schemes if name != REFERENCE]
    families = {
        "block floating point": [name for name in others if name.startswith("bfp")],
        "microscaling and bfloat16": [n for n in others if not n.startswith("bfp")],
    }
    if not others:
        families = {REFERENCE: []}
    yield frame.Figure(
        "accuracy_over_epochs",
        draw_panels(
            [
                (
                    title,
                    _curves(
                        config, {name: curves[name] for name in (REFERENCE, *names)}
                    ),
                )
                for title, names in families.items()
                if names or not others
            ],
            x_label="Epoch",
            y_label="Validation accuracy (%)",
            height=3.2,
            share=True,
        ),
        "Validation accuracy, mean over seeds.",
    )
    yield frame.Figure(
        "accuracy_over_bits",
        _accuracy_over_bits(compared),
        "Test accuracy over the width of a number, all three classes of tensor in the "
        "format; mean over seeds and its 95 % interval.",
    )
    if others:
        yield frame.Figure(
            "loss_by_format",
            _loss_by_format(compared),
            "Test accuracy lost against float32 from the same seeds, mean and 95 % "
            "interval; dashed, the point that a format may lose. Green: as good; red: "
            "worse.",
        )
    if operands:
        products = list(
            dict.fromkeys(
                row.product for run in operands.values() for row in run.operands
            )
        )
        panels = [
            (
                kind,
                _curves(
                    config,
                    {name: errors(operands[name], kind) for name in operands},
                    1,
                    products,
                ),
            )
            for kind in CLASSES
        ]
        yield frame.Figure(
            "error_by_layer",
            draw_panels(
                panels,
                x_label="Product, first to last",
                y_label="Relative quantisation error",
                height=2.8,
            ),
            "Root of the mean squared error over that of the values, after training, by "
            "product and class of tensor.",
        )


def _curves(
    config: NumberFormatsConfig,
    lines: Mapping[str, list[float]],
    scale: float | None = None,
    places: Sequence[str] = (),
) -> Callable[[Axes], None]:
    """Draws lines over 1, 2, ...: in percent, or with a `scale` on a logarithmic axis.

    A few `places` stand under the axis by name.
    """

    def draw(axes: Axes) -> None:
        for name, values in lines.items():
            index = config.schemes.index(name)  # one look in all panels
            y = np.array(values) * (100 if scale is None else scale)
            axes.plot(
                range(1, len(y) + 1), y if scale is None else np.where(y > 0, y, np.nan),
                label=name, color=canvas.CYCLE[index % 7],
                ls=canvas.DASHES[index // 7 % 4], marker="o", ms=3,
            )  # fmt: skip
        if scale is not None:
            canvas.log_scale(axes, "y")
        if 0 < len(places) <= _NAMED:
            axes.set_xticks(range(1, len(places) + 1), places, rotation=20, ha="right")
        else:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    return draw


@canvas.styled
def _accuracy_over_bits(compared: Sequence[SchemeRow]) -> matplotlib.figure.Figure:
    figure, axes = canvas.single(3.8)
    names, points = [], []
    for colour, (family, starts) in zip(canvas.CYCLE, _FAMILIES.items(), strict=False):
        plain = [
            row
            for row in compared
            if row.scheme.startswith(starts) and not set("+:") & set(row.scheme)
        ]
        plain.sort(key=lambda row: row.bits)
        values = [np.array([t for t in row.test if t is not None]) for row in plain]
        drawn = [(row, 100 * v) for row, v in zip(plain, values, strict=True) if len(v)]
        axes.errorbar(
            [row.bits for row, _ in drawn],
            [v.mean() for _, v in drawn],
            [claims.half_interval(v) for _, v in drawn],
            fmt="o-" if len(drawn) > 2 else "o", ms=4, lw=1.4, capsize=2, color=colour,
            label=family,
        )  # fmt: skip
        names += [row.scheme for row, _ in drawn]
        points += [(row.bits, v.mean()) for row, v in drawn]
    canvas.log_scale(axes, "x")
    axes.set(xlabel="Width of a number (bits)", ylabel="Test accuracy (%)")
    axes.set_xticks([4, 6, 8, 16, 32], ["4", "6", "8", "16", "32"])
    axes.minorticks_off()
    canvas.legend_above(figure, axes)
    if points:
        canvas.annotate(figure, axes, np.array(points), names, line=np.zeros((0, 2)))
    return figure


_COLOURS = {"non_inferior": canvas.GREEN, "inferior": canvas.VERMILION}


@canvas.styled
def _loss_by_format(compared: Sequence[SchemeRow]) -> matplotlib.figure.Figure:
    shown = [(row, row.loss) for row in compared if row.loss is not None]
    shown.sort(key=lambda pair: -pair[0].bits)
    figure, axes = canvas.single(1.0 + 0.24 * len(shown))
    for place, (row, loss) in enumerate(shown):
        losses = 100 * np.array(loss.losses)
        axes.errorbar(
            losses.mean(), place, xerr=claims.half_interval(losses), fmt="o", ms=4,
            capsize=2, color=_COLOURS.get(row.verdict or "", canvas.GREY),
        )  # fmt: skip
    axes.axvline(0, color=canvas.INK, lw=1)
    axes.axvline(100 * claims.TOLERANCE, color=canvas.INK, lw=1, ls="--")
    axes.set_yticks(
        range(len(shown)), [f"{row.scheme}, {row.bits:.3g} bits" for row, _ in shown]
    )
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlabel("Test accuracy lost (points)")
    return figure
