"""Claims of accuracy that noise cannot help: paired runs, one-sided t-tests, Holm.

"Within 1 point" is a claim of non-inferiority. Its error rate is `LEVEL` at most over both
looks at one claim and all claims of one page, as far as losses are near to normal: seeds
of which one in twenty collapses mostly escape three to six runs. It speaks of the images
of one test split. A budget that is raised after its result was seen is a look more.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from scipy import special

Verdict = Literal["non_inferior", "inferior", "not_decided"]

TOLERANCE = 0.01  # one point of accuracy
LEVEL = 0.05  # of all claims of a page together
LEAST_SEEDS = 3  # behind a claim


@dataclasses.dataclass(frozen=True)
class PairedLoss:
    """What a candidate loses against a reference, over runs from the same seeds.

    Attributes:
        losses: Accuracy of the reference less that of the candidate, by seed; see
            `paired_losses`.
        num_images: Behind each accuracy. Losses are whole images: three that are equal
            by chance do not prove that there is no noise, so their standard deviation
            counts as half an image at least, the most that rounding to whole ones makes.
    """

    losses: tuple[float, ...]
    num_images: int

    @property
    def mean(self) -> float:
        """Mean loss."""
        return float(np.mean(self.losses))

    @property
    def error(self) -> float:
        """Standard error of the mean; infinite of a single pair."""
        if len(self.losses) < 2:
            return math.inf
        deviation = max(float(np.std(self.losses, ddof=1)), 0.5 / self.num_images)
        return deviation / math.sqrt(len(self.losses))

    def bound(self, level: float = LEVEL) -> float | None:
        """Upper bound of the mean loss at one-sided confidence 1 - level.

        None of a single pair.
        """
        if len(self.losses) < 2:
            return None
        quantile = special.stdtrit(len(self.losses) - 1, 1 - level)
        return self.mean + float(quantile) * self.error

    def p_values(self) -> tuple[float, float]:
        """Of a loss above `TOLERANCE`, and of one below, by Student's t over the pairs.

        Both are 1 below `LEAST_SEEDS` pairs.
        """
        if len(self.losses) < LEAST_SEEDS:
            return 1.0, 1.0
        t = (self.mean - TOLERANCE) / self.error
        freedom = len(self.losses) - 1
        return float(special.stdtr(freedom, t)), float(special.stdtr(freedom, -t))


def paired_losses(
    candidate: Sequence[float | None], reference: Sequence[float | None]
) -> tuple[float, ...]:
    """Pairs accuracies by seed, None where a run diverged: reference less candidate.

    A candidate that diverged counts as an accuracy of 0: it can only harm. A reference
    that diverged shows nothing, and its pair is left out: there the candidate loses
    nothing, so that leaving it out does not lower the mean.

    Raises:
        ValueError: If there is not one of each for every seed.
    """
    if len(candidate) != len(reference):
        raise ValueError(
            f"`candidate` has {len(candidate)} runs and `reference` {len(reference)}; "
            "train both from the same seeds."
        )
    pairs = zip(candidate, reference, strict=True)
    return tuple(float(r - (c or 0.0)) for c, r in pairs if r is not None)


def half_interval(values: np.ndarray) -> float:
    """Of the mean of `values` [N], at 95 %, by Student's t; 0 of a single value."""
    if len(values) < 2:
        return 0.0
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return float(special.stdtrit(len(values) - 1, 0.975)) * error


def is_within(losses: Sequence[float]) -> bool:
    """Whether the mean loss is at most `TOLERANCE`; its noise is no excuse."""
    return bool(np.mean(losses) <= TOLERANCE + 1e-9)  # 0.99 - 0.98 > 0.01


def looks(num_seeds: int, max_seeds: int) -> tuple[int, ...]:
    """Numbers of seeds at which a claim is looked at, each with its share of `LEVEL`.

    A claim that `num_seeds` leave open gets the others in one go: stopping at whichever
    number of seeds first looks good would decide too often. Too few seeds decide
    nothing, and are no look.
    """
    return tuple(n for n in sorted({num_seeds, max_seeds}) if n >= LEAST_SEEDS)


def verdicts(
    losses: Mapping[str, PairedLoss], *, level: float = LEVEL
) -> dict[str, Verdict]:
    """Decides all claims of a page together, in Holm's order.

    "non_inferior" where a loss above `TOLERANCE` is rejected, "inferior" where one below
    is, by a test each at `level` over the number of claims that are left; else
    "not_decided".

    Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist.
    1979.
    """
    found: dict[str, Verdict] = dict.fromkeys(losses, "not_decided")
    p_values = {name: loss.p_values() for name, loss in losses.items()}
    sides: tuple[Verdict, ...] = ("non_inferior", "inferior")
    for side, verdict in enumerate(sides):
        order = sorted(p_values, key=lambda name: p_values[name][side])
        for rank, name in enumerate(order):
            if p_values[name][side] > level / (len(order) - rank):
                break
            found[name] = verdict
    return found
