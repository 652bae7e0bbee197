"""The memory subsystem behind `estimate`: the exact simulator, or a smooth surrogate."""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from codesign.hardware.memory import cache, simulator, smooth_table
from codesign.hardware.memory.grid import sweep
from codesign.hardware.memory.spec import MemorySpec
from codesign.numerics.relax import Relax
from codesign.types import Array, Scalar
from codesign.workload.graph import Graph, build
from codesign.workload.iteration import Program, training_iteration

# Calibrated for a traced batch size. Tensors grow with the batch, so that the capacity
# that captures a reuse moves; steps of a factor 2 double the error between them.
BATCH_SIZES = (1, 2, *(m * 2**i for i in range(9) for m in (3, 4)), 2048, 4096, 8192)
# Machines whose exact times calibrate a surrogate, in operations a byte: time divided by
# the time of one byte depends on nothing else.
_BALANCES = (1.0, 4.0, 16.0, 64.0, 256.0, 1024.0)
_STEPS_PER_SEGMENT = 4  # fitted: the least error of VGG-11 and ResNet-18 at 32 x 32


@struct.dataclass(kw_only=True)
class MemorySurrogate:
    """One network's iteration behind any cache, as tables; built by `calibrate`.

    `[N]` runs over batch sizes, `[C]` over the capacities of a `TrafficTable`, `[S]` over
    the steps of the iteration, `[K]` over segments, which are runs of consecutive steps.
    """

    batch_sizes: Array  # [N]
    operations: Array  # [K] of each segment, for one example
    moved: Array  # [N, C, K] bytes to and from memory
    exposed: Array  # [N, C, K] those of them that compute waits for
    smallest_bytes: Array  # [] capacity below which nothing runs
    full_bytes: Array  # [N] capacity that holds everything
    step_share: Array  # [S] fraction of its segment's time and traffic
    step_segment: tuple[int, ...] = struct.field(pytree_node=False)  # [S]
    step_op: tuple[int, ...] = struct.field(pytree_node=False)  # [S]


class TrafficTable(NamedTuple):
    """Traffic of each segment at one batch size, in rows for C capacities of the cache.

    The first row is of the smallest capacity that can run, the last of one that holds
    everything. From row to row capacities grow by the same factor.
    """

    full_bytes: Array  # [] capacity of the last row
    moved: Array  # [C, K] bytes to and from memory
    exposed: Array  # [C, K] those of them that compute waits for

    def at_capacity(
        self, capacity_bytes: Scalar, smallest_bytes: Scalar, temperature: Scalar
    ) -> tuple[Array, Array]:
        """Reads the bytes moved [K] and exposed [K] between two rows.

        Args:
            capacity_bytes: [] of the cache; outside the table, its first or last row.
            smallest_bytes: [] capacity of the first row.
            temperature: [] T, in (0, 1]; see `smooth_table.ramps`.
        """
        chex.assert_rank(self, (0, 2, 2))
        chex.assert_equal_shape((self.moved, self.exposed))
        # Bytes below 1 have no finite logarithm to differentiate.
        growth = jnp.log(jnp.maximum(capacity_bytes, 1.0) / smallest_bytes)
        place = growth / jnp.log(self.full_bytes / smallest_bytes)  # 0 to 1
        last = len(self.moved) - 1
        rows = jnp.arange(last + 1, dtype=jnp.float32)
        weights = smooth_table.ramps(place * last, rows, temperature)  # [C - 1]
        moved = smooth_table.read(self.moved, weights)
        return moved, smooth_table.read(self.exposed, weights)


