"""Many caches and many machines at once: plans are shared, nothing is recomputed."""

import dataclasses
from collections.abc import Sequence

import numba
import numpy as np

from codesign.hardware.memory import cache, channel
from codesign.hardware.memory.simulator import (
    check_capacity,
    check_machine,
    check_program,
    checked_batch,
    checked_policy,
    prepare,
)
from codesign.hardware.memory.spec import PREFETCH, MemorySpec, Policy
from codesign.workload.iteration import Program


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Sweep:
    """Results over `[M]` machines, `[C]` capacities and `[K]` groups of steps.

    A machine is a bandwidth and a throughput; traffic does not depend on it. What the
    compute waits for, and what drains after the last step, is in `total_s`; the times
    of the groups add up to the end of the last step.
    """

    capacities: np.ndarray  # [C] bytes
    total_s: np.ndarray  # [M, C]
    group_s: np.ndarray  # [M, C, K]
    traffic_in: np.ndarray  # [C, K] bytes
    traffic_out: np.ndarray  # [C, K] bytes
    compute_s: np.ndarray  # [M] with nothing to wait for
    bandwidth: np.ndarray  # [M] bytes per second

    @property
    def traffic_in_bytes(self) -> np.ndarray:
        """[C] bytes from memory."""
        return self.traffic_in.sum(1)

    @property
    def traffic_out_bytes(self) -> np.ndarray:
        """[C] bytes to memory."""
        return self.traffic_out.sum(1)

    @property
    def average_bandwidth(self) -> np.ndarray:
        """[M, C] bytes moved per second, eq. 4.1."""
        moved = self.traffic_in_bytes + self.traffic_out_bytes
        return moved[None] / self.total_s

    @property
    def active_time(self) -> np.ndarray:
        """[M, C] part of the time in which the channel is busy, eq. 4.2."""
        return self.average_bandwidth / self.bandwidth[:, None]

    @property
    def utilisation(self) -> np.ndarray:
        """[M, C] part of the peak throughput that is used, eq. 4.3."""
        return self.compute_s[:, None] / self.total_s


def sweep(
    machines: Sequence[MemorySpec],
    program: Program,
    capacities: np.ndarray,
    *,
    batch_size: int = 32,
    groups: np.ndarray | None = None,
    policy: Policy | None = None,
) -> Sweep:
    """Simulates one iteration for every machine at every capacity.

    Equal to `memory.simulate` point by point, to the last bit.

    Args:
        machines: Their bandwidths and throughputs count, their capacities do not.
        program: `workload.training_iteration(ops)`.
        capacities: [C] bytes, whole numbers.
        batch_size: Examples in a batch.
        groups: [S] a small integer for each step, by which times and traffic are
            summed; by default 1 for point-wise steps and 0 for the others.
        policy: As in `memory.simulate`.

    Raises:
        TypeError, ValueError: As `memory.simulate`; or if machines differ in
            `value_bits`, or there is nothing to sweep.
    """
    policy = checked_policy(policy)
    if isinstance(machines, MemorySpec):
        raise TypeError(
            "`machines` must be a list of `MemorySpec`; put it in brackets."
        )
    for spec in machines:
        check_machine(spec)
    check_program(program)
    capacities = np.asarray(capacities)
    if (
        capacities.ndim != 1
        or (capacities.size and capacities.dtype.kind not in "iuf")
        or (capacities != np.floor(capacities)).any()
    ):
        raise ValueError(
            f"`capacities` must be whole bytes [C], got {capacities.dtype} "
            f"{list(capacities.shape)}; see `memory.capacities`."
        )
    if not len(machines) or not capacities.size:
        raise ValueError("`machines` and `capacities` must hold at least one each.")
    if len({spec.value_bits for spec in machines}) > 1:
        raise ValueError("`machines` must agree in `value_bits`; sweep them apart.")
    for capacity in (capacities.min(), capacities.max()):
        check_capacity(machines[0], program, capacity)
    capacities = capacities.astype(np.int64)
    if groups is None:
        groups = program.is_type_ii.astype(np.int64)
    batch_size = checked_batch(batch_size)
    trace = prepare(machines[0], program, batch_size)
    bandwidth = np.array([float(spec.bandwidth_bytes_per_s) for spec in machines])
    throughput = np.array([float(spec.throughput_ops_per_s) for spec in machines])
    compute_s = program.operations * batch_size / throughput[:, None]
    total_s, group_s, moved = _sweep(
        trace,
        capacities,
        compute_s,
        bandwidth,
        np.asarray(groups, np.int64),
        PREFETCH[policy.prefetch],
        policy.replacement == "lru",
        policy.offload == "look_ahead",
    )
    return Sweep(
        capacities=capacities,
        total_s=total_s,
        group_s=group_s,
        traffic_in=moved[0],
        traffic_out=moved[1],
        compute_s=compute_s.sum(1),
        bandwidth=bandwidth,
    )


@numba.njit(nogil=True)  # a cache on disk would not see changes of what it calls
def _sweep(
    trace, capacities, compute_s, bandwidth, groups, prefetch, is_lru, look_ahead
):
    num_machines, num_steps = compute_s.shape
    num_groups = groups.max() + 1
    total_s = np.empty((num_machines, len(capacities)))
    group_s = np.zeros((num_machines, len(capacities), num_groups))
    moved = np.zeros((2, len(capacities), num_groups), np.int64)
    for c in range(len(capacities)):
        capacity = capacities[c]
        plan = cache.plan(trace, capacity, is_lru, look_ahead)
        for a in range(len(trace.touched)):
            group, size = groups[trace.step[a]], trace.sizes[trace.touched[a]]
            if plan.loads[a]:
                moved[0, c, group] += size
            if plan.leaves[a] == cache.WRITTEN:
                moved[1, c, group] += size
        for step in range(num_steps):
            moved[0, c, groups[step]] += plan.streamed_in[step]
            moved[1, c, groups[step]] += plan.streamed_out[step]
        for m in range(num_machines):
            timed = channel.schedule(
                trace, plan, compute_s[m], bandwidth[m], capacity, prefetch, look_ahead
            )
            total_s[m, c] = timed.total_s
            before = 0.0
            for step in range(num_steps):
                group_s[m, c, groups[step]] += timed.end[step] - before
                before = timed.end[step]
    return total_s, group_s, moved
