"""Trains every placement of a small problem, one run after the other, into a table."""

import dataclasses
import json
import math
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np

from codesign import data, models
from codesign.objective import Design
from codesign.records.journal import FileJournal
from codesign.report import Progress, format_mask
from codesign.search import points
from codesign.studies.deeptrain.placement_table import PlacementTable
from codesign.training import TrainConfig, Trainer

MAX_SITES = 10  # 1024 placements


@dataclasses.dataclass(frozen=True)
class ExhaustiveConfig:
    """Settings of a table; the defaults are those of the published one.

    Attributes:
        network, dataset, width, image_size: As in `PlacementConfig`.
        train: Hyperparameters of every run; no run is stopped early.
        num_seeds: Runs of each placement, from the seeds 0, 1, ...
    """

    network: str = "vgg11"
    dataset: str = "digits"
    width: float = 0.25
    image_size: int = 16
    train: TrainConfig = dataclasses.field(
        default_factory=lambda: TrainConfig(stop_at_chance=None)
    )
    num_seeds: int = 5

    def checked(self) -> "ExhaustiveConfig":
        """Validates; returns self.

        Raises:
            ValueError: Names the field, its value, the rule and the way out.
        """
        if self.num_seeds < 1:
            raise ValueError(f"`num_seeds` must be >= 1, got {self.num_seeds}.")
        if self.dataset not in data.DATASETS:
            raise ValueError(
                f"`dataset` (={self.dataset!r}) must be one of {list(data.DATASETS)}."
            )
        shape = (self.image_size, self.image_size, 1)
        network = models.create(self.network, image_shape=shape, width=self.width)
        if network.num_sites > MAX_SITES:
            raise ValueError(
                f"`network` (={self.network!r}) has 2^{network.num_sites} placements; a "
                f"table takes at most {MAX_SITES} sites, such as those of 'vgg11'."
            )
        self.train.checked()
        return self


def run(
    config: ExhaustiveConfig,
    *,
    workdir: str | pathlib.Path,
    data_dir: str | pathlib.Path | None = None,
) -> PlacementTable:
    """Trains all placements from all seeds; writes `table.csv` into `workdir`.

    Every finished run is in `runs.jsonl` before the next one starts, and running it
    again goes on from there; more seeds extend a table.

    Raises:
        ValueError: For a setting out of range, or a workdir made with other settings.
    """
    config.checked()
    workdir = pathlib.Path(workdir)
    dataset = data.load(config.dataset, data_dir=data_dir, image_size=config.image_size)
    network = models.create(
        config.network,
        num_classes=dataset.num_classes,
        image_shape=dataset.train.images.shape[1:],
        width=config.width,
    )
    settings = json.loads(json.dumps(dataclasses.asdict(config)))
    del settings["num_seeds"]
    journal = FileJournal(workdir / "runs.jsonl", settings, recover=True)
    trainer = Trainer(network, dataset, config.train)

    with journal.locked():
        done = {(e["x"], e["seed"]): e for e in journal.read()[1]}
    masks = points.all_points(network.num_sites)
    jobs = [(mask, seed) for seed in range(config.num_seeds) for mask in masks]
    todo = [job for job in jobs if (points.encode(job[0]), job[1]) not in done]
    with Progress(
        len(jobs), f"{config.network} on {config.dataset}", initial_step=len(done)
    ) as progress:
        for number, (mask, seed) in enumerate(todo, start=len(jobs) - len(todo) + 1):
            design = Design(bn_mask=jnp.asarray(mask, jnp.float32), chip=None)
            ratios = trainer.gradient_health(mask, seed)
            result = trainer.train(design, seed=seed)
            event = {
                "event": "tell",
                "x": points.encode(mask),
                "seed": seed,
                "status": result.status,
                "validation": [e["validation_accuracy"] for e in result.history],
                "loss": [_number(e["loss"]) for e in result.history],
                "test": _number(result.test_accuracy),
                "health": [_number(r) for r in ratios],
                "seconds": result.seconds,
            }
            with journal.locked():
                journal.append([event])
                journal.read()
            done[event["x"], seed] = event
            progress.update(
                number,
                candidate=format_mask(mask),
                epoch=f"seed {seed}",
                accuracy=result.validation_accuracy,
            )
    table = _table(settings, masks, range(config.num_seeds), done)
    table.write(workdir / "table.csv")
    return table


def _table(
    settings: dict[str, Any],
    masks: np.ndarray,
    seeds: range,
    events: dict[tuple[str, int], dict[str, Any]],
) -> PlacementTable:
    keys = [[(points.encode(mask), seed) for seed in seeds] for mask in masks]

    def collect(name: str, length: int) -> np.ndarray:
        out = np.full((len(masks), len(seeds), length), np.nan)  # None becomes NaN
        for i, row in enumerate(keys):
            for s, key in enumerate(row):
                values = np.array(events[key][name], float).reshape(-1)
                out[i, s, : len(values)] = values
        return out

    num_epochs = settings["train"]["epochs"]
    validation = collect("validation", num_epochs)
    diverged = [[events[key]["status"] == "diverged" for key in row] for row in keys]
    validation[np.array(diverged), -1] = np.nan
    return PlacementTable(
        settings=settings,
        masks=masks,
        seeds=np.array(seeds),
        validation=validation,
        loss=collect("loss", num_epochs),
        test=collect("test", 1)[:, :, 0],
        health=collect("health", len(next(iter(events.values()))["health"])),
        seconds=collect("seconds", 1)[:, :, 0],
    )


def _number(value: float) -> float | None:
    """For JSON, which has no NaN."""
    return float(value) if math.isfinite(value) else None
