"""Accuracy of networks before and after they became reversible: what is found and said."""

import dataclasses
import functools
import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from matplotlib.axes import Axes

from codesign.models.pre_activation import PLAIN
from codesign.models.to_reversible import WIRINGS, ReversibleResidual
from codesign.report import Column, Paragraph, Quantity, Table, canvas, format_percent
from codesign.report.panels import draw_panels
from codesign.studies import claims, frame
from codesign.studies.published import Published, quantities

BEFORE = "before"  # the residual network, not trained on
REFERENCES = (BEFORE, PLAIN)
BEST = ReversibleResidual.wiring  # the default, chosen by this study
_VERDICTS = {
    "non_inferior": "as good",
    "inferior": "worse",
    "not_decided": "not decided",
}
_TITLES = {
    PLAIN: "residual, trained on",
    **{way: f"reversible, {way}" for way in WIRINGS},
}


@dataclasses.dataclass(frozen=True)
class WayRun:
    """One network that goes on from the trained residual one.

    Attributes:
        way: `residual`, or a wiring.
        right_after: Test accuracy before fine-tuning.
        gathered: Likewise, with the norms' statistics gathered anew, forward alone.
        after: Behind it; None if it diverged.
        losses: Mean of each epoch; none if it diverged.
    """

    way: str
    right_after: float
    gathered: float
    after: float | None
    losses: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class SeedRun:
    """All that goes on from one trained network.

    Attributes:
        before: Its test accuracy.
        losses: Of its training, the mean of each epoch.
        num_test: Images behind each accuracy.
        ways: What it became.
    """

    before: float
    losses: tuple[float, ...]
    num_test: int
    ways: tuple[WayRun, ...]

    def of(self, way: str) -> WayRun:
        """What one way made of it."""
        return next(run for run in self.ways if run.way == way)


Found = Mapping[int, SeedRun]
Losses = Mapping[tuple[str, str], claims.PairedLoss]  # of a wiring against a reference


def loss(found: Found, way: str, reference: str = BEFORE) -> claims.PairedLoss:
    """Accuracy of a reference less that of a way after fine-tuning, by seed.

    Args:
        found: By seed.
        way: `residual`, or a wiring.
        reference: `before`, or a way after fine-tuning.
    """
    runs = [run for _, run in sorted(found.items())]
    after = [run.of(way).after for run in runs]
    against = [
        run.before if reference == BEFORE else run.of(reference).after for run in runs
    ]
    return claims.PairedLoss(claims.paired_losses(after, against), runs[0].num_test)


def report(config: Any, found: Found) -> frame.Report:
    """Accuracy before, right after and behind fine-tuning, and what may be claimed."""
    losses = {
        (way, reference): loss(found, way, reference)
        for way in WIRINGS
        for reference in REFERENCES
    }
    verdicts = _verdicts(losses)
    before = statistics.fmean(run.before for run in found.values())
    stages = (_mean(found, BEST, stage) for stage in ("right_after", "gathered"))
    right_after, gathered = map(format_percent, stages)
    table = _table(found, verdicts)
    said = _VERDICTS[verdicts[BEST, BEFORE]]
    seeds = "One seed" if len(found) == 1 else f"{len(found)} seeds"
    summary = (
        f"{seeds}: a residual network of {config.depth} blocks has "
        f"{format_percent(before)}; made reversible ({BEST}) {right_after}, with "
        f"statistics gathered anew {gathered}, and after {config.fine_tune_epochs} epochs "
        f"it loses {100 * losses[BEST, BEFORE].mean:.2f} points: {said}."
    )
    about = Paragraph(
        "The blocks x + G(x), trained on digits, become F1 and F2 of reversible blocks, "
        "with their weights and statistics. copies: each G is both of its block. pairs: "
        "two in turn, doubled; the result is the mean of the streams. leapfrog: pairs, the "
        "first not doubled, the result is the first stream. The norms' running statistics "
        "are gathered anew, forward alone. All are fine-tuned alike, and so is the "
        "residual network itself."
    )
    return frame.Report(
        title="Trained residual networks made reversible",
        summary=summary,
        sections=[
            frame.Section("Wirings side by side", [about, table]),
            frame.Section("Accuracy and loss", [_accuracies(found), _curves(found)]),
        ],
        quantities=[*quantities(_asked(found), losses), *_numbers(found, verdicts)],
        shown=[table],
        compared=("Asked and reached",),
        warnings=[
            f"seed {seed}: {_TITLES[run.way]} diverged"
            for seed, of_seed in found.items()
            for run in of_seed.ways
            if run.after is None
        ],
    )


def _verdicts(losses: Losses) -> dict[tuple[str, str], str]:
    """Of all claims of the page together."""
    named = {" ".join(pair): each for pair, each in losses.items()}
    found = claims.verdicts(named)
    return {pair: found[" ".join(pair)] for pair in losses}


def _mean(found: Found, way: str, stage: str) -> float:
    return statistics.fmean(getattr(run.of(way), stage) for run in found.values())


