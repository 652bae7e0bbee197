"""The memory subsystem behind `estimate`: the exact simulator, or a smooth surrogate."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from codesign.hardware.memory import cache, simulator
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

    `[N]` runs over batch sizes, `[C]` over capacities, from the smallest that can run to
    one that holds everything, equally far apart in their logarithms; `[K]` over segments
    of consecutive steps, `[S]` over steps.
    """

    batch_sizes: Array  # [N]
    operations: Array  # [K] of each segment, for one example
    moved: Array  # [N, C, K] bytes to and from memory
    exposed: Array  # [N, C, K] part of them that compute waits for
    smallest_bytes: Array  # [] capacity below which nothing runs
    full_bytes: Array  # [N] capacity that holds everything
    step_share: Array  # [S] part of its segment's time and traffic
    step_segment: tuple[int, ...] = struct.field(pytree_node=False)  # [S]
    step_op: tuple[int, ...] = struct.field(pytree_node=False)  # [S]


def calibrate(
    program: Program,
    *,
    batch_sizes: Sequence[int] = (32,),
    num_segments: int = 64,
    num_plans: int = 48,
    value_bits: int = 32,
) -> MemorySurrogate:
    """Fits a surrogate to exact plans and exact times; runs on the host.

    The steps are cut where the sum of two shares, of all operations and of the traffic
    of the smallest cache, has grown by equal parts. A small program has fewer segments,
    so that on average four steps share one: transfers overlap with the compute of steps
    around theirs, and single steps overrate VGG-11 by up to 13 %.
    `moved` is the exact traffic of `num_plans` capacities a batch size. `exposed` is
    fitted: of each plan's traffic one part, the same for all segments, such that the
    total times of six machines (`_BALANCES`) are met with the least squared relative
    error. Both are made monotone: traffic by its running minimum from the smallest
    capacity, exposed bytes by their running maximum from the largest.

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
    """Seconds of one iteration, smooth in every argument.

        t = sum over segments of max_T(c + exposed / bandwidth, moved / bandwidth)   (1)
        c = operations x batch / throughput

    A segment's compute waits for its exposed bytes, and the channel moves all its bytes;
    max_T takes the longer, rounded (`_longer`). `moved` and `exposed` are sums of steps
    in the logarithm of the capacity, one between any two calibrated ones, each a ramp
    with corners rounded by the part T. Over batch sizes their running maxima are summed
    by ramps in the batch size. As T goes to 0, (1) tends to its own exact form, tables
    that are linear piece by piece and the longer of two times, and not to the simulator.

    More of a resource, or a smaller batch, never costs time. The simulator can disagree:
    what passes through a cache that is too small overlaps with compute, what a slightly
    larger cache loads does not. There the surrogate takes the longer time.

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
    return jnp.sum(
        segments(
            surrogate,
            capacity_bytes,
            bandwidth_bytes_per_s,
            throughput_ops_per_s,
            batch_size,
            relax,
        )[1]
    )


def segments(surrogate, capacity, bandwidth, throughput, batch_size, relax):
    """[K] bytes moved, and [K] seconds."""
    moved, exposed = jax.vmap(_at_capacity, in_axes=(None, 0, 0, 0, None, None))(
        capacity,
        surrogate.full_bytes,
        surrogate.moved,
        surrogate.exposed,
        surrogate.smallest_bytes,
        relax.temperature,
    )  # [N, K]
    weights = _ramps(batch_size, surrogate.batch_sizes, relax.temperature)  # [N - 1]

    def at_batch_size(table):  # [N, K]
        if len(table) == 1:
            return table[0]
        table = jax.lax.cummax(table)  # knots of two batch sizes are not the same
        return table[0] + weights @ jnp.diff(table, axis=0)

    # Above all that was calibrated, maps outweigh weights, and traffic their batch.
    beyond = jnp.maximum(batch_size / surrogate.batch_sizes[-1], 1.0)
    moved, exposed = at_batch_size(moved) * beyond, at_batch_size(exposed) * beyond
    compute_s = surrogate.operations * (batch_size / throughput)
    s_per_byte = 1 / bandwidth
    work_s, channel_s = compute_s + exposed * s_per_byte, moved * s_per_byte
    return moved, _longer(work_s, channel_s, relax.temperature)


