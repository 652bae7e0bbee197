"""Does a trained residual network keep its accuracy made reversible? A seed is a unit."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from codesign import data, models
from codesign.data.augment import augment, normalise
from codesign.data.batches import epoch_order
from codesign.data.dataset import Split
from codesign.models.pre_activation import (
    NUM_SITES,
    PLAIN,
    ResidualNet,
    all_norms,
    in_wiring,
)
from codesign.models.to_reversible import WIRINGS
from codesign.objective import Design
from codesign.records import StrPath
from codesign.records.settings import setting
from codesign.report import format_percent
from codesign.studies import frame
from codesign.studies.camel import to_reversible_report
from codesign.studies.camel.to_reversible_report import SeedRun, WayRun
from codesign.training import TrainConfig, task
from codesign.training.config import make_optimizer
from codesign.training.state import TrainState, init_state
from codesign.training.step import make_evaluate, make_step
from codesign.types import Array, PyTree

__all__ = ["PRESETS", "STUDY", "ToReversibleConfig", "run"]

_PASSES = 3  # that gather statistics: of the old ones less than a hundredth is left
_ADAM = TrainConfig(epochs=15, optimizer="adam", learning_rate=0.003)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToReversibleConfig(frame.Config):
    """Settings of one comparison on the handwritten digits."""

    channels: int = setting(16, "Of every map.", least=1)
    depth: int = setting(6, "Residual functions; an even number.", least=2)
    image_size: int = setting(8, "Height and width of images.", least=8, most=64)
    train: TrainConfig = setting(_ADAM, "Of the residual network.")
    fine_tune_epochs: int = setting(5, "Epochs after it became reversible.", least=1)
    fine_tune_rate: float = setting(0.001, "Learning rate of these epochs.", above=0)
    num_seeds: int = setting(
        6, "Networks, each trained from a seed of its own.", least=1, grows=True,
        flag="seeds",
    )  # fmt: skip

    def check(self) -> None:
        if self.depth % 2:
            raise ValueError(
                f"`depth` (={self.depth}) must be even, as two functions make a block."
            )


PRESETS = {
    "quick": ToReversibleConfig(preset="quick"),
    "smoke": ToReversibleConfig(
        preset="smoke", channels=4, depth=2, num_seeds=1, fine_tune_epochs=1,
        train=dataclasses.replace(_ADAM, epochs=1),
    ),
}  # fmt: skip


class Prepared:
    """The data, and what trains and tests each network, compiled once."""

    def __init__(self, config: ToReversibleConfig):
        self.config = config
        self.dataset = data.load("digits", image_size=config.image_size)
        if config.train.batch_size > len(self.dataset.train):
            raise ValueError(
                f"`batch_size` (={config.train.batch_size}) exceeds the "
                f"{len(self.dataset.train)} training images; take a smaller one."
            )
        fine_tuned = {"epochs": config.fine_tune_epochs}
        fine_tuned |= {"learning_rate": config.fine_tune_rate}
        self.fine_tune = dataclasses.replace(config.train, **fine_tuned)
        self.network = functools.cache(self._network)
        self.step = functools.cache(self._step)
        self.evaluate = functools.cache(self._evaluate)
        self.gather = functools.cache(self._gather)

    def _network(self, way: str) -> models.Network:
        shape, classes = self.dataset.train.images.shape[1:], self.dataset.num_classes
        module = ResidualNet(self.config.channels, self.config.depth, classes, way)
        return models.Network(module, NUM_SITES, shape, classes, label=way)

    def optimizer(self, settings: TrainConfig) -> Any:
        """Over all steps of `settings`."""
        return make_optimizer(settings, self.steps_per_epoch(settings))

    def steps_per_epoch(self, settings: TrainConfig) -> int:
        """What remains of an epoch is left out."""
        return len(self.dataset.train) // settings.batch_size

    def _step(self, way: str, settings: TrainConfig) -> Callable:
        dataset = self.dataset

        def preprocess(key, images):
            moved = augment(key, images, dataset.augmentation)
            return normalise(moved, dataset.mean, dataset.std)

        optimizer = self.optimizer(settings)
        step = make_step(self.network(way), optimizer, preprocess)
        return jax.jit(step, donate_argnums=0)

    def _evaluate(self, way: str) -> Callable:
        mean, std = self.dataset.mean, self.dataset.std
        return jax.jit(
            make_evaluate(
                self.network(way), lambda images: normalise(images, mean, std)
            )
        )

    def _gather(self, way: str) -> Callable:
        network, mean, std = self.network(way), self.dataset.mean, self.dataset.std

        def gather(variables: PyTree, images: Array) -> PyTree:
            x = normalise(images, mean, std)
            return network.apply(variables, x, all_norms(), train=True)[1]

        return jax.jit(gather)

    def gathered(self, way: str, variables: PyTree) -> PyTree:
        """Running statistics of the training images, a few passes forward."""
        split, size = self.dataset.train, self.config.train.batch_size
        statistics = variables["batch_stats"]
        for _ in range(_PASSES):
            for start in range(0, len(split) - size + 1, size):
                images = jnp.asarray(split.images[start : start + size])
                statistics = self.gather(way)(
                    {"params": variables["params"], "batch_stats": statistics}, images
                )
        return statistics

    def accuracy(self, way: str, state: TrainState, split: Split) -> float:
        """Fraction of a split's images that are classified rightly."""
        given = jnp.asarray(split.images), jnp.asarray(split.labels)
        found = self.evaluate(way)(state, _DESIGN, *given)
        return task.score(np.asarray(found), split.labels)

    def train(
        self, way: str, state: TrainState, settings: TrainConfig, seed: int
    ) -> tuple[TrainState, tuple[float, ...]]:
        """Trains for all epochs of `settings`; the mean loss of each comes second."""
        split, step = self.dataset.train, self.step(way, settings)
        size, count = settings.batch_size, self.steps_per_epoch(settings)
        losses = []
        for epoch in range(settings.epochs):
            order = np.asarray(epoch_order(seed, epoch, len(split)))
            found = []
            for at in order[: count * size].reshape(count, size):
                batch = jnp.asarray(split.images[at]), jnp.asarray(split.labels[at])
                state, metrics = step(state, batch, _DESIGN)
                found.append(metrics["loss"])
            losses.append(float(np.mean(jax.device_get(found))))
        return state, tuple(losses)


