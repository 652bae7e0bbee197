"""Trains placements of one network from given seeds, and costs them on the chip."""

import dataclasses
import pathlib

import jax.numpy as jnp
import numpy as np

from codesign.hardware import Chip, Cost
from codesign.objective import Design
from codesign.records import read_metrics
from codesign.report import format_mask, format_percent
from codesign.search import Trial, points
from codesign.studies.deeptrain.placement_beside import Finding
from codesign.studies.deeptrain.placement_result import (
    PlacementRow,
    found_status,
    image_costs,
    placement_cost,
)
from codesign.studies.deeptrain.placement_settings import PlacementConfig
from codesign.studies.frame import Job
from codesign.training import CheckpointStore, Trainer, TrainResult
from codesign.workload import Workload

# Of a line of metrics.jsonl.
_KEY = {"network": str, "placement": str, "seed": int, "epoch": int}


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A network that was checked against data and chip, ready to be trained."""

    name: str
    trainer: Trainer
    ops: Workload
    chip: Chip
    others: tuple[Finding, ...] = ()  # to be compared

    def design(self, x: np.ndarray) -> Design:
        """The placement `x` `[C]` on the chip."""
        return Design(bn_mask=jnp.asarray(x, jnp.float32), chip=self.chip.spec)

    def cost(self, x: np.ndarray) -> Cost:
        """Exact cost of a batch with the placement `x` `[C]`."""
        batch_size = self.trainer.config.batch_size
        return placement_cost(self.chip, self.ops, x, batch_size)

    def costs(self, x: np.ndarray) -> dict[str, float | bool]:
        """Period and energy of one image with the placement, and if a limit is passed."""
        cost = self.cost(x)
        found: dict = image_costs(cost, self.trainer.config.batch_size)
        if cost.feasible is not None and not cost.feasible:
            found["feasible"] = False
        return found


class Runs:
    """Training runs of one network; checkpoints and metrics of each are on disk."""

    def __init__(
        self,
        config: PlacementConfig,
        prepared: Prepared,
        job: Job,
        folder: pathlib.Path,
        num_done: int,
    ):
        """Goes on in `folder`, where `num_done` runs of the plan are finished."""
        self._config, self._prepared, self._job = config, prepared, job
        self._folder, self._num_done = folder, num_done
        entries = read_metrics(job.workdir / "metrics.jsonl", _KEY)
        self._logged = {tuple(str(entry[name]) for name in _KEY) for entry in entries}

    def train(self, x: np.ndarray, seed: int, best: float | None = None) -> TrainResult:
        """Trains the placement `x` `[C]`, or goes on where its checkpoint stands."""
        prepared, config = self._prepared, self._config
        epochs, first = config.train.epochs, self._num_done * config.train.epochs
        run = {"network": prepared.name, "placement": points.encode(x), "seed": seed}

        def on_epoch(entry: dict[str, float], is_new: bool) -> None:
            if not is_new:
                self._job.progress.skip(1)
                return
            line = {**run, **entry}
            key = tuple(str(line[name]) for name in _KEY)
            if key not in self._logged:  # epochs before a kill are there
                self._logged.add(key)
                self._job.metrics.append(line)
            self._job.update(
                first + int(entry["epoch"]),
                format_mask(x),
                epoch=f"{entry['epoch']}/{epochs}",
                accuracy=format_percent(entry["validation_accuracy"]),
                best=best and format_percent(best),
            )

        def on_phase(phase: str = "") -> None:
            state = phase if phase == "compiling" else None
            self._job.update(first, format_mask(x), epoch=f"0/{epochs}", state=state)

        on_phase()
        result = prepared.trainer.train(
            prepared.design(x),
            seed=seed,
            store=self._store(x, seed),
            checkpoint_every_s=config.checkpoint_every_s,
            on_epoch=on_epoch,
            on_phase=on_phase,
        )
        self._num_done += 1
        return result

    def forget(self, x: np.ndarray, seed: int) -> None:
        """Deletes the checkpoints of a run whose result is kept elsewhere."""
        self._store(x, seed).clear()

    def row(self, x: np.ndarray, trial: Trial | None) -> PlacementRow:
        """Trains a placement from every seed; the search's own trial is the first."""
        config, prepared = self._config, self._prepared
        cost = prepared.cost(x)
        norms = prepared.ops.masked(jnp.asarray(x, jnp.float32)).select("norm")
        num_steps = prepared.trainer.steps_per_epoch * config.train.epochs
        row = PlacementRow(
            mask=x,
            statuses=(),
            validation=(),
            test=(),
            history=(),
            observed=(),
            cost=cost,
            batch_size=config.train.batch_size,
            training_time_s=float(cost.latency_s) * num_steps,
            bn_elements=float(norms.elements.sum()),
            metrics=None,
        )
        if trial is not None:
            is_told = trial.value is not None
            row = dataclasses.replace(
                row,
                statuses=(found_status(trial),),
                validation=(trial.value,),
                test=(trial.metrics["test_accuracy"] if is_told else None,),
                history=tuple(trial.metrics["history"]) if is_told else (),
            )
            if "observed" in trial.metrics:  # not in an earlier journal
                observed = np.array(trial.metrics["observed"], np.float32)
                row = dataclasses.replace(row, observed=(observed,))
        return self.more(row, config.num_seeds)

    def more(self, row: PlacementRow, num_seeds: int) -> PlacementRow:
        """Trains a row's placement from further seeds, up to `num_seeds` in all."""
        for seed in range(len(row.statuses), num_seeds):
            result = self.train(row.mask, self._config.seed + seed)
            diverged = result.status == "diverged"
            history = [entry["validation_accuracy"] for entry in result.history]
            row = dataclasses.replace(
                row,
                statuses=(*row.statuses, result.status),
                validation=(
                    *row.validation,
                    None if diverged else result.validation_accuracy,
                ),
                test=(*row.test, None if diverged else result.test_accuracy),
                history=row.history if seed else tuple(history),
            )
            latest = np.asarray(result.state.observed[2])
            if not diverged and np.all(np.isfinite(latest)):
                observed = (*row.observed, latest)
                row = dataclasses.replace(row, observed=observed)
        design, trainer = self._prepared.design(row.mask), self._prepared.trainer
        metrics = trainer.mean_metrics(design, row.observed)
        return dataclasses.replace(row, metrics=metrics)

    def log(self, x: np.ndarray, text: str) -> None:
        """Shows a line about a placement above the progress."""
        self._job.progress.log(f"{format_mask(x)}  {text}")

    def _store(self, x: np.ndarray, seed: int) -> CheckpointStore:
        return CheckpointStore(
            self._folder / "checkpoints" / f"{points.encode(x)}-seed{seed}"
        )
