"""What a memory subsystem offers, and how its cache is managed."""

import dataclasses

from flax import struct

from codesign import units
from codesign.hardware.memory import channel
from codesign.hardware.spec import checked_leaves, count
from codesign.types import Scalar, is_whole

PREFETCH = {
    "none": channel.ON_DEMAND,
    "next_layer": channel.NEXT_STEP,
    "latency_aware": channel.LATENCY_AWARE,
}


@struct.dataclass(kw_only=True)
class MemorySpec:
    """What the memory subsystem of a chip offers. `Scalar` fields are design variables.

    Tsai, "A Performance Analytical Model for DNN Training with Focus on Memory
    Subsystem", National Taiwan University 2021; Table 5.2.
    """

    capacity_bytes: Scalar = count()  # [] of the last cache, managed by software
    bandwidth_bytes_per_s: Scalar  # [] to memory, both directions together
    throughput_ops_per_s: Scalar  # [] one operation is a MAC, or a point-wise result
    # fp32 multiply and add at 45 nm: Horowitz, "Computing's Energy Problem", ISSCC 2014.
    # assumed for every operation, wires and registers left out; range 1..50 pJ.
    operation_energy_j: Scalar = 4.6 * units.PJ  # [] of one operation
    # 6.0 pJ a bit: HBM2E devices, Micron, "Ultra-Bandwidth Solutions", with 7.5 for GDDR6.
    # assumed for every memory, the chip's own interface left out; range 4..20 pJ a bit.
    memory_energy_j_per_byte: Scalar = 48 * units.PJ  # []
    # 0.027 um2 a bit: 6T SRAM at 7 nm (Chang et al., "A 7nm 256Mb SRAM", ISSCC 2017).
    # assumed: cells are half of a cache's area, tags and wires the rest; range 0.3..0.7.
    cache_area_m2_per_byte: Scalar = 8 * 0.027 * units.UM2 / 0.5  # []
    # assumed: a large GPU; range 100..2,000 mm2. `SYSTEMS` have their own.
    logic_area_m2: Scalar = 500 * units.MM2  # [] of all that is not the cache
    value_bits: int = struct.field(pytree_node=False, default=32)

    def checked(self) -> "MemorySpec":
        """Validates concrete values; returns float32 leaves, as `checked_leaves`."""
        bits = self.value_bits
        if not is_whole(bits) or not 8 <= bits <= 512 or bits % 8:
            raise ValueError(
                f"`value_bits` must be a multiple of 8 in 8..512, got {bits!r}; tensors "
                "are counted in whole bytes."
            )
        return checked_leaves(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Policy:
    """How the cache is managed.

    Attributes:
        replacement: `belady` evicts the farthest next use, `lru` the oldest last use.
        prefetch: `latency_aware` early enough to cover the transfer, `next_layer` one
            step before, `none` on demand.
        offload: `look_ahead` writes a tensor that will be evicted right after its last
            use before that, `when_full` when its room is needed.
    """

    replacement: str = "belady"
    prefetch: str = "latency_aware"
    offload: str = "look_ahead"

    def __post_init__(self):
        """Raises ValueError for a policy that does not exist."""
        choices = {
            "replacement": ("belady", "lru"),
            "prefetch": tuple(PREFETCH),
            "offload": ("look_ahead", "when_full"),
        }
        for name, allowed in choices.items():
            given = getattr(self, name)
            if not isinstance(given, str) or given not in allowed:
                raise ValueError(
                    f"`{name}` (={given!r}) must be one of {list(allowed)}."
                )
