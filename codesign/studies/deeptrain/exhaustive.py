"""Trains every placement of a small problem: exact regret for any optimiser."""

import dataclasses
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np

from codesign import data, models
from codesign.objective import Design
from codesign.records import StrPath, jsonable
from codesign.records.settings import setting
from codesign.report import Column, Quantity, Table, format_mask, format_percent, plots
from codesign.search import points
from codesign.studies import frame
from codesign.studies.deeptrain.placement_table import PlacementTable
from codesign.training import TrainConfig, Trainer

MAX_SITES = 10  # 1024 placements
_SHOWN = 10  # best placements in the table that people read


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExhaustiveConfig(frame.Config):
    """Settings of a table; runs take the seeds `seed`, `seed` + 1, ..., to their end."""

    network: str = setting("vgg11", "Network of at most 10 sites.")
    dataset: str = setting("digits", "Data set.", one_of=data.DATASETS, flag="data")
    width: float = setting(0.25, "Channel multiplier.", above=0, most=100)
    image_size: int = setting(16, "Height and width of images.", least=8, most=4096)
    train: TrainConfig = setting(
        TrainConfig(stop_at_chance=None), "Hyperparameters of every run."
    )
    num_seeds: int = setting(
        5, "Runs of each placement.", least=1, most=1000, grows=True, flag="seeds"
    )

    def check(self) -> None:
        shape = (self.image_size, self.image_size, 1)
        network = models.create(self.network, image_shape=shape, width=self.width)
        if network.num_sites > MAX_SITES:
            raise ValueError(
                f"`network` (={self.network!r}) has 2^{network.num_sites} placements; a "
                f"table takes at most {MAX_SITES} sites, such as those of 'vgg11'."
            )


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedPlacement:
    """One run: what it reached after each epoch, and its gradients before the first."""

    status: str
    validation: np.ndarray  # [<= E]
    loss: np.ndarray  # [<= E]
    test: float
    health: np.ndarray  # [K]
    seconds: float


def prepare(
    config: ExhaustiveConfig,
    pending: list[Any],
    workdir: pathlib.Path,
    data_dir: StrPath | None = None,
) -> Trainer:
    """Reads the data and builds the trainer of all runs."""
    del pending, workdir
    dataset = data.load(config.dataset, data_dir=data_dir, image_size=config.image_size)
    network = models.create(
        config.network,
        num_classes=dataset.num_classes,
        image_shape=dataset.train.images.shape[1:],
        width=config.width,
    )
    return Trainer(network, dataset, config.train)


def units(config: ExhaustiveConfig) -> list[tuple[str, int]]:
    """Every placement from every seed, as text and number."""
    shape = (config.image_size, config.image_size, 1)
    network = models.create(config.network, image_shape=shape, width=config.width)
    seeds = range(config.seed, config.seed + config.num_seeds)
    masks = points.all_points(network.num_sites)
    return [(points.encode(mask), seed) for seed in seeds for mask in masks]


def measure(
    config: ExhaustiveConfig, unit: tuple[str, int], job: frame.Job, trainer: Trainer
) -> TrainedPlacement:
    """Trains one placement from one seed."""
    mask, seed = points.decode(unit[0]), unit[1]
    job.update(0, format_mask(mask), seed=seed)
    health = trainer.gradient_health(mask, seed)
    design = Design(bn_mask=jnp.asarray(mask, jnp.float32), chip=None)
    result = trainer.train(
        design,
        seed=seed,
        on_phase=lambda phase: job.update(0, format_mask(mask), seed=seed, state=phase),
    )
    accuracy = format_percent(result.validation_accuracy)
    job.update(1, format_mask(mask), seed=seed, accuracy=accuracy)
    return TrainedPlacement(
        status=result.status,
        validation=np.array([e["validation_accuracy"] for e in result.history]),
        loss=np.array([e["loss"] for e in result.history]),
        test=result.test_accuracy,
        health=health,
        seconds=result.seconds,
    )


