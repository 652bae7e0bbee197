"""The numbers of a placement search, as results.json holds them."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from codesign.report import Quantity
from codesign.search.diagnostics import Diagnostics
from codesign.studies.claims import PairedLoss
from codesign.studies.deeptrain.placement_result import (
    PlacementResult,
    mean,
    standard_error,
)
from codesign.studies.deeptrain.stack_published import GPU_WORK_CUT


def result_quantities(
    result: PlacementResult, diagnostics: Diagnostics | None
) -> list[Quantity]:
    """The numbers of one network."""
    found = []
    of = {"network": result.network_name}

    def add(name: str, value: Any, unit: str = "", placement: str = "", **more) -> None:
        where = {"placement": placement, **of} if placement else of
        found.append(
            Quantity(name, value, unit, of=where, **{"kind": "measured", **more})
        )

    for key, row in result.rows.items():
        note = _spread(row.test)
        add("accuracy", row.accuracy, "", key, note=note)
        add("num_bn", int(row.mask.sum()), "", key)
        for name, unit, what in (
            ("period_s", "s", ""),
            ("training_time_s", "s", f"on {result.chip.name}; "),
            ("energy_j", "J", "per image; "),
        ):
            note = f"{what}exact model of {result.chip.name}"
            add(name, getattr(row, name), unit, key, kind="assumed", note=note)
        accuracy = mean(row.validation)
        if accuracy is not None:
            note = _spread(row.validation)
            add("validation_accuracy", accuracy, "", key, note=note)
    _add_loss(add, result.loss, result.doubt)
    rows = result.rows
    papers: dict[str, Any] = dict(
        paper=GPU_WORK_CUT, source="Fig. 9(b), mean of four networks at full width"
    )
    add(
        "gpu_work_reduction", 1 - rows["bo_n"].bn_elements / rows["all_bn"].bn_elements,
        "ratio", title="GPU work saved by BO-N",
        note="batch-norm elements that BO-N saves",
        **(papers if result.is_papers else {}),
    )  # fmt: skip
    note = "All-BN, No-BN and random ones included"
    add("num_evaluations", len(result.trained), note=note)
    add("num_failed", sum(trial.status == "failed" for trial in result.trained))
    note = "not trained: gradients vanish before training"
    add("num_screened", len(result.ended) - len(result.trained), note=note)
    add("train_step_traces", result.num_step_traces)
    add("confirmed", result.confirmed)
    why = "" if diagnostics else "; every candidate failed"
    note = f"worst of noise, global scale, intercept and site effects{why}"
    add("surrogate_r_hat", diagnostics and diagnostics.worst_r_hat, note=note)
    note = f"least effective sample size of the same{why}"
    add("surrogate_ess", diagnostics and diagnostics.least_effective_size, note=note)
    return found


def _add_loss(add: Callable[..., None], loss: PairedLoss | None, doubt: str) -> None:
    """Adds what BO-N loses against All-BN on the test split, and its bound."""
    if loss is None:
        for name in ("accuracy_loss", "accuracy_loss_upper"):
            add(name, None, "", "bo_n", note=f"none found: {doubt}")
        return
    count = len(loss.losses)
    note = f"paired mean of {count} seed{'s' if count > 1 else ''}"
    add("accuracy_loss", loss.mean, "", "bo_n", note=note)
    note = "one-sided 95% bound of it" if count > 1 else "one seed has no bound"
    add("accuracy_loss_upper", loss.bound(), "", "bo_n", note=note)


def _spread(accuracies: tuple[float | None, ...]) -> str:
    num_seeds, num_diverged = len(accuracies), accuracies.count(None)
    if num_diverged == num_seeds:
        return "every run diverged"
    error = standard_error(accuracies)
    seeds = f"{num_seeds} seeds"
    if num_diverged:
        seeds = f"{num_seeds - num_diverged} of {seeds}, {num_diverged} diverged"
    if error is None:
        return seeds if num_diverged else "one seed"
    return f"mean of {seeds}, standard error {error:.4f}"


_OVER_NETWORKS = {  # else the mean
    "train_step_traces": (max, "most of any network"),
    "accuracy_loss_upper": (max, "largest of any network"),
    "surrogate_r_hat": (max, "worst of any network"),
    "surrogate_ess": (min, "least of any network"),
    "num_evaluations": (sum, "sum over networks"),
    "num_failed": (sum, "sum over networks"),
    "num_screened": (sum, "sum over networks"),
    "confirmed": (all, "all networks"),
}


def over_networks(quantities: Sequence[Quantity], several: bool) -> list[Quantity]:
    """The same numbers without a network: means, totals of counts, the worst.

    Of one network these are its own, and stand in their place.
    """
    groups: dict[tuple[str, ...], list[Quantity]] = {}
    for quantity in quantities:
        placement = quantity.of.get("placement", "")
        groups.setdefault((quantity.name, placement), []).append(quantity)
    found = []
    for (name, placement), group in groups.items():
        values = [q.value for q in group if q.value is not None]
        join, what = _OVER_NETWORKS.get(
            name, (lambda v: float(np.mean(v)), f"mean of {len(values)} networks")
        )
        value, note = group[0].value, group[0].note
        if several:
            value = join(values) if values else None
            note = f"{what}; {note}" if len({q.note for q in group}) == 1 else what
        of = {"placement": placement} if placement else {}
        found.append(dataclasses.replace(group[0], of=of, value=value, note=note))
    return found
