"""Holds the surrogate against the simulator for one network."""

import dataclasses

import jax
import numpy as np

from codesign.hardware import (
    memory,
    memory_surrogate,
    memory_sweep,
    memory_validation,
)
from codesign.hardware.memory import MemorySpec
from codesign.numerics.relax import smooth
from codesign.sweeps.memory.outcome import Fidelity
from codesign.workload.training import Program

_EVERY = 4  # of the capacities, a point is drawn


def fidelity(
    spec: MemorySpec, program: Program, *, batch_size: int, seed: int
) -> Fidelity | None:
    """The validation of the surrogate, and some of its points to be drawn.

    Args:
        spec: Any machine; capacity, bandwidth and throughput are swept.
        program: A network's training iteration.
        batch_size: Examples in a batch.
        seed: Of the random designs.

    Returns:
        None if the network runs at none of the capacities of the validation.
    """
    smallest, _ = memory.smallest_capacity(program)
    mebibytes = np.array(memory_validation.CAPACITIES_MB, float)
    mebibytes = mebibytes[memory.capacities(mebibytes.tolist()) >= smallest]
    if not mebibytes.size:
        return None
    found = memory_validation.validate(
        program,
        batch_size=batch_size,
        capacities_mb=tuple(map(float, mebibytes)),
        seed=seed,
    )
    surrogate = memory_surrogate.calibrate(program, batch_sizes=(batch_size,))
    machines = [
        dataclasses.replace(
            spec, bandwidth_bytes_per_s=bandwidth, throughput_ops_per_s=throughput
        )
        for bandwidth in memory_validation.BANDWIDTHS
        for throughput in memory_validation.THROUGHPUTS
    ]
    capacities = memory.capacities(mebibytes[::_EVERY].tolist())
    exact = memory_sweep.sweep(machines, program, capacities, batch_size=batch_size)
    relax = smooth(found.temperature)

    def seconds(design):
        return memory_surrogate.time_s(
            surrogate, *design, batch_size=batch_size, relax=relax
        )

    designs = np.array(
        [
            (capacity, machine.bandwidth_bytes_per_s, machine.throughput_ops_per_s)
            for machine in machines
            for capacity in capacities
        ],
        np.float32,
    )
    return Fidelity(
        exact_s=exact.total_s.ravel(),
        surrogate_s=np.asarray(jax.jit(jax.vmap(seconds))(designs)),
        num_points=found.num_points,
        spearman=found.spearman,
        median_error=found.median_error,
        p90_error=found.p90_error,
        max_error=found.max_error,
        slower_pairs=found.slower_pairs,
        wrong_signs=found.wrong_signs,
        num_designs=found.num_designs,
    )
