"""Searches one network's placement: train, tell, propose, and confirm the best."""

import pathlib

import jax.numpy as jnp
import numpy as np

from codesign.hardware.reram_gpu import ReramGpuSpec
from codesign.objective import Design
from codesign.records.metrics import MetricsLog, read_metrics
from codesign.report import Progress, format_mask
from codesign.search import pareto
from codesign.search.study import Study, Trial
from codesign.studies.deeptrain.placement_result import (
    Outcome,
    Row,
    found_status,
    is_screened,
    mask_text,
    period_and_energy,
    stack_cost,
    standard_error,
)
from codesign.studies.deeptrain.placement_settings import PlacementConfig
from codesign.training import CHANCE_MARGIN, CheckpointStore, Trainer, TrainResult
from codesign.workload import Workload

TOLERANCE = 0.01  # a placement is valid within 1 point of All-BN (Section VI-C)
_MAX_SCREENED = 8  # placements screened out in a row before one is trained after all
_MAX_CONFIRMATIONS = 3  # candidates for d* that are trained from further seeds


class PlacementSearch:
    """One search under way; everything that must survive a kill is on disk."""

    def __init__(
        self,
        config: PlacementConfig,
        network_name: str,
        trainer: Trainer,
        ops: Workload,
        spec: ReramGpuSpec,
        workdir: pathlib.Path,
    ):
        """Opens what `workdir` holds of this search, or begins it there."""
        network = trainer.network
        self.config, self.network_name, self.network = config, network_name, network
        self.trainer, self.ops, self.spec = trainer, ops, spec
        self.workdir = workdir
        self.study = Study(
            num_variables=network.num_sites,
            journal=self.workdir / "journal.jsonl",
            seed=config.seed,
            sparsity_penalty=config.sparsity_penalty,
            num_initial=config.num_random,
            recover=True,
            exclusive=True,
        )
        self.all_bn = np.ones(network.num_sites, np.int8)
        self.no_bn = np.zeros(network.num_sites, np.int8)
        self.other = None
        if config.warm_start is not None:
            self.other = Study.load(config.warm_start)
            if self.other.num_variables != network.num_sites:
                raise ValueError(
                    f"`warm_start` (={config.warm_start}) is a search over "
                    f"{self.other.num_variables} sites, but {network_name!r} has "
                    f"{network.num_sites}; give one of the same network."
                )
        self.runs_done = 0
        paper_runs = config.num_seeds if network.paper_sites else 0
        self.runs_planned = (
            config.num_evaluations + 3 * (config.num_seeds - 1) + paper_runs
        )

    def run(self) -> Outcome:
        """Evaluates, confirms and returns what came out.

        All-BN and No-BN come first, then `num_initial` random placements, then Thompson
        samples of the horseshoe surrogate. `bo_n` is the valid placement of the least
        period, then energy, that further seeds confirm: mean validation accuracy within
        1 point of All-BN's, or two standard errors if that is more.
        """
        total = self.runs_planned * self.config.train.epochs
        done = len(self._ended()) * self.config.train.epochs
        self.runs_done = len(self._ended())
        path = self.workdir / "metrics.jsonl"
        entries = read_metrics(path) if path.exists() else []
        self.logged = {(e["placement"], e["seed"], e["epoch"]) for e in entries}
        self.metrics = MetricsLog(path)
        description = f"{self.network_name} on {self.config.dataset}"
        with (
            self.metrics,
            Progress(total, description, initial_step=done) as self.progress,
        ):
            self.study.enqueue(self.all_bn)
            self.study.enqueue(self.no_bn)
            if self.other is not None:
                self.study.warm_start(self.other)
            while len(self._ended()) < self.config.num_evaluations:
                self._evaluate(self.study.ask(1)[0])
            rows = {
                "all_bn": self._row(self.all_bn),
                "no_bn": self._row(self.no_bn),
            }
            if self.network.paper_sites:
                mask = np.array(self.network.mask(self.network.paper_sites), np.int8)
                rows["paper"] = self._row(mask)
            rows["bo_n"], doubt = self._confirm(rows["all_bn"])
        told = self._told()
        return Outcome(
            network_name=self.network_name,
            network=self.network,
            ops=self.ops,
            spec=self.spec,
            trials=self.study.trials,
            on_front=self._front(told),
            rows=rows,
            doubt=doubt,
            num_step_traces=max(
                [
                    self.trainer.num_step_traces,
                    *(trial.metrics["num_step_traces"] for trial in self._ended()),
                ]
            ),
        )

    def _ended(self) -> list[Trial]:
        """Trials that were trained and have ended."""
        ended = (t for t in self.study.trials if t.status in ("told", "failed"))
        return [t for t in ended if not is_screened(t)]

    def _told(self) -> list[Trial]:
        return [t for t in self.study.trials if t.status == "told"]

    def _evaluate(self, x: np.ndarray) -> None:
        """Trains a placement that the study asked for, and tells what came out.

        One whose gradients vanish is only recorded, unless it is All-BN or No-BN.
        """
        if reason := self._hopeless(x):
            self.study.fail(x, reason, {"status": "screened", **self._costs(x)})
            self.progress.log(f"{format_mask(x)}  not trained: {reason}")
            return
        result = self._train(x, self.config.seed)
        costs = self._costs(x)
        metrics = {
            "status": result.status,
            "reason": result.reason,
            "history": [entry["validation_accuracy"] for entry in result.history],
            "seconds": result.seconds,
            "num_step_traces": self.trainer.num_step_traces,
            **costs,
        }
        name = format_mask(x)
        if result.status == "diverged":
            self.study.fail(x, result.reason, metrics)
            self.progress.log(f"{name}  failed: {result.reason}")
        else:
            metrics["test_accuracy"] = result.test_accuracy
            self.study.tell(x, result.validation_accuracy, metrics=metrics)
            note = " (stopped: still at chance)" if result.status == "at_chance" else ""
            self.progress.log(
                f"{name}  validation {result.validation_accuracy:.1%}{note}  "
                f"period {costs['period_s'] * 1e6:.2f} µs"
            )
        self._store(x, self.config.seed).clear()

    def _costs(self, x: np.ndarray) -> dict[str, float]:
        period_s, energy_j = period_and_energy(stack_cost(self.spec, self.ops, x))
        return {"period_s": period_s, "energy_j": energy_j}

    def _hopeless(self, x: np.ndarray) -> str:
        """Why a placement is not worth training, or nothing."""
        if x.all() or not x.any() or not self.config.least_health:
            return ""
        latest = self.study.trials[-1 - _MAX_SCREENED : -1]
        if len(latest) == _MAX_SCREENED and all(map(is_screened, latest)):
            return ""
        health = self.trainer.gradient_health(x, self.config.seed)
        # Also where one is not a number.
        if health.min() >= self.config.least_health:
            return ""
        return (
            f"gradients vanish: {health.min():.1e} of the weights before training, "
            f"below {self.config.least_health:.1e}"
        )

    def _train(self, x: np.ndarray, seed: int) -> TrainResult:
        design = Design(bn_mask=jnp.asarray(x, jnp.float32), chip=self.spec)
        values = [t.value for t in self._told() if t.value is not None]
        epochs = self.config.train.epochs
        start = self.runs_done * epochs

        def on_epoch(entry: dict[str, float], is_new: bool) -> None:
            key = (mask_text(x), seed, entry["epoch"])
            if is_new and key not in self.logged:  # epochs before a kill are there
                self.logged.add(key)
                run = {"placement": mask_text(x), "seed": seed}
                self.metrics.append({"network": self.network_name, **run, **entry})
            self.progress.update(
                start + int(entry["epoch"]),
                candidate=format_mask(x),
                epoch=f"{entry['epoch']}/{epochs}",
                accuracy=entry["validation_accuracy"],
                best=max(values, default=None),
            )

        self.progress.update(start, candidate=format_mask(x), epoch=f"0/{epochs}")
        result = self.trainer.train(
            design,
            seed=seed,
            store=self._store(x, seed),
            checkpoint_every_s=self.config.checkpoint_every_s,
            on_epoch=on_epoch,
        )
        self.runs_done += 1
        return result

    def _store(self, x: np.ndarray, seed: int) -> CheckpointStore:
        return CheckpointStore(
            self.workdir / "checkpoints" / f"{mask_text(x)}-seed{seed}"
        )

    def _row(self, x: np.ndarray) -> Row:
        """Trains a placement from every seed; the search's own run is the first."""
        found = next((t for t in self._ended() if np.array_equal(t.x, x)), None)
        statuses, validation, test, histories = [], [], [], []
        for seed in range(self.config.seed, self.config.seed + self.config.num_seeds):
            if found is not None and seed == self.config.seed:
                statuses.append(found_status(found))
                histories.append([])
                if found.status == "told":
                    histories[-1] = found.metrics["history"]
                    validation.append(found.value)
                    test.append(found.metrics["test_accuracy"])
                continue
            result = self._train(x, seed)
            statuses.append(result.status)
            histories.append([e["validation_accuracy"] for e in result.history])
            if result.status != "diverged":
                validation.append(result.validation_accuracy)
                test.append(result.test_accuracy)
        return Row(
            mask=x,
            statuses=tuple(statuses),
            validation=tuple(validation),
            test=tuple(test),
            history=tuple(histories[0]),
            cost=stack_cost(self.spec, self.ops, x),
            training_time_s=self._training_time_s(x),
        )

    def _training_time_s(self, x: np.ndarray) -> float:
        batch_size, epochs = self.config.train.batch_size, self.config.train.epochs
        batch = stack_cost(self.spec, self.ops, x, batch_size=batch_size)
        return float(batch.latency_s) * self.trainer.steps_per_epoch * epochs

    def _confirm(self, all_bn: Row) -> tuple[Row, str]:
        """The valid placement that is best on the chip and holds over all seeds.

        Or All-BN, and why no other was found.
        """
        told = self._told()
        reference = next(
            (t.value for t in told if np.array_equal(t.x, self.all_bn)), None
        )
        if reference is None or not all_bn.validation:
            return all_bn, "All-BN failed, so nothing can be measured against it"
        if np.mean(all_bn.validation) <= self.trainer.chance + CHANCE_MARGIN:
            return all_bn, "All-BN did not learn; train longer, or change the rate"
        remaining = [t for t in told if not np.array_equal(t.x, self.all_bn)]
        for tried in range(_MAX_CONFIRMATIONS):
            choice = pareto.choose(
                np.array([t.value for t in remaining], float),
                [t.metrics["period_s"] for t in remaining],
                [t.metrics["energy_j"] for t in remaining],
                reference_accuracy=reference,
                tolerance=TOLERANCE,
            )
            if choice.index is None:
                return all_bn, (
                    f"of {len(told)} placements, {tried} others came within 1 point of "
                    "All-BN and none held over all seeds; try more evaluations"
                )
            row = self._row(remaining.pop(choice.index).x)
            if is_confirmed(row, all_bn):
                return row, ""
            self.progress.log(
                f"{format_mask(row.mask)}  does not hold over {len(row.statuses)} seeds"
            )
        return all_bn, (
            f"the best {_MAX_CONFIRMATIONS} placements within 1 point of All-BN did not "
            "hold over all seeds; train longer, or try more evaluations"
        )

    def _front(self, told: list[Trial]) -> np.ndarray:
        if not told:
            return np.zeros(0, bool)
        points = [(t.value, t.metrics["period_s"], t.metrics["energy_j"]) for t in told]
        return pareto.pareto_front(np.array(points), ("max", "min", "min"))


def is_confirmed(row: Row, reference: Row) -> bool:
    """Whether a placement trains from every seed and is as accurate as another.

    Mean validation accuracies may differ by 1 point, or by two standard errors of their
    difference if that is more.
    """
    if any(status != "trained" for status in row.statuses):
        return False
    error = np.hypot(
        standard_error(row.validation), standard_error(reference.validation)
    )
    loss = np.mean(reference.validation) - np.mean(row.validation)
    return bool(loss <= max(TOLERANCE, 2 * error) + 1e-9)  # 0.99 - 0.98 > 0.01
