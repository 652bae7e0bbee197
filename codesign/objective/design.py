"""What a co-design step may change: where batch norms stand, and the chip."""

from typing import Any

from flax import struct

from codesign.types import Array


@struct.dataclass(kw_only=True)
class Design:
    """A point of the design space; every leaf is traced, so none recompiles."""

    bn_mask: Array  # [C] 1 where a batch norm is kept, between while relaxed
    chip: Any = None  # the spec of a chip, such as `ReramGpuSpec`
    # [] or [2] of weights and activations, of a network in `models.formats.InFormats`
    mantissa_bits: Array | None = None
