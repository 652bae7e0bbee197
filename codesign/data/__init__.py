"""Data sets by name, their splits, and what a training step does to a batch."""

import importlib
import pkgutil

from codesign.data.augment import Augmentation, augment, normalise
from codesign.data.batches import epoch_order, padded_batches
from codesign.data.dataset import Dataset, Split
from codesign.data.datasets import load, names
from codesign.data.text import Vocabulary
from codesign.data.text_datasets import TEXT_DATASETS, TextDataset, load_text

for _module in pkgutil.iter_modules(__path__):  # where data sets register themselves
    importlib.import_module(f"{__name__}.{_module.name}")
DATASETS = names()

__all__ = [
    "DATASETS",
    "TEXT_DATASETS",
    "Augmentation",
    "Dataset",
    "Split",
    "TextDataset",
    "Vocabulary",
    "augment",
    "epoch_order",
    "load",
    "load_text",
    "normalise",
    "padded_batches",
]
