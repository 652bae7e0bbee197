"""Holds the surrogate against the simulator for one network."""

import numpy as np

from codesign.hardware import memory
from codesign.hardware.memory.validation import CAPACITIES_MB, validate
from codesign.studies.memory.capacity_result import Fidelity
from codesign.workload.iteration import Program

_EVERY = 4  # of the capacities, a point is drawn


def fidelity(program: Program, *, batch_size: int, seed: int) -> Fidelity | None:
    """The validation of the surrogate, and some of its points to be drawn.

    Args:
        program: A network's training iteration.
        batch_size: Examples in a batch.
        seed: Of the random designs.

    Returns:
        None if the network runs at none of the capacities of the validation.
    """
    smallest, _ = memory.smallest_capacity(program)
    usable = memory.capacities(CAPACITIES_MB) >= smallest
    if not usable.any():
        return None
    found = validate(
        program,
        batch_size=batch_size,
        capacities_mb=tuple(np.array(CAPACITIES_MB, float)[usable]),
        seed=seed,
    )
    return Fidelity(
        exact_s=found.exact_s[:, ::_EVERY].ravel(),
        surrogate_s=found.smooth_s[:, ::_EVERY].ravel(),
        num_points=found.num_points,
        spearman=found.spearman,
        median_error=found.median_error,
        p90_error=found.p90_error,
        max_error=found.max_error,
        slower_pairs=found.slower_pairs,
        wrong_signs=found.wrong_signs,
        num_designs=found.num_designs,
    )
