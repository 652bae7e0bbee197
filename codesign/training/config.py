"""Hyperparameters of one training run, and the optimiser they make."""

import dataclasses

import optax

from codesign.records import settings
from codesign.records.settings import setting

_SCHEDULES = {  # of a learning rate at the start, and the number of all steps
    "constant": lambda rate, _: optax.constant_schedule(rate),
    "cosine": optax.cosine_decay_schedule,
    "step": lambda rate, steps: optax.piecewise_constant_schedule(
        rate, {steps // 2: 0.1, steps * 3 // 4: 0.1}
    ),
}


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Settings of one training run; units and meaning as in PyTorch."""

    epochs: int = setting(8, "Passes over the training split.", least=1)
    batch_size: int = setting(
        64, "Images a step; what remains of an epoch is left out.", least=1
    )
    optimizer: str = setting(
        "sgd", "`sgd` (with `momentum`) or `adam`.", one_of=("adam", "sgd")
    )
    learning_rate: float = setting(0.05, "Learning rate at the start.", above=0)
    momentum: float = setting(0.9, "Momentum of `sgd`.", least=0, below=1)
    weight_decay: float = setting(
        0.0, "Added to the gradient as `weight_decay * param`.", least=0
    )
    schedule: str = setting(
        "cosine",
        "Learning rate: `constant`; `cosine` to 0; `step`, a tenth at 1/2 and at 3/4.",
        one_of=tuple(_SCHEDULES),
    )
    stop_at_chance: float | None = setting(
        0.5,
        "Fraction of the epochs after which a run that has learnt nothing is stopped: its "
        "accuracy is within 5 points of the most frequent class. None for never.",
        above=0,
        most=1,
    )

    def checked(self) -> "TrainConfig":
        """See `settings.checked`."""
        return settings.checked(self)


def make_optimizer(
    config: TrainConfig, steps_per_epoch: int
) -> optax.GradientTransformation:
    """The optax transformation of `config` over `epochs * steps_per_epoch` steps.

    Raises:
        ValueError: As `config.checked`, such as for a learning rate that is NaN.
    """
    config = config.checked()
    num_steps = config.epochs * steps_per_epoch
    schedule = _SCHEDULES[config.schedule](config.learning_rate, num_steps)
    if config.optimizer == "sgd":
        base = optax.sgd(schedule, config.momentum or None)
    else:
        base = optax.adam(schedule)
    return optax.chain(optax.add_decayed_weights(config.weight_decay), base)
