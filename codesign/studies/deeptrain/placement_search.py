"""Searches one network's placement: train, tell, propose, and confirm the best."""

import contextlib
import dataclasses
import pathlib

import numpy as np
from absl import logging

from codesign.records import JournalDamaged, read_header
from codesign.search import SearchSpaceExhausted, Study, Trial, pareto
from codesign.studies.claims import TOLERANCE, is_within, paired_losses
from codesign.studies.deeptrain.placement_claims import is_open
from codesign.studies.deeptrain.placement_result import (
    PlacementResult,
    PlacementRow,
    is_screened,
    mean,
    told,
    trained,
)
from codesign.studies.deeptrain.placement_runs import Prepared, Runs
from codesign.studies.deeptrain.placement_settings import PlacementConfig
from codesign.studies.frame import Job
from codesign.training import CHANCE_MARGIN, Trainer

_MAX_SCREENED = 8  # placements screened out in a row before one is trained after all
_MAX_CONFIRMATIONS = 3  # candidates for d* that are trained from further seeds


def search(config: PlacementConfig, prepared: Prepared, job: Job) -> PlacementResult:
    """Searches in the job's workdir, or goes on with what is there.

    All-BN and No-BN come first, then random placements, then Thompson samples of the
    horseshoe surrogate. `bo_n` is the valid placement of the least period, then energy,
    that further seeds confirm. It and All-BN are trained from up to `max_seeds` while
    the claim on them is open.
    """
    folder = config.folder(job.workdir, prepared.name)
    num_sites = prepared.trainer.network.num_sites
    journal = folder / "journal.jsonl"
    if not journal.exists() and (job.workdir / "results.json").exists():
        logging.warning(
            "results.json is there, but %s is gone; the search starts anew.", journal
        )
    study = open_study(config, num_sites, journal)
    ended = trained(study.trials)
    num_done = len(ended)
    job.progress.skip(num_done * config.train.epochs)
    runs = Runs(config, prepared, job, folder, num_done)
    for trial in ended:  # a kill may have come between its result and this
        runs.forget(trial.x, config.seed)
    all_bn, no_bn = np.ones(num_sites, np.int8), np.zeros(num_sites, np.int8)
    study.enqueue(all_bn)
    study.enqueue(no_bn)
    if config.warm_start is not None and not num_done:
        study.warm_start(Study.load(config.warm_start))
    with contextlib.suppress(SearchSpaceExhausted):  # all others were screened
        while len(trained(study.trials)) < config.num_evaluations:
            evaluate(config, prepared, study, runs)

    def row(x: np.ndarray) -> PlacementRow:
        ended = trained(study.trials)
        return runs.row(x, next((t for t in ended if np.array_equal(t.x, x)), None))

    network = prepared.trainer.network
    rows = {"all_bn": row(all_bn), "no_bn": row(no_bn)}
    if network.paper_sites and "network" not in (config.brought or ""):
        rows["paper"] = row(np.array(network.mask(network.paper_sites), np.int8))
    rows["bo_n"], doubt = rows["all_bn"], why_not(rows["all_bn"], prepared.trainer)
    if not doubt:
        candidates = [t for t in told(study.trials) if not t.x.all()]
        reference = next(t.value for t in told(study.trials) if t.x.all())
        assert reference is not None
        best = valid(candidates, reference)[:_MAX_CONFIRMATIONS]
        for count, trial in enumerate(best):
            if count:  # the plan has one
                job.progress.extend((config.num_seeds - 1) * config.train.epochs)
            found = row(trial.x)
            if is_confirmed(found, rows["all_bn"]):
                rows["bo_n"] = found
                break
            runs.log(trial.x, f"does not hold over {config.num_seeds} seeds")
        else:
            doubt = (
                f"of {len(candidates) + 1} placements, {len(best)} others came within "
                "1 point of All-BN and none held over all seeds; try more evaluations"
            )
            if len(best) == _MAX_CONFIRMATIONS:
                doubt = (
                    f"the best {len(best)} placements within 1 point of All-BN did not "
                    "hold over all seeds; train longer, or try more evaluations"
                )
    traces = [t.metrics["num_step_traces"] for t in trained(study.trials)]
    result = PlacementResult(
        network=network,
        ops=prepared.ops,
        chip=prepared.chip,
        trials=study.trials,
        rows=rows,
        doubt=doubt,
        num_step_traces=max([prepared.trainer.num_step_traces, *traces]),
        num_test=len(prepared.trainer.dataset.test),
        others=prepared.others,
    )
    if not is_open(config, result):
        return result
    further = config.max_seeds - config.num_seeds
    job.progress.extend(2 * further * config.train.epochs)
    for key in ("all_bn", "bo_n"):
        rows[key] = runs.more(rows[key], config.max_seeds)
    return dataclasses.replace(result, rows=rows)


