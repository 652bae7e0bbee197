"""Flax networks: classifiers whose batch norms are data, and sequence networks."""

import importlib
import pkgutil

from codesign.models.network import Network
from codesign.models.norm import MaskedBatchNorm
from codesign.models.registry import create, names, reads_images, register, title
from codesign.models.sequence import SequenceNetwork

for _module in pkgutil.iter_modules(__path__):  # where networks register themselves
    importlib.import_module(f"{__name__}.{_module.name}")
NETWORKS = names("sites")
PLAIN_NETWORKS = names("plain")
SEQUENCE_NETWORKS = names("sequence")

__all__ = [
    "NETWORKS",
    "PLAIN_NETWORKS",
    "SEQUENCE_NETWORKS",
    "MaskedBatchNorm",
    "Network",
    "SequenceNetwork",
    "create",
    "reads_images",
    "register",
    "title",
]
