"""The figures of a placement search."""

import pathlib

import jax
import numpy as np
from matplotlib.figure import Figure

from codesign.hardware import reram_gpu
from codesign.report import figures
from codesign.search.surrogate import Posterior, sample_posterior
from codesign.search.thompson import without_long_tail
from codesign.studies.deeptrain.placement_result import (
    Outcome,
    Row,
    found_status,
    mask_text,
)
from codesign.studies.deeptrain.placement_search import TOLERANCE

LABELS = {"all_bn": "All-BN", "no_bn": "No-BN", "paper": "Paper's", "bo_n": "BO-N"}
_STACKS = ((2, 2), (3, 1))  # R, G: those of the paper's Figs. 7 and 11
_SHOWN_BELOW = 0.15  # accuracies so far below All-BN stand at the edge of a front


def fit_surrogate(outcome: Outcome) -> Posterior | None:
    """Four chains of the search's surrogate on every told trial; None without any."""
    if not outcome.told:
        return None
    return sample_posterior(
        jax.random.key(0),
        np.array([trial.x for trial in outcome.told]),
        without_long_tail([float(np.mean(trial.values)) for trial in outcome.told]),
        num_chains=4,
        num_warmup=2000,
        num_samples=1000,
    )


def draw(
    outcome: Outcome,
    posterior: Posterior | None,
    workdir: pathlib.Path,
    prefix: str,
    *,
    effect: float,
) -> list[tuple[str, str]]:
    """Saves the figures as PNG; returns their file names with captions.

    A site is included where a batch norm changes the accuracy by more than `effect`.
    Those that need an accuracy are left out when every candidate failed.
    """
    drawn: list[tuple[str, Figure, str]] = []
    if outcome.told:
        drawn = [
            (
                "best_so_far",
                _best_so_far(outcome),
                "Validation accuracy of each evaluation, in order, and the best so far.",
            ),
            (
                "pareto_period",
                _front(outcome, "period_s", "Pipeline period", "s"),
                "Validation accuracy against the pipeline's period. The front is over "
                "accuracy, period and energy.",
            ),
            (
                "pareto_energy",
                _front(outcome, "energy_j", "Energy per image", "J"),
                "The same against the energy of one image.",
            ),
        ]
    drawn.append(
        (
            "stages",
            _stages(outcome),
            "Slowest pipeline stages, each over its Conv/FC stage: before (the paper's "
            "Fig. 7) and after the search (Fig. 11).",
        )
    )
    if posterior is not None:
        drawn += [
            (
                "inclusion",
                _inclusion(outcome, posterior, effect),
                "Posterior probability that a batch norm at a site changes the accuracy "
                f"by more than {effect:.2%}, and what it costs.",
            ),
            (
                "training_curves",
                figures.training_curves(
                    {LABELS[key]: row.history for key, row in outcome.rows.items()}
                ),
                "Validation accuracy over epochs, first seed.",
            ),
        ]
    captions = []
    for name, figure, caption in drawn:
        path = f"{prefix}{name}.png"
        figures.save(figure, workdir / path)
        captions.append((path, caption))
    return captions


def _best_so_far(outcome: Outcome) -> Figure:
    def status(trial):
        if trial.status == "failed":
            return "failed"
        return "at chance" if found_status(trial) == "at_chance" else trial.origin

    reference = _reference(outcome)
    return figures.best_so_far(
        [trial.value for trial in outcome.trained],
        [status(trial) for trial in outcome.trained],
        references={} if reference is None else {"All-BN": reference},
        tolerance=TOLERANCE,
    )


def _front(outcome: Outcome, metric: str, label: str, unit: str) -> Figure:
    names = {mask_text(row.mask): LABELS[key] for key, row in outcome.rows.items()}
    keys = [mask_text(trial.x) for trial in outcome.told]
    chosen = mask_text(outcome.rows["bo_n"].mask)
    reference = _reference(outcome)
    return figures.pareto(
        [trial.metrics[metric] for trial in outcome.told],
        [float(np.mean(trial.values)) for trial in outcome.told],
        front=list(outcome.on_front),
        labels=[names.get(key) for key in keys],
        highlight=keys.index(chosen) if chosen in keys else None,
        y_floor=None if reference is None else reference - _SHOWN_BELOW,
        x_label=label,
        x_unit=unit,
        y_label="Validation accuracy",
    )


def _stages(outcome: Outcome) -> Figure:
    def slowest(row: Row, r: int, g: int) -> tuple[float, float]:
        parts = outcome.estimate(row.mask, reram_gpu.deeptrain(r, g)).breakdown
        return float(parts["slowest_conv_s"]), float(parts["slowest_bn_s"])

    return figures.stage_bars(
        {
            LABELS[key]: {
                f"{r}R{g}G": slowest(outcome.rows[key], r, g) for r, g in _STACKS
            }
            for key in ("all_bn", "bo_n")
        }
    )


def _inclusion(outcome: Outcome, posterior: Posterior, effect: float) -> Figure:
    mask = outcome.rows["bo_n"].mask
    norms = outcome.ops.select("norm")
    elements = dict(zip(norms.sites, np.array(norms.elements), strict=True))
    return figures.inclusion_probability(
        list(posterior.site_inclusion(effect)),
        list(mask),
        [f"C{site + 1}" for site in range(len(mask))],
        elements=[float(elements[site]) for site in range(len(mask))],
    )


def _reference(outcome: Outcome) -> float | None:
    """Validation accuracy of All-BN in the search."""
    return next((t.value for t in outcome.told if t.x.all()), None)
