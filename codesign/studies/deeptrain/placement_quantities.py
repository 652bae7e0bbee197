"""The numbers of a placement search, as results.json holds them."""

import dataclasses

import numpy as np

from codesign.report import Quantity
from codesign.search.diagnostics import Diagnostics
from codesign.studies.deeptrain.placement_result import Outcome, standard_error


def outcome_quantities(outcome: Outcome, *, several: bool) -> list[Quantity]:
    """The numbers of one network; names carry the network when there are several."""
    rows = outcome.rows
    suffix = f",{outcome.network_name}" if several else ""
    found = []
    for key, row in rows.items():
        index = f"[{key}{suffix}]"
        error = row.accuracy_error
        seeds = f"mean of {len(row.test)} seeds, standard error {error:.4f}"
        found += [
            Quantity(
                f"accuracy{index}",
                row.accuracy,
                "",
                kind="measured",
                note=seeds if row.test else "every run diverged",
            ),
            Quantity(f"num_bn{index}", int(row.mask.sum()), "", kind="measured"),
            Quantity(
                f"period_s{index}", row.period_s, "s", kind="assumed",
                note="exact model at the sourced prior",
            ),
            Quantity(
                f"training_time_s{index}", row.training_time_s, "s", kind="assumed",
                note="on the stack; exact model at the sourced prior",
            ),
            Quantity(
                f"energy_j{index}", row.energy_j, "J", kind="assumed",
                note="per image; exact model at the sourced prior",
            ),
        ]  # fmt: skip
        if row.validation:
            mean = float(np.mean(row.validation))
            found.append(
                Quantity(
                    f"validation_accuracy{index}", mean, "", kind="measured",
                    note=f"standard error {standard_error(row.validation):.4f}",
                )
            )  # fmt: skip
    tail = f"[{outcome.network_name}]" if several else ""
    work = 1 - rows["bo_n"].bn_elements / rows["all_bn"].bn_elements
    found += [
        Quantity(
            f"gpu_work_reduction{tail}", work, "", kind="measured",
            paper=0.82, source="Fig. 9(b), mean of four networks at full width",
            note="batch-norm elements that BO-N saves",
        ),
        Quantity(
            f"num_evaluations{tail}", len(outcome.trained), "", kind="measured",
            note="All-BN, No-BN and random ones included",
        ),
        Quantity(
            f"num_failed{tail}",
            sum(trial.status == "failed" for trial in outcome.trained),
            "",
            kind="measured",
        ),
        Quantity(
            f"num_screened{tail}",
            len(outcome.ended) - len(outcome.trained),
            "",
            kind="measured",
            note="not trained: gradients vanish before training",
        ),
        Quantity(
            f"train_step_traces{tail}", outcome.num_step_traces, "", kind="measured"
        ),
        Quantity(f"confirmed{tail}", outcome.confirmed, "", kind="measured"),
    ]  # fmt: skip
    return found


def surrogate_quantities(
    outcome: Outcome, diagnostics: Diagnostics | None, *, several: bool
) -> list[Quantity]:
    """How far the chains of a network's surrogate agree; None where there are none."""
    tail = f"[{outcome.network_name}]" if several else ""
    why = "" if diagnostics else "; every candidate failed"
    r_hat = diagnostics and diagnostics.worst_r_hat
    effective_size = diagnostics and diagnostics.least_effective_size
    return [
        Quantity(
            f"surrogate_r_hat{tail}", r_hat, "", kind="measured",
            note=f"worst of noise, global scale, intercept and site effects{why}",
        ),
        Quantity(
            f"surrogate_ess{tail}", effective_size, "", kind="measured",
            note=f"least effective sample size of the same{why}",
        ),
    ]  # fmt: skip


def over_networks(
    quantities: list[Quantity], outcomes: list[Outcome]
) -> list[Quantity]:
    """The same names without a network: means, totals of counts, the most traces."""
    groups: dict[str, list[Quantity]] = {}
    for quantity in quantities:
        base = quantity.name
        for outcome in outcomes:
            name = outcome.network_name
            base = base.replace(f",{name}]", "]").replace(f"[{name}]", "")
        groups.setdefault(base, []).append(quantity)
    found = []
    for name, group in groups.items():
        values = [q.value for q in group if q.value is not None]
        if name == "train_step_traces":
            value, note = max(values), "most of any network"
        elif name == "surrogate_r_hat":
            value, note = max(values, default=None), "worst of any network"
        elif name == "surrogate_ess":
            value, note = min(values, default=None), "least of any network"
        elif name in ("num_evaluations", "num_failed", "num_screened"):
            value, note = sum(values), "sum over networks"
        elif name == "confirmed":
            value, note = all(values), "all networks"
        else:
            value = float(np.mean(values)) if values else None
            note = f"mean of {len(values)} networks"
        found.append(
            dataclasses.replace(
                group[0], name=name, value=value, note=f"{note}; {group[0].note}"
            )
        )
    return found
