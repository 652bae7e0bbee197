"""A data set in memory: images as bytes, labels, and what a training step needs to know.

The split into training, validation and test parts is here too: deterministic, stratified
and nested, so that a smaller subset is the beginning of a larger one.
"""

import dataclasses

import numpy as np

from codesign.data.augment import Augmentation


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Labelled images of one part of a data set."""

    images: np.ndarray  # [N, H, W, C] uint8
    labels: np.ndarray  # [N] int32, from 0

    def __post_init__(self):
        """Checks types and shapes.

        Raises:
            ValueError: Names the field, what it is and what it must be.
        """
        images, labels = self.images, self.labels
        if images.dtype != np.uint8 or images.ndim != 4:
            raise ValueError(
                f"`images` must be uint8 [N, H, W, C], got {images.dtype} "
                f"{list(images.shape)}."
            )
        if labels.dtype != np.int32 or labels.shape != images.shape[:1]:
            raise ValueError(
                f"`labels` must be int32 [{len(images)}], one for each of `images`, got "
                f"{labels.dtype} {list(labels.shape)}."
            )

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> "Split":
        """The images and labels at `indices` `[M]`, copied."""
        images = np.ascontiguousarray(self.images[indices])
        return Split(images=images, labels=self.labels[indices])


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Three disjoint splits; the validation split selects, the test split reports."""

    name: str  # for `load`
    train: Split
    validation: Split
    test: Split
    num_classes: int  # labels are below it
    mean: tuple[float, ...]  # of the training split, per channel, with pixels in 0..1
    std: tuple[float, ...]  # likewise; 1 of a channel that never varies
    augmentation: Augmentation  # of training images
    class_names: tuple[str, ...]  # in the order of the labels


def channel_statistics(
    images: np.ndarray,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, with pixels in 0..1.

    They come from exact integer sums over a histogram, so they do not depend on the
    machine. A channel that never varies gets the standard deviation 1.

    Args:
        images: `[N, H, W, C]` uint8.
    """
    num_channels = images.shape[-1]
    counts = np.zeros((num_channels, 256), np.int64)
    for start in range(0, len(images), 1024):  # bincount widens its input to int64
        block = images[start : start + 1024]
        for c in range(num_channels):
            counts[c] += np.bincount(block[..., c].ravel(), minlength=256)
    means, stds = [], []
    values = np.arange(256)
    for row in counts:
        count, total = int(row.sum()), int(row @ values)
        square = int(row @ values**2)
        variance = (count * square - total**2) / (count * 255) ** 2
        means.append(total / (count * 255))
        stds.append(variance**0.5 or 1.0)
    return tuple(means), tuple(stds)


def stratified_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """An order of examples of which every beginning holds all classes in proportion.

    The i-th of the n examples of a class, in random order, is sorted by (i + 1/2) / n.
    With K classes, the first M of N examples then hold M * n / N of each class, give or
    take (1 + K * n / N) / 2: one example where classes are of one size. A range that
    does not start at the beginning is off by twice that at most.

    Args:
        labels: `[N]` integers from 0.
        seed: Root of the random order. Its stream is one that NumPy keeps stable over
            versions.

    Returns:
        `[N]` int64, a permutation.
    """
    # `Generator` and its methods may change their streams; raw bits may not.
    bits = np.random.PCG64(seed).random_raw(len(labels))
    shuffled = np.argsort(bits, kind="stable")
    position = np.empty(len(labels))
    for label in np.unique(labels):
        of_class = labels[shuffled] == label
        num = np.count_nonzero(of_class)
        position[of_class] = (np.arange(num) + 0.5) / num
    return shuffled[np.argsort(position, kind="stable")]
