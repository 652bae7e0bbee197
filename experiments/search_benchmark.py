"""Measures the search against its peers: python -m experiments.search_benchmark

Problems with a known optimum, many seeds, our study and four peers; then what an ask
takes. Needs `pip install codesign[benchmark]` for Optuna. On one core, quick (5 problems)
takes 1.5 min and full (14, up to 100 variables) 28 min; 10 seeds either way.
"""

import dataclasses

import jax
from absl import app, flags, logging

from codesign.studies.search_benchmark import benchmark

_WORKDIR = flags.DEFINE_string("workdir", "runs/search_benchmark", "Output directory.")
_PRESET = flags.DEFINE_string(
    "preset", "quick", f"Settings: {', '.join(benchmark.PRESETS)}."
)
_SEED = flags.DEFINE_integer("seed", 0, "First of the seeds.", lower_bound=0)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    try:
        config = benchmark.preset(_PRESET.value)
        config = dataclasses.replace(config, seed=_SEED.value)
        job = benchmark.Benchmark(config, workdir=_WORKDIR.value)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    logging.info("%s on %s", config, jax.devices())
    job.run()


if __name__ == "__main__":
    jax.config.config_with_absl()
    app.run(main)
