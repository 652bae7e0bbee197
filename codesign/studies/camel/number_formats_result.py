"""What a comparison of number formats found."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from codesign.studies.camel.accumulators import AccumulatorRow


@dataclasses.dataclass(frozen=True)
class OperandRow:
    """What the formats did to one operand of one product, after training.

    Attributes:
        product: Path of its module.
        tensor: `weights`, `activations` or `gradients`.
        zero, zero_mantissa, zero_block, saturated, flushed, error: As in
            `numerics.formats.Statistics`.
    """

    product: str
    tensor: str
    zero: float
    zero_mantissa: float
    zero_block: float
    saturated: float
    flushed: float
    error: float


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
