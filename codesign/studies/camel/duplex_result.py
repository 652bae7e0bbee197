"""What a comparison of duplex networks found, and what it claims."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from codesign.models.duplex import ALGORITHMS
from codesign.models.pairs import PAIRS
from codesign.studies import claims
from codesign.studies.camel.duplex_settings import BACKBONE, PairConfig, Unit
from codesign.studies.camel.operand_rows import OperandRow, by_product


@dataclasses.dataclass(frozen=True)
class DuplexRun:
    """One training, of a branch or of a backbone.

    Attributes:
        status: As of `training.TrainResult`.
        reason: Why it ended early, or empty.
        losses, validation: Mean loss and validation accuracy by epoch.
        test: Test accuracy, None if it diverged.
        num_test: Examples behind it.
        steps_per_epoch: Iterations of an epoch.
        epoch_s: Median wall time of an epoch with its validation, without compilation.
        num_learnable: Parameters that learn.
        operands: Of the first seed of a plain algorithm, in a number format.
    """

    status: str
    reason: str
    losses: tuple[float, ...]
    validation: tuple[float, ...]
    test: float | None
    num_test: int
    steps_per_epoch: int
    epoch_s: float | None
    num_learnable: int
    operands: tuple[OperandRow, ...] = ()


Runs = Mapping[Unit, DuplexRun]


def of_variant(found: Runs, pair: str, variant: str) -> list[DuplexRun]:
    """Runs of a variant, by seed."""
    return [
        run for (p, v, _), run in sorted(found.items()) if (p, v) == (pair, variant)
    ]


@dataclasses.dataclass(frozen=True)
class Question:
    """A claim of the paper: how a variant compares with another.

    Attributes:
        text: What is claimed.
        candidate, reference: Variants, the loss being the reference's accuracy less the
            candidate's.
        expected: Verdict that the paper makes us expect.
        source: Where.
    """

    text: str
    candidate: str
    reference: str
    expected: str
    source: str


QUESTIONS = (
    Question(
        "DuDNN is as good as FI",
        *("duplex", "irreversible", "non_inferior", "Tables III, IV"),
    ),
    Question("CA is worse than DuDNN", "chain", "duplex", "inferior", "Tables III, IV"),
    Question(
        "BO is worse than DuDNN", "branch_only", "duplex", "inferior", "Table III"
    ),
    Question(
        "the number format is as good as float32",
        *("duplex", "duplex+float32", "non_inferior", "V-C"),
    ),
    Question(
        "small maps are as good as large ones",
        *("duplex", "duplex+double", "non_inferior", "Fig. 17(a)"),
    ),
    Question(
        "no norms are as good as norms",
        *("duplex", "duplex+norms", "non_inferior", "Fig. 17(b)"),
    ),
    Question(
        "0.1 % wrong reads do no harm",
        *("duplex+errors0.001", "duplex", "non_inferior", "VI-B"),
    ),
    Question(
        "1 % wrong reads do no harm",
        *("duplex+errors0.01", "duplex", "non_inferior", "Fig. 17(c)"),
    ),
    Question(
        "1 % wrong reads that spare the streams do no harm",
        *("duplex+spared0.01", "duplex", "non_inferior", "assumed"),
    ),
    Question(
        "taps beside the stream are no better than added ones",
        *("duplex", "duplex+concatenate", "non_inferior", "assumed"),
    ),
    Question(
        "FI without a refresh collapses",
        *("irreversible+unrefreshed", "irreversible", "inferior", "Table VIII"),
    ),
)


@dataclasses.dataclass(frozen=True)
class Answer:
    """What our runs say to a question of one pair."""

    pair: str
    question: Question
    loss: claims.PairedLoss
    verdict: claims.Verdict


def answers(config: PairConfig, found: Runs) -> list[Answer]:
    """All questions whose variants were run, corrected together."""
    losses: dict[str, claims.PairedLoss] = {}
    asked: dict[str, tuple[str, Question]] = {}
    for pair in config.pairs:
        for question in QUESTIONS:
            if {question.candidate, question.reference} - {*config.variants}:
                continue
            reference = of_variant(found, pair, question.reference)
            pairs = claims.paired_losses(
                [run.test for run in of_variant(found, pair, question.candidate)],
                [run.test for run in reference],
            )
            if pairs:
                key = f"{pair}: {question.text}"
                losses[key] = claims.PairedLoss(pairs, reference[0].num_test)
                asked[key] = (pair, question)
    verdicts = claims.verdicts(losses)
    return [
        Answer(pair, question, losses[key], verdicts[key])
        for key, (pair, question) in asked.items()
    ]


def mean_test(runs: list[DuplexRun]) -> float | None:
    """Mean test accuracy of the runs that did not diverge."""
    good = [run.test for run in runs if run.test is not None]
    return float(np.mean(good)) if good else None


def name_of(variant: str) -> str:
    """As tables have it: `DuDNN`, `DuDNN, norms`."""
    if variant == BACKBONE:
        return "backbone"
    algorithm, *options = variant.split("+")
    return ", ".join([ALGORITHMS[algorithm].title, *map(_words, options)])


def _words(option: str) -> str:
    for name, text in (
        ("errors", "wrong reads"),
        ("spared", "wrong reads, not streams"),
    ):
        if option.startswith(name):
            return f"{100 * float(option.removeprefix(name)):g} % {text}"
    return {"double": "maps twice as wide", "unrefreshed": "no refresh"}.get(
        option, option
    )


def title_of(pair: str) -> str:
    """`Branch-4 + ResNet-18`."""
    return PAIRS[pair].title


def curves(config: PairConfig, found: Runs) -> dict:
    """What curves.json holds: accuracy over iterations of every run."""
    content: dict = {}
    for (pair, variant, seed), run in found.items():
        of_pair = content.setdefault(pair, {}).setdefault(variant, {})
        of_pair[str(seed)] = {
            "iterations": [
                run.steps_per_epoch * (i + 1) for i in range(len(run.validation))
            ],
            "validation_accuracy": list(run.validation),
            "loss": list(run.losses),
            "test_accuracy": run.test,
            "status": run.status,
        }
    return {
        "batch_size": config.train.batch_size,
        "dataset": config.dataset,
        "format": config.number_format,
        "curves": content,
    }


def operands(config: PairConfig, found: Runs) -> dict:
    """What operand_statistics.json holds: by pair, variant, product and class of tensor."""
    content: dict = {}
    for (pair, variant, seed), run in found.items():
        if seed != config.seed or not run.operands:
            continue
        content.setdefault(pair, {})[variant] = by_product(run.operands)
    return {
        "dataset": config.dataset,
        "batch_size": config.train.batch_size,
        "format": config.number_format,
        "seed": config.seed,
        "operands": content,
    }
