"""The memory subsystem behind one training iteration.

`simulate` runs it exactly and `sweep` does so for many machines and caches; `estimate`
is the door that every chip has, smooth through a `surrogate` held against the simulator
by `validation`. `cache` plans what is held, `channel` when it moves, `reuse` says why;
`systems` has the memories of chips that are sold.
"""

from codesign.hardware.memory.estimate import estimate
from codesign.hardware.memory.grid import Sweep, sweep
from codesign.hardware.memory.simulator import (
    Iteration,
    capacities,
    check_capacity,
    simulate,
    smallest_capacity,
)
from codesign.hardware.memory.spec import MemorySpec, Policy
from codesign.hardware.memory.systems import SYSTEMS

__all__ = [
    "SYSTEMS",
    "Iteration",
    "MemorySpec",
    "Policy",
    "Sweep",
    "capacities",
    "check_capacity",
    "estimate",
    "simulate",
    "smallest_capacity",
    "sweep",
]