def open_study(config: PlacementConfig, num_sites: int, path: pathlib.Path) -> Study:
    """Opens the search's journal; its own number of random placements counts."""
    num_initial = config.num_random
    with contextlib.suppress(FileNotFoundError, JournalDamaged):
        num_initial = read_header(path)["num_initial"]
    return Study(
        num_variables=num_sites,
        journal=path,
        seed=config.seed,
        sparsity_penalty=config.sparsity_penalty,
        num_initial=num_initial,
        recover=True,
        exclusive=True,
    )


def evaluate(
    config: PlacementConfig, prepared: Prepared, study: Study, runs: Runs
) -> None:
    """Trains the next placement that the study asks for, and tells what came out.

    One whose gradients vanish is only recorded, unless it is All-BN or No-BN.
    """
    x = study.ask(1)[0]
    try:
        costs = prepared.costs(x)
    except ValueError as error:  # of this placement alone: others were costed before
        study.fail(x, str(error), {"status": "screened"})
        runs.log(x, f"not trained: {error}")
        return
    if reason := vanishing(config, prepared.trainer, study.trials, x):
        study.fail(x, reason, {"status": "screened", **costs})
        runs.log(x, f"not trained: {reason}")
        return
    best = max(
        (t.value for t in told(study.trials) if t.value is not None), default=None
    )
    result = runs.train(x, config.seed, best)
    metrics = {
        "status": result.status,
        "reason": result.reason,
        "history": [entry["validation_accuracy"] for entry in result.history],
        "seconds": result.seconds,
        "num_step_traces": prepared.trainer.num_step_traces,
        **costs,
    }
    if result.status == "diverged":
        study.fail(x, result.reason, metrics)
        runs.log(x, f"failed: {result.reason}")
    else:
        metrics["test_accuracy"] = result.test_accuracy
        observed = np.asarray(result.state.observed[2], float)
        if np.all(np.isfinite(observed)):
            metrics["observed"] = observed.tolist()
        study.tell(x, result.validation_accuracy, metrics=metrics)
        note = " (stopped: still at chance)" if result.status == "at_chance" else ""
        runs.log(
            x,
            f"validation {result.validation_accuracy:.1%}{note}  "
            f"period {costs['period_s'] * 1e6:.2f} µs",
        )
    runs.forget(x, config.seed)


def vanishing(
    config: PlacementConfig, trainer: Trainer, trials: list[Trial], x: np.ndarray
) -> str:
    """Why the newest trial's placement is not worth training, or nothing."""
    if x.all() or not x.any() or not config.least_health:
        return ""
    latest = trials[-1 - _MAX_SCREENED : -1]
    if len(latest) == _MAX_SCREENED and all(map(is_screened, latest)):
        return ""
    health = trainer.gradient_health(x, config.seed)
    if not health.min() > 0:  # as behind a last layer that begins at 0, with any norms
        health = health[trainer.gradient_health(np.ones_like(x), config.seed) > 0]
    health = min(health, default=np.inf)
    if health >= config.least_health:  # false also where it is not a number
        return ""
    return (
        f"gradients vanish: {health:.1e} of the weights before training, below "
        f"{config.least_health:.1e}"
    )


def why_not(all_bn: PlacementRow, trainer: Trainer) -> str:
    """Why nothing can be held against All-BN, or nothing."""
    accuracy = mean(all_bn.validation)
    if all_bn.statuses[0] == "diverged" or accuracy is None:
        return "All-BN failed, so nothing can be measured against it"
    if accuracy <= trainer.chance + CHANCE_MARGIN:
        return "All-BN did not learn; train longer, or change the rate"
    return ""


def valid(trials: list[Trial], reference: float) -> list[Trial]:
    """Trials within tolerance of a validation accuracy, the best on the chip first.

    Those that the chip cannot run are left out.
    """
    found, remaining = [], [t for t in trials if t.metrics.get("feasible", True)]
    while remaining:
        choice = pareto.choose(
            np.array([t.value for t in remaining], float),
            [t.metrics["period_s"] for t in remaining],
            [t.metrics["energy_j"] for t in remaining],
            reference_accuracy=reference,
            tolerance=TOLERANCE,
        )
        if choice.index is None:
            break
        found.append(remaining.pop(choice.index))
    return found


def is_confirmed(row: PlacementRow, reference: PlacementRow) -> bool:
    """Whether a placement trains from every seed and is as accurate as another.

    Its validation accuracy may be 1 point lower, in the mean over the same seeds,
    however much both scatter.
    """
    if any(status != "trained" for status in row.statuses):
        return False
    return is_within(paired_losses(row.validation, reference.validation))
