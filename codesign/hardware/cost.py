"""What a chip charges for one training iteration."""

import jax.numpy as jnp
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

    @property
    def power_w(self) -> Scalar:
        """[] Mean power while it trains, `energy_j` over `latency_s`; 0 if none."""
        takes_time = jnp.asarray(self.latency_s) > 0
        return jnp.where(
            takes_time, self.energy_j / jnp.where(takes_time, self.latency_s, 1.0), 0.0
        )

    def scalars(self) -> dict[str, Scalar]:
        """What this chip has of: every number above but `feasible`, and the power."""
        values = {name: getattr(self, name) for name in _SCALARS}
        return {name: value for name, value in values.items() if value is not None}


_SCALARS = (
    *("latency_s", "energy_j", "power_w", "period_s", "area_m2", "traffic_bytes"),
    *("data_lifetime_s", "endurance_trainings", "temperature_c", "violation"),
)
