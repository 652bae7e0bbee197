"""Training runs: one compiled step, checkpoints that notice damage, exact resume."""

from codesign.training.checkpoint import CheckpointStore
from codesign.training.config import TrainConfig
from codesign.training.loop import Trainer, TrainResult

__all__ = ["CheckpointStore", "TrainConfig", "TrainResult", "Trainer"]
