"""Trains one candidate: epochs, validation, early ends, checkpoints that resume exactly."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from codesign.data.augment import augment, normalise
from codesign.data.batches import epoch_order, padded_batches
from codesign.data.dataset import Dataset
from codesign.models.digest import digest
from codesign.models.network import Network
from codesign.records import settings
from codesign.training.checkpoint import CheckpointStore
from codesign.training.config import TrainConfig, make_optimizer
from codesign.training.health import make_gradient_health
from codesign.training.metrics import StepMetrics, flat, shapes, unflat
from codesign.training.run import Run, checked_design, like
from codesign.training.state import TrainState, init_state
from codesign.training.step import make_evaluate, make_step
from codesign.types import Array, PyTree, Scalar

_EVAL_BATCH_SIZE = 512
_HEALTH_IMAGES = 256
_MAX_STEPS_PER_DISPATCH = 100
CHANCE_MARGIN = 0.05  # accuracy above chance that shows that something was learnt
_DIVERGED_RATIO = 10  # a network whose units have all died has a finite, huge loss
_DISPATCHES_PER_CHECK = 25  # a look at `bad_step` waits for the device


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """What one run came to.

    Its status is `trained`, `diverged` (a loss or gradient was not finite, or the loss
    ten times that of guessing) or `at_chance` (stopped early: nothing was learnt).
    """

    status: str
    reason: str  # why the run ended before its last epoch, or empty
    validation_accuracy: float  # after the last epoch run; NaN if it diverged
    test_accuracy: float  # likewise
    history: list[dict[str, float]]  # an epoch: `epoch`, `loss`, `validation_accuracy`
    seconds: float  # wall time, of all processes that worked on it
    state: TrainState  # the trained parameters and statistics
    design: Any  # at the end, which a hook may have moved
    last_step: StepMetrics | None  # None if it diverged
    last_epoch: StepMetrics | None  # likewise, the mean over its steps


OnEpoch = Callable[[dict[str, float], bool], None]  # entry, whether it is new
OnStep = Callable[[Any, StepMetrics, int], Any]  # design, metrics, steps -> design


class Trainer:
    """Compiles once, then trains any number of candidates on one data set.

    All placements, chips and seeds run in the same compiled step; `num_step_traces`
    counts how often it was traced. On CPU steps are dispatched one by one, since XLA
    runs convolutions inside a loop many times slower there; on an accelerator up to 100
    steps are scanned in one dispatch.
    """

    def __init__(
        self,
        network: Network,
        dataset: Dataset,
        config: TrainConfig,
        *,
        chip_costs: Callable[[Any], Mapping[str, Scalar]] | None = None,
    ):
        """Checks that the pieces fit; compiles on first use.

        Raises:
            ValueError: If the images or classes are not the network's, or a batch is
                larger than the training split.
        """
        config = config.checked()
        shape = dataset.train.images.shape[1:]
        classes = dataset.num_classes
        if shape != tuple(network.image_shape) or classes > network.num_classes:
            raise ValueError(
                f"`dataset` {dataset.name!r} has {shape} images of {classes} classes, but "
                f"`network` takes {tuple(network.image_shape)} and {network.num_classes}."
            )
        num_train = len(dataset.train.labels)
        if config.batch_size > num_train:
            raise ValueError(
                f"`batch_size` (={config.batch_size}) exceeds the {num_train} training "
                f"images of {dataset.name!r}; take a smaller batch or more images."
            )
        self.network, self.dataset, self.config = network, dataset, config
        self.steps_per_epoch = num_train // config.batch_size
        self.num_step_traces = 0
        self._optimizer = make_optimizer(config, self.steps_per_epoch)
        mean, std = dataset.mean, dataset.std

        def preprocess(key, images):
            return normalise(augment(key, images, dataset.augmentation), mean, std)

        def gathered_step(state, images, labels, indices, design, frozen):
            self.num_step_traces += 1  # runs while tracing only
            step = make_step(
                network.with_frozen(frozen),
                self._optimizer,
                preprocess,
                chip_costs=chip_costs,
            )
            state, metrics = step(state, (images[indices], labels[indices]), design)
            latest, observed = flat(metrics), state.observed
            observed = jnp.stack([latest, observed[1] + latest, observed[2]])
            # One array, as every one of a hundred would cost a microsecond or two.
            return dataclasses.replace(state, observed=observed), latest

        def scanned_steps(state, images, labels, indices, design, frozen):
            def body(state, indices):
                return gathered_step(state, images, labels, indices, design, frozen)

            state, observed = jax.lax.scan(body, state, indices)
            return state, observed[-1]

        self._on_cpu = jax.default_backend() == "cpu"
        dispatch = gathered_step if self._on_cpu else scanned_steps
        self._dispatch = jax.jit(dispatch, donate_argnums=0)
        self._chip_costs, self._observed = chip_costs, {}
        self._unflat = jax.jit(unflat)
        # It runs for a moment: XLA:CPU makes it in a fifth of the time, and the same bits.
        quick = {"xla_backend_optimization_level": 1} if self._on_cpu else None
        self._init = jax.jit(
            lambda seed: init_state(network, self._optimizer, seed),
            compiler_options=quick,
        )

        def evaluate(frozen, *batch):
            bound = network.with_frozen(frozen)
            return make_evaluate(bound, lambda x: normalise(x, mean, std))(*batch)

        def health(frozen, *batch):
            return make_gradient_health(network.with_frozen(frozen))(*batch)

        self._evaluate, self._health = jax.jit(evaluate), jax.jit(health)
        self._frozen = jax.tree.map(jnp.asarray, network.frozen)
        self._images = jnp.asarray(dataset.train.images)
        self._labels = jnp.asarray(dataset.train.labels)
        self._splits = {
            name: padded_batches(getattr(dataset, name), _EVAL_BATCH_SIZE)
            for name in ("validation", "test")
        }

    def train(
        self,
        design: Any,
        *,
        seed: int,
        store: CheckpointStore | None = None,
        checkpoint_every_s: float = 10.0,
        on_step: OnStep | None = None,
        on_epoch: OnEpoch | None = None,
        on_phase: Callable[[str], None] | None = None,
    ) -> TrainResult:
        """Trains one candidate, or goes on where `store` last left it.

        Args:
            design: Pytree with `bn_mask` [C]; leaves become float32 arrays.
            seed: Root of initialisation, data order and augmentation.
            store: Where to keep checkpoints; None for none. A run that is complete
                there is returned without training.
            checkpoint_every_s: Least time between two checkpoints.
            on_step: Called after each dispatch with the design, the metrics of its last
                step and the number of steps taken; returns the design
                of the next one, with the same leaves. Nothing is traced again, and what
                it returned is in the checkpoints. On a CPU each step is a dispatch.
            on_epoch: Called after each epoch with its entry of the history and True,
                and with False for the epochs that a restored run has behind it.
            on_phase: Called with `compiling` before the first step of all runs, and with
                `training` once that step is compiled and runs.

        Raises:
            ValueError: If `store` holds another run, by placement, chip, seed, network,
                data or settings.

        Returns:
            The same `TrainResult`, wall time aside, however often it was interrupted.
        """
        design = checked_design(jax.tree.map(jnp.float32, design))
        tell_epoch = on_epoch or (lambda *_: None)
        tell_phase = on_phase or (lambda _: None)
        observed = self._shapes(design)
        num_observed = 1 + sum(leaf.size for leaf in jax.tree.leaves(observed))
        state = dataclasses.replace(
            self._init(np.uint32(seed)), observed=jnp.zeros((3, num_observed))
        )
        whose = self._identity if store is not None else {}
        run = Run(seed, state, design, store, checkpoint_every_s, whose)
        for entry in run.history:
            tell_epoch(entry, False)
        status, reason = self._verdict(run)
        while not status:
            self._run_epoch(run, on_step, tell_phase)
            if not run.has_bad_step:
                tell_epoch(self._close_epoch(run), True)
            status, reason = self._verdict(run)
            run.save(now=bool(status))
        validation = test = math.nan
        metrics: tuple[StepMetrics | None, ...] = (None, None)
        if status != "diverged":
            validation = run.history[-1]["validation_accuracy"]
            test = self.accuracy(run.state, run.design, "test")
            rows = run.state.observed[jnp.array([0, 2])]
            metrics = tuple(self._unflat(row, observed) for row in rows)
        return TrainResult(
            status,
            reason,
            validation,
            test,
            run.history,
            run.seconds,
            run.state,
            run.design,
            *metrics,
        )

    @functools.cached_property
    def _identity(self) -> dict[str, Any]:
        """What network, data and settings a checkpoint is of."""
        return {
            "network": digest(self.network),
            "dataset": self.dataset.digest(),
            "settings": settings.identity(self.config),
        }

    def _run_epoch(
        self, run: Run, on_step: OnStep | None, tell_phase: Callable[[str], None]
    ) -> None:
        """Takes the epoch's remaining steps, or fewer if a loss is not finite."""
        chunks, taken = self._chunks(run), int(run.state.step)
        for number, indices in enumerate(chunks, start=1):
            is_first = not self.num_step_traces
            if is_first:
                tell_phase("compiling")
            run.state, latest = self._dispatch(
                *(run.state, self._images, self._labels, indices, run.design),
                self._frozen,
            )
            if on_step is not None:
                taken += 1 if self._on_cpu else len(indices)
                metrics = self._unflat(latest, self._shapes(run.design))
                run.design = like(run.design, on_step(run.design, metrics, taken))
            if is_first:
                tell_phase("training")
            if number < len(chunks):  # after the last step the accuracy is missing
                run.save()
            if number % _DISPATCHES_PER_CHECK == 0 and run.has_bad_step:
                return

    def _chunks(self, run: Run) -> list[Array]:
        """Index arrays of the epoch's remaining dispatches: [B], or [K, B] to scan."""
        epoch, steps = len(run.history), self.steps_per_epoch
        done = int(run.state.step) - epoch * steps
        order = np.asarray(epoch_order(run.seed, epoch, len(self._labels)))
        used = steps * self.config.batch_size
        batches = order[:used].reshape(steps, -1).astype(np.int32)
        if self._on_cpu:
            return [jnp.asarray(batch) for batch in batches[done:]]
        size = next(n for n in range(_MAX_STEPS_PER_DISPATCH, 0, -1) if steps % n == 0)
        return [jnp.asarray(batches[i : i + size]) for i in range(done, steps, size)]

    def _close_epoch(self, run: Run) -> dict[str, float]:
        """Measures the accuracy, and returns the epoch's entry of the history."""
        entry = {
            "epoch": len(run.history) + 1,
            "loss": float(run.state.observed[1, 0]) / self.steps_per_epoch,
            "validation_accuracy": self.accuracy(run.state, run.design, "validation"),
        }
        run.history.append(entry)
        last, total, _ = run.state.observed
        run.state = dataclasses.replace(
            run.state,
            observed=jnp.stack(
                [last, jnp.zeros_like(total), total / self.steps_per_epoch]
            ),
        )
        return entry

    def _verdict(self, run: Run) -> tuple[str, str]:
        """Status and reason once the run is over, or two empty strings."""
        if run.has_bad_step:
            return "diverged", (
                f"loss or gradient not finite at step {int(run.state.bad_step)}"
            )
        if not run.history:
            return "", ""
        latest, epochs = run.history[-1], self.config.epochs
        epoch, accuracy = latest["epoch"], latest["validation_accuracy"]
        guessing = math.log(self.dataset.num_classes)
        if latest["loss"] > _DIVERGED_RATIO * guessing:
            return "diverged", (
                f"mean loss {latest['loss']:.3g} in epoch {epoch}, more than "
                f"{_DIVERGED_RATIO} times that of guessing ({guessing:.2f})"
            )
        if epoch >= epochs:
            return "trained", ""
        patience = self.config.stop_at_chance
        if patience is None or epoch < patience * epochs:
            return "", ""
        if accuracy > self.chance + CHANCE_MARGIN:
            return "", ""
        return "at_chance", (
            f"validation accuracy {accuracy:.3f} after epoch {epoch} of {epochs}, "
            f"chance being {self.chance:.3f}"
        )

    def mean_metrics(self, design: Any, observed: Sequence[Any]) -> StepMetrics | None:
        """Mean of what several runs of a design observed; None of none.

        Args:
            design: Theirs.
            observed: Of each, a row [K] of `TrainState.observed`.
        """
        if not observed:
            return None
        like = self._shapes(jax.tree.map(jnp.float32, design))
        return self._unflat(jnp.mean(jnp.asarray(observed), axis=0), like)

    def _shapes(self, design: Any) -> PyTree:
        """Of what a step says of such designs; traces the chip once."""
        key = str(jax.tree.map(jnp.shape, design))
        if key not in self._observed:
            self._observed[key] = shapes(self._chip_costs, design)
        return self._observed[key]

    def gradient_health(self, bn_mask: ArrayLike, seed: int) -> np.ndarray:
        """Gradient over weight of each of the K kernels before any training, `[K]`.

        Of the first 256 training images and the variables that a run from `seed` starts
        with; see `health.make_gradient_health`. It costs about one large step.
        """
        state = self._init(np.uint32(seed))
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        images = normalise(
            self._images[:_HEALTH_IMAGES], self.dataset.mean, self.dataset.std
        )
        labels = self._labels[:_HEALTH_IMAGES]
        mask = jnp.asarray(bn_mask, jnp.float32)
        return np.asarray(
            self._health(self._frozen, variables, images, labels, mask), float
        )

    def accuracy(self, state: TrainState, design: Any, split: str) -> float:
        """Fraction of the images of `validation` or `test` that are classified rightly."""
        images, labels, weights = self._splits[split]
        correct = [
            self._evaluate(self._frozen, state, design, *batch)
            for batch in zip(images, labels, weights, strict=True)
        ]
        return float(sum(map(float, correct)) / weights.sum())

    @property
    def chance(self) -> float:
        """Validation accuracy of always naming the most frequent class."""
        labels = self.dataset.validation.labels
        return float(np.bincount(labels).max() / len(labels))
