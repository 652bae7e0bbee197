"""Trains one candidate: epochs, validation, early ends, checkpoints that resume exactly."""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from codesign.data.augment import augment, normalise
from codesign.data.batches import epoch_order, padded_batches
from codesign.data.dataset import Dataset
from codesign.models.network import Network
from codesign.training.checkpoint import CheckpointStore
from codesign.training.config import TrainConfig, make_optimizer
from codesign.training.health import make_gradient_health
from codesign.training.state import TrainState, init_state
from codesign.training.step import make_evaluate, make_step
from codesign.types import Array

_EVAL_BATCH_SIZE = 512
_HEALTH_IMAGES = 256
_MAX_STEPS_PER_DISPATCH = 100
CHANCE_MARGIN = 0.05  # accuracy above chance that shows that something was learnt
_DIVERGED_RATIO = 10  # a network whose units have all died has a finite, huge loss
_DISPATCHES_PER_CHECK = 25  # a look at `bad_step` waits for the device


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """Outcome of one run.

    Attributes:
        status: `trained`, `diverged` (a loss or gradient was not finite, or the loss ten
            times that of guessing) or `at_chance` (stopped early: nothing was learnt).
        reason: Empty, or why the run ended before its last epoch.
        validation_accuracy: After the last epoch run; NaN if it diverged.
        test_accuracy: Likewise, on the test split.
        history: One dict an epoch: `epoch`, `loss`, `validation_accuracy`.
        seconds: Wall time, of all processes that worked on it.
        state: The trained parameters and statistics.
    """

    status: str
    reason: str
    validation_accuracy: float
    test_accuracy: float
    history: list[dict[str, float]]
    seconds: float
    state: TrainState


