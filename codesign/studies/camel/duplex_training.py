"""How well does a duplex network adapt? A pair, a way to train it and a seed is a unit."""

import dataclasses
import functools
import itertools
import json
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from codesign import data, models
from codesign.data.dataset import Dataset
from codesign.models import backbone, pairs
from codesign.models.duplex import ALGORITHMS
from codesign.models.formats import Formats, InFormats
from codesign.numerics.read_errors import ReadErrors, rate_of
from codesign.objective import Design
from codesign.records import StrPath
from codesign.report import format_percent
from codesign.studies import frame
from codesign.studies.camel import duplex_report, duplex_result, operand_rows, variants
from codesign.studies.camel.duplex_result import DuplexRun
from codesign.studies.camel.duplex_settings import (
    BACKBONE,
    PRESETS,
    DuplexConfig,
    PairConfig,
    Unit,
)
from codesign.training import CheckpointStore, Trainer, TrainResult
from codesign.types import PyTree

__all__ = ["PRESETS", "STUDY", "DuplexConfig", "run"]

_FLOAT = "float32"


class Prepared:
    """The data, and a trainer of each pair and variant once it is asked for."""

    def __init__(self, config: PairConfig, before: Dataset, after: Dataset):
        self.config, self.before, self.after = config, before, after
        self.backbone = functools.cache(self._backbone)
        self.trainer = functools.cache(self._trainer)
        self.frozen: dict[str, PyTree] = {}  # of trained backbones, by pair

    def _backbone(self, pair: str) -> models.Network:
        settings = self.config.backbone_settings()
        if isinstance(self.before, data.TextDataset):
            vocabulary = self.before.vocabulary
            settings["vocabulary_size"] = len(vocabulary)
            settings["separator"] = vocabulary.separator
        return pairs.create_backbone(
            pair,
            width=self.config.width,
            num_classes=self.before.num_classes,
            shape=self.before.train.images.shape[1:],
            **settings,
        )

    def _trainer(self, pair: str, variant: str) -> Trainer:
        if variant == BACKBONE:
            return Trainer(self.backbone(pair), self.before, self.config.pretrain)
        network = self.network(pair, variant)
        return Trainer(network, self.after, self.config.train)

    def network(self, pair: str, variant: str) -> models.Network:
        """A branch beside its trained backbone, in its number format."""
        config, chosen = self.config, variants.parse(variant)
        network = pairs.create_branch(
            pair,
            self.backbone(pair),
            self.frozen[pair],
            num_classes=self.after.num_classes,
            algorithm=chosen.algorithm,
            join=chosen.join,
            channels=config.channels,
            recompute_taps=chosen.recompute_taps,
            read_errors=self._errors(pairs.pair(pair).depth, chosen),
            **config.branch_settings(chosen),
        )
        if not chosen.in_format or config.number_format == _FLOAT:
            return network
        module = InFormats(network.module, Formats.of(config.number_format))
        return dataclasses.replace(network, module=module)

    def _errors(self, depth: int, chosen: variants.Variant) -> ReadErrors | None:
        """Rates as tuples, which a module can hold."""
        kept = None
        if not chosen.refreshed:
            lives = self.config.kept_life * np.arange(depth, 0, -1)
            kept = tuple(map(float, rate_of(lives, 1.0)))
        elif not chosen.error_rate:
            return None
        return ReadErrors(chosen.error_rate, kept, chosen.of_streams)


def units(config: PairConfig) -> list[Unit]:
    """Backbones first; then all variants from one seed, then from the next."""
    seeds = range(config.seed, config.seed + config.num_seeds)
    branches = itertools.product(seeds, config.pairs, config.variants)
    return [
        *((pair, BACKBONE, config.seed) for pair in config.pairs),
        *((pair, variant, seed) for seed, pair, variant in branches),
    ]


def load(config: DuplexConfig, data_dir: str | None) -> tuple[Dataset, Dataset]:
    """Images that backbones learn, and those that branches learn."""

    def images(
        name: str, classes: Sequence[int] | None, num_train: int | None
    ) -> Dataset:
        found = data.load(
            name, data_dir=data_dir, image_size=config.image_size, num_train=num_train
        )
        return found.of_classes(classes) if classes else found

    return (
        images(config.pretrain_dataset, config.pretrain_classes, config.num_pretrain),
        images(config.dataset, config.classes, config.num_train),
    )


def prepare(
    config: PairConfig,
    pending: Sequence[Unit],
    workdir: pathlib.Path,
    *,
    load: Callable[[Any, str | None], tuple[Dataset, Dataset]] = load,
    data_dir: str | None = None,
) -> Prepared:
    """Loads the data and builds every backbone and branch once, untrained."""
    for unit in {*units(config)} - {*pending}:
        if unit[1] != BACKBONE:
            _store(workdir, unit).clear()  # which a kill left

    prepared = Prepared(config, *load(config, data_dir))
    if pending:
        for pair in config.pairs:
            prepared.trainer(pair, BACKBONE)
        _check_branches(prepared)
    return prepared


def _check_branches(prepared: Prepared) -> None:
    """Builds every branch on shapes alone, so that what does not fit is refused early."""
    config = prepared.config
    for pair in config.pairs:
        prepared.frozen[pair] = backbone.untrained(prepared.backbone(pair))
        sizes: dict[str, dict[str, int]] = {}
        for variant in config.variants:
            found = pairs.learnable_sizes(prepared.network(pair, variant))
            expected = sizes.setdefault(variants.parse(variant).join, found)
            assert found == expected, (pair, variant)  # layers of the same sizes in all
        del prepared.frozen[pair]


