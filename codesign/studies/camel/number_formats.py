"""Which number formats train a network as float32 does? A format and a seed is a unit."""

import dataclasses
import functools
import itertools
import json
import pathlib
import statistics
import time
from collections.abc import Sequence

import jax.numpy as jnp

from codesign import data, models
from codesign.data.dataset import Dataset
from codesign.models.formats import InFormats
from codesign.models.vgg import VGG
from codesign.numerics import bfp, formats
from codesign.objective import Design
from codesign.records import StrPath
from codesign.report import format_percent
from codesign.studies import frame
from codesign.studies.camel import (
    accumulators,
    number_formats_report,
    operand_rows,
    schemes,
)
from codesign.studies.camel.number_formats_result import FormatRun
from codesign.studies.camel.number_formats_settings import (
    PRESETS,
    REFERENCE,
    SMALL,
    NumberFormatsConfig,
    Unit,
)
from codesign.training import CheckpointStore, Trainer

__all__ = ["PRESETS", "STUDY", "NumberFormatsConfig", "run"]


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
        self.trainer = functools.cache(self._trainer)

    def in_formats(self, scheme: str) -> models.Network:
        """The network in the formats of a scheme; in float32 it is as it is."""
        if scheme == REFERENCE:
            return self.network
        module = InFormats(self.network.module, schemes.parse(scheme))
        return dataclasses.replace(self.network, module=module)

    def _trainer(self, scheme: str) -> Trainer:
        return Trainer(self.in_formats(scheme), self.dataset, self.config.train)


def units(config: NumberFormatsConfig) -> list[Unit]:
    """All schemes from one seed, then from the next: times are compared within a seed.

    A machine that others use is not as fast in one minute as in the next.
    """
    seeds = range(config.seed, config.seed + config.num_seeds)
    return [(scheme, seed) for seed in seeds for scheme in config.schemes]


def prepare(
    config: NumberFormatsConfig,
    pending: Sequence[Unit],
    workdir: pathlib.Path,
    *,
    data_dir: str | None = None,
) -> Prepared:
    """Loads the data; a batch larger than the training split is refused here."""
    for scheme, seed in {*units(config)} - {*pending}:
        _store(workdir, scheme, seed).clear()  # which a kill left
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
    config: NumberFormatsConfig, unit: Unit, job: frame.Job, prepared: Prepared
) -> FormatRun:
    """Trains in one scheme from one seed; looks at the operands of the first seed."""
    scheme, seed = unit
    trainer = prepared.trainer(scheme)
    if not trainer.num_step_traces:
        job.update(0, scheme, seed=seed, state="compiling")
    mask = jnp.ones(trainer.network.num_sites)
    store = _store(job.workdir, scheme, seed)
    job.when_kept.append(store.clear)
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
    job.update(epochs, scheme, seed=seed, state="compiling")
    variables = {"params": result.state.params, "batch_stats": result.state.batch_stats}
    return _with_operands(run, prepared, scheme, variables, mask, config)


def _store(workdir: pathlib.Path, scheme: str, seed: int) -> CheckpointStore:
    return CheckpointStore(workdir / "checkpoints" / f"{scheme}-seed{seed}")


def _with_operands(run, prepared, scheme, variables, mask, config) -> FormatRun:
    operands = operand_rows.measure(
        prepared.in_formats(scheme),
        variables,
        prepared.dataset,
        mask,
        batch_size=config.train.batch_size,
        seed=config.seed,
    )
    weights = schemes.parse(scheme).weights
    rows = ()
    if isinstance(weights, bfp.Format) and scheme == formats.label(weights):
        images, _ = operand_rows.first_batch(prepared.dataset, 4)
        rows = tuple(
            accumulators.measure(prepared.network, variables, images, mask, weights)
        )
    return dataclasses.replace(run, operands=operands, accumulators=rows)


def report(config: NumberFormatsConfig, found: dict[Unit, FormatRun]) -> frame.Report:
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
