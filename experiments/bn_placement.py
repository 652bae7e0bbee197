"""Finds the few batch norms a CNN needs: python -m experiments.bn_placement

Trains placements on real images, proposes the next by a sparse Bayesian surrogate, and
costs each on a stack of ReRAM and GPU tiers.
"""

import dataclasses

import jax
from absl import app, flags, logging

from codesign import data, models
from codesign.hardware import chips
from codesign.studies.deeptrain import placement

_WORKDIR = flags.DEFINE_string("workdir", "runs/bn_placement", "Output directory.")
_PRESET = flags.DEFINE_string(
    "preset", "default", f"Settings: {', '.join(placement.PRESETS)}."
)
_SEED = flags.DEFINE_integer("seed", 0, "Root of every random key.", lower_bound=0)
_NETWORK = flags.DEFINE_list(
    "network", None, f"Networks, comma-separated: {', '.join(models.NETWORKS)}."
)
_DATA = flags.DEFINE_string("data", None, f"Data set: {', '.join(data.DATASETS)}.")
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Where data sets lie; else $CODESIGN_DATA, else downloaded."
)
_WIDTH = flags.DEFINE_float("width", None, "Channel multiplier.")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", None, "Height and width of images.")
_INITIALISATION = flags.DEFINE_string(
    "initialisation", None, "pytorch, xavier or kaiming."
)
_EPOCHS = flags.DEFINE_integer("epochs", None, "Epochs of every run.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "Images a step.")
_OPTIMIZER = flags.DEFINE_string("optimizer", None, "sgd or adam.")
_LEARNING_RATE = flags.DEFINE_float("learning_rate", None, "Learning rate.")
_SCHEDULE = flags.DEFINE_string("schedule", None, "constant, cosine or step.")
_EVALUATIONS = flags.DEFINE_integer(
    "evaluations", None, "Placements trained in the search."
)
_SEEDS = flags.DEFINE_integer("seeds", None, "Runs behind each final accuracy.")
_STACK = flags.DEFINE_string("stack", None, "R ReRAM and G GPU tiers, such as 3R1G.")
_LAMBDA = flags.DEFINE_float(
    "lambda", None, "Accuracy that one more batch norm must be worth."
)
_LEAST_HEALTH = flags.DEFINE_float(
    "least_health", None, "Gradient over weight below which nothing is trained."
)
_WARM_START = flags.DEFINE_string(
    "warm_start", None, "journal.jsonl of another search, whose best come first."
)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    try:
        experiment = placement.prepare(
            _config(), workdir=_WORKDIR.value, data_dir=_DATA_DIR.value
        )
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    logging.info("%s on %s", experiment.config, jax.devices())
    experiment.run()


def _config() -> placement.PlacementConfig:
    """The preset, with the flags that were given in place of its fields."""
    if _PRESET.value not in placement.PRESETS:
        raise ValueError(
            f"`preset` (={_PRESET.value!r}) must be one of {list(placement.PRESETS)}."
        )
    config = placement.PRESETS[_PRESET.value]
    stack = {}
    if _STACK.value is not None:
        stack["num_reram_tiers"], stack["num_gpu_tiers"] = chips.parse_stack(
            _STACK.value
        )
    given = {
        "networks": tuple(_NETWORK.value) if _NETWORK.value else None,
        "dataset": _DATA.value,
        "width": _WIDTH.value,
        "image_size": _IMAGE_SIZE.value,
        "initialisation": _INITIALISATION.value,
        "num_evaluations": _EVALUATIONS.value,
        "num_seeds": _SEEDS.value,
        "sparsity_penalty": _LAMBDA.value,
        "least_health": _LEAST_HEALTH.value,
        "warm_start": _WARM_START.value,
    }
    train = {
        "epochs": _EPOCHS.value,
        "batch_size": _BATCH_SIZE.value,
        "optimizer": _OPTIMIZER.value,
        "learning_rate": _LEARNING_RATE.value,
        "schedule": _SCHEDULE.value,
    }
    return dataclasses.replace(
        config,
        seed=_SEED.value,
        train=dataclasses.replace(config.train, **_only_given(train)),
        **stack,
        **_only_given(given),
    )


def _only_given(values: dict) -> dict:
    return {name: value for name, value in values.items() if value is not None}


if __name__ == "__main__":
    jax.config.config_with_absl()
    app.run(main)
