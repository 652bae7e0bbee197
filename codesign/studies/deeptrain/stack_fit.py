"""Fits the DeepTrain stack's two unpublished numbers to its published averages."""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
from scipy import optimize

from codesign.hardware import reram_gpu
from codesign.hardware.reram_gpu import ReramGpuSpec
from codesign.workload.graph import Workload

Pair = tuple[Workload, Workload]  # a network with all batch norms, and with those kept


def cuts(spec: ReramGpuSpec, pairs: Sequence[Pair]) -> tuple[np.ndarray, np.ndarray]:
    """Relative cuts in period and in energy of each pair: two arrays [num_networks]."""

    def ratios(full, kept):
        full, kept = _estimate(spec, full), _estimate(spec, kept)
        return kept.period_s / full.period_s, kept.energy_j / full.energy_j

    kept = np.array([ratios(*pair) for pair in pairs], np.float64)
    return 1 - kept[:, 0], 1 - kept[:, 1]


def fit(
    spec: ReramGpuSpec, pairs: Sequence[Pair], *, period_cut: float, energy_cut: float
) -> ReramGpuSpec:
    """Chooses one utilisation and one instruction energy for all networks.

    The period depends on instructions per element / utilisation alone; that ratio is
    fitted by the utilisation, so that the mean cut in period is `period_cut`. Then the
    energy of an instruction is, so that the mean cut in energy is `energy_cut`.

    Raises:
        ValueError: If no utilisation in (0, 1] gives that cut.
    """

    def with_utilisation(log_utilisation):
        return dataclasses.replace(
            spec, gpu_utilisation=np.float32(np.exp(log_utilisation))
        )

    def period_error(log_utilisation):
        cut, _ = cuts(with_utilisation(log_utilisation), pairs)
        return cut.mean() - period_cut

    low, high = np.log(1e-3), 0.0
    if period_error(low) * period_error(high) > 0:
        raise ValueError(
            f"`pairs` cannot cut the mean period by {period_cut:.1%} at any "
            "utilisation in (0, 1]; pass the published placements at full width."
        )
    spec = with_utilisation(optimize.brentq(period_error, low, high, xtol=1e-4))

    def with_energy(log_energy):
        return dataclasses.replace(
            spec, gpu_instruction_energy_j=np.float32(np.exp(log_energy))
        )

    def energy_error(log_energy):
        return cuts(with_energy(log_energy), pairs)[1].mean() - energy_cut

    bounds = np.log(1e-13), np.log(1e-8)
    return with_energy(optimize.brentq(energy_error, *bounds, xtol=1e-4))


_estimate = jax.jit(reram_gpu.estimate)