def _at_capacity(capacity, full, moved, exposed, smallest, temperature):
    """Two [K] from two tables [C, K]."""
    # Bytes below 1 have no finite logarithm to differentiate.
    place = jnp.log(jnp.maximum(capacity, 1.0) / smallest) / jnp.log(full / smallest)
    last = len(moved) - 1
    knots = jnp.arange(last + 1, dtype=jnp.float32)
    ramps = _ramps(place * last, knots, temperature)  # [C - 1]
    return (
        moved[0] + ramps @ jnp.diff(moved, axis=0),
        exposed[0] + ramps @ jnp.diff(exposed, axis=0),
    )


def _longer(a, b, temperature):
    """Of two times the longer, rounded: their sum at T = 1, their maximum as T goes to 0.

    (a + b + sqrt((a - b)^2 + 4 T^2 a b)) / 2 is homogeneous and grows with a and with b,
    as the p-norm of `Relax.max`, which takes 5 times as long: a power is a log and exp.
    """
    # Both are 0 where a segment only renames; no time squares to as little as 1e-36.
    squared = (a - b) ** 2 + 4 * temperature**2 * a * b + 1e-36
    return (a + b + jnp.sqrt(squared)) / 2


def _ramps(x, knots, temperature):
    """[n - 1] part of the way from each knot to the next that lies behind `x`.

    0 before and 1 behind, with corners rounded by parabolas as wide as the part T of the
    shorter gap beside a knot, so that none overlap and the ramps keep their order.
    """
    gaps = jnp.diff(knots)
    before = jnp.minimum(gaps, jnp.concatenate([gaps[:1], gaps[:-1]])) / gaps
    behind = jnp.minimum(gaps, jnp.concatenate([gaps[1:], gaps[-1:]])) / gaps
    way = jnp.clip((x - knots[:-1]) / gaps, -1.0, 2.0)
    return _corner(way, before * temperature) - _corner(way - 1, behind * temperature)


@jax.custom_jvp
def _corner(x, width):
    """max(x, 0), a parabola over `width` around 0."""
    inside = jnp.clip(x / width + 0.5, 0.0, 1.0)
    return width / 2 * inside**2 + jnp.maximum(x - width / 2, 0.0)


@_corner.defjvp
def _corner_jvp(primals, tangents):
    (x, width), (dx, dwidth) = primals, tangents
    inside = jnp.clip(x / width + 0.5, 0.0, 1.0)  # autodiff takes 3 times as long
    tangent = inside * dx + inside * (1 - inside) / 2 * dwidth
    return _corner(x, width), tangent


@functools.lru_cache(maxsize=64)
def expanded(graph: Graph) -> Program:
    with jax.ensure_compile_time_eval():  # the caller may be tracing
        workload = build(
            graph.ops,
            inputs=graph.inputs,
            outputs=graph.outputs,
            parameters=dict(graph.parameters),
        )
        return training_iteration(workload)


@functools.lru_cache(maxsize=64)
def calibrated(
    graph: Graph, batch_sizes: tuple[int, ...] = BATCH_SIZES, value_bits: int = 32
) -> MemorySurrogate:
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
    """[S] of each step, its part of the operations plus its part of the traffic."""
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
    """[C, K] bytes moved, and [C, K] bytes exposed, both monotone."""
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
    parts = np.linspace(0, 1, 41)
    errors = [
        np.log(np.maximum(compute + part * moved, moved).sum(-1) / exact.total_s)
        for part in parts
    ]  # of [M, C]
    part = parts[np.sum(np.square(errors), axis=1).argmin(0)]  # [C]
    moved = np.minimum.accumulate(moved)
    exposed = np.maximum.accumulate((part[:, None] * moved)[::-1])[::-1]
    return moved, exposed


def _machine(balance: float, value_bits: int) -> MemorySpec:
    """One byte a second, and `balance` operations; its capacity does not count."""
    return MemorySpec(
        capacity_bytes=1.0,
        bandwidth_bytes_per_s=1.0,
        throughput_ops_per_s=balance,
        value_bits=value_bits,
    )
