"""Accuracy, error and speed of training in number formats: tables, figures, numbers."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from codesign.kernels.cast_product import CLASSES
from codesign.report import (
    Card,
    Column,
    Paragraph,
    Quantity,
    Table,
    format_percent,
)
from codesign.report.table import RowStyle
from codesign.studies import claims, frame
from codesign.studies.camel.number_formats_figures import figures
from codesign.studies.camel.number_formats_result import (
    FormatRun,
    Runs,
    SchemeRow,
    errors,
    rows,
)
from codesign.studies.camel.number_formats_settings import (
    REFERENCE,
    NumberFormatsConfig,
)
from codesign.studies.camel.operand_rows import by_product
from codesign.studies.published import Published, quantities

PAPER = "bfp5"  # the 58-bit word

_VERDICTS = {
    "non_inferior": "as good",
    "inferior": "worse",
    "not_decided": "not decided",
}


_STYLES: dict[str, RowStyle] = {"non_inferior": "highlight", "inferior": "bad"}


def report(config: NumberFormatsConfig, found: Runs) -> frame.Report:
    """All that the study says."""
    compared = rows(config, found)
    numbers = [
        *quantities(_asked(config), compared),
        *_quantities(compared),
        *_operand_quantities(config, found),
    ]
    operands = {
        scheme: run
        for scheme in config.schemes
        if (run := found.get((scheme, config.seed))) and run.operands
    }
    drawn = {
        figure.name: figure for figure in figures(config, found, compared, operands)
    }
    by_layer = drawn.pop("error_by_layer", None)
    table, saturation = _table(config, compared), _accumulator_table(config, found)
    about = Paragraph(
        "All operands of all products are cast, forward and backward: weights, "
        "activations and gradients alike, unless a name says otherwise. What lies between "
        "products stays float32. Exponents of block formats have the bias of each tensor."
    )
    return frame.Report(
        title="Training in number formats",
        summary=_summary(compared),
        sections=[
            frame.Section("Formats side by side", [about, table]),
            frame.Section("Accuracy", [*drawn.values()]),
            frame.Section(
                "Operands",
                [*([by_layer] if by_layer else []), *_operand_tables(operands)],
            ),
            frame.Section("Accumulators", [saturation] if saturation.rows else []),
        ],
        quantities=numbers,
        cards=[
            Card(
                row.scheme,
                _percent(row.accuracy),
                f"{row.bits:.3g} bits a number"
                + (f", {_VERDICTS[row.verdict]}" if row.verdict else ""),
            )
            for row in compared
            if row.scheme in (REFERENCE, PAPER, "mxfp8_e4m3", "mxfp4_e2m1")
        ],
        shown=[table],
        compared=("Asked and reached",),
        warnings=[
            f"{scheme}, seed {seed}: {run.status}; {run.reason}"
            for (scheme, seed), run in found.items()
            if run.status != "trained"
        ],
    )


def _percent(value: float | None) -> str:
    return "diverged" if value is None else format_percent(value)


def _summary(compared: list[SchemeRow]) -> str:
    by_verdict = {
        name: [row.scheme for row in compared if row.verdict == name]
        for name in _VERDICTS
    }
    parts = [
        f"{len(names)} {text} ({', '.join(names)})"
        for (name, text) in (
            ("non_inferior", "train as well as float32 within a point"),
            ("inferior", "lose more than a point"),
            ("not_decided", "not decided"),
        )
        if (names := by_verdict[name])
    ]
    lost = [row.scheme for row in compared if row.accuracy is None]
    if lost:
        parts.append(f"all runs of {', '.join(lost)} diverged")
    num_seeds, num_formats = len(compared[0].test), len(compared) - 1
    seeds = "one seed" if num_seeds == 1 else f"{num_seeds} seeds"
    if not parts:
        return f"float32 alone over {seeds}: nothing to compare it with."
    formats = "one format" if num_formats == 1 else f"{num_formats} formats"
    return f"Over {seeds}, of {formats}: {'; '.join(parts)}."


def _table(config: NumberFormatsConfig, compared: list[SchemeRow]) -> Table:
    made = Table(
        "Formats side by side",
        [
            "Format",
            Column("Bits", format=".2f"),
            Column("Test accuracy", format="percent"),
            Column("Loss", "points", lambda v: "—" if v is None else f"{100 * v:+.2f}"),
            Column(
                "At most", "points", lambda v: "—" if v is None else f"{100 * v:+.2f}"
            ),
            "Against float32",
            Column("Epoch time", format=lambda v: "—" if v is None else f"{v:.2f} ×"),
            "Runs",
        ],
        footnotes=[
            "Bits: mean width of a number in its format, exponents and scales of full "
            "blocks shared out; weights between steps are not in it. Loss: mean "
            "over seeds of float32's test accuracy less the format's; at most: its "
            "one-sided 95 % bound. As good: a loss above one point is rejected, all "
            "claims corrected together (Holm). Epoch time: emulation on this machine "
            "over float32 from the same seed, with validation; the median.",
        ],
    )
    for row in compared:
        num_bad = sum(status != "trained" for status in row.statuses)
        style = _STYLES.get(row.verdict or "", "")
        made.add(
            row.scheme,
            row.bits,
            row.accuracy,
            row.loss.mean if row.loss else None,
            row.loss.bound() if row.loss else None,
            _VERDICTS[row.verdict] if row.verdict else "—",
            row.epoch_ratio,
            f"{len(row.test) - num_bad} / {len(row.test)}",
            style=style,
        )
    return made


def _asked(config: NumberFormatsConfig) -> list[Published[list[SchemeRow]]]:
    def bound(found: list[SchemeRow]) -> float | None:
        row = next((row for row in found if row.scheme == PAPER), None)
        return row.loss.bound() if row and row.loss else None

    if PAPER not in config.schemes or config.num_seeds < claims.LEAST_SEEDS:
        return []  # fewer decide nothing
    return [
        Published(
            name="accuracy_loss_upper",
            of={"format": PAPER},
            ours=bound,
            asked=claims.TOLERANCE,
            source="CAMEL, V-C: no loss of accuracy in the 58-bit format",
            title="Loss of the 58-bit format, at most",
            note="one-sided 95 % bound over seeds, fraction of 1",
        )
    ]


def _quantities(compared: list[SchemeRow]) -> Iterator[Quantity]:
    for row in compared:
        of, kind = {"format": row.scheme}, "measured"
        note = "" if row.accuracy is not None else "all runs diverged"
        yield Quantity("accuracy", row.accuracy, "ratio", kind=kind, of=of, note=note)
        yield Quantity("bits_per_number", row.bits, "", kind="derived", of=of)
        if row.loss is not None:
            yield Quantity("accuracy_loss", row.loss.mean, "ratio", kind=kind, of=of)
            yield Quantity("claim", None, kind=kind, of=of, note=str(row.verdict))
        if row.epoch_ratio is not None:
            yield Quantity("epoch_time_ratio", row.epoch_ratio, kind=kind, of=of)


def _operand_quantities(config: NumberFormatsConfig, found: Runs) -> Iterator[Quantity]:
    for scheme in config.schemes:
        run = found.get((scheme, config.seed))
        if not run or not run.operands:
            continue
        for tensor in CLASSES:
            values = errors(run, tensor)
            yield Quantity(
                "quantization_error",
                float(np.mean(values)),
                "ratio",
                kind="measured",
                of={"format": scheme, "tensor": tensor},
                note="root of the mean squared error over that of the values, mean over "
                "products",
            )


def _operand_tables(operands: Mapping[str, FormatRun]) -> Iterator[Table]:
    made = Table(
        "What the formats did to the operands",
        [
            "Format",
            "Tensor",
            Column("Error", format="percent"),
            Column("Zero before", format="percent"),
            Column("Zero after", format="percent"),
            Column("Zero blocks", format="percent"),
            Column("Saturated", format="percent"),
            Column("Flushed", format="percent"),
        ],
        footnotes=[
            "Means over products; weights and activations as the forward product casts "
            "them, gradients as the input's gradient does. Zero blocks: a multiplier "
            "rests; zero after: it rests for this number; flushed: not zero before, zero "
            "after. By product in operand_statistics.json.",
        ],
    )
    for scheme, run in operands.items():
        for tensor in CLASSES:
            of = [row for row in run.operands if row.tensor == tensor]
            names = (
                "error",
                "zero",
                "zero_mantissa",
                "zero_block",
                "saturated",
                "flushed",
            )
            means = [
                float(np.mean([getattr(row, name) for row in of])) for name in names
            ]
            made.add(scheme, tensor, *means)
    if made.rows:
        yield made


def _accumulator_table(config: NumberFormatsConfig, found: Runs) -> Table:
    made = Table(
        "Fixed-point accumulators",
        [
            "Format",
            Column("Bits", format="d"),
            Column("Guard bits", format="+d"),
            Column("Error", format=".2e"),
            Column("Saturated additions", format=".2e"),
        ],
        footnotes=[
            "Results of 64 rows of every product in a forward pass, against sums without "
            "rounding; means over products. Guard bits: how many of the register's bits "
            "stand above the largest result. Assumed, as the widths: the paper gives none.",
        ],
    )
    for scheme in config.schemes:
        run = found.get((scheme, config.seed))
        kept = run.accumulators if run else ()
        registers = {(row.bits, row.guard_bits) for row in kept}
        for bits, guard in sorted(registers, key=lambda r: (-r[1], r[0])):
            of = [row for row in kept if (row.bits, row.guard_bits) == (bits, guard)]
            means = (
                np.mean([getattr(r, n) for r in of]) for n in ("error", "saturated")
            )
            made.add(scheme, bits, guard, *map(float, means))
    return made


def operands_json(config: NumberFormatsConfig, found: Runs) -> dict[str, Any]:
    """What operand_statistics.json holds: by format, product and class of tensor."""
    content: dict[str, Any] = {
        "network": config.network,
        "dataset": config.dataset,
        "batch_size": config.train.batch_size,
        "seed": config.seed,
        "formats": {},
    }
    for scheme in config.schemes:
        run = found.get((scheme, config.seed))
        if run and run.operands:
            content["formats"][scheme] = by_product(run.operands)
    return content
