"""What a placement search found, as people read it."""

import dataclasses
from typing import Any

import numpy as np

from codesign import report as reports
from codesign.hardware.reram_gpu import ReramGpuSpec
from codesign.report import Card, Column, Paragraph, Quantity, Table
from codesign.search.diagnostics import Diagnostics, diagnose
from codesign.studies import frame
from codesign.studies.claims import TOLERANCE
from codesign.studies.deeptrain import (
    placement_beside,
    placement_claims,
    placement_figures,
    stack_published,
)
from codesign.studies.deeptrain import placement_sensitivity as sensitivity
from codesign.studies.deeptrain.placement_beside import Finding, site_names
from codesign.studies.deeptrain.placement_claims import Claim
from codesign.studies.deeptrain.placement_figures import LABELS
from codesign.studies.deeptrain.placement_quantities import (
    over_networks,
    result_quantities,
)
from codesign.studies.deeptrain.placement_result import (
    PlacementResult,
    PlacementRow,
    found_status,
)
from codesign.studies.deeptrain.placement_settings import PlacementConfig


def report(config: PlacementConfig, found: dict[str, PlacementResult]) -> frame.Report:
    """The tables, figures and numbers of every network, and the published placements."""
    several = len(found) > 1
    sections, shown, cards, warnings = [], [], [], []
    quantities: list[Quantity] = []
    sensitive: dict[str, Any] = {}
    claims = placement_claims.settle(config, found)
    for name, result in found.items():
        table = comparison_table(config, result, claims.get(name))
        shown.append(table)
        posterior = placement_figures.fit_surrogate(result)
        diagnostics = None if posterior is None else diagnose(posterior)
        figures = placement_figures.draw(
            result,
            posterior,
            f"{name}_" if several else "",
            effect=config.sparsity_penalty or TOLERANCE,
        )
        surrogate = [] if diagnostics is None else [surrogate_table(diagnostics)]
        found_here = sensitivity.find(result)
        sensitive[name] = sensitivity.extras(found_here)
        knobs = [sensitivity.knob_table(result, found_here)] if found_here else []
        sites = [sensitivity.site_table(result)] if found_here else []
        beside = _beside(config, result, claims.get(name))
        body = [*knobs, table, *beside, *figures, *sites, *surrogate]
        body.append(trials_table(result))
        sections.append(frame.Section(f"{name} on {config.dataset}", body))
        cards += _cards(result, claims.get(name), several)
        warnings += _warnings(result)
        quantities += result_quantities(result, diagnostics)
    chip = next(iter(found.values())).chip
    is_papers = any(result.is_papers for result in found.values())
    if is_papers:
        about = (
            "Full width and 32x32 inputs, whatever was trained above. Each number of the "
            "paper stands beside ours under 'paper and ours'."
        )
        body = [Paragraph(about), stack_published.speedup_table()]
        sections.append(frame.Section("The published placements", body))
    return frame.Report(
        title=f"Batch norms on {chip.name}",
        summary=" ".join(
            summary(config, result, claims.get(name)) for name, result in found.items()
        ),
        sections=sections,
        cards=cards,
        shown=shown,
        warnings=warnings,
        quantities=[
            # The paper's are means over networks.
            *(dataclasses.replace(q, paper=None) for q in quantities if several),
            *over_networks(quantities, several),
            *(stack_published.published_quantities() if is_papers else []),
        ],
        extras={
            "found": {name: _found(result) for name, result in found.items()},
            "claim": {
                name: claims[name].verdict if name in claims else None for name in found
            },
            "sensitivities": sensitive,
        },
        compared=(
            "The paper's numbers and ours",
            "GPU work saved by BO-N: of what was trained above. All else: of the "
            "published placements at full width.",
        ),
    )


def summary(
    config: PlacementConfig, result: PlacementResult, claim: Claim | None
) -> str:
    """The answer in a paragraph."""
    all_bn, bo_n = result.rows["all_bn"], result.rows["bo_n"]
    name = f"{result.network_name} on {config.dataset}"
    if claim is None:
        return f"{name}: no placement with fewer batch norms: {result.doubt}."
    kept = int(bo_n.mask.sum())
    where = f" (after {_sites(bo_n.mask)})" if kept else ""
    time = _change(bo_n.period_s, all_bn.period_s)
    energy = _change(bo_n.energy_j, all_bn.energy_j)
    return (
        f"{name} keeps {kept} of its {len(bo_n.mask)} batch norms{where}: test accuracy "
        f"{_accuracy(bo_n)} against {_accuracy(all_bn)} with all, over "
        f"{_count(len(bo_n.test), 'seed')}, "
        f"{claim.sentence}. On {result.chip.name} an image then takes {time} time and "
        f"{energy} energy."
    )


