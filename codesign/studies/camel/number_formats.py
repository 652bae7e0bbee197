"""Which number formats train a network as float32 does? A format and a seed is a unit."""

import dataclasses
import functools
import itertools
import json
import pathlib
import statistics
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from codesign import data, models
from codesign.data.augment import normalise
from codesign.data.dataset import Dataset
from codesign.models.formats import InFormats
from codesign.models.operands import operand_statistics
from codesign.models.vgg import VGG
from codesign.numerics import bfp, formats
from codesign.objective import Design
from codesign.records import StrPath
from codesign.records.settings import setting
from codesign.report import format_percent
from codesign.studies import frame
from codesign.studies.camel import accumulators, number_formats_report, schemes
from codesign.studies.camel.number_formats_result import FormatRun, OperandRow
from codesign.training import CheckpointStore, TrainConfig, Trainer

REFERENCE = "float32"
SMALL = "small"  # three convolutions and a classifier, of VGG's first blocks
_Unit = tuple[str, int]  # a scheme's name and a seed


@dataclasses.dataclass(frozen=True, kw_only=True)
class NumberFormatsConfig(frame.Config):
    """Settings of one comparison; `PRESETS` has named ones.

    Runs take the seeds `seed`, `seed` + 1, ...; all batch norms are kept.
    """

    schemes: tuple[str, ...] = setting(
        (REFERENCE,),
        "Formats compared, such as bfp5+stochastic or mxfp8_e4m3; float32 is among them.",
        distinct=True,
        free=True,
        flag="formats",
    )
    network: str = setting(
        SMALL,
        f"Network: {SMALL} (three convolutions) or one of {', '.join(models.NETWORKS)}.",
        one_of=(SMALL, *models.NETWORKS),
    )
    width: float = setting(0.25, "Channel multiplier.", above=0, most=100)
    dataset: str = setting(
        "digits",
        f"Data set: {', '.join(data.DATASETS)}.",
        flag="data",
        one_of=data.DATASETS,
    )
    image_size: int = setting(32, "Height and width of images.", least=8, most=4096)
    num_train: int | None = setting(None, "Training images; none for all.", least=1)
    train: TrainConfig = setting(TrainConfig(), "Hyperparameters of every run.")
    num_seeds: int = setting(
        3, "Runs of each format.", least=1, grows=True, flag="seeds"
    )
    checkpoint_every_s: float = setting(
        10.0, "Least seconds between two checkpoints of a run.", least=0, free=True
    )

    def check(self) -> None:
        if REFERENCE not in self.schemes:
            raise ValueError(
                f"`formats` (={self.schemes}) must hold {REFERENCE!r}, with which all are "
                "compared."
            )
        for name in self.schemes:
            try:
                schemes.parse(name)
            except ValueError as error:
                raise ValueError(f"`formats`: {error}") from None


_QUICK = (
    *(REFERENCE, "bfloat16", "bfp5", "bfp5+tile", "bfp5+stochastic"),
    *("bfp5+master", "bfp5+master_truncate", "bfp3", "bfp2", "bfp3+stochastic"),
    *("mxint8", "mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e3m2", "mxfp6_e2m3", "mxfp4_e2m1"),
)
_CIFAR = TrainConfig(epochs=8, weight_decay=5e-4)
PRESETS = {
    "quick": NumberFormatsConfig(
        preset="quick", schemes=_QUICK, train=TrainConfig(epochs=8)
    ),
    "smoke": NumberFormatsConfig(
        preset="smoke",
        schemes=(REFERENCE, "bfp5", "mxfp4_e2m1"),
        width=0.125,
        train=TrainConfig(epochs=2),
        num_seeds=1,
        checkpoint_every_s=1.0,
    ),
    "cifar": NumberFormatsConfig(
        preset="cifar",
        schemes=(*_QUICK, *(f"bfp5:{name}" for name in schemes.CLASSES), "bfp5x16"),
        network="vgg11",
        dataset="cifar10",
        num_train=10_000,
        train=_CIFAR,
    ),
    "paper": NumberFormatsConfig(
        preset="paper",
        schemes=_QUICK,
        network="resnet18",
        width=1.0,
        dataset="cifar10",
        # Section VI: the branch is trained for 20 epochs in batches of 64.
        train=dataclasses.replace(_CIFAR, epochs=20),
        num_seeds=5,
    ),
}


class Prepared:
    """The data, and a trainer of each scheme once it is asked for."""

    def __init__(self, config: NumberFormatsConfig, dataset: Dataset):
        self.config, self.dataset = config, dataset
        shape, classes = dataset.train.images.shape[1:], dataset.num_classes
        if config.network == SMALL:
            module = VGG((1, 1, 1, 0, 0), classes, width=config.width)
            self.network = models.Network(module, 0, shape, classes, label="small CNN")
        else:
            self.network = models.create(
                config.network,
                num_classes=classes,
                image_shape=shape,
                width=config.width,
            )
        self.trainer = functools.lru_cache(maxsize=1)(self._trainer)

    def in_formats(self, scheme: str) -> models.Network:
        """The network in the formats of a scheme; in float32 it is as it is."""
        if scheme == REFERENCE:
            return self.network
        module = InFormats(self.network.module, schemes.parse(scheme))
        return dataclasses.replace(self.network, module=module)

    def _trainer(self, scheme: str) -> Trainer:
        return Trainer(self.in_formats(scheme), self.dataset, self.config.train)


