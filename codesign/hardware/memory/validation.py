"""How well the memory surrogate stands for the simulator, over a grid of machines."""

import dataclasses

import jax
import numpy as np
from scipy import stats

from codesign import units
from codesign.hardware.memory import simulator
from codesign.hardware.memory.grid import sweep
from codesign.hardware.memory.spec import MemorySpec
from codesign.hardware.memory.surrogate import MemorySurrogate, calibrate, time_s
from codesign.numerics.relax import smooth
from codesign.workload.graph import Workload
from codesign.workload.iteration import Program, training_iteration

CAPACITIES_MB = tuple(range(24, 1001, 16))
# Table 5.2 of the memory paper, and 9 and 67 TFLOP/s around it. None calibrates.
BANDWIDTHS = tuple(x * units.GB_PER_S for x in (94, 512, 616, 1555))
THROUGHPUTS = tuple(x * units.TERA for x in (2.765, 9, 13.45, 19.45, 23.04, 67))
# Of a time; float32 resolves no less after a hundred sums.
_ROUNDING = 1e-5


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Validation:
    """Times of the surrogate beside the exact ones, and its errors."""

    exact_s: np.ndarray  # [M, C] machines, capacities
    smooth_s: np.ndarray  # [M, C]
    spearman: float
    median_error: float  # relative to the exact times, as those below
    p90_error: float
    max_error: float
    num_points: int
    slower_pairs: int  # designs that more resources, or a smaller batch, made slower
    wrong_signs: int  # designs with a gradient of the wrong sign, or not finite
    num_designs: int


def validate(
    workload: Workload | Program,
    *,
    batch_size: int = 32,
    temperature: float = 0.1,
    capacities_mb: tuple[float, ...] = CAPACITIES_MB,
    bandwidths: tuple[float, ...] = BANDWIDTHS,
    throughputs: tuple[float, ...] = THROUGHPUTS,
    num_segments: int = 64,
    num_plans: int = 48,
    batch_sizes: tuple[int, ...] = (),
    num_designs: int = 4096,
    seed: int = 0,
) -> Validation:
    """Holds the surrogate against the exact simulator, and tests that it is monotone.

    Every capacity is simulated with every bandwidth and throughput. Monotony is tested
    on random designs, from a tenth of the smallest capacity to ten times one that holds
    everything, and over three decades of speeds: each is compared with another that has
    up to twice of each resource and, where several are calibrated, a smaller batch; and
    the gradient's signs are counted.

    Args:
        workload: Or the program of its training iteration.
        batch_size: Examples in a batch.
        temperature: Of the surrogate.
        capacities_mb: In MB of 2^20 bytes.
        bandwidths, throughputs: Bytes and operations per second.
        num_segments, num_plans: As in `calibrate`.
        batch_sizes: Calibrated; by default `batch_size` alone.
        num_designs: Random designs.
        seed: Of the random designs.

    Raises:
        ValueError: As `calibrate` and `sweep`.
    """
    program = (
        workload if isinstance(workload, Program) else training_iteration(workload)
    )
    surrogate = calibrate(
        program,
        batch_sizes=batch_sizes or (batch_size,),
        num_segments=num_segments,
        num_plans=num_plans,
    )
    capacities = simulator.capacities(capacities_mb)
    machines = [
        MemorySpec(capacity_bytes=1.0, bandwidth_bytes_per_s=b, throughput_ops_per_s=p)
        for b in bandwidths
        for p in throughputs
    ]
    exact_s = sweep(
        machines, program, capacities, batch_size=batch_size
    ).total_s  # [M, C]
    speeds = [(m.bandwidth_bytes_per_s, m.throughput_ops_per_s) for m in machines]
    grid = np.array(
        [(c, *speed, batch_size) for speed in speeds for c in capacities], np.float32
    )
    relax = smooth(temperature)

    def seconds(surrogate, design):
        capacity, bandwidth, throughput, batch = design
        return time_s(
            surrogate, capacity, bandwidth, throughput, batch_size=batch, relax=relax
        )

    value_and_grad = jax.jit(
        jax.vmap(jax.value_and_grad(seconds, argnums=1), in_axes=(None, 0))
    )
    smooth_s = np.array(value_and_grad(surrogate, grid)[0]).reshape(exact_s.shape)
    error = np.abs(smooth_s / exact_s - 1)
    few, more = _designs(surrogate, num_designs, seed)
    slow_s, gradient = value_and_grad(surrogate, few)
    fast_s, _ = value_and_grad(surrogate, more)
    # How much a design's time changes with a resource's logarithm; < 0 for resources.
    change = np.array(gradient) * few / np.array(slow_s)[:, None]
    right = np.isfinite(change) & (change * [1, 1, 1, -1] <= _ROUNDING)
    return Validation(
        exact_s=exact_s,
        smooth_s=smooth_s,
        spearman=float(
            np.asarray(stats.spearmanr(smooth_s.ravel(), exact_s.ravel()))[0]
        ),
        median_error=float(np.median(error)),
        p90_error=float(np.quantile(error, 0.9)),
        max_error=float(error.max()),
        num_points=error.size,
        slower_pairs=int(np.sum(~(fast_s <= slow_s * (1 + _ROUNDING)))),
        wrong_signs=int(np.sum(~right.all(1))),
        num_designs=num_designs,
    )


def _designs(surrogate: MemorySurrogate, num_designs: int, seed: int):
    """Two arrays [num_designs, 4]; the second has more of each resource."""
    rng = np.random.default_rng(seed)
    batch_sizes = np.array(surrogate.batch_sizes)
    full = float(surrogate.full_bytes[-1])
    low = [float(surrogate.smallest_bytes) / 10, 1e10, 1e11, batch_sizes[0]]
    high = [full * 10, 1e13, 1e14, batch_sizes[-1]]
    few = np.exp(rng.uniform(np.log(low), np.log(high), (num_designs, 4)))
    factor = 2 ** rng.uniform(0, [1, 1, 1, 1], (num_designs, 4))
    more = few * factor ** [1, 1, 1, -1]
    more[:, 3] = np.maximum(more[:, 3], batch_sizes[0])
    return few.astype(np.float32), more.astype(np.float32)
