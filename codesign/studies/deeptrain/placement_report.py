"""Writes what a placement search found: results.json, figures and one HTML page."""

import pathlib
import sys

import numpy as np
import rich.console

from codesign import report
from codesign.records.files import write_atomic
from codesign.report import (
    Card,
    Column,
    FigureImage,
    Paragraph,
    Quantity,
    Section,
    Table,
)
from codesign.search.diagnostics import Diagnostics, diagnose
from codesign.studies.deeptrain import placement_figures as drawing
from codesign.studies.deeptrain import stack_published as published
from codesign.studies.deeptrain.placement_figures import LABELS
from codesign.studies.deeptrain.placement_quantities import (
    outcome_quantities,
    over_networks,
    surrogate_quantities,
)
from codesign.studies.deeptrain.placement_result import Outcome, Row, found_status
from codesign.studies.deeptrain.placement_search import TOLERANCE
from codesign.studies.deeptrain.placement_settings import PlacementConfig


def write(
    config: PlacementConfig,
    outcomes: list[Outcome],
    *,
    workdir: pathlib.Path,
    wall_s: float,
) -> None:
    """Writes `results.json`, PNG figures and `report.html`, and prints the tables."""
    sections, images, cards, notes = [], [], [], []
    quantities: list[Quantity] = []
    for outcome in outcomes:
        prefix = f"{outcome.network_name}_" if len(outcomes) > 1 else ""
        table = comparison_table(config, outcome)
        posterior = drawing.fit_surrogate(outcome)
        diagnostics = None if posterior is None else diagnose(posterior)
        effect = config.sparsity_penalty or TOLERANCE
        drawn = drawing.draw(outcome, posterior, workdir, prefix, effect=effect)
        images += [path for path, _ in drawn]
        sections.append(
            Section(
                f"{outcome.network_name} on {config.dataset}",
                [
                    table,
                    *(FigureImage(workdir / path, text) for path, text in drawn),
                    *([] if diagnostics is None else [surrogate_table(diagnostics)]),
                    trials_table(outcome),
                ],
            )
        )
        cards += _cards(outcome, len(outcomes) > 1)
        notes += _warnings(outcome)
        several = len(outcomes) > 1
        quantities += outcome_quantities(outcome, several=several)
        quantities += surrogate_quantities(outcome, diagnostics, several=several)
        _print(table)
    if len(outcomes) > 1:
        quantities += over_networks(quantities, outcomes)
    quantities += published.quantities()
    sections.append(
        Section(
            "The published placements",
            [
                Paragraph(
                    "Full width and 32x32 inputs, whatever was trained above. Each number "
                    "of the paper stands beside ours under 'paper and ours'."
                ),
                published.speedup_table(),
            ],
        )
    )
    results = report.Results(
        experiment="bn_placement",
        preset=config.preset,
        seed=config.seed,
        environment=report.environment(),
        wall_s=wall_s,
        quantities=quantities,
        figures=images,
    )
    page = report.render_page(
        f"Batch norms on {config.num_reram_tiers}R{config.num_gpu_tiers}G",
        " ".join(summary(config, outcome) for outcome in outcomes),
        cards=cards,
        sections=sections,
        results=results,
        config=config,
        warnings=notes,
    )
    write_atomic(workdir / "report.html", page)
    results.write(workdir / "results.json")
    console = rich.console.Console()
    for outcome in outcomes:
        console.print(summary(config, outcome), highlight=False)
    console.print(f"Report: {workdir / 'report.html'}", highlight=False, soft_wrap=True)


def summary(config: PlacementConfig, outcome: Outcome) -> str:
    """The answer in a paragraph."""
    all_bn, bo_n = outcome.rows["all_bn"], outcome.rows["bo_n"]
    name = f"{outcome.network_name} on {config.dataset}"
    if not outcome.confirmed:
        return f"{name}: no placement with fewer batch norms: {outcome.doubt}."
    kept = int(bo_n.mask.sum())
    cut = 1 - bo_n.period_s / all_bn.period_s
    energy = 1 - bo_n.energy_j / all_bn.energy_j
    return (
        f"{name} needs {kept} of its {len(bo_n.mask)} batch norms (after "
        f"{_sites(bo_n.mask)}): test accuracy {_accuracy(bo_n)} against "
        f"{_accuracy(all_bn)} with all, over {config.num_seeds} seeds. On "
        f"{config.num_reram_tiers}R{config.num_gpu_tiers}G that shortens the pipeline's "
        f"period by {cut:.1%} and saves {energy:.1%} of the energy."
    )