_DESIGN = Design(bn_mask=all_norms())


def prepare(
    config: ToReversibleConfig, pending: Sequence[int], workdir: pathlib.Path
) -> Prepared:
    """Loads the digits."""
    del pending, workdir
    return Prepared(config)


def units(config: ToReversibleConfig) -> list[int]:
    """Seeds."""
    return [*range(config.seed, config.seed + config.num_seeds)]


def measure(
    config: ToReversibleConfig, unit: int, job: frame.Job, prepared: Prepared
) -> SeedRun:
    """Trains a residual network, and goes on with it as it is and in every wiring."""
    job.update(0, "the residual network", seed=unit)
    network = prepared.network(PLAIN)
    state = init_state(network, prepared.optimizer(config.train), unit)
    state, losses = prepared.train(PLAIN, state, config.train, unit)
    test = prepared.dataset.test
    before = prepared.accuracy(PLAIN, state, test)
    trained = {"params": state.params, "batch_stats": state.batch_stats}
    ways = []
    for number, way in enumerate((PLAIN, *WIRINGS), start=1):
        about = {"seed": unit, "before": format_percent(before)}
        job.update(number, f"fine-tuning: {way}", **about)
        variables = in_wiring(prepared.network(way).module, trained)
        ways.append(_fine_tuned(prepared, way, variables, unit))
    return SeedRun(before, losses, len(test), tuple(ways))


def _fine_tuned(prepared: Prepared, way: str, variables: PyTree, seed: int) -> WayRun:
    optimizer = prepared.optimizer(prepared.fine_tune)
    params = jax.tree.map(jnp.array, variables["params"])  # donated
    state = TrainState(
        step=jnp.int32(0),
        seed=jnp.uint32(seed),
        params=params,
        batch_stats=jax.tree.map(jnp.array, variables["batch_stats"]),
        opt_state=optimizer.init(params),
        bad_step=jnp.int32(-1),
        observed=jnp.zeros((3, 1), jnp.float32),
    )
    test = prepared.dataset.test
    right_after = prepared.accuracy(way, state, test)
    statistics = prepared.gathered(way, variables)
    state = dataclasses.replace(state, batch_stats=statistics)
    gathered = prepared.accuracy(way, state, test)
    state, losses = prepared.train(way, state, prepared.fine_tune, seed)
    is_bad = int(state.bad_step) >= 0
    after = None if is_bad else prepared.accuracy(way, state, test)
    return WayRun(way, right_after, gathered, after, () if is_bad else losses)


STUDY = frame.Study(
    name="to_reversible",
    presets=PRESETS,
    units=units,
    prepare=prepare,
    measure=measure,
    steps=lambda config, unit: 1 + len((PLAIN, *WIRINGS)),
    report=to_reversible_report.report,
    found=SeedRun,
)


def run(config: ToReversibleConfig, *, workdir: StrPath) -> frame.Found[SeedRun]:
    """Trains what `workdir` does not hold yet; see `frame.Study.run`."""
    return STUDY.run(config, workdir=workdir)