def calibrate(
    program: Program,
    *,
    batch_sizes: Sequence[int] = (32,),
    num_segments: int = 64,
    num_plans: int = 48,
    value_bits: int = 32,
) -> MemorySurrogate:
    """Fits a surrogate to exact plans and exact times; runs on the host.

    Steps are joined to segments of equal weight. The weight of a step is its fraction of
    all operations plus its fraction of the traffic behind the smallest cache. Transfers
    overlap with the compute of steps around theirs: one step a segment overrates VGG-11
    by up to 13 %, so a segment has four steps or more on average.

    `moved` is the exact traffic at each capacity and batch size. `exposed` is fitted: it
    is one fraction of `moved`, the same for all segments of a capacity, with which the
    total times of six machines (`_BALANCES`) come out with the least squared relative
    error. Both are made monotone, so that a larger cache never moves or exposes more.

    Args:
        program: `workload.training_iteration(ops)`.
        batch_sizes: N sizes to calibrate, growing.
        num_segments: K; a small program has fewer.
        num_plans: C, capacities a batch size.
        value_bits: Of a stored value, a multiple of 8.

    Raises:
        ValueError: For fewer than one segment or two plans, batch sizes that do not
            grow, or as `grid.sweep`.
    """
    if num_segments < 1 or num_plans < 2:
        raise ValueError(
            f"`num_segments` (={num_segments}) must be at least 1 and `num_plans` "
            f"(={num_plans}) at least 2."
        )
    batch_sizes = [int(size) for size in batch_sizes]
    if not batch_sizes or sorted(set(batch_sizes)) != batch_sizes:
        raise ValueError(
            f"`batch_sizes` (={batch_sizes}) must grow from one to the next."
        )
    smallest, _ = simulator.smallest_capacity(program, value_bits)
    share = _shares(program, smallest, batch_sizes[len(batch_sizes) // 2], value_bits)
    num_segments = min(num_segments, max(1, program.num_steps // _STEPS_PER_SEGMENT))
    middle = (np.cumsum(share) - share / 2) / share.sum()
    cut = np.minimum((middle * num_segments).astype(int), num_segments - 1)
    segment = np.unique(cut, return_inverse=True)[1]  # none is empty
    full, moved, exposed = [], [], []
    for batch_size in batch_sizes:
        # Knots of a tiny network must lie apart, too.
        full.append(max(_full_bytes(program, batch_size, value_bits), 2 * smallest))
        capacities = smallest * (full[-1] / smallest) ** np.linspace(0, 1, num_plans)
        bytes_ = np.ceil(capacities).astype(np.int64)
        tables = _tables(program, segment, bytes_, batch_size, value_bits)
        moved.append(tables[0])
        exposed.append(tables[1])
    array = functools.partial(jnp.asarray, dtype=jnp.float32)
    return MemorySurrogate(
        batch_sizes=array(batch_sizes),
        operations=array(np.bincount(segment, program.operations)),
        moved=array(moved),
        exposed=array(exposed),
        smallest_bytes=array(smallest),
        full_bytes=array(full),
        step_share=array(share / np.bincount(segment, share)[segment]),
        step_segment=tuple(segment.tolist()),
        step_op=tuple(program.op.tolist()),
    )


def time_s(
    surrogate: MemorySurrogate,
    capacity_bytes: Scalar,
    bandwidth_bytes_per_s: Scalar,
    throughput_ops_per_s: Scalar,
    *,
    batch_size: Scalar | None = None,
    relax: Relax,
) -> Array:
    """Returns the seconds of one iteration, smooth in every argument.

        t = sum over segments of longer(c + exposed / bandwidth, moved / bandwidth)  (1)
        c = operations x batch / throughput

    A segment lasts until its compute and its transfers are both done. The compute waits
    for the exposed bytes; the channel moves all bytes. `_longer` is the maximum of the
    two, rounded where they are equal.

    Both kinds of bytes are read from tables, between whose entries they are linear: in
    the logarithm of the capacity, and in the batch size. A segment that moves 8 MB
    behind a cache of 1 MB and 4 MB behind one of 4 MB moves 6 MB behind 2 MB. At the
    entries themselves the corners are rounded (`smooth_table`). As the temperature T
    goes to 0, (1) tends to these tables with sharp corners and to the maximum. It does
    not tend to the simulator.

    More of a resource, or a smaller batch, never costs time. The simulator can disagree:
    bytes that stream through a cache that is too small overlap with compute, bytes that
    a slightly larger cache loads do not. There the surrogate takes the longer time.

    Args:
        surrogate: From `calibrate`.
        capacity_bytes: [] below the smallest or above the full capacity, as there.
        bandwidth_bytes_per_s, throughput_ops_per_s: [] positive.
        batch_size: [] by default the one calibrated. Below all that were, traffic is
            that of the smallest; above all, that of the largest, in proportion.
        relax: `smooth(temperature)`.

    Raises:
        ValueError: If `relax` is `EXACT`, or there are several batch sizes and none is
            given.
    """
    if relax.is_exact:
        raise ValueError("`relax` must be `smooth(t)`; `memory.simulate` is exact.")
    if batch_size is None and len(surrogate.batch_sizes) > 1:
        raise ValueError("`batch_size` must be given: several are calibrated.")
    if batch_size is None:
        batch_size = surrogate.batch_sizes[0]
    resources = (capacity_bytes, bandwidth_bytes_per_s, throughput_ops_per_s)
    return jnp.sum(segments(surrogate, *resources, batch_size, relax)[1])


def segments(
    surrogate: MemorySurrogate,
    capacity_bytes: Scalar,
    bandwidth_bytes_per_s: Scalar,
    throughput_ops_per_s: Scalar,
    batch_size: Scalar,
    relax: Relax,
) -> tuple[Array, Array]:
    """Returns the bytes moved [K] and the seconds [K] of each segment; see `time_s`."""

    def at_capacity(table: TrafficTable) -> tuple[Array, Array]:
        smallest = surrogate.smallest_bytes
        return table.at_capacity(capacity_bytes, smallest, relax.temperature)

    table = TrafficTable(surrogate.full_bytes, surrogate.moved, surrogate.exposed)
    moved, exposed = jax.vmap(at_capacity)(table)  # [N, K]
    weights = smooth_table.ramps(batch_size, surrogate.batch_sizes, relax.temperature)

    def at_batch_size(table):  # [N, K]
        if len(table) == 1:
            return table[0]
        # Two batch sizes have other capacities as entries, so that between these the
        # larger batch could move less.
        return smooth_table.read(jax.lax.cummax(table), weights)

    # Above all that was calibrated, maps outweigh weights, and traffic grows as they do.
    beyond = jnp.maximum(batch_size / surrogate.batch_sizes[-1], 1.0)
    moved, exposed = at_batch_size(moved) * beyond, at_batch_size(exposed) * beyond
    compute_s = surrogate.operations * (batch_size / throughput_ops_per_s)
    chex.assert_equal_shape((compute_s, moved, exposed))
    s_per_byte = 1 / bandwidth_bytes_per_s
    work_s, channel_s = compute_s + exposed * s_per_byte, moved * s_per_byte
    return moved, _longer(work_s, channel_s, relax.temperature)


def _longer(a: Array, b: Array, temperature: Scalar) -> Array:
    """Returns the longer of two times [K], too long by the most where they are equal.

    (a + b + sqrt((a - b)^2 + 4 e^2 a b)) / 2 with e = 2^(T / 4) - 1 grows with a and
    with b, doubles when both double, and is (1 + e) a where they are equal: 19 % too
    long at T = 1, all as the p-norm of `Relax.max` is. That takes 5 times as long, since
    a power is a logarithm and an exponential.
    """
    excess = jnp.expm1(temperature * (math.log(2) / 4))
    # Both are 0 where a segment only renames; no time squares to as little as 1e-36.
    squared = (a - b) ** 2 + 4 * excess**2 * a * b + 1e-36
    return (a + b + jnp.sqrt(squared)) / 2


@functools.lru_cache(maxsize=64)
def expanded(graph: Graph) -> Program:
    """Returns the training iteration of a forward graph, kept for the next call."""
    with jax.ensure_compile_time_eval():  # the caller may be tracing
        workload = build(
            graph.ops,
            inputs=graph.inputs,
            outputs=graph.outputs,
            parameters=dict(graph.parameters),
            constants=dict(graph.constants),
        )
        return training_iteration(workload)


@functools.lru_cache(maxsize=64)
def calibrated(
    graph: Graph, batch_sizes: tuple[int, ...] = BATCH_SIZES, value_bits: int = 32
) -> MemorySurrogate:
    """Returns the surrogate of a forward graph, kept for the next call."""
    with jax.ensure_compile_time_eval():
        return calibrate(
            expanded(graph), batch_sizes=batch_sizes, value_bits=value_bits
        )


def _full_bytes(program: Program, batch_size: int, value_bits: int) -> int:
    """Bytes that a cache holds at most, however large."""
    trace = simulator.prepare(_machine(1.0, value_bits), program, batch_size)
    endless = np.iinfo(np.int64).max // 2
    return int(cache.plan(trace, endless, False, True).occupancy.max())


def _shares(program, capacity, batch_size, value_bits) -> np.ndarray:
    """[S] of each step, its fraction of the operations plus that of the traffic."""
    plan = sweep(
        [_machine(1.0, value_bits)],
        program,
        np.array([capacity]),
        batch_size=batch_size,
        groups=np.arange(program.num_steps),
    )
    moved = (plan.traffic_in + plan.traffic_out)[0]
    shares = program.operations / program.operations.sum() + moved / moved.sum()
    return shares + 1e-9  # slices neither compute nor, if cached, move


def _tables(program, segment, capacities, batch_size, value_bits):
    """Returns bytes moved [C, K] and exposed [C, K], neither growing with capacity."""
    exact = sweep(
        [_machine(balance, value_bits) for balance in _BALANCES],
        program,
        capacities,
        batch_size=batch_size,
        groups=segment,
    )
    moved = (exact.traffic_in + exact.traffic_out).astype(float)  # [C, K]
    operations = np.bincount(segment, program.operations) * batch_size
    compute = (operations / np.array(_BALANCES)[:, None])[:, None]  # [M, 1, K]
    fractions = np.linspace(0, 1, 41)
    errors = [
        np.log(np.maximum(compute + fraction * moved, moved).sum(-1) / exact.total_s)
        for fraction in fractions
    ]  # of [M, C]
    fraction = fractions[np.sum(np.square(errors), axis=1).argmin(0)]  # [C]
    moved = np.minimum.accumulate(moved)
    exposed = np.maximum.accumulate((fraction[:, None] * moved)[::-1])[::-1]
    return moved, exposed


def _machine(balance: float, value_bits: int) -> MemorySpec:
    """One byte a second, and `balance` operations; its capacity does not count."""
    return MemorySpec(
        capacity_bytes=1.0,
        bandwidth_bytes_per_s=1.0,
        throughput_ops_per_s=balance,
        value_bits=value_bits,
    )
