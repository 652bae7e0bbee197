"""One training iteration on one compute unit, one managed cache and one channel."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from codesign import units
from codesign.hardware.memory import cache, channel
from codesign.hardware.memory.spec import PREFETCH, MemorySpec, Policy
from codesign.types import is_number
from codesign.workload.iteration import Program, twice

_MOST_BYTES = 2**62  # of a cache: they are counted in int64


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Iteration:
    """One simulated training iteration; arrays `[S]` run over its steps.

    `program` is what ran: in steady state two iterations, of which the steps from
    `start` on count and make `[S]`. A transfer counts for the step that uses the tensor:
    a load for the step that reads it, an offload for the last step that used it.
    """

    program: Program
    spec: MemorySpec
    batch_size: int
    trace: cache.Trace
    plan: cache.Plan
    schedule: channel.Schedule
    compute_s: np.ndarray  # [S]
    start: int = 0  # first step that counts: earlier ones warm the cache

    @functools.cached_property
    def step_s(self) -> np.ndarray:
        """[S] time of each step: its end minus the end of the step before."""
        return np.diff(self.schedule.end, prepend=0.0)[self.start :]

    @functools.cached_property
    def traffic_in(self) -> np.ndarray:
        """[S] bytes loaded for each step, int64."""
        return self._by_step(self.plan.loads) + self.plan.streamed_in[self.start :]

    @functools.cached_property
    def traffic_out(self) -> np.ndarray:
        """[S] bytes written after each step, int64."""
        written = self.plan.leaves == cache.WRITTEN
        return self._by_step(written) + self.plan.streamed_out[self.start :]

    @property
    def occupancy(self) -> np.ndarray:
        """[S] bytes held while each step runs, prefetched tensors included."""
        return self.schedule.occupancy[self.start :]

    @property
    def total_s(self) -> float:
        """Until compute and channel are done; in steady state, between two iterations."""
        if self.start:
            return float(self.schedule.end[-1] - self.schedule.end[self.start - 1])
        return float(self.schedule.total_s)

    @property
    def traffic_in_bytes(self) -> int:
        """Bytes from memory."""
        return int(self.traffic_in.sum())

    @property
    def traffic_out_bytes(self) -> int:
        """Bytes to memory."""
        return int(self.traffic_out.sum())

    @property
    def average_bandwidth(self) -> float:
        """Bytes moved per second, eq. 4.1."""
        return (self.traffic_in_bytes + self.traffic_out_bytes) / self.total_s

    @property
    def active_time(self) -> float:
        """Fraction of the time in which the channel is busy, eq. 4.2."""
        return self.average_bandwidth / float(self.spec.bandwidth_bytes_per_s)

    @property
    def utilisation(self) -> float:
        """Fraction of the peak throughput that is used, eq. 4.3."""
        return float(self.compute_s[self.start :].sum()) / self.total_s

    @property
    def type_ii_time_share(self) -> float:
        """Fraction of the time that point-wise steps take, waiting for loads included."""
        is_type_ii = self.program.is_type_ii[self.start :]
        return float(self.step_s[is_type_ii].sum()) / self.total_s

    def by_op(self, values: np.ndarray) -> np.ndarray:
        """[L] sums of a quantity of the steps [S], forward and backward together."""
        op = self.program.op[self.start :]
        return np.bincount(op, values, self.program.workload.num_ops)

    def by_kind(self, values: np.ndarray) -> dict[str, float]:
        """Sums of a quantity of the steps [S] by kind of layer, in order of appearance."""
        kinds, sums = self.program.workload.kinds, self.by_op(values)
        return {
            kind: float(sums[[k == kind for k in kinds]].sum())
            for kind in dict.fromkeys(kinds)
        }

    def _by_step(self, counted: np.ndarray) -> np.ndarray:
        """[S] bytes of the accesses that are counted."""
        moved = np.where(counted, self.trace.sizes[self.trace.touched], 0)
        return np.add.reduceat(moved, self.trace.first[:-1])[self.start :]


def simulate(
    spec: MemorySpec,
    program: Program,
    *,
    batch_size: int = 32,
    policy: Policy | None = None,
    steady_state: bool = False,
) -> Iteration:
    """Runs one training iteration behind the cache, exactly.

    The residency of whole tensors is planned first, for the capacity alone
    (`cache.plan`); then its transfers and the compute are put into time
    (`channel.schedule`). The cache starts cold.

    Args:
        spec: Concrete values; runs on the host, in float64 and whole bytes.
        program: `workload.training_iteration(ops)`.
        batch_size: Examples in a batch.
        policy: Defaults to Belady, latency-aware prefetch and look-ahead offload.
        steady_state: Run two iterations and report the second, which may find weights
            in the cache (Table 3.1); else one, from a cold cache.

    Raises:
        TypeError: If `spec` is no `MemorySpec`, or `program` no `Program`.
        ValueError: For a batch below 1, resources that are not positive, or a cache
            that cannot hold a row of each map and the largest weight of some step, or
            whose bytes cannot be counted.
    """
    policy = checked_policy(policy)
    check_machine(spec)
    check_program(program)
    check_capacity(spec, program, spec.capacity_bytes)
    num_cold = program.num_steps if steady_state else 0
    program = twice(program) if steady_state else program
    batch_size = checked_batch(batch_size)
    trace = prepare(spec, program, batch_size)
    capacity = int(spec.capacity_bytes)
    look_ahead = policy.offload == "look_ahead"
    plan = cache.plan(trace, capacity, policy.replacement == "lru", look_ahead)
    compute_s = program.operations * batch_size / float(spec.throughput_ops_per_s)
    schedule = channel.schedule(
        trace,
        plan,
        compute_s,
        float(spec.bandwidth_bytes_per_s),
        capacity,
        PREFETCH[policy.prefetch],
        look_ahead,
    )
    return Iteration(
        program=program,
        spec=spec,
        batch_size=batch_size,
        trace=trace,
        plan=plan,
        schedule=schedule,
        compute_s=compute_s,
        start=num_cold,
    )


def prepare(spec: MemorySpec, program: Program, batch_size: int) -> cache.Trace:
    """The accesses of a program at one batch size, for any number of capacities."""
    return cache.trace(
        program.first,
        program.touched,
        program.reads,
        program.writes,
        program.sizes(batch_size, spec.value_bits // 8),
        program.tensors,
        program.in_memory,
        np.array([role == "D" for role in program.roles]),
    )


def checked_batch(batch_size: Any) -> int:
    """A batch size as Python's integer, which never overflows; JAX's would.

    Raises:
        ValueError: If it is no whole number of at least 1.
    """
    if not is_number(batch_size) or batch_size != batch_size // 1 or batch_size < 1:
        raise ValueError(
            f"`batch_size` must be a whole number of at least 1, got {batch_size!r}."
        )
    return int(batch_size)


def smallest_capacity(program: Program, value_bits: int = 32) -> tuple[int, int]:
    """Bytes below which the iteration cannot run at all, and the step that needs them.

    A step streams if the cache holds a row of each map that it touches and the largest
    of its weights whole (Section 4.3.3).
    """
    check_program(program)
    rows = program.row[program.touched] * (value_bits // 8)
    is_map = np.array([role in "AG" for role in program.roles])[program.touched]
    begin = program.first[:-1]
    needed = np.add.reduceat(np.where(is_map, rows, 0), begin)
    needed += np.maximum.reduceat(np.where(is_map, 0, rows), begin)
    step = int(np.argmax(needed))
    return int(needed[step]), step


def checked_policy(policy: Any) -> Policy:
    """`policy`, or the default one for None; raises ValueError for anything else."""
    if not isinstance(policy, Policy | None):
        raise ValueError(f"`policy` (={policy!r}) must be a `Policy`.")
    return policy or Policy()


def check_machine(spec: Any) -> None:
    """Raises TypeError for what is no `MemorySpec`, ValueError as its `checked`."""
    if not isinstance(spec, MemorySpec):
        raise TypeError(
            f"`spec` must be a `MemorySpec`, got {type(spec).__name__}; take one of "
            "`memory.SYSTEMS`, or the `spec` of a memory chip."
        )
    spec.checked()
    for field in dataclasses.fields(spec):
        if not jax.tree.leaves(getattr(spec, field.name)):
            raise ValueError(
                f"`spec.{field.name}` must be one number, got "
                f"{getattr(spec, field.name)!r}."
            )
    for path, leaf in jax.tree_util.tree_leaves_with_path(spec):
        if np.ndim(leaf):
            raise ValueError(
                f"`spec{jax.tree_util.keystr(path)}` must be one number, got {leaf!r}; "
                "`memory.sweep` takes several machines and capacities."
            )


def check_program(program: Any) -> None:
    """Raises TypeError for what is no `Program`, such as a forward workload."""
    if not isinstance(program, Program):
        raise TypeError(
            f"`program` must be a training iteration, got {type(program).__name__}; write "
            "`workload.training_iteration(ops)` of a network's `ops`."
        )


def check_capacity(spec: MemorySpec, program: Program, capacity: Any) -> None:
    """Raises ValueError if some step cannot even stream through the cache.

    Also if its bytes are beyond what the simulator counts in int64.
    """
    if not is_number(capacity) or not float(capacity) <= _MOST_BYTES:
        raise ValueError(
            f"`capacity_bytes` (={capacity!r}) must be a number of at most 2^62 bytes."
        )
    capacity = int(capacity)
    needed, step = smallest_capacity(program, spec.value_bits)
    if capacity < needed:
        raise ValueError(
            f"`capacity_bytes` (={capacity}) is {needed - capacity} bytes too small: "
            f"step {step} ({program.step_names[step]}) holds a row of each map and its "
            f"largest weight, {needed / units.MIB:.2f} MB; give the cache at least "
            f"{needed} bytes."
        )


def capacities(mebibytes: Sequence[float] | np.ndarray) -> np.ndarray:
    """Whole bytes of capacities in MB of 2^20 bytes, int64.

    Raises:
        ValueError: If they are no numbers in 0..2^42.
    """
    values = np.asarray(mebibytes)
    if values.dtype.kind not in "iuf" or not np.all(
        (values >= 0) & (values <= _MOST_BYTES / units.MIB)
    ):
        raise ValueError(f"`mebibytes` must be numbers in 0..2^42, got {mebibytes!r}.")
    return np.round(values.astype(float) * units.MIB).astype(np.int64)
