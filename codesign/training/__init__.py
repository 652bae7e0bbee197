"""Training runs: one compiled step, checkpoints that notice damage, exact resume."""

from codesign.training.checkpoint import CheckpointStore
from codesign.training.config import TrainConfig
from codesign.training.loop import CHANCE_MARGIN, Trainer, TrainResult

__all__ = ["CHANCE_MARGIN", "CheckpointStore", "TrainConfig", "TrainResult", "Trainer"]
