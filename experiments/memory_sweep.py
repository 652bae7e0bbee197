"""Sweeps the cache behind a training iteration: python -m experiments.memory_sweep

Networks on chips of the catalogue over capacities: `sweep.csv`, every figure and number
of the memory paper beside ours, timelines, reuse by scope and policies. On one core,
quick (the paper's four networks, every figure) takes 16 s and full (eight networks, nine
chips, the surrogate held against the simulator) 40 s. Both knees are met exactly.
"""

import dataclasses

import jax
from absl import app, flags, logging

from codesign.studies.memory import capacity as memory

_WORKDIR = flags.DEFINE_string("workdir", "runs/memory_sweep", "Output directory.")
_PRESET = flags.DEFINE_string(
    "preset", "quick", f"Settings: {', '.join(memory.PRESETS)}."
)
_SEED = flags.DEFINE_integer("seed", 0, "Root of every random key.", lower_bound=0)
_NETWORKS = flags.DEFINE_list(
    "networks",
    None,
    "Comma-separated: resnet50, mobilenetv2, transformer, gnmt and others of "
    "codesign.models, keras:NAME, darknet:FILE, onnx:FILE (onnx:FILE@N if its batch is "
    "fixed to N).",
)
_CAPACITY = flags.DEFINE_string(
    "capacity_mb", None, "MB of 2^20 bytes: start:stop:step, or a list 24,128,400."
)
_HARDWARE = flags.DEFINE_list("hardware", None, "Chips, such as RTX 2080 Ti, A100.")
_BATCH = flags.DEFINE_integer(
    "batch", None, "Examples in a batch; by default each network's of the paper."
)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", None, "Height and width of the images of our own classifiers."
)
_TIMELINE = flags.DEFINE_float("timeline_mb", None, "Capacity of the timelines.")
_VALIDATE = flags.DEFINE_boolean(
    "validate", None, "Hold the surrogate against the simulator."
)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    try:
        experiment = memory.prepare(_config(), workdir=_WORKDIR.value)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    logging.info("%s on %s", experiment.config, jax.devices())
    experiment.run()


def _config() -> memory.MemoryConfig:
    """The preset, with the flags that were given in place of its fields."""
    given = {
        "networks": None if _NETWORKS.value is None else tuple(_NETWORKS.value),
        "hardware": None if _HARDWARE.value is None else tuple(_HARDWARE.value),
        "capacity_mb": _CAPACITY.value,
        "batch_size": _BATCH.value,
        "image_size": _IMAGE_SIZE.value,
        "timeline_mb": _TIMELINE.value,
        "validate": _VALIDATE.value,
    }
    given = {name: value for name, value in given.items() if value is not None}
    return dataclasses.replace(memory.preset(_PRESET.value), seed=_SEED.value, **given)


if __name__ == "__main__":
    jax.config.config_with_absl()
    app.run(main)
