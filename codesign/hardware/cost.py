"""What a chip charges for one training iteration."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.core import Tracer

from codesign import units
from codesign.records import html
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

    def _repr_html_(self) -> str:
        """Fields and parts in a notebook; also of a cost that is traced or vmapped."""
        names = [field.name for field in dataclasses.fields(self)][:-1]
        values = {name: getattr(self, name) for name in names}
        time_s, energy_j = _array(self.latency_s), _array(self.energy_j)
        if (
            time_s is not None
            and energy_j is not None
            and time_s.shape == energy_j.shape
            and np.all(time_s > 0)
        ):
            values["power_w"] = energy_j / time_s
        fields = [(n, _text(n, x)) for n, x in values.items() if x is not None]
        made = html.table(["Cost", "Value"], fields, sides=["left", "right"])
        if not isinstance(self.breakdown, dict) or not self.breakdown:
            return html.notebook(made)
        batch = getattr(self.latency_s, "ndim", 0)  # axes that a vmap has put in front
        parts = [_part(name, x, batch) for name, x in self.breakdown.items()]
        sides = ["left", "right", "right"]
        return html.notebook(
            made, html.table(["Breakdown", "Sum", "Length"], parts, sides=sides)
        )


_SCALARS = (
    *("latency_s", "energy_j", "power_w", "period_s", "area_m2", "traffic_bytes"),
    *("data_lifetime_s", "endurance_trainings", "temperature_c", "violation"),
)


def _array(value: Any) -> np.ndarray | None:
    """The numbers of a leaf, or None where it has none to show, as a tracer."""
    if isinstance(value, Tracer):
        return None
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError):  # for one, a donated array
        return None
    if array.dtype == bool:
        return array
    real = any(
        jnp.issubdtype(array.dtype, kind) for kind in (jnp.integer, jnp.floating)
    )
    return array.astype(float) if real else None


def _text(name: str, value: Any) -> str:
    """One number with its unit; of several the least and the most, and how many."""
    array = _array(value)
    if array is None:
        shape = getattr(value, "shape", None)
        kind = "traced" if isinstance(value, Tracer) else type(value).__name__
        return kind if shape is None else f"{kind} {[*shape]}"
    if array.size == 0:
        return f"none {[*array.shape]}"
    if array.dtype == bool:
        if array.ndim:
            return f"{int(array.sum()):,} of {array.size:,}"
        return "yes" if array else "no"
    unit = units.of_name(name)
    least, most = (units.quantity(float(x), unit) for x in (array.min(), array.max()))
    if array.ndim == 0:
        return most
    both = least if least == most else f"{least} … {most}"
    return f"{both} {[*array.shape]}"


def _part(name: str, value: Any, batch: int) -> tuple[str, str, str]:
    """Name, sum over stages or ops, and how many these are."""
    array = _array(value)
    if array is None or array.ndim <= batch:
        return name, _text(name, value), ""
    axes = tuple(range(batch, array.ndim))
    length = "×".join(f"{each:,}" for each in array.shape[batch:])
    return name, _text(name, array.sum(axes)), length
