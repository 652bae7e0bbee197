"""Sweeps made by hand, for tests."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from codesign.studies.memory import paper_networks
from codesign.studies.memory.capacity_result import (
    Batches,
    Curves,
    Layers,
    NetworkSweep,
    Reuse,
)


def curves(
    capacities_mb: Sequence[float],
    total_s: Any,
    traffic: Sequence[float],
    type_ii_s: Any = None,
) -> Curves:
    """Four machines, of which the last three are the same unless given [4][C]."""
    total = np.broadcast_to(np.asarray(total_s, float), (4, len(capacities_mb)))
    if type_ii_s is None:
        type_ii_s = total / 4
    type_ii = np.broadcast_to(np.asarray(type_ii_s, float), total.shape)
    moved = np.array(traffic, float)[:, None] / 8  # in two groups of steps
    return Curves(
        capacities=np.array(capacities_mb, float) * 2**20,
        capacities_mb=np.array(capacities_mb, float),
        total_s=total,
        group_s=np.stack([total - type_ii, type_ii], -1),
        traffic_in=moved * [2, 4],
        traffic_out=moved * [1, 1],
        compute_s=np.array([1.7, 1.0, 1.7, 1.7]),
        type_ii_compute_s=np.zeros(4),
        bandwidth=np.array([616e9, 616e9, 1555e9, 1536e9]),
    )


def sweep(network: str = "resnet50", **changes: Any) -> NetworkSweep:
    """One network's, with nothing but curves and layers unless given."""
    swept = curves([24, 296, 500], [4.0, 3.0, 2.0], [100.0, 30.0, 20.0])
    fields: dict[str, Any] = {
        "network": network,
        "batch_size": 32,
        "family": paper_networks.family(network),
        "num_steps": 4,
        "smallest_capacity_mb": 1.0,
        "largest_step_mb": 294.0,
        "map_mb": np.array([6.0, 98.0]),
        "sweep_s": 0.5,
        "sweeps": {"RTX 2080 Ti": swept.machine(0)},
        "paper": swept,
        "layers": layers([0.1, 30.0, 40.0], [True, False, False]),
        "by_kind": None,
        "batches": None,
        "policies": None,
        "reuse": None,
        "timeline": None,
        "fidelity": None,
    }
    return NetworkSweep(**{**fields, **changes})


def layers(frequency: list[float], is_type_ii: list[bool]) -> Layers:
    """Layers of 1000 bytes."""
    return Layers(
        names=[f"op{i}" for i in range(len(frequency))],
        kinds=["norm" if each else "conv" for each in is_type_ii],
        is_type_ii=np.array(is_type_ii),
        operations=np.array(frequency) * 1000,
        touched_bytes=np.full(len(frequency), 1000.0),
        capacities_mb=np.array([]),
        time_s=np.zeros((0, len(frequency))),
    )


def batches(small: list[float], large: list[float]) -> Batches:
    """Throughput at 24 and at 400 MB."""
    return Batches(
        sizes=np.array([8, 32, 128][: len(small)]),
        capacities_mb=np.array([24.0, 400.0]),
        samples_per_s=np.array([small, large]),
    )


def reuse(saved: list[list[float]], possible: list[float]) -> Reuse:
    """At 24, 180 and 500 MB."""
    return Reuse(
        scopes=["adjacent", "block", "recurrent weight", "forward-backward"],
        capacities_mb=np.array([24.0, 180.0, 500.0]),
        saved_bytes=np.array(saved),
        possible_bytes=np.array(possible),
        streamed_bytes=1000,
        intra_layer_bytes=10,
        needed_bytes=np.array([100.0, 200.0, 0.0, 4000.0]) * 2**20,
    )
