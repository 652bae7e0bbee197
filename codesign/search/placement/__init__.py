"""The main job: the few batch norms that a network needs on a ReRAM + GPU stack."""

from codesign.search.placement.config import PRESETS, PlacementConfig, parse_stack
from codesign.search.placement.outcome import Outcome, Row
from codesign.search.placement.run import prepare, run

__all__ = [
    "PRESETS",
    "Outcome",
    "PlacementConfig",
    "Row",
    "parse_stack",
    "prepare",
    "run",
]
