"""Which examples of a published set train, which validate and which test.

Deterministic, stratified and nested: a smaller split is the beginning of a larger one,
and no size moves an example from one split to another.
"""

from collections.abc import Mapping

import numpy as np

from codesign.data.dataset import stratified_order
from codesign.types import is_whole

_HELD_OUT = 0.1  # of a published training part, for validation
_TRAIN, _VALIDATION = 0.6, 0.2  # of a set that is published in one part


def checked(sizes: Mapping[str, int | None], seed: int) -> int:
    """Checks what a caller asks of the splits, before anything is read.

    Args:
        sizes: Of `train`, `validation` and `test`; None for all there is.
        seed: Root of the partition.

    Returns:
        `seed`, as an int.

    Raises:
        ValueError: Names the argument that is out of its range.
    """
    if not is_whole(seed) or not 0 <= seed < 2**32:
        raise ValueError(f"`seed` (={seed!r}) must be a whole number in 0..2**32-1.")
    for part, number in sizes.items():
        if number is not None and (not is_whole(number) or number < 1):
            raise ValueError(
                f"`num_{part}` (={number!r}) must be a whole number >= 1; leave it out "
                "for all examples there are."
            )
    return int(seed)


def partition(
    train_labels: np.ndarray,
    test_labels: np.ndarray | None,
    sizes: Mapping[str, int | None],
    seed: int,
    name: str,
) -> dict[str, tuple[str, np.ndarray]]:
    """Draws the three splits of a data set.

    A published test part is the test split, and a tenth of the training part is held out
    for validation. Without one the training part is split 60 : 20 : 20.

    Args:
        train_labels: [N] whole numbers, classes to be drawn from in proportion.
        test_labels: [M] likewise, or None where no test part is published.
        sizes: As `checked` takes them.
        seed: Root of the partition.
        name: Of the data set, for errors.

    Returns:
        For `train`, `validation` and `test` the part, `train` or `test`, that the split
        is drawn from, and the indices of its examples in that part.

    Raises:
        ValueError: If a split is smaller than its size.
    """
    order = stratified_order(train_labels, seed)
    if test_labels is None:
        first = round(_TRAIN * len(order))
        second = first + round(_VALIDATION * len(order))
        pools = {
            "train": ("train", order[:first]),
            "validation": ("train", order[first:second]),
            "test": ("train", order[second:]),
        }
    else:
        first = len(order) - round(_HELD_OUT * len(order))
        pools = {
            "train": ("train", order[:first]),
            "validation": ("train", order[first:]),
            "test": ("test", stratified_order(test_labels, seed)),
        }
    chosen = {}
    for part, (origin, indices) in pools.items():
        number = sizes[part] or len(indices)
        if number > len(indices):
            raise ValueError(
                f"`num_{part}` (={number}) exceeds the {len(indices)} {part} examples of "
                f"{name!r}; ask for fewer, or leave it out for all."
            )
        chosen[part] = (origin, indices[:number])
    return chosen
