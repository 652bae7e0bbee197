"""What a comparison of number formats found."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from codesign.studies import claims
from codesign.studies.camel import schemes
from codesign.studies.camel.accumulators import AccumulatorRow
from codesign.studies.camel.number_formats_settings import (
    REFERENCE,
    NumberFormatsConfig,
)
from codesign.studies.camel.operand_rows import OperandRow


@dataclasses.dataclass(frozen=True)
class FormatRun:
    """One training.

    Attributes:
        status: As of `training.TrainResult`.
        reason: Why it ended early, or empty.
        losses, validation: Mean loss and validation accuracy by epoch.
        test: Test accuracy, None if it diverged.
        num_test: Images behind it.
        epoch_s: Median wall time of an epoch with its validation, without compilation.
        operands: Of the first seed.
        accumulators: Of the first seed, of plain block floating point.
    """

    status: str
    reason: str
    losses: tuple[float, ...]
    validation: tuple[float, ...]
    test: float | None
    num_test: int
    epoch_s: float | None
    operands: tuple[OperandRow, ...] = ()
    accumulators: tuple[AccumulatorRow, ...] = ()


Runs = Mapping[tuple[str, int], FormatRun]


def of_scheme(found: Runs, scheme: str) -> list[FormatRun]:
    """Runs of one scheme, by seed."""
    return [run for (name, _), run in sorted(found.items()) if name == scheme]


def mean_curve(runs: list[FormatRun]) -> list[float]:
    """Validation accuracy by epoch, the mean over the runs that got so far."""
    longest = max((len(run.validation) for run in runs), default=0)
    return [
        float(np.mean([r.validation[i] for r in runs if len(r.validation) > i]))
        for i in range(longest)
    ]


def errors(run: FormatRun, tensor: str) -> list[float]:
    """Relative quantisation error of a class by product, in the order of the call."""
    return [row.error for row in run.operands if row.tensor == tensor]


@dataclasses.dataclass(frozen=True)
class SchemeRow:
    """One scheme beside float32.

    Attributes:
        scheme: Its name.
        bits: Mean width of a number; see `schemes.bits_per_number`.
        statuses: Of its runs.
        test: Test accuracies, None where a run diverged.
        loss: Against float32 from the same seeds, None of float32 itself.
        verdict: Of the claim that at most a point is lost.
        epoch_ratio: Time of an epoch over float32's from the same seed, the median, or
            None.
    """

    scheme: str
    bits: float
    statuses: tuple[str, ...]
    test: tuple[float | None, ...]
    loss: claims.PairedLoss | None
    verdict: str | None
    epoch_ratio: float | None

    @property
    def accuracy(self) -> float | None:
        """Mean test accuracy of the runs that did not diverge."""
        good = [value for value in self.test if value is not None]
        return float(np.mean(good)) if good else None


def rows(config: NumberFormatsConfig, found: Runs) -> list[SchemeRow]:
    """Every scheme in the order of the settings; claims are corrected together."""
    reference = of_scheme(found, REFERENCE)
    losses = {}
    for scheme in config.schemes:
        pairs = claims.paired_losses(
            [run.test for run in of_scheme(found, scheme)],
            [run.test for run in reference],
        )
        if scheme != REFERENCE and pairs:
            losses[scheme] = claims.PairedLoss(pairs, reference[0].num_test)
    verdicts = claims.verdicts(losses)
    made = []
    for scheme in config.schemes:
        runs = of_scheme(found, scheme)
        made.append(
            SchemeRow(
                scheme=scheme,
                bits=schemes.bits_per_number(scheme),
                statuses=tuple(run.status for run in runs),
                test=tuple(run.test for run in runs),
                loss=losses.get(scheme),
                verdict=verdicts.get(scheme),
                epoch_ratio=_epoch_ratio(runs, reference),
            )
        )
    return made


def _epoch_ratio(runs: list[FormatRun], reference: list[FormatRun]) -> float | None:
    pairs = [(a.epoch_s, b.epoch_s) for a, b in zip(runs, reference, strict=True)]
    ratios = [a / b for a, b in pairs if a and b]
    return float(np.median(ratios)) if ratios else None