OnEpoch = Callable[[dict[str, float], bool], None]  # entry, whether it is new


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
        chip_costs: Callable[[Any], dict[str, Array]] | None = None,
    ):
        """Checks that the pieces fit; compiles on first use.

        Raises:
            ValueError: If the images or classes are not the network's, or a batch is
                larger than the training split.
        """
        config.checked()
        shape = dataset.train.images.shape[1:]
        if shape != network.image_shape or dataset.num_classes != network.num_classes:
            raise ValueError(
                f"`dataset` {dataset.name!r} has {shape} images of "
                f"{dataset.num_classes} classes, but `network` takes "
                f"{network.image_shape} and {network.num_classes}."
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

        step = make_step(network, self._optimizer, preprocess, chip_costs=chip_costs)

        def gathered_step(state, images, labels, indices, design):
            self.num_step_traces += 1  # runs while tracing only
            return step(state, (images[indices], labels[indices]), design)

        def scanned_steps(state, images, labels, indices, design):
            def body(state, indices):
                return gathered_step(state, images, labels, indices, design)

            state, metrics = jax.lax.scan(body, state, indices)
            return state, jax.tree.map(lambda x: x[-1], metrics)

        self._on_cpu = jax.default_backend() == "cpu"
        run = gathered_step if self._on_cpu else scanned_steps
        self._run = jax.jit(run, donate_argnums=0)
        self._init = jax.jit(lambda seed: init_state(network, self._optimizer, seed))
        evaluate = make_evaluate(network, lambda x: normalise(x, mean, std))
        self._evaluate = jax.jit(evaluate)
        self._health = jax.jit(make_gradient_health(network))
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
        on_epoch: OnEpoch | None = None,
    ) -> TrainResult:
        """Trains one candidate, or goes on where `store` last left it.

        Args:
            design: Pytree with `bn_mask` [C]; leaves become float32 arrays.
            seed: Root of initialisation, data order and augmentation.
            store: Where to keep checkpoints; None for none. A run that is complete
                there is returned without training.
            checkpoint_every_s: Least time between two checkpoints.
            on_epoch: Called after each epoch with its entry of the history and True,
                and with False for the epochs that a restored run has behind it.

        Returns:
            The same `TrainResult`, wall time aside, however often it was interrupted.
        """
        design = jax.tree.map(jnp.float32, design)
        state = self._init(np.uint32(seed))
        history: list[dict[str, float]] = []
        seconds = 0.0
        if store and (restored := store.restore(state)):
            state, meta = restored
            history, seconds = meta["history"], meta["seconds"]
            for entry in history:
                if on_epoch:
                    on_epoch(entry, False)
        start = last_saved = time.monotonic()

        def save():
            nonlocal last_saved
            if store:
                spent = seconds + time.monotonic() - start
                meta = {"history": history, "seconds": spent}
                store.save(int(state.step), state, meta)
            last_saved = time.monotonic()

        status, reason = self._verdict(state, history)
        while not status:
            epoch = len(history)
            done = int(state.step) - epoch * self.steps_per_epoch
            chunks = self._chunks(seed, epoch, done)
            for number, indices in enumerate(chunks, start=1):
                state, _ = self._run(state, self._images, self._labels, indices, design)
                # After the last step the epoch is not over: its accuracy is missing.
                is_last = number == len(chunks)
                if not is_last and time.monotonic() - last_saved > checkpoint_every_s:
                    save()
                if number % _DISPATCHES_PER_CHECK == 0 and int(state.bad_step) >= 0:
                    break
            if int(state.bad_step) < 0:
                entry = {
                    "epoch": epoch + 1,
                    "loss": float(state.loss_sum) / self.steps_per_epoch,
                    "validation_accuracy": self.accuracy(state, design, "validation"),
                }
                history.append(entry)
                state = dataclasses.replace(state, loss_sum=jnp.float32(0))
                if on_epoch:
                    on_epoch(entry, True)
            status, reason = self._verdict(state, history)
            if status or time.monotonic() - last_saved > checkpoint_every_s:
                save()
        diverged = status == "diverged"
        return TrainResult(
            status=status,
            reason=reason,
            validation_accuracy=(
                float("nan") if diverged else history[-1]["validation_accuracy"]
            ),
            test_accuracy=(
                float("nan") if diverged else self.accuracy(state, design, "test")
            ),
            history=history,
            seconds=seconds + time.monotonic() - start,
            state=state,
        )

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
        return np.asarray(self._health(variables, images, labels, mask), float)

    def accuracy(self, state: TrainState, design: Any, split: str) -> float:
        """Part of the images of `validation` or `test` that are classified rightly."""
        images, labels, weights = self._splits[split]
        correct = [
            self._evaluate(state, design.bn_mask, *batch)
            for batch in zip(images, labels, weights, strict=True)
        ]
        return float(sum(map(float, correct)) / weights.sum())

    @property
    def chance(self) -> float:
        """Validation accuracy of always naming the most frequent class."""
        labels = self.dataset.validation.labels
        return float(np.bincount(labels).max() / len(labels))

    def _chunks(self, seed: int, epoch: int, done: int) -> list[Array]:
        """Index arrays of the epoch's remaining dispatches: [B], or [K, B] to scan."""
        order = np.asarray(epoch_order(seed, epoch, len(self.dataset.train.labels)))
        used = self.steps_per_epoch * self.config.batch_size
        batches = order[:used].reshape(self.steps_per_epoch, -1).astype(np.int32)
        if self._on_cpu:
            return [jnp.asarray(batch) for batch in batches[done:]]
        size = max(
            n
            for n in range(1, _MAX_STEPS_PER_DISPATCH + 1)
            if self.steps_per_epoch % n == 0
        )
        return [
            jnp.asarray(batches[i : i + size]) for i in range(done, len(batches), size)
        ]

    def _verdict(
        self, state: TrainState, history: list[dict[str, float]]
    ) -> tuple[str, str]:
        """Status and reason once the run is over, or two empty strings."""
        config = self.config
        if (bad := int(state.bad_step)) >= 0:
            return "diverged", f"loss or gradient not finite at step {bad}"
        if not history:
            return "", ""
        loss, guessing = history[-1]["loss"], math.log(self.dataset.num_classes)
        if loss > _DIVERGED_RATIO * guessing:
            return "diverged", (
                f"mean loss {loss:.3g} in epoch {len(history)}, more than "
                f"{_DIVERGED_RATIO} times that of guessing ({guessing:.2f})"
            )
        if len(history) >= config.epochs:
            return "trained", ""
        if config.stop_at_chance is None:
            return "", ""
        accuracy = history[-1]["validation_accuracy"]
        if len(history) >= config.stop_at_chance * config.epochs and (
            accuracy <= self.chance + CHANCE_MARGIN
        ):
            return "at_chance", (
                f"validation accuracy {accuracy:.3f} after epoch {len(history)} of "
                f"{config.epochs}, chance being {self.chance:.3f}"
            )
        return "", ""