def _change(new: float, old: float) -> str:
    """By how much one is less, or more, than another: "54.1% less"."""
    if new == old:
        return "the same"
    if not old:
        return "more"
    return f"{abs(1 - new / old):.1%} {'less' if new < old else 'more'}"


def comparison_table(
    config: PlacementConfig, result: PlacementResult, claim: Claim | None
) -> Table:
    """All-BN, No-BN, the paper's placement and BO-N: accuracy and cost."""
    stages = {"slowest_conv_s": "ReRAM stage", "slowest_bn_s": "GPU stage"}
    if not isinstance(result.chip.spec, ReramGpuSpec):
        stages = {}
    width = "" if config.brought else f" (width {config.width:g})"
    table = Table(
        f"{result.network_name}{width} on {config.dataset}, {result.chip.name}",
        [
            "Placement",
            Column("BN", justify="right"),
            Column("Sites"),
            Column("Test accuracy", justify="right"),
            "Claim",
            *(Column(name, "s", "si") for name in stages.values()),
            Column("Period", "s", "si"),
            Column("Training", "s", "si"),
            Column("Energy", "J", "si"),
            Column("GPU work" if stages else "BN work", format="percent"),
        ],
        footnotes=[
            _footnote(result),
            placement_claims.footnote(config),
            "BO-N: the placement that the search found. "
            + "ReRAM stage: the slowest conv or dense layer. GPU stage: batch norm. "
            * bool(stages)
            + (
                "Period: between two images in the full pipeline, the longer of the two. "
                if stages
                else "Period: time of one image. "
            )
            + f"Training: {_count(config.train.epochs, 'epoch')} on the chip. Energy: of "
            "one image.",
            f"{'GPU' if stages else 'BN'} work: batch-norm elements, All-BN being 100 %. "
            "Hardware numbers are exact model values; none is fitted.",
        ],
    )
    work = result.rows["all_bn"].bn_elements
    for key, row in result.rows.items():
        table.add(
            LABELS[key] if result.confirmed or key != "bo_n" else "BO-N: none found",
            int(row.mask.sum()),
            reports.format_mask(row.mask),
            _accuracy(row),
            claim and claim.text if key == "bo_n" else None,
            *(float(row.cost.breakdown[part]) for part in stages),
            row.period_s,
            row.training_time_s,
            row.energy_j,
            row.bn_elements / work,
            style="highlight" if key == "bo_n" and result.confirmed else "",
            marker="★" if key == "bo_n" and result.confirmed else "",
        )
    return table


def trials_table(result: PlacementResult) -> Table:
    """Every evaluation of the search, in order."""
    table = Table(
        "Evaluations",
        [
            Column("#", justify="right"),
            "Placement",
            Column("BN", justify="right"),
            "Proposed by",
            Column("Validation", format="percent"),
            Column("Period", "s", "si"),
            Column("Energy/image", "J", "si"),
            Column("Training", "s", ".1f"),
            "Outcome",
        ],
    )
    for trial in result.ended:
        table.add(
            trial.number + 1,
            reports.format_mask(trial.x),
            int(trial.x.sum()),
            trial.origin,
            trial.value,
            trial.metrics.get("period_s"),
            trial.metrics.get("energy_j"),
            trial.metrics.get("seconds", trial.seconds),
            trial.reason or found_status(trial).replace("_", " "),
            style="bad" if trial.status == "failed" else "",
        )
    return table


def surrogate_table(diagnostics: Diagnostics) -> Table:
    """Whether the chains behind the inclusion figure agree."""
    table = Table(
        "Surrogate",
        [
            "Sampler",
            Column("Chains", format="d"),
            Column("Draws", format="d"),
            Column("Worst R-hat", format=".3f"),
            Column("Least ESS", format=".0f"),
            Column("Divergences", justify="right"),
        ],
        footnotes=[
            "Over the noise, the global scale, the intercept and each site's linear and "
            "total effect; R-hat is 1 where chains agree, ESS counts independent draws. "
            "Only NUTS can diverge.",
        ],
    )
    table.add(
        {"gibbs": "Gibbs", "nuts": "NUTS"}[diagnostics.sampler],
        diagnostics.num_chains,
        diagnostics.num_draws,
        diagnostics.worst_r_hat,
        diagnostics.least_effective_size,
        diagnostics.num_divergent,
    )
    return table


