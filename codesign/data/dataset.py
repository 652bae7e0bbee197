"""A data set in memory: images or tokens, labels, and what a training step needs to know.

The split into training, validation and test parts is here too: deterministic, stratified
and nested, so that a smaller subset is the beginning of a larger one.
"""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from codesign.data.augment import Augmentation, are_tokens
from codesign.types import is_whole

_HELD_OUT = 0.2  # of arrays, for validation, and as much for the test
_MOST_CLASSES = 100_000


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Labelled examples of one part of a data set, images or texts.

    The type says which: int32 are the tokens of texts, all else are pixels. Labels of
    int32 are classes, those of float32 are the numbers that a regression is to find.
    """

    images: np.ndarray  # [N, H, W, C] uint8, or float32 in any unit; or [N, T] int32
    labels: np.ndarray  # [N] int32, from 0; or float32

    def __post_init__(self):
        """Checks types and shapes.

        Raises:
            ValueError: Names the field, what it is and what it must be.
        """
        images, labels = self.images, self.labels
        for name, array in (("images", images), ("labels", labels)):
            if not isinstance(array, np.ndarray):
                raise ValueError(f"`{name}` must be a NumPy array, got {array!r}.")
        is_images = images.dtype in (np.uint8, np.float32) and images.ndim == 4
        if not is_images and not (are_tokens(images) and images.ndim == 2):
            raise ValueError(
                "`images` must be uint8 or float32 [N, H, W, C], or tokens, int32 "
                f"[N, T], got {images.dtype} {list(images.shape)}."
            )
        is_known = labels.dtype in (np.int32, np.float32)
        if not is_known or labels.shape != images.shape[:1]:
            raise ValueError(
                f"`labels` must be int32 [{len(images)}], one for each of `images`, or "
                f"float32 of a regression, got {labels.dtype} {list(labels.shape)}."
            )
        if labels.dtype == np.float32 and not np.isfinite(labels).all():
            raise ValueError(
                f"`labels` holds {np.count_nonzero(~np.isfinite(labels))} numbers that "
                "are not finite; drop those examples."
            )

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> "Split":
        """The examples at `indices` `[M]`, copied."""
        images = np.ascontiguousarray(self.images[indices])
        return Split(images=images, labels=self.labels[indices])


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Three disjoint splits; the validation split selects, the test split reports."""

    name: str  # for `load`
    train: Split
    validation: Split
    test: Split
    num_classes: int  # labels are below it; 1 of a regression
    mean: tuple[float, ...]  # of the training split, per channel; bytes count as 0..1
    std: tuple[float, ...]  # likewise; 1 of a channel that never varies; () of tokens
    augmentation: Augmentation  # of training images
    class_names: tuple[str, ...]  # in the order of the labels; () of a regression

    def __post_init__(self):
        """Checks that every label is a class, or that all are numbers of a regression.

        Raises:
            ValueError: Names the split, its label and the number of classes.
        """
        if not is_whole(self.num_classes) or self.num_classes < 1:
            raise ValueError(
                f"`num_classes` (={self.num_classes!r}) must be a whole number >= 1."
            )
        kinds = {s.labels.dtype for s in (self.train, self.validation, self.test)}
        if kinds == {np.dtype(np.float32)} and self.num_classes == 1:
            return
        if kinds != {np.dtype(np.int32)}:
            raise ValueError(
                f"`labels` of the splits are {' and '.join(sorted(map(str, kinds)))} and "
                f"`num_classes` is {self.num_classes}: give int32 for classes throughout, "
                "or float32 and one class for a regression."
            )
        for part in ("train", "validation", "test"):
            labels = getattr(self, part).labels
            if labels.size and not 0 <= labels.min() <= labels.max() < self.num_classes:
                wrong = labels.min() if labels.min() < 0 else labels.max()
                raise ValueError(
                    f"`{part}` holds the label {wrong}, but the {self.num_classes} "
                    f"classes are 0..{self.num_classes - 1}; raise `num_classes`, or "
                    "number the classes from 0."
                )

    @classmethod
    def from_arrays(
        cls,
        images: np.ndarray,
        labels: np.ndarray,
        *,
        seed: int = 0,
        num_validation: int | None = None,
        num_test: int | None = None,
        num_classes: int | None = None,
        name: str = "arrays",
    ) -> "Dataset":
        """Splits arrays of a user's own, stratified; nothing is augmented.

        Args:
            images: [N, H, W, C], or [N, H, W] of one channel. Bytes, or floating-point
                numbers in any unit, which are normalised all the same.
            labels: [N] whole numbers from 0.
            seed: Root of the split; of the images, not of any training.
            num_validation, num_test: Sizes; None for 20 % each. Training gets the rest.
            num_classes: If labels go higher elsewhere; None for what is there.
            name: What tables call it.

        Raises:
            ValueError: For arrays of other types or shapes, values that are not finite,
                labels beyond `num_classes`, or too few images to split.
        """
        images, labels = _checked_arrays(images, labels)
        if not is_whole(seed) or not 0 <= seed < 2**32:
            raise ValueError(
                f"`seed` (={seed!r}) must be a whole number in 0..2**32-1."
            )
        found = int(labels.max()) + 1
        num_classes = found if num_classes is None else num_classes
        if (
            not is_whole(num_classes)
            or not max(found, 2) <= num_classes <= _MOST_CLASSES
        ):
            raise ValueError(
                f"`labels` go up to {found - 1}, so `num_classes` (={num_classes!r}) must "
                f"be a whole number, at least {max(found, 2)} and at most {_MOST_CLASSES}."
            )
        num = len(labels)
        share = round(_HELD_OUT * num)
        sizes = {
            "validation": share if num_validation is None else num_validation,
            "test": share if num_test is None else num_test,
        }
        for part, size in sizes.items():
            if not is_whole(size) or size < 1:
                raise ValueError(
                    f"`num_{part}` must be a whole number >= 1, got {size!r}, of the "
                    f"{num} images; bring more of them."
                )
        first = num - sizes["validation"] - sizes["test"]
        order = stratified_order(labels, seed)
        whole = Split(images=images, labels=labels)
        train = whole.take(order[: max(first, 0)])
        if absent := set(labels.tolist()) - set(train.labels.tolist()):
            raise ValueError(
                f"`images` are {num}: with {sizes['validation']} for validation and "
                f"{sizes['test']} for the test, training has none of class "
                f"{min(absent)}; bring more images, or hold fewer out."
            )
        mean, std = channel_statistics(train.images)
        return cls(
            name=name,
            train=train,
            validation=whole.take(order[first : first + sizes["validation"]]),
            test=whole.take(order[first + sizes["validation"] :]),
            num_classes=num_classes,
            mean=mean,
            std=std,
            augmentation=Augmentation(),
            class_names=tuple(str(label) for label in range(num_classes)),
        )

    def of_classes(self, classes: Sequence[int]) -> "Dataset":
        """The data set of some classes, which become 0, 1, ... in the order given.

        Every example stays in its split and keeps its place among those left. The mean
        and the deviation are those of the training images left. With
        `digits.of_classes(range(5))` a network learns one half of the digits, to be
        adapted to `digits.of_classes(range(5, 10))`.

        Args:
            classes: At least two labels, each once.

        Raises:
            ValueError: If `classes` are fewer than two, repeat one, or name one that
                is not there, or if a split has no example of them.
        """
        classes = list(classes)
        if len(classes) < 2 or len(set(classes)) < len(classes):
            raise ValueError(
                f"`classes` (={classes}) must be at least two labels, each once."
            )
        for label in classes:
            if not is_whole(label) or not 0 <= label < self.num_classes:
                raise ValueError(
                    f"`classes` holds {label!r}, but the {self.num_classes} classes of "
                    f"{self.name!r} are 0..{self.num_classes - 1}."
                )
        new_labels = np.full(self.num_classes, -1, np.int32)
        new_labels[classes] = np.arange(len(classes))
        splits = {}
        for part in ("train", "validation", "test"):
            split = getattr(self, part)
            chosen = np.flatnonzero(new_labels[split.labels] >= 0)
            if not chosen.size:
                raise ValueError(
                    f"`classes` (={classes}) have no example in `{part}` of "
                    f"{self.name!r}; load more of it, or choose other classes."
                )
            left = split.take(chosen)
            splits[part] = dataclasses.replace(left, labels=new_labels[left.labels])
        mean, std = channel_statistics(splits["train"].images)
        return dataclasses.replace(
            self,
            **splits,
            name=f"{self.name}[{','.join(map(str, classes))}]",
            num_classes=len(classes),
            mean=mean,
            std=std,
            class_names=tuple(self.class_names[label] for label in classes),
        )

    def digest(self) -> str:
        """Sha256 of all that a training run sees of it."""
        settings = (self.num_classes, self.augmentation, self.mean, self.std)
        found = hashlib.sha256(repr(settings).encode())
        for split in (self.train, self.validation, self.test):
            for array in (split.images, split.labels):
                found.update(f"{array.dtype}{array.shape}".encode())
                found.update(np.ascontiguousarray(array).data)
        return found.hexdigest()


