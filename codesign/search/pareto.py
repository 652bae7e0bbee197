"""Which designs are worth looking at: the Pareto front, and the one to build."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

Direction = Literal["max", "min"]


@dataclasses.dataclass(frozen=True)
class Choice:
    """The valid designs, and the chosen one.

    Attributes:
        valid: `[N]` bool.
        index: Of d*, or None where no design is valid.
    """

    valid: np.ndarray
    index: int | None


def pareto_front(objectives: ArrayLike, directions: Sequence[Direction]) -> np.ndarray:
    """Marks the designs that no other design dominates.

    A design dominates another if it is no worse in every objective and better in one;
    equal designs do not dominate each other, so that duplicates stay.

    Args:
        objectives: `[N, K]`.
        directions: K times "max" or "min".

    Returns:
        `[N]` bool.

    Raises:
        ValueError: If shapes disagree, a direction is unknown or an objective is NaN.
    """
    values = np.asarray(objectives, np.float64)
    if values.ndim != 2 or values.shape[1] != len(directions):
        raise ValueError(
            f"`objectives` must be [N, K] with K = {len(directions)}, the number of "
            f"`directions`, got shape {values.shape}."
        )
    unknown = [d for d in directions if d not in ("max", "min")]
    if unknown:
        raise ValueError(f"`directions` must be 'max' or 'min', got {unknown[0]!r}.")
    if np.any(np.isnan(values)):
        raise ValueError("`objectives` must not hold NaN; leave failed designs out.")
    costs = (
        values * np.array([-1.0 if d == "max" else 1.0 for d in directions])[None, :]
    )
    front = np.ones(len(costs), bool)
    for i, cost in enumerate(costs):
        no_worse = np.all(costs <= cost[None, :], axis=1)
        better = np.any(costs < cost[None, :], axis=1)
        front[i] = not np.any(no_worse & better)
    return front


def choose(
    accuracy: ArrayLike,
    latency_s: ArrayLike,
    energy_j: ArrayLike,
    *,
    reference_accuracy: float,
    tolerance: float,
) -> Choice:
    """The valid designs, accuracy >= reference - tolerance, and d* among them.

    d* has the least latency; among equals, compared exactly, the least energy, then the
    highest accuracy, then the lowest index.

    Args:
        accuracy, latency_s, energy_j: `[N]`.
        reference_accuracy: That of the network with every normalisation in place.
        tolerance: In the units of accuracy, such as 0.01 for one point.

    Raises:
        ValueError: If shapes disagree, a number is not finite or the tolerance is
            negative.
    """
    columns = {"accuracy": accuracy, "latency_s": latency_s, "energy_j": energy_j}
    arrays = {name: np.asarray(column, np.float64) for name, column in columns.items()}
    shape = arrays["accuracy"].shape
    for name, array in arrays.items():
        if array.ndim != 1 or array.shape != shape:
            raise ValueError(
                f"`{name}` must be [N] like `accuracy` (shape {shape}), got shape "
                f"{array.shape}."
            )
        if not np.all(np.isfinite(array)):
            raise ValueError(
                f"`{name}` must be finite, got {array[~np.isfinite(array)][0]}; leave "
                "failed designs out."
            )
    if not np.isfinite(reference_accuracy):
        raise ValueError(
            f"`reference_accuracy` must be finite, got {reference_accuracy}."
        )
    if not (np.isfinite(tolerance) and tolerance >= 0):
        raise ValueError(
            f"`tolerance` must be finite and not negative, got {tolerance}; it is how "
            "much accuracy may be lost."
        )
    valid = arrays["accuracy"] >= reference_accuracy - tolerance
    (candidates,) = np.nonzero(valid)
    order = np.lexsort(
        (
            candidates,
            -arrays["accuracy"][candidates],
            arrays["energy_j"][candidates],
            arrays["latency_s"][candidates],
        )
    )
    return Choice(valid, int(candidates[order[0]]) if len(order) else None)
