"""Chips by name: `by_name("deeptrain:3R1G")`, `"memory:A100"`, `"roofline:Titan Xp"`.

Each family's presets stand, with their sources, in its own file; here they are only
named.
"""

import re

from codesign.hardware import memory, reram_gpu, roofline
from codesign.hardware.chip import Chip
from codesign.records.named import nearest


def by_name(name: str) -> Chip:
    """Finds a chip.

    Args:
        name: `FAMILY:PRESET`: `deeptrain:3R1G` with any numbers of ReRAM and GPU tiers,
            `memory:A100` or another of `memory.SYSTEMS`, `roofline:Titan Xp`.

    Raises:
        ValueError: If there is no such family or preset; lists those that there are.
    """
    if not isinstance(name, str):
        raise ValueError(f"`chip` must be a name, got {name!r}.")
    family, _, preset = name.partition(":")
    if family == "deeptrain":
        spec = reram_gpu.deeptrain(*parse_stack(preset))
        return Chip(spec, reram_gpu.estimate, preset.upper())
    if family == "memory" and preset in memory.SYSTEMS:
        return Chip(memory.SYSTEMS[preset], memory.estimate, preset)
    if family == "roofline" and preset in roofline.GPUS:
        return Chip(roofline.GPUS[preset](), roofline.estimate, preset)
    known = ["deeptrain:3R1G", *(f"memory:{n}" for n in memory.SYSTEMS)]
    known += [f"roofline:{n}" for n in roofline.GPUS]
    raise ValueError(
        f"`chip` (={name!r}) is none that is known: {nearest(name, known)}"
    )


def parse_stack(text: str) -> tuple[int, int]:
    """R and G of a stack written as `3R1G`.

    Raises:
        ValueError: If it is not written so.
    """
    match = isinstance(text, str) and re.fullmatch(r"([0-9]+)[Rr]([0-9]+)[Gg]", text)
    if not match:
        raise ValueError(
            f"`stack` (={text!r}) must be written such as `3R1G`: R ReRAM and G GPU tiers."
        )
    return int(match[1]), int(match[2])