def _checked_arrays(images, labels) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, H, W, C] of bytes or float32, and labels [N] int32."""
    for name, array in (("images", images), ("labels", labels)):
        if isinstance(array, np.ma.MaskedArray):
            raise ValueError(
                f"`{name}` is a masked array; fill it, or drop what it masks."
            )
    images, labels = np.asarray(images), np.asarray(labels)
    if images.ndim == 3:
        images = images[..., None]
    is_float = np.issubdtype(images.dtype, np.floating)
    if (
        images.ndim != 4
        or not images.size
        or not (is_float or images.dtype == np.uint8)
    ):
        raise ValueError(
            "`images` must be [N, H, W, C] of uint8 or floating-point numbers, got "
            f"{images.dtype} {list(images.shape)}."
        )
    if is_float:
        images = images.astype(np.float32)
        if not np.isfinite(images).all():
            raise ValueError(
                f"`images` holds {np.count_nonzero(~np.isfinite(images))} numbers that "
                "are not finite in float32; mend or drop those images."
            )
    is_whole = np.issubdtype(labels.dtype, np.integer)
    if labels.shape != images.shape[:1] or not is_whole or labels.min() < 0:
        raise ValueError(
            f"`labels` must be {len(images)} whole numbers from 0, one for each of "
            f"`images`, got {labels.dtype} {list(labels.shape)}"
            + (f" down to {labels.min()}." if is_whole and labels.size else ".")
        )
    if labels.max() >= len(labels):
        raise ValueError(
            f"`labels` go up to {labels.max()}, more classes than the {len(labels)} "
            "images; number the classes from 0."
        )
    return images, labels.astype(np.int32)


def channel_statistics(
    images: np.ndarray,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel; bytes count as 0..1.

    Those of bytes come from exact integer sums over a histogram, so they do not depend on
    the machine. A channel that never varies gets the standard deviation 1.

    Args:
        images: `[N, H, W, C]` uint8 or float32; or int32 tokens, which have neither.
    """
    if are_tokens(images):
        return (), ()
    if images.dtype != np.uint8:
        wide = images.astype(np.float64)
        means, stds = wide.mean((0, 1, 2)), wide.std((0, 1, 2))
        return tuple(map(float, means)), tuple(float(std) or 1.0 for std in stds)
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
