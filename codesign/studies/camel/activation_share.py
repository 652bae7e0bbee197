"""How much larger are activations than weights in training? A network is one unit."""

import dataclasses
import functools

from matplotlib.axes import Axes

from codesign import models
from codesign.records import StrPath
from codesign.records.settings import setting
from codesign.report import Column, Paragraph, Table, canvas
from codesign.report.panels import draw_panels
from codesign.studies import frame
from codesign.studies.camel.activation_share_count import (
    KEPT,
    STEMS,
    NetworkCounts,
    count,
)
from codesign.studies.camel.activation_share_published import (
    OURS,
    PRINTED,
    Convention,
    Found,
    conventions,
    mean_ratio,
    nearest,
    numbers,
    published,
    ratio,
)
from codesign.studies.published import quantities

__all__ = ["PRESETS", "STUDY", "ActivationShareConfig", "run"]

_OF_FIGURE = ("resnet18", "resnet34", "resnet50", "vgg16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ActivationShareConfig(frame.Config):
    """Settings of one count."""

    networks: tuple[str, ...] = setting(
        tuple(name for name in _OF_FIGURE if name in models.NETWORKS),
        "Classifiers, on images of CIFAR-10.",
        one_of=_OF_FIGURE,
        distinct=True,
        free=True,
    )
    batch_size: int = setting(48, "Images in a batch; the paper's is 48.", least=1)


PRESETS = {"paper": ActivationShareConfig(preset="paper")}


def measure(config: ActivationShareConfig, unit: str, job: frame.Job) -> NetworkCounts:
    """Counts one network with both stems."""
    del config
    job.update(0, models.title(unit), state="counting")
    return count(unit)


def report(config: ActivationShareConfig, found: Found) -> frame.Report:
    """Ratios in all ways of counting, beside the printed one."""
    batch = config.batch_size
    first, *_ = order = nearest(found, batch)
    means = {way: mean_ratio(found, way, batch) for way in order}
    names = ", ".join(map(models.title, found))
    summary = (
        f"{names}, batch {batch}: what the backward pass reads is {means[OURS]:.3g} times "
        f"the weights on average; the paper says about {PRINTED:g}. Nearest to it, with "
        f"{means[first]:.3g}: {_words(first)}."
    )
    table = _table(found, batch)
    about = Paragraph(
        "The paper names networks, data set and batch, and not what it counts. Kept: "
        f"{_listed(KEPT)}. Stem of the ResNets: {_listed(STEMS)}. Bits: as many for an "
        "activation as for a weight; a gradient with each activation; or one of the two in "
        "the paper's format of 6.4 bits and the other in float32. Weights are all "
        "variables, running statistics among them; the image is an activation."
    )
    return frame.Report(
        title="Activations over weights",
        summary=summary,
        sections=[
            frame.Section("Ways of counting", [about, table]),
            frame.Section("Figures", [_shares(config, found), _ratios(config, found)]),
        ],
        quantities=[*quantities(published(), means), *numbers(found, batch)],
        shown=[table],
        compared=(
            "The printed mean and ours",
            f"In order of distance: {'; '.join(', '.join(way) for way in order[:3])}, ...",
        ),
    )


def _listed(texts: dict[str, str]) -> str:
    return "; ".join(f"{name}, {text}" for name, text in texts.items())


def _words(convention: Convention) -> str:
    kept, stem, bits = convention
    return f"{kept} ({KEPT[kept]}), {stem} stem, bits: {bits}"


def _table(found: Found, batch: int) -> Table:
    """Of all conventions, the nearest to the paper highlighted."""
    table = Table(
        f"Activations over weights, batch {batch}",
        [
            *("Kept", "Stem", "Bits"),
            *(Column(models.title(name), format=".3g") for name in found),
            Column("Mean", format=".3g"),
            Column(f"Over {PRINTED:g}", format=lambda v: f"{v:.2f} ×"),
        ],
    )
    best = nearest(found, batch)[0]
    for way in conventions():
        mean = mean_ratio(found, way, batch)
        ratios = [ratio(counts, way, batch) for counts in found.values()]
        style = "highlight" if way == best else ""
        marker = "ours" if way == OURS else ""
        table.add(*way, *ratios, mean, mean / PRINTED, style=style, marker=marker)
    return table


def _shares(config: ActivationShareConfig, found: Found) -> frame.Figure:
    """The form of Fig. 1(b)."""

    def draw(axes: Axes, kept: str) -> None:
        way = (kept, *OURS[1:])
        ratios = [ratio(counts, way, config.batch_size) for counts in found.values()]
        shares = [100 * r / (1 + r) for r in ratios]
        rest = [100 - share for share in shares]
        places = [models.title(name) for name in found]
        axes.bar(places, shares, color=canvas.BLUE, label="activations")
        axes.bar(places, rest, bottom=shares, color=canvas.ORANGE, label="weights")
        axes.axhline(100 * PRINTED / (1 + PRINTED), color=canvas.INK, ls="--", lw=1)
        axes.tick_params(axis="x", labelsize=8)

    return frame.Figure(
        "activation_share",
        draw_panels(
            [(kept, functools.partial(draw, kept=kept)) for kept in KEPT],
            x_label="Network",
            y_label="Share of the bytes (%)",
        ),
        "Activations and weights of one training iteration in the form of Fig. 1(b), with "
        "the small stem, by what is kept; dashed the mean that the paper prints.",
    )


def _ratios(config: ActivationShareConfig, found: Found) -> frame.Figure:
    ways = sorted(
        conventions(), key=lambda way: mean_ratio(found, way, config.batch_size)
    )

    def draw(axes: Axes) -> None:
        rows = range(len(ways))
        for number, (name, counts) in enumerate(found.items()):
            values = [ratio(counts, way, config.batch_size) for way in ways]
            axes.scatter(
                *(values, rows),
                label=models.title(name),
                color=canvas.CYCLE[number],
                marker="os^D"[number],
                s=16,
            )
        means = [mean_ratio(found, way, config.batch_size) for way in ways]
        axes.plot(means, rows, label="mean", color=canvas.INK, ls="", marker="|", ms=11)
        axes.axvline(PRINTED, color=canvas.INK, ls="--", lw=1)
        axes.set_yticks(rows, [", ".join(way) for way in ways], fontsize=8)
        canvas.log_scale(axes, "x")

    return frame.Figure(
        "ways_of_counting",
        draw_panels(
            [("", draw)], x_label="Activations over weights", y_label="", height=5
        ),
        "Ratio of every network by the way of counting; dashed the printed mean.",
    )


STUDY = frame.Study(
    name="activation_share",
    presets=PRESETS,
    units=lambda config: config.networks,
    measure=measure,
    report=report,
    found=NetworkCounts,
)


def run(
    config: ActivationShareConfig, *, workdir: StrPath
) -> frame.Found[NetworkCounts]:
    """Counts what `workdir` does not hold yet; see `frame.Study.run`."""
    return STUDY.run(config, workdir=workdir)
