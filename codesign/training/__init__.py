"""Training runs: one compiled step, checkpoints that notice damage, exact resume."""

from codesign.training.checkpoint import CheckpointStore
from codesign.training.config import TrainConfig, make_optimizer
from codesign.training.loop import CHANCE_MARGIN, Trainer, TrainResult
from codesign.training.metrics import StepMetrics
from codesign.training.state import TrainState, init_state
from codesign.training.step import make_evaluate, make_step

__all__ = [
    "CHANCE_MARGIN",
    "CheckpointStore",
    "StepMetrics",
    "TrainConfig",
    "TrainResult",
    "TrainState",
    "Trainer",
    "init_state",
    "make_evaluate",
    "make_optimizer",
    "make_step",
]
