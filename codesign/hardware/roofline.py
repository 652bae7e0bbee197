"""A GPU as a roofline: each op takes the longer of its arithmetic and its traffic."""

import jax.numpy as jnp
from flax import struct

from codesign import units
from codesign.hardware.chip import door
from codesign.hardware.cost import Cost
from codesign.hardware.spec import checked_leaves
from codesign.numerics.relax import EXACT, Relax
from codesign.records.named import Named
from codesign.types import Scalar
from codesign.workload.graph import MATRIX_KINDS, Workload

# Passes over a map of one training step, in elements read or written. Norm: forward reads
# x for its statistics and again to normalise, and writes y; backward reads x and dy for
# the two sums and again for dx, and writes dx. Add and mul read two maps and write two
# gradients. What only moves data: x in, y out; dy in, dx out. Others: x in, y out; y, dy
# in, dx out. A product of two maps runs three, whose operands are taken to be as large as
# its result.
_PASSES = {
    **{"norm": 8, "add": 6, "mul": 8, "matmul": 9},
    **dict.fromkeys(("activation", "softmax", "dropout", "pool", "elementwise"), 5),
    **dict.fromkeys(("concat", "slice", "resize", "embedding", "reduce"), 4),
}


@struct.dataclass(kw_only=True)
class RooflineSpec:
    """A processor with one memory. `Scalar` fields are design variables."""

    peak_macs_per_s: Scalar  # []
    compute_efficiency: Scalar  # [] part of the peak that matrix ops reach
    bandwidth_bytes_per_s: Scalar  # []
    bandwidth_efficiency: Scalar  # [] part of the bandwidth that streams reach
    power_w: Scalar  # [] while busy
    # assumed: a large GPU; range 100..800 mm2. A preset has its own.
    area_m2: Scalar = 500 * units.MM2  # [] of the die
    value_bits: Scalar = 32.0  # [] of a value in memory, exponents shared out

    def checked(self) -> "RooflineSpec":
        """Validates concrete values; returns float32 leaves, as `checked_leaves`."""
        return checked_leaves(self)


def titan_xp() -> RooflineSpec:
    """NVIDIA Titan Xp (2017): data-sheet peaks; efficiencies assumed."""
    return RooflineSpec(
        peak_macs_per_s=3840 * 1.582 * units.GHZ,  # CUDA cores x boost clock, fp32
        compute_efficiency=0.5,  # assumed: cuDNN on 32x32 images; range 0.2..0.8
        bandwidth_bytes_per_s=547.6 * units.GB_PER_S,
        bandwidth_efficiency=0.8,  # assumed; range 0.6..0.9
        power_w=250.0,  # board power limit
        area_m2=471 * units.MM2,  # GP102 (TechPowerUp's GPU database)
    ).checked()


GPUS = Named({"Titan Xp": titan_xp})


@door
def estimate(
    spec: RooflineSpec,
    workload: Workload,
    *,
    batch_size: int = 64,
    relax: Relax = EXACT,
) -> Cost:
    """Costs one training iteration; forward, input gradient and weight gradient.

        t_op = max(MACs / (peak x efficiency), bytes / (bandwidth x efficiency))

    A matrix op runs three products (two where its input needs no gradient), each reading
    two operands and writing one, and so does a product of two maps. Other ops are
    streams of `_PASSES` elements. Every op's maps go through memory once a product:
    nothing is fused, as in the frameworks of the DeepTrain paper's time.

    Returns:
        `Cost` of one batch, with `traffic_bytes` and `area_m2`; `breakdown` has `op_s` and
        `op_bytes` over all ops.
    """
    value_bytes = spec.value_bits / 8
    fed = {end for _, end in workload.edges}
    is_matrix = jnp.array([float(kind in MATRIX_KINDS) for kind in workload.kinds])
    is_first = [
        op not in fed and kind != "matmul" for op, kind in enumerate(workload.kinds)
    ]
    products = jnp.where(jnp.array(is_first), 2.0, 3.0)
    passes = jnp.array([float(_PASSES.get(kind, 0)) for kind in workload.kinds])
    inputs = workload.num_input_windows * _last(workload)  # [L] of matrix ops
    operands = batch_size * (inputs + workload.elements) + workload.weights
    moved = (
        is_matrix * products * operands + passes * batch_size * workload.elements
    )  # [L]
    op_bytes = moved * value_bytes
    compute_s = (
        products
        * batch_size
        * workload.macs
        / (spec.peak_macs_per_s * spec.compute_efficiency)
    )
    memory_s = op_bytes / (spec.bandwidth_bytes_per_s * spec.bandwidth_efficiency)
    op_s = relax.reduce_max(jnp.stack([compute_s, memory_s]), axis=0)
    latency_s = jnp.sum(op_s)
    return Cost(
        latency_s=latency_s,
        energy_j=latency_s * spec.power_w,
        period_s=latency_s / batch_size,
        area_m2=jnp.asarray(spec.area_m2),
        traffic_bytes=jnp.sum(op_bytes),
        breakdown=dict(op_s=op_s, op_bytes=op_bytes),
    )


def _last(workload: Workload):
    channels = [shape[-1] if shape else 0 for shape in workload.input_shapes]
    return jnp.array(channels, jnp.float32)
