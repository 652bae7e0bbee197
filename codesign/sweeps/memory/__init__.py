"""One training iteration behind many caches: the figures of the memory paper."""

from codesign.sweeps.memory.config import PRESETS, MemoryConfig, preset
from codesign.sweeps.memory.outcome import Outcome
from codesign.sweeps.memory.run import Experiment, prepare, run

__all__ = [
    "PRESETS",
    "Experiment",
    "MemoryConfig",
    "Outcome",
    "prepare",
    "preset",
    "run",
]
