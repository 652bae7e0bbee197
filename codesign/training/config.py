"""Hyperparameters of one training run, and the optimiser they make."""

import dataclasses

import optax

OPTIMIZERS = ("adam", "sgd")
SCHEDULES = ("constant", "cosine", "step")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Settings of one training run; units and meaning as in PyTorch.

    Attributes:
        epochs: Passes over the training split.
        batch_size: Images a step; the remainder of an epoch is left out of it.
        optimizer: `sgd` (with `momentum`) or `adam`.
        learning_rate: At the start, or constant.
        momentum: Of SGD.
        weight_decay: Added to the gradient as `weight_decay * param`.
        schedule: `constant`; `cosine` to 0; `step`: divided by 10 at 1/2 and 3/4.
        stop_at_chance: Part of the epochs after which a run whose validation accuracy is
            still within 5 points of the most frequent class is stopped; None for never.
    """

    epochs: int = 8
    batch_size: int = 64
    optimizer: str = "sgd"
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str = "cosine"
    stop_at_chance: float | None = 0.5

    def checked(self) -> "TrainConfig":
        """Validates; returns self.

        Raises:
            ValueError: Names the field, its value and the rule.
        """
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"`{name}` must be a whole number >= 1, got {value!r}."
                )
        if not self.learning_rate > 0:
            raise ValueError(f"`learning_rate` must be > 0, got {self.learning_rate}.")
        for name, low, high in (("momentum", 0, 1), ("weight_decay", 0, None)):
            value = getattr(self, name)
            if value < low or (high is not None and value >= high):
                rule = f">= {low}" + (f" and < {high}" if high is not None else "")
                raise ValueError(f"`{name}` must be {rule}, got {value}.")
        for name, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"`{name}` (={getattr(self, name)!r}) must be one of {list(known)}."
                )
        if self.stop_at_chance is not None and not 0 < self.stop_at_chance <= 1:
            raise ValueError(
                f"`stop_at_chance` must lie in (0, 1] or be None, "
                f"got {self.stop_at_chance}."
            )
        return self


def make_optimizer(
    config: TrainConfig, steps_per_epoch: int
) -> optax.GradientTransformation:
    """The optax transformation of `config` over `epochs * steps_per_epoch` steps."""
    num_steps = config.epochs * steps_per_epoch
    schedules = {
        "constant": lambda: optax.constant_schedule(config.learning_rate),
        "cosine": lambda: optax.cosine_decay_schedule(config.learning_rate, num_steps),
        "step": lambda: optax.piecewise_constant_schedule(
            config.learning_rate, {num_steps // 2: 0.1, num_steps * 3 // 4: 0.1}
        ),
    }
    schedule = schedules[config.schedule]()
    if config.optimizer == "sgd":
        base = optax.sgd(schedule, config.momentum or None)
    else:
        base = optax.adam(schedule)
    return optax.chain(optax.add_decayed_weights(config.weight_decay), base)
