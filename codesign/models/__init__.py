"""Flax networks: classifiers whose batch norms are data, and sequence networks."""

import importlib
import pkgutil

from codesign.models.network import Network
from codesign.models.norm import MaskedBatchNorm
from codesign.models.registry import create, names, register, title
from codesign.models.sequence import SequenceNetwork

for _module in pkgutil.iter_modules(__path__):  # where networks register themselves
    importlib.import_module(f"{__name__}.{_module.name}")
NETWORKS = names(with_sites=True)
SEQUENCE_NETWORKS = names(with_sites=False)

__all__ = [
    "NETWORKS",
    "SEQUENCE_NETWORKS",
    "MaskedBatchNorm",
    "Network",
    "SequenceNetwork",
    "create",
    "register",
    "title",
]
