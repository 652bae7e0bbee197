"""The door to the memory subsystem: the exact simulator, or its smooth surrogate."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from codesign.hardware.chip import door
from codesign.hardware.cost import Cost
from codesign.hardware.memory import simulator
from codesign.hardware.memory.spec import MemorySpec
from codesign.hardware.memory.surrogate import calibrated, expanded, segments
from codesign.numerics.relax import EXACT, Relax
from codesign.types import Scalar
from codesign.workload.graph import Workload


@functools.partial(door, on_host=True)
def estimate(
    spec: MemorySpec,
    workload: Workload,
    *,
    batch_size: Scalar = 32,
    relax: Relax = EXACT,
) -> Cost:
    """Costs one training iteration behind one cache.

    With `EXACT` this is `memory.simulate`, on the host, for concrete values. Smooth, it
    is `time_s` of a surrogate that is calibrated on the host while JAX traces, once a
    network: at this batch size, or for a traced one at `BATCH_SIZES`. Nothing of the
    workload but its graph counts: a batch-norm mask changes nothing.

        energy = operations x operation_energy + traffic x memory_energy_per_byte
        area = logic + capacity x cache_area_per_byte

    Args:
        spec: Scalar leaves; any of them may be traced if `relax` is smooth.
        workload: Forward graph, its loops unrolled.
        batch_size: Examples in a batch; may be traced if `relax` is smooth.
        relax: `EXACT`, or `smooth(temperature)`. At temperatures of 0.1 and below the
            median error is about 2 % or less, 5 % between calibrated batch sizes.

    Returns:
        `Cost` of one batch, with `period_s` for each example, `traffic_bytes` and
        `area_m2`.
        `violation` is 0.5 where the smallest cache that can run is 1.5 times this one.
        Smooth, times are then those of the smallest; exact, it is refused. `breakdown`
        has `op_s` and `op_bytes`, forward and backward together. The surrogate gives
        each step a fixed fraction of its segment's time and traffic; the simulator's
        `op_s` leaves out the writes that drain after the last step.

    Raises:
        ValueError: If `relax` is `EXACT` and a value is traced; as `memory.simulate`.
    """
    if relax.is_exact:
        return _exact(spec, workload, batch_size)
    settings: dict = dict(value_bits=spec.value_bits)
    if not isinstance(batch_size, Tracer) and batch_size == int(batch_size):
        settings["batch_sizes"] = (int(batch_size),)
    surrogate = calibrated(workload.graph, **settings)
    moved, segment_s = segments(
        surrogate,
        spec.capacity_bytes,
        spec.bandwidth_bytes_per_s,
        spec.throughput_ops_per_s,
        batch_size,
        relax,
    )
    latency_s, traffic_bytes = jnp.sum(segment_s), jnp.sum(moved)
    segment, op = np.array(surrogate.step_segment), np.array(surrogate.step_op)

    def by_op(of_segments):
        of_steps = of_segments[segment] * surrogate.step_share
        return jax.ops.segment_sum(of_steps, op, workload.num_ops)

    shortage = surrogate.smallest_bytes / jnp.maximum(spec.capacity_bytes, 1.0)
    return Cost(
        latency_s=latency_s,
        energy_j=_energy_j(
            spec, jnp.sum(surrogate.operations) * batch_size, traffic_bytes
        ),
        period_s=latency_s / batch_size,
        traffic_bytes=traffic_bytes,
        area_m2=_area_m2(spec),
        feasible=shortage <= 1,
        violation=relax.max(shortage, jnp.ones(())) - 1,
        breakdown=dict(op_s=by_op(segment_s), op_bytes=by_op(moved)),
    )


def _energy_j(spec, operations, traffic_bytes):
    moving_j = traffic_bytes * spec.memory_energy_j_per_byte
    return operations * spec.operation_energy_j + moving_j


def _area_m2(spec):
    return spec.logic_area_m2 + spec.capacity_bytes * spec.cache_area_m2_per_byte


def _exact(spec: MemorySpec, workload: Workload, batch_size: Scalar) -> Cost:
    leaves = (*jax.tree.leaves(spec), batch_size)
    if any(isinstance(leaf, Tracer) for leaf in leaves):
        raise ValueError(
            "`relax` is `EXACT`, which runs a simulator on the host, but `spec` or "
            "`batch_size` is traced by jit, grad or vmap; pass `relax=smooth(t)`."
        )
    program = expanded(workload.graph)
    run = simulator.simulate(spec, program, batch_size=int(batch_size))
    moved = run.traffic_in + run.traffic_out
    return Cost(
        latency_s=run.total_s,
        energy_j=_energy_j(
            spec, float(program.operations.sum()) * batch_size, float(moved.sum())
        ),
        period_s=run.total_s / batch_size,
        traffic_bytes=float(moved.sum()),
        area_m2=_area_m2(spec),
        feasible=True,
        violation=0.0,
        breakdown=dict(
            op_s=jnp.array(run.by_op(run.step_s)), op_bytes=jnp.array(run.by_op(moved))
        ),
    )