def _after(found: Found, way: str) -> float | None:
    kept = [a for run in found.values() if (a := run.of(way).after) is not None]
    return statistics.fmean(kept) if kept else None


def _asked(found: Found) -> list[Published[Losses]]:
    if len(found) < claims.LEAST_SEEDS:
        return []  # fewer decide nothing
    return [
        Published(
            name="accuracy_loss_upper",
            of={"wiring": BEST},
            ours=lambda losses: losses[BEST, BEFORE].bound(),
            asked=claims.TOLERANCE,
            source="CAMEL, II-B: similar accuracies",
            title="Loss of a network made reversible, at most",
            note="one-sided 95 % bound over seeds, fraction of 1",
        )
    ]


def _numbers(
    found: Found, verdicts: Mapping[tuple[str, str], str]
) -> Iterator[Quantity]:
    before = statistics.fmean(run.before for run in found.values())
    yield Quantity("accuracy_before", before, "ratio", kind="measured")
    for way in (PLAIN, *WIRINGS):
        of: Any = {"kind": "measured", "of": {"wiring": way}}
        for stage in ("right_after", "gathered"):
            value = _mean(found, way, stage)
            yield Quantity(f"accuracy_{stage}", value, "ratio", **of)
        after = _after(found, way)
        note = "all runs diverged" if after is None else ""
        yield Quantity("accuracy_fine_tuned", after, "ratio", note=note, **of)
        yield Quantity("accuracy_loss", loss(found, way).mean, "ratio", **of)
    for (way, reference), verdict in verdicts.items():
        of = {"wiring": way, "against": reference}
        yield Quantity("claim", None, kind="measured", note=verdict, of=of)


def _table(found: Found, verdicts: Mapping[tuple[str, str], str]) -> Table:
    def points(value: float | None) -> str:
        return "—" if value is None else f"{100 * value:+.2f}"

    before = statistics.fmean(run.before for run in found.values())
    num = Column("Loss", "points", points), Column("At most", "points", points)
    table = Table(
        f"Test accuracy, {format_percent(before)} before; {len(found)} seeds",
        [
            "Network",
            Column("Right after", format="percent"),
            Column("Statistics anew", format="percent"),
            Column("Fine-tuned", format="percent"),
            *(*num, "Against before"),
            *(*num, "Against trained on"),
        ],
        footnotes=[
            "Loss: mean over seeds of the accuracy of the residual network, before or "
            "trained on for as many epochs, less that after fine-tuning; at most: its "
            "one-sided 95 % bound. As good: a loss above one point is rejected, all claims "
            "corrected together (Holm).",
        ],
    )
    for way in (PLAIN, *WIRINGS):
        cells: list[Any] = []
        for reference in REFERENCES:
            lost = loss(found, way, reference)
            verdict = verdicts.get((way, reference))
            cells += [lost.mean, lost.bound(), _VERDICTS[verdict] if verdict else "—"]
        table.add(
            _TITLES[way],
            _mean(found, way, "right_after"),
            _mean(found, way, "gathered"),
            _after(found, way),
            *cells,
            style="highlight" if way == BEST else "",
        )
    return table


def _accuracies(found: Found) -> frame.Figure:
    stages = ("before", "right after", "statistics", "fine-tuned")

    def draw(axes: Axes, way: str) -> None:
        for run in found.values():
            made = run.of(way)
            accuracies = [run.before, made.right_after, made.gathered, made.after]
            values = [100 * a for a in accuracies if a is not None]
            look: Any = {"color": canvas.BLUE, "lw": 1, "marker": "o", "ms": 3}
            axes.plot(stages[: len(values)], values, **look)

    return frame.Figure(
        "accuracy",
        draw_panels(
            [(_TITLES[w], functools.partial(draw, way=w)) for w in (PLAIN, *WIRINGS)],
            x_label="Stage",
            y_label="Test accuracy (%)",
        ),
        "Test accuracy of every seed, before, right after a network was made reversible, "
        "with the norms' statistics gathered anew, and behind fine-tuning.",
    )


def _curves(found: Found) -> frame.Figure:
    def draw(axes: Axes) -> None:
        first = [run.losses for run in found.values()]
        curve = [statistics.fmean(values) for values in zip(*first, strict=True)]
        ages = range(1, len(curve) + 1)
        axes.plot(ages, curve, color=canvas.INK, label="residual, trained")
        for number, way in enumerate((PLAIN, *WIRINGS)):
            kept = [run.of(way).losses for run in found.values() if run.of(way).losses]
            if kept:
                more = [statistics.fmean(values) for values in zip(*kept, strict=True)]
                ages = range(len(curve) + 1, len(curve) + 1 + len(more))
                look: Any = {"color": canvas.CYCLE[number], "marker": "osD^"[number]}
                axes.plot(ages, more, label=_TITLES[way], ms=4, **look)
        canvas.log_scale(axes, "y")

    return frame.Figure(
        "loss",
        draw_panels([("", draw)], x_label="Epoch", y_label="Training loss", height=3.2),
        "Training loss by epoch, mean over seeds: of the residual network, then of what it "
        "became.",
    )
