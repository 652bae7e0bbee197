"""Trains all 256 placements of a small VGG-11: python -m experiments.placement_table

Writes `table.csv`, on which any optimiser can be run with exact regret and no training;
`codesign.search.placement.table.load()` reads the published one. About 8 minutes a seed
on one core; running it again goes on where it stopped, and more seeds extend a table.
"""

import dataclasses

import jax
from absl import app, flags, logging

from codesign.studies.deeptrain import exhaustive

_WORKDIR = flags.DEFINE_string("workdir", "runs/placement_table", "Output directory.")
_SEEDS = flags.DEFINE_integer("seeds", None, "Runs of each placement.")
_DATA = flags.DEFINE_string("data", None, "Data set.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where data sets lie.")
_WIDTH = flags.DEFINE_float("width", None, "Channel multiplier.")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", None, "Height and width of images.")
_EPOCHS = flags.DEFINE_integer("epochs", None, "Epochs of every run.")


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    given = {
        "num_seeds": _SEEDS.value,
        "dataset": _DATA.value,
        "width": _WIDTH.value,
        "image_size": _IMAGE_SIZE.value,
    }
    config = dataclasses.replace(
        exhaustive.ExhaustiveConfig(),
        **{name: value for name, value in given.items() if value is not None},
    )
    if _EPOCHS.value is not None:
        train = dataclasses.replace(config.train, epochs=_EPOCHS.value)
        config = dataclasses.replace(config, train=train)
    logging.info("%s on %s", config, jax.devices())
    try:
        exhaustive.run(config, workdir=_WORKDIR.value, data_dir=_DATA_DIR.value)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    jax.config.config_with_absl()
    app.run(main)
