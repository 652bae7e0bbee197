"""Accuracies of duplex networks beside their baselines: tables, claims, curves."""

import functools
from collections.abc import Iterator

import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes

from codesign.models.duplex import ALGORITHMS
from codesign.report import (
    Card,
    Column,
    Paragraph,
    Quantity,
    Table,
    canvas,
    format_percent,
)
from codesign.report.panels import draw_panels
from codesign.report.table import RowStyle
from codesign.studies import claims, frame
from codesign.studies.camel.duplex_published import printed, rows
from codesign.studies.camel.duplex_result import (
    Answer,
    Runs,
    answers,
    mean_test,
    name_of,
    of_variant,
    title_of,
)
from codesign.studies.camel.duplex_settings import BACKBONE, PairConfig
from codesign.studies.published import quantities

_VERDICTS = {
    "non_inferior": "as good",
    "inferior": "worse",
    "not_decided": "not decided",
}


def report(config: PairConfig, found: Runs) -> frame.Report:
    """All that the study says."""
    asked = answers(config, found)
    table, claimed = _table(config, found), _claims(asked)
    about = Paragraph(
        "DuDNN: a reversible branch beside a frozen backbone, whose pooled maps its blocks "
        "see. FI: the same blocks, plain residual. CA: the branch behind the backbone. BO: "
        "the branch alone. All branches have layers of the same sizes; products are in "
        f"{config.number_format}. Backbones learn {config.learnt(first=True)} first; "
        f"branches learn {config.learnt()}."
    )
    return frame.Report(
        title="Duplex networks beside their baselines",
        summary=_summary(config, found, asked),
        sections=[
            frame.Section("Accuracy", [about, table]),
            frame.Section("Claims", [claimed, *_forest(asked)] if asked else []),
            frame.Section("Training", [*_curves(config, found)]),
        ],
        quantities=[
            *quantities(rows(config), found),
            *_quantities(config, found, asked),
        ],
        cards=[
            Card(
                name_of(variant),
                _percent(mean_test(of_variant(found, config.pairs[0], variant))),
                title_of(config.pairs[0]),
            )
            for variant in ALGORITHMS
            if variant in config.variants
        ],
        shown=[table, *([claimed] if asked else [])],
        compared=("Printed accuracies and ours",),
        warnings=[
            f"{pair}, {name_of(variant)}, seed {seed}: {run.status}; {run.reason}"
            for (pair, variant, seed), run in found.items()
            if run.status != "trained"
        ],
    )


def _percent(value: float | None) -> str:
    return "diverged" if value is None else format_percent(value)


def _summary(config: PairConfig, found: Runs, asked: list[Answer]) -> str:
    num = config.num_seeds
    parts = [f"Over {num} seeds" if num > 1 else "From one seed"]
    for pair in config.pairs:
        values = [
            f"{name_of(v)} {_percent(mean_test(of_variant(found, pair, v)))}"
            for v in ALGORITHMS
            if v in config.variants
        ]
        parts.append(f"{title_of(pair)}: {', '.join(values)}")
    text = "; ".join(parts) + "."
    if asked:
        as_printed = [a for a in asked if a.verdict == a.question.expected]
        against = [
            a.question.text
            for a in asked
            if a.verdict not in (a.question.expected, "not_decided")
        ]
        text += f" Of {len(asked)} claims {len(as_printed)} hold here"
        text += f"; not so: {'; '.join(against)}." if against else "."
    return text


def _table(config: PairConfig, found: Runs) -> Table:
    made = Table(
        "Accuracy after adaptation",
        [
            *("Branch and backbone", "Training"),
            Column("Test accuracy", format="percent"),
            Column("±", "points", lambda v: "—" if v is None else f"{100 * v:.1f}"),
            Column(
                "The paper", format=lambda v: "—" if v is None else f"{100 * v:.1f} %"
            ),
            Column("Learnable", format=",d"),
            Column("Epoch", "s", lambda v: "—" if v is None else f"{v:.1f}"),
            "Runs",
        ],
        footnotes=[
            "±: half of the mean's 95 % interval over seeds (Student's t). Learnable: "
            "parameters. Epoch: with validation, on this machine. Large backbones have no "
            "published weights here: all are trained by the settings above."
        ],
    )
    for pair in config.pairs:
        for variant in (BACKBONE, *config.variants):
            runs = of_variant(found, pair, variant)
            if not runs:
                continue
            tests = np.array([run.test for run in runs if run.test is not None])
            num_bad = sum(run.status != "trained" for run in runs)
            times = [run.epoch_s for run in runs if run.epoch_s]
            value = None if variant == BACKBONE else printed(config, pair, variant)
            made.add(
                *(title_of(pair), name_of(variant), mean_test(runs)),
                claims.half_interval(tests) if len(tests) > 1 else None,
                value[0] if value else None,
                runs[0].num_learnable,
                float(np.median(times)) if times else None,
                f"{len(runs) - num_bad} / {len(runs)}",
                style="muted" if variant == BACKBONE else "",
            )
    return made