def measure(
    config: PairConfig, unit: Unit, job: frame.Job, prepared: Prepared
) -> DuplexRun:
    """Trains a backbone, or a branch beside one."""
    pair, variant, seed = unit
    if variant != BACKBONE and pair not in prepared.frozen:
        _train(config, (pair, BACKBONE, config.seed), job, prepared, is_again=True)
    result, trainer, epoch_s = _train(config, unit, job, prepared)
    dataset = prepared.before if variant == BACKBONE else prepared.after
    run = DuplexRun(
        status=result.status,
        reason=result.reason,
        losses=tuple(entry["loss"] for entry in result.history),
        validation=tuple(entry["validation_accuracy"] for entry in result.history),
        test=None if result.status == "diverged" else result.test_accuracy,
        num_test=len(dataset.test.labels),
        steps_per_epoch=trainer.steps_per_epoch,
        epoch_s=epoch_s,
        num_learnable=sum(pairs.learnable_sizes(trainer.network).values()),
    )
    is_cast = variant in ALGORITHMS and isinstance(trainer.network.module, InFormats)
    if seed != config.seed or run.test is None or not is_cast:
        return run
    job.update(len(run.losses), variant, seed=seed, state="compiling")
    state = result.state
    operands = operand_rows.measure(
        trainer.network,
        {"params": state.params, "batch_stats": state.batch_stats},
        dataset,
        _mask(pair, variant),
        batch_size=trainer.config.batch_size,
        seed=seed,
    )
    return dataclasses.replace(run, operands=operands)


def _train(
    config: PairConfig,
    unit: Unit,
    job: frame.Job,
    prepared: Prepared,
    *,
    is_again: bool = False,
) -> tuple[TrainResult, Trainer, float | None]:
    """Trains, or goes on; a backbone's checkpoint stays, and its variables are noted.

    With `is_again` the backbone of an earlier process is read, or trained once more if
    its checkpoint is gone.
    """
    pair, variant, seed = unit
    trainer, store = prepared.trainer(pair, variant), _store(job.workdir, unit)
    is_backbone = variant == BACKBONE
    settings = config.pretrain if is_backbone else config.train
    name = f"{pair} {variant}"
    if not is_backbone:
        job.when_kept.append(store.clear)
    ends = [time.monotonic()]

    def tell(epoch: int, **facts: object) -> None:
        step = 0 if is_again else epoch
        job.update(step, name, seed=seed, epoch=f"{epoch}/{settings.epochs}", **facts)

    def on_epoch(entry: dict[str, float], is_new: bool) -> None:
        ends.append(time.monotonic())
        if is_new:
            job.metrics.append(
                {"pair": pair, "variant": variant, "seed": seed, **entry}
            )
        accuracy = format_percent(entry["validation_accuracy"])
        tell(int(entry["epoch"]), accuracy=accuracy)

    def on_phase(phase: str) -> None:
        tell(0, state=phase if phase == "compiling" else None)
        ends[:] = [time.monotonic()]  # without the compilation

    result = trainer.train(
        Design(bn_mask=_mask(pair, variant, trainer)),
        seed=seed,
        store=store,
        checkpoint_every_s=config.checkpoint_every_s,
        on_epoch=on_epoch,
        on_phase=on_phase,
    )
    if is_backbone:
        if result.status == "diverged":
            raise ValueError(
                f"The backbone of {pair!r} diverged ({result.reason}), so that there is "
                "nothing to adapt; lower `pretrain.learning_rate` "
                f"(={config.pretrain.learning_rate})."
            )
        state = result.state
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        prepared.frozen[pair] = backbone.frozen(trainer.network, variables)
    seconds = [end - start for start, end in itertools.pairwise(ends)]
    return result, trainer, statistics.median(seconds) if seconds else None


def _mask(pair: str, variant: str, trainer: Trainer | None = None) -> jax.Array:
    """All norms of a backbone; none of a branch, unless the variant has them."""
    if variant == BACKBONE:
        assert trainer is not None
        return jnp.ones(trainer.network.num_sites)
    has_norms = variants.parse(variant).norms
    return jnp.full(2 * pairs.pair(pair).depth, float(has_norms))


def _store(workdir: pathlib.Path, unit: Unit) -> CheckpointStore:
    pair, variant, seed = unit
    return CheckpointStore(workdir / "checkpoints" / f"{pair}-{variant}-seed{seed}")


def report(config: PairConfig, found: dict[Unit, DuplexRun]) -> frame.Report:
    """See `duplex_report`."""
    made = duplex_report.report(config, found)
    files = {
        "curves.json": duplex_result.curves(config, found),
        "operand_statistics.json": duplex_result.operands(config, found),
    }
    texts = {name: json.dumps(content, indent=1) for name, content in files.items()}
    return dataclasses.replace(made, files=texts)


def steps(config: PairConfig, unit: Unit) -> int:
    return (config.pretrain if unit[1] == BACKBONE else config.train).epochs


STUDY = frame.Study(
    name="duplex_training",
    presets=PRESETS,
    units=units,
    prepare=prepare,
    measure=measure,
    steps=steps,
    report=report,
    found=DuplexRun,
    given={"data_dir": "Where data sets lie; else $CODESIGN_DATA, else downloaded."},
)


def run(
    config: DuplexConfig, *, workdir: StrPath, data_dir: str | None = None
) -> frame.Found[DuplexRun]:
    """Trains what `workdir` does not hold yet; see `frame.Study.run`."""
    return STUDY.run(config, workdir=workdir, data_dir=data_dir)
