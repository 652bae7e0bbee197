"""Data sets by name, their splits, and what a training step does to a batch."""

from codesign.data.augment import Augmentation, augment, normalise
from codesign.data.batches import epoch_order, padded_batches
from codesign.data.dataset import Dataset, Split
from codesign.data.datasets import DATASETS, load

__all__ = [
    "DATASETS",
    "Augmentation",
    "Dataset",
    "Split",
    "augment",
    "epoch_order",
    "load",
    "normalise",
    "padded_batches",
]