_STYLES: dict[bool, RowStyle] = {True: "highlight", False: "bad"}


def _claims(asked: list[Answer]) -> Table:
    made = Table(
        "The paper's claims, on our runs",
        [
            *("Branch and backbone", "Claim"),
            Column("Loss", "points", lambda v: f"{100 * v:+.2f}"),
            Column(
                "At most", "points", lambda v: "—" if v is None else f"{100 * v:+.2f}"
            ),
            *("Found", "Source"),
        ],
        footnotes=[
            "Loss: mean over seeds of the reference's test accuracy less the other's; at "
            "most: its one-sided 95 % bound. As good: a loss above one point is rejected; "
            "worse: one below is; all claims corrected together (Holm)."
        ],
    )
    for answer in asked:
        decided = answer.verdict != "not_decided"
        style = _STYLES[answer.verdict == answer.question.expected] if decided else ""
        made.add(
            title_of(answer.pair),
            answer.question.text,
            answer.loss.mean,
            answer.loss.bound(),
            _VERDICTS[answer.verdict],
            answer.question.source,
            style=style,
        )
    return made


def _quantities(
    config: PairConfig, found: Runs, asked: list[Answer]
) -> Iterator[Quantity]:
    for pair in config.pairs:
        runs = of_variant(found, pair, BACKBONE)
        of = {"pair": pair, "variant": BACKBONE}
        note = "on what it was pre-trained for"
        yield Quantity(
            "accuracy", mean_test(runs), "ratio", kind="measured", of=of, note=note
        )
    for answer in asked:
        of = {
            "pair": answer.pair,
            "candidate": answer.question.candidate,
            "reference": answer.question.reference,
        }
        yield Quantity(
            "accuracy_loss", answer.loss.mean, "ratio", kind="measured", of=of
        )
        yield Quantity("claim", None, kind="measured", of=of, note=str(answer.verdict))


def _curves(config: PairConfig, found: Runs) -> Iterator[frame.Figure]:
    """Accuracy over iterations: the four algorithms, then what was changed of one."""
    for pair in config.pairs:
        panels = [
            ("algorithms", [v for v in config.variants if v in ALGORITHMS]),
            (
                "DuDNN and its variants",
                [v for v in config.variants if v.split("+")[0] == "duplex"],
            ),
        ]
        panels = [(title, names) for title, names in panels if len(names) > 1]
        if panels:
            yield frame.Figure(
                f"accuracy_{pair}",
                draw_panels(
                    [
                        (title, functools.partial(_draw_curves, found, pair, names))
                        for title, names in panels
                    ],
                    x_label="Iteration",
                    y_label="Validation accuracy (%)",
                    height=3.2,
                    share=True,
                ),
                f"{title_of(pair)}: validation accuracy over training, mean over seeds.",
            )


def _draw_curves(found: Runs, pair: str, names: list[str], axes: Axes) -> None:
    for index, variant in enumerate(names):
        runs = of_variant(found, pair, variant)
        longest = max((len(run.validation) for run in runs), default=0)
        means = [
            100 * np.mean([r.validation[i] for r in runs if len(r.validation) > i])
            for i in range(longest)
        ]
        iterations = [runs[0].steps_per_epoch * (i + 1) for i in range(longest)]
        axes.plot(
            iterations, means, label=name_of(variant), color=canvas.CYCLE[index % 7],
            ls=canvas.DASHES[index // 7 % 4], marker="o", ms=3,
        )  # fmt: skip


def _forest(asked: list[Answer]) -> Iterator[frame.Figure]:
    yield frame.Figure(
        "claims",
        _draw_forest(asked),
        "Test accuracy lost, mean over pairs of runs from the same seeds and its 95 % "
        "interval; dashed, the point that is allowed. Green: as the paper has it; red: "
        "the opposite.",
    )


@canvas.styled
def _draw_forest(asked: list[Answer]) -> matplotlib.figure.Figure:
    figure, axes = canvas.single(1.0 + 0.26 * len(asked))
    several = len({answer.pair for answer in asked}) > 1
    for place, answer in enumerate(asked):
        losses = 100 * np.array(answer.loss.losses)
        colour = canvas.GREY
        if answer.verdict != "not_decided":
            is_expected = answer.verdict == answer.question.expected
            colour = canvas.GREEN if is_expected else canvas.VERMILION
        axes.errorbar(
            losses.mean(), place, xerr=claims.half_interval(losses), fmt="o", ms=4,
            capsize=2, color=colour,
        )  # fmt: skip
    axes.axvline(0, color=canvas.INK, lw=1)
    axes.axvline(100 * claims.TOLERANCE, color=canvas.INK, lw=1, ls="--")
    names = [
        f"{a.question.text}{f' ({title_of(a.pair)})' if several else ''}" for a in asked
    ]
    axes.set_yticks(range(len(asked)), names)
    axes.set_ylim(len(asked) - 0.4, -0.6)
    axes.set_xlabel("Test accuracy lost (points)")
    return figure