def comparison_table(config: PlacementConfig, outcome: Outcome) -> Table:
    """All-BN, No-BN, the paper's placement and BO-N: accuracy and cost."""
    stack = f"{config.num_reram_tiers}R{config.num_gpu_tiers}G"
    table = Table(
        f"{outcome.network_name} (width {config.width:g}) on {config.dataset}, {stack}",
        [
            "Placement",
            Column("BN", justify="right"),
            Column("Sites"),
            Column("Test accuracy", justify="right"),
            Column("ReRAM stage", "s", "si"),
            Column("GPU stage", "s", "si"),
            Column("Period", "s", "si"),
            Column("Training", "s", "si"),
            Column("Energy/image", "J", "si"),
            Column("GPU work", format="percent"),
        ],
        footnotes=[
            f"Test accuracy: mean and standard error over {config.num_seeds} seeds.",
            "ReRAM stage: the slowest conv or dense layer. GPU stage: batch norm. "
            "Period: between two images in the full pipeline, the longer of the two. "
            f"Training: {config.train.epochs} epochs on the stack.",
            "GPU work: batch-norm elements, All-BN being 100 %. Hardware numbers are "
            "exact model values at the sourced prior; none is fitted.",
        ],
    )
    work = outcome.rows["all_bn"].bn_elements
    for key, row in outcome.rows.items():
        parts = row.cost.breakdown
        table.add(
            LABELS[key],
            int(row.mask.sum()),
            report.format_mask(row.mask),
            _accuracy(row),
            float(parts["slowest_conv_s"]),
            float(parts["slowest_bn_s"]),
            row.period_s,
            row.training_time_s,
            row.energy_j,
            row.bn_elements / work,
            style="highlight" if key == "bo_n" else "",
            marker="★" if key == "bo_n" else "",
        )
    return table


def trials_table(outcome: Outcome) -> Table:
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
    for trial in outcome.ended:
        table.add(
            trial.number + 1,
            report.format_mask(trial.x),
            int(trial.x.sum()),
            trial.origin,
            trial.value,
            trial.metrics["period_s"],
            trial.metrics["energy_j"],
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


def _cards(outcome: Outcome, several: bool) -> list[Card]:
    all_bn, bo_n = outcome.rows["all_bn"], outcome.rows["bo_n"]
    name = f"{outcome.network_name}: " if several else ""
    return [
        Card(
            f"{name}Batch norms kept",
            f"{int(bo_n.mask.sum())} of {len(bo_n.mask)}",
            f"after {_sites(bo_n.mask)}",
        ),
        Card(
            f"{name}Test accuracy", _accuracy(bo_n), f"{_accuracy(all_bn)} with All-BN"
        ),
        Card(
            f"{name}Period",
            report.format_si(bo_n.period_s, "s"),
            f"{report.format_si(all_bn.period_s, 's')} with All-BN",
        ),
        Card(
            f"{name}Energy per image",
            report.format_si(bo_n.energy_j, "J"),
            f"{report.format_si(all_bn.energy_j, 'J')} with All-BN",
        ),
    ]


def _warnings(outcome: Outcome) -> list[str | Table]:
    failed = [trial for trial in outcome.trained if trial.status == "failed"]
    notes: list[str | Table] = []
    if failed:
        table = Table(
            f"Failed candidates of {outcome.network_name}", ["Placement", "Why"]
        )
        for trial in failed:
            table.add(report.format_mask(trial.x), trial.reason)
        notes.append(table)
    if not outcome.confirmed:
        notes.append(f"{outcome.network_name}: {outcome.doubt}.")
    return notes


def _print(table: Table) -> None:
    if sys.stdout.isatty():
        rich.console.Console().print(table.to_rich())
    else:
        print(table.to_text(), flush=True)


def _accuracy(row: Row) -> str:
    if row.accuracy is None:
        return "diverged"
    return f"{row.accuracy:.1%} ± {row.accuracy_error:.1%}".replace("% ±", " ±")


def _sites(mask: np.ndarray) -> str:
    return ", ".join(f"C{site + 1}" for site in np.flatnonzero(mask)) or "none"
