"""What a training iteration keeps, and its weights, counted by ways of counting."""

import dataclasses

import numpy as np

from codesign import models, workload
from codesign.workload import Workload
from codesign.workload.iteration import Program, training_iteration

IMAGE_SIZE = 32  # of CIFAR-10
KEPT = {
    "products": "inputs of convolutions and dense layers alone, as CAMEL's Fig. 1(a)",
    "read": "what the backward pass reads: also inputs of norms, outputs of ReLUs",
    "made": "every map of the forward pass, each op's own",
}
STEMS = {
    "small": "3x3 of stride 1, the usual one for images of 32x32",
    "imagenet": "7x7 of stride 2 and a max pool of stride 2",
}
_STEM_SIZES = {"small": 32, "imagenet": 8}  # height and width of the maps behind it
_KERNELS = {"small": 3, "imagenet": 7}


@dataclasses.dataclass(frozen=True)
class Counts:
    """Elements of one network with one stem.

    Attributes:
        stem: One of `STEMS`; a VGG has none, and the same counts with both.
        weights: Of all variables, the running statistics of norms among them.
        products, read, made: Of the maps of one example, by what is kept; see `KEPT`.
    """

    stem: str
    weights: int
    products: int
    read: int
    made: int


@dataclasses.dataclass(frozen=True)
class NetworkCounts:
    """A network with both stems."""

    by_stem: tuple[Counts, ...]

    def of(self, stem: str) -> Counts:
        """With one stem."""
        return next(counts for counts in self.by_stem if counts.stem == stem)


def count(name: str) -> NetworkCounts:
    """Counts a classifier of `codesign.models` on images of CIFAR-10.

    ResNet-18 and 34 have the small stem there, ResNet-50 that of ImageNet. The other
    stem only changes the size of the maps behind it: they are counted on images of
    which the network's own stem makes maps of that size, and the stem's own maps and
    kernel by their shapes.
    """
    return NetworkCounts(tuple(_count(name, stem) for stem in STEMS))


def _count(name: str, stem: str) -> Counts:
    ops = _traced(name, IMAGE_SIZE)
    if not name.startswith("resnet"):
        return Counts(stem, *_totals(training_iteration(ops)))
    own = "imagenet" if ops.kinds[3] == "pool" else "small"
    if own == stem:
        return Counts(stem, *_totals(training_iteration(ops)))
    size = IMAGE_SIZE * _STEM_SIZES[stem] // _STEM_SIZES[own]
    ops = _traced(name, size)
    weights, *kept = _totals(training_iteration(ops))
    channels = ops.weight_shapes[0][-1]
    weights += 3 * channels * (_KERNELS[stem] ** 2 - _KERNELS[own] ** 2)
    changes = np.subtract(
        _stem_elements(stem, channels, IMAGE_SIZE), _stem_elements(own, channels, size)
    )
    return Counts(
        stem, weights, *(int(k + c) for k, c in zip(kept, changes, strict=True))
    )


def _traced(name: str, size: int) -> Workload:
    network = models.create(name, num_classes=10, image_shape=(size, size, 3))
    return workload.trace(*network.trace_args())


def _stem_elements(stem: str, channels: int, size: int) -> tuple[int, int, int]:
    """Of image and stem, by what is kept, up to the maps that the first block reads."""
    image = 3 * size**2
    if stem == "small":
        one = channels * size**2  # a convolution, its norm, its ReLU
        return image + one, image + 2 * one, image + 3 * one
    one, pooled = channels * (size // 2) ** 2, channels * (size // 4) ** 2
    return image + pooled, image + 2 * one + pooled, image + 3 * one + pooled


def _totals(program: Program) -> tuple[int, int, int, int]:
    """Elements of the weights, and of one example's maps by what is kept."""
    is_map = np.array([role == "A" for role in program.roles])
    step = np.repeat(np.arange(program.num_steps), np.diff(program.first))
    back = program.is_backward[step]
    is_product = ~program.is_type_ii[step]

    def read_by(steps: np.ndarray) -> int:
        read = np.zeros(program.num_tensors, bool)
        read[program.touched[steps & program.reads]] = True
        return int(program.per_example[is_map & read].sum())

    weights = program.fixed[np.array([role == "W" for role in program.roles])].sum()
    made = int(program.per_example[is_map].sum())
    return int(weights), read_by(~back & is_product), read_by(back), made
