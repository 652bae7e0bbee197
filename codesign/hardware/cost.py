"""What a chip charges for one training iteration."""

from flax import struct

from codesign.types import Array, Scalar


@struct.dataclass(kw_only=True)
class Cost:
    """Cost of one training iteration; a field that a chip does not model is None.

    `breakdown` names arrays `[L]` over the chip's own stages or ops, in SI units.
    """

    latency_s: Scalar  # [] one batch, first input in to last gradient out
    energy_j: Scalar  # [] one batch
    period_s: Scalar | None = None  # [] between inputs in steady state, of a pipeline
    area_m2: Scalar | None = None  # []
    traffic_bytes: Scalar | None = None  # [] to and from memory outside the chip
    data_lifetime_s: Scalar | None = None  # [] a stored value must live so long
    endurance_trainings: Scalar | None = None  # [] trainings that the cells survive
    temperature_c: Scalar | None = None  # [] hottest point
    feasible: Scalar | None = None  # [] bool: every hard limit is kept
    # [] 0 if feasible; 0.5 where a design needs 1.5 times what a limit allows
    violation: Scalar | None = None
    breakdown: dict[str, Array] = struct.field(default_factory=dict)