def units(config: NumberFormatsConfig) -> list[_Unit]:
    """Every scheme from every seed; runs of a scheme share one compiled step."""
    seeds = range(config.seed, config.seed + config.num_seeds)
    return [(scheme, seed) for scheme in config.schemes for seed in seeds]


def prepare(
    config: NumberFormatsConfig,
    pending: Sequence[_Unit],
    workdir: pathlib.Path,
    *,
    data_dir: str | None = None,
) -> Prepared:
    """Loads the data; a batch larger than the training split is refused here."""
    del workdir
    dataset = data.load(
        config.dataset,
        data_dir=data_dir,
        image_size=config.image_size,
        num_train=config.num_train,
    )
    prepared = Prepared(config, dataset)
    if pending:
        prepared.trainer(pending[0][0])
    return prepared


def measure(
    config: NumberFormatsConfig, unit: _Unit, job: frame.Job, prepared: Prepared
) -> FormatRun:
    """Trains in one scheme from one seed; looks at the operands of the first seed."""
    scheme, seed = unit
    trainer = prepared.trainer(scheme)
    mask = jnp.ones(trainer.network.num_sites)
    store = CheckpointStore(job.workdir / "checkpoints" / f"{scheme}-seed{seed}")
    epochs, ends = config.train.epochs, [time.monotonic()]

    def on_epoch(entry: dict[str, float], is_new: bool) -> None:
        ends.append(time.monotonic())
        if is_new:
            job.metrics.append({"format": scheme, "seed": seed, **entry})
        job.update(
            int(entry["epoch"]),
            scheme,
            seed=seed,
            epoch=f"{entry['epoch']}/{epochs}",
            accuracy=format_percent(entry["validation_accuracy"]),
        )

    def on_phase(phase: str) -> None:
        state = phase if phase == "compiling" else None
        job.update(0, scheme, seed=seed, epoch=f"0/{epochs}", state=state)
        ends[:] = [time.monotonic()]  # without the compilation

    result = trainer.train(
        Design(bn_mask=mask),
        seed=seed,
        store=store,
        checkpoint_every_s=config.checkpoint_every_s,
        on_epoch=on_epoch,
        on_phase=on_phase,
    )
    store.clear()
    seconds = [end - start for start, end in itertools.pairwise(ends)]
    run = FormatRun(
        status=result.status,
        reason=result.reason,
        losses=tuple(entry["loss"] for entry in result.history),
        validation=tuple(entry["validation_accuracy"] for entry in result.history),
        test=None if result.status == "diverged" else result.test_accuracy,
        num_test=len(prepared.dataset.test.labels),
        epoch_s=statistics.median(seconds) if seconds else None,
    )
    if seed != config.seed or run.test is None or scheme == REFERENCE:
        return run
    variables = {"params": result.state.params, "batch_stats": result.state.batch_stats}
    return _with_operands(run, prepared, scheme, variables, mask, config)


def _with_operands(run, prepared, scheme, variables, mask, config) -> FormatRun:
    split, size = prepared.dataset.train, config.train.batch_size
    images = normalise(
        jnp.asarray(split.images[:size]), prepared.dataset.mean, prepared.dataset.std
    )
    labels = jnp.asarray(split.labels[:size])
    network, key = prepared.in_formats(scheme), jax.random.key(config.seed)
    found = operand_statistics(network, variables, images, labels, mask, key=key)
    operands = tuple(
        OperandRow(name, kind, *map(float, values))
        for name, kinds in found.items()
        for kind, values in kinds.items()
    )
    weights = schemes.parse(scheme).weights
    rows = ()
    if isinstance(weights, bfp.Format) and scheme == formats.label(weights):
        rows = tuple(
            accumulators.measure(prepared.network, variables, images[:4], mask, weights)
        )
    return dataclasses.replace(run, operands=operands, accumulators=rows)


def report(config: NumberFormatsConfig, found: dict[_Unit, FormatRun]) -> frame.Report:
    """See `number_formats_report`."""
    made = number_formats_report.report(config, found)
    content = number_formats_report.operands_json(config, found)
    files = {"operand_statistics.json": json.dumps(content, indent=1)}
    return dataclasses.replace(made, files=files)


STUDY = frame.Study(
    name="number_formats",
    presets=PRESETS,
    units=units,
    prepare=prepare,
    measure=measure,
    steps=lambda config, unit: config.train.epochs,
    report=report,
    found=FormatRun,
    given={"data_dir": "Where data sets lie; else $CODESIGN_DATA, else downloaded."},
)


def run(
    config: NumberFormatsConfig, *, workdir: StrPath, data_dir: str | None = None
) -> frame.Found[FormatRun]:
    """Trains what `workdir` does not hold yet; see `frame.Study.run`."""
    return STUDY.run(config, workdir=workdir, data_dir=data_dir)