def _footnote(result: PlacementResult) -> str:
    least = min(len(row.test) for row in result.rows.values())
    most = len(result.rows["all_bn"].test)
    text = f"Test accuracy: mean over {_count(least, 'seed')}"
    if most > least:
        text += f", of All-BN and BO-N over {most}"
    return text + (", and its standard error." if most > 1 else ".")


def _found(result: PlacementResult) -> str | None:
    if not result.confirmed:
        return None
    return site_names([int(s) for s in np.flatnonzero(result.rows["bo_n"].mask)])


def _beside(
    config: PlacementConfig, result: PlacementResult, claim: Claim | None
) -> list[Table]:
    """What other searches found, if the settings name some."""
    if not result.others:
        return []
    mask = result.rows["bo_n"].mask
    this = Finding(
        seed=config.seed,
        num_cpus=reports.environment()["num_cpus"],
        num_evaluations=len(result.trained),
        sites=tuple(map(int, np.flatnonzero(mask))) if claim else None,
        period_s=result.rows["bo_n"].period_s,
        loss=claim and claim.loss.mean,
        loss_upper=claim and claim.loss.bound(),
        verdict=claim and claim.verdict,
    )
    return [placement_beside.table(this, result.others)]


def _cards(result: PlacementResult, claim: Claim | None, several: bool) -> list[Card]:
    all_bn, bo_n = result.rows["all_bn"], result.rows["bo_n"]
    name = f"{result.network_name}: " if several else ""
    return [
        Card(
            f"{name}Batch norms kept",
            f"{int(bo_n.mask.sum())} of {len(bo_n.mask)}",
            f"after {_sites(bo_n.mask)}",
        ),
        Card(
            f"{name}Test accuracy",
            _accuracy(bo_n),
            f"{_accuracy(all_bn)} with All-BN" + (f": {claim.text}" if claim else ""),
        ),
        Card(
            f"{name}Period",
            reports.format_si(bo_n.period_s, "s"),
            f"{reports.format_si(all_bn.period_s, 's')} with All-BN",
        ),
        Card(
            f"{name}Energy per image",
            reports.format_si(bo_n.energy_j, "J"),
            f"{reports.format_si(all_bn.energy_j, 'J')} with All-BN",
        ),
    ]


def _warnings(result: PlacementResult) -> list[str | Table]:
    failed = [trial for trial in result.trained if trial.status == "failed"]
    notes: list[str | Table] = []
    if failed:
        table = Table(
            f"Failed candidates of {result.network_name}", ["Placement", "Why"]
        )
        for trial in failed:
            table.add(reports.format_mask(trial.x), trial.reason)
        notes.append(table)
    if not result.confirmed:
        notes.append(f"{result.network_name}: {result.doubt}.")
    unfit = [
        LABELS[key]
        for key, row in result.rows.items()
        if row.cost.feasible is not None and not row.cost.feasible
    ]
    if unfit:
        notes.append(
            f"{result.chip.name} cannot run {', '.join(unfit)} of {result.network_name}: "
            "a limit of the chip is passed. Their costs are those of a larger one."
        )
    all_bn, no_bn = result.rows["all_bn"], result.rows["no_bn"]
    if (all_bn.period_s, all_bn.energy_j) == (no_bn.period_s, no_bn.energy_j):
        notes.append(
            f"{result.chip.name} charges {result.network_name} the same with all batch "
            "norms and with none, so only accuracy tells placements apart."
        )
    return notes


def _accuracy(row: PlacementRow) -> str:
    num_seeds, num_diverged = len(row.test), row.num_diverged
    if row.accuracy is None:
        return "diverged" if num_seeds == 1 else f"all {num_seeds} diverged"
    text = f"{row.accuracy:.1%}"
    if row.accuracy_error is not None:
        text = f"{text[:-1]} ± {row.accuracy_error:.1%}"
    if num_diverged:
        text += f" ({num_seeds - num_diverged} of {num_seeds}, {num_diverged} diverged)"
    return text


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"


def _sites(mask: np.ndarray) -> str:
    return ", ".join(f"C{site + 1}" for site in np.flatnonzero(mask)) or "none"