def placement_table(
    config: ExhaustiveConfig, found: dict[tuple[str, int], TrainedPlacement]
) -> PlacementTable:
    """The runs in the order of a table; NaN where a run did not arrive."""
    texts, seeds = (list(dict.fromkeys(each)) for each in zip(*found, strict=True))

    def collect(name: str, length: int) -> np.ndarray:
        out = np.full((len(texts), len(seeds), length), np.nan)
        for (text, seed), run in found.items():
            values = np.reshape(getattr(run, name), -1)
            out[texts.index(text), seeds.index(seed), : len(values)] = values
        return out

    validation = collect("validation", config.train.epochs)
    for (text, seed), run in found.items():
        if run.status == "diverged":
            validation[texts.index(text), seeds.index(seed), -1] = np.nan
    settings = jsonable(config)
    for name in ("preset", "seed", "num_seeds"):
        del settings[name]
    return PlacementTable(
        settings=settings,
        masks=np.array([points.decode(text) for text in texts]),
        seeds=np.array(seeds),
        validation=validation,
        loss=collect("loss", config.train.epochs),
        test=collect("test", 1)[:, :, 0],
        health=collect("health", len(next(iter(found.values())).health)),
        seconds=collect("seconds", 1)[:, :, 0],
    )


def report(
    config: ExhaustiveConfig, found: dict[tuple[str, int], TrainedPlacement]
) -> frame.Report:
    """`table.csv`, the best placements, and accuracy against the number of norms."""
    table = placement_table(config, found)
    accuracy = np.where(np.isnan(table.accuracy), 0, table.accuracy).mean(axis=1)
    order = np.lexsort((table.masks.sum(axis=1), -accuracy))
    best = Table(
        "Best placements",
        ["Placement", Column("BN"), Column("Validation accuracy", format="percent")],
        footnotes=[
            f"Means over {len(table.seeds)} seeds; a run that diverged counts 0."
        ],
    )
    for i in order[:_SHOWN]:
        best.add(format_mask(table.masks[i]), int(table.masks[i].sum()), accuracy[i])
    counts = table.masks.sum(axis=1)
    front = [
        accuracy[i] > accuracy[counts < counts[i]].max(initial=-1)
        and accuracy[i] == accuracy[counts == counts[i]].max()
        for i in range(len(counts))
    ]
    figure = plots.pareto(
        counts, accuracy, front=front, x_label="Batch norms kept", x_unit="",
        y_label="Validation accuracy",
    )  # fmt: skip
    num_diverged = sum(run.status == "diverged" for run in found.values())
    return frame.Report(
        title=f"All placements of {config.network} on {config.dataset}",
        summary=f"{len(table.masks)} placements from {len(table.seeds)} seeds: All-BN "
        f"reaches {accuracy[-1]:.1%}, No-BN {accuracy[0]:.1%}, the best "
        f"{accuracy.max():.1%} with {counts[order[0]]} norms.",
        sections=[
            frame.Section(
                "Placements",
                [best, frame.Figure("accuracy", figure, "Each placement; the front.")],
            )
        ],
        shown=[best],
        quantities=[
            Quantity("accuracy", accuracy[i], kind="measured", of={"placement": name})
            for name, i in (("all_bn", -1), ("no_bn", 0), ("best", order[0]))
        ]
        + [Quantity("num_diverged", num_diverged, kind="measured")],
        files={"table.csv": table.to_csv()},
    )


STUDY = frame.Study(
    name="placement_table",
    presets={"published": ExhaustiveConfig(preset="published")},
    units=units,
    prepare=prepare,
    measure=measure,
    report=report,
    found=TrainedPlacement,
    given={"data_dir": "Where data sets lie; else $CODESIGN_DATA, else downloaded."},
    formerly=("runs.jsonl",),
)


def run(
    config: ExhaustiveConfig, *, workdir: StrPath, data_dir: StrPath | None = None
) -> PlacementTable:
    """Trains all placements from all seeds; writes `table.csv` and a page.

    More seeds extend a table. Raises as `frame.Study.run`.
    """
    found = STUDY.run(config, workdir=workdir, data_dir=data_dir)
    return placement_table(config, found)
