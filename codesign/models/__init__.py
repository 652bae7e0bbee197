"""Flax networks: classifiers whose batch norms are data, and sequence networks."""

from codesign.models.network import Network
from codesign.models.norm import MaskedBatchNorm
from codesign.models.registry import NETWORKS, SEQUENCE_NETWORKS, create
from codesign.models.sequence import SequenceNetwork

__all__ = [
    "NETWORKS",
    "SEQUENCE_NETWORKS",
    "MaskedBatchNorm",
    "Network",
    "SequenceNetwork",
    "create",
]
