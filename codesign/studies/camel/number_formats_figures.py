"""Accuracy over epochs and over bits, and error by layer, of training in number formats."""

from collections.abc import Callable, Iterator, Mapping

import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from codesign.kernels.cast_product import CLASSES
from codesign.report import canvas
from codesign.report.panels import draw_panels
from codesign.studies import frame
from codesign.studies.camel import schemes
from codesign.studies.camel.number_formats_result import (
    FormatRun,
    Runs,
    errors,
    mean_curve,
    of_scheme,
)
from codesign.studies.camel.number_formats_settings import (
    REFERENCE,
    NumberFormatsConfig,
)


def figures(
    config: NumberFormatsConfig, found: Runs, operands: Mapping[str, FormatRun]
) -> Iterator[frame.Figure]:
    """The figures of the page; `operands` holds the runs whose operands were looked at."""
    curves = {name: mean_curve(of_scheme(found, name)) for name in config.schemes}
    others = [name for name in config.schemes if name != REFERENCE]
    families = {
        "block floating point": [name for name in others if name.startswith("bfp")],
        "microscaling and bfloat16": [n for n in others if not n.startswith("bfp")],
    }
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
                if names
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
        _accuracy_over_bits(config, found),
        "Test accuracy over the storage of a number; each dot is a seed, and the name "
        "stands at the mean.",
    )
    if operands:
        panels = [
            (
                kind,
                _curves(
                    config, {name: errors(operands[name], kind) for name in operands}, 1
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
) -> Callable[[Axes], None]:
    """Draws lines over 1, 2, ...: in percent, or with a `scale` on a logarithmic axis."""

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
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    return draw


@canvas.styled
def _accuracy_over_bits(
    config: NumberFormatsConfig, found: Runs
) -> matplotlib.figure.Figure:
    figure, axes = canvas.single(4.6)
    names, points = [], []
    for index, name in enumerate(config.schemes):
        runs = of_scheme(found, name)
        values = [100 * run.test for run in runs if run.test is not None]
        if not values:
            continue
        bits = schemes.bits_per_number(name)
        colour = canvas.CYCLE[index % 7]
        axes.plot([bits] * len(values), values, "o", ms=3.5, alpha=0.6, color=colour)
        names.append(name)
        points.append((bits, float(np.mean(values))))
    canvas.log_scale(axes, "x")
    axes.set(xlabel="Storage of a number (bits)", ylabel="Test accuracy (%)")
    axes.set_xticks([4, 6, 8, 16, 32], ["4", "6", "8", "16", "32"])
    axes.minorticks_off()
    if points:
        canvas.annotate(figure, axes, np.array(points), names, line=np.zeros((0, 2)))
    return figure
