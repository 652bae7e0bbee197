"""Flax networks whose batch norms can be switched by data."""

from codesign.models.network import NETWORKS, Network, create
from codesign.models.norm import MaskedBatchNorm

__all__ = ["NETWORKS", "MaskedBatchNorm", "Network", "create"]
