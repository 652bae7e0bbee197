"""The published placements on the stack, at full width, beside the paper's numbers."""

import dataclasses
import functools

import jax
import numpy as np

from codesign import models, workload
from codesign.hardware import reram_gpu, roofline
from codesign.hardware.reram_gpu import ReramGpuSpec
from codesign.report import Column, Quantity, Table
from codesign.studies.deeptrain import stack_fit as calibration
from codesign.workload import Workload

_STACKS = ((1, 3), (2, 2), (3, 1))  # R, G
_GPU_EFFICIENCIES = (0.2, 0.35, 0.5, 0.65, 0.8)


@dataclasses.dataclass(frozen=True)
class _Case:
    """One network: all its batch norms, and those of the published placement."""

    name: str
    full: Workload
    kept: Workload


@functools.cache
def _cases() -> tuple[_Case, ...]:
    cases = []
    for name in ("vgg11", "vgg16", "vgg19", "resnet18"):
        network = models.create(name)
        ops = workload.trace(*network.trace_args())
        kept = ops.masked(network.mask(network.paper_sites))
        cases.append(_Case(name, ops, kept))
    return tuple(cases)


@functools.cache
def _fitted() -> ReramGpuSpec:
    """3R1G with its two unpublished numbers fitted, once for the table and the rest."""
    pairs = [(case.full, case.kept) for case in _cases()]
    return calibration.fit(reram_gpu.deeptrain(3, 1), pairs)


def quantities() -> list[Quantity]:
    """Every published number of the DeepTrain hardware with ours, none left out."""
    cases = _cases()
    prior = reram_gpu.deeptrain(3, 1)
    pairs = [(case.full, case.kept) for case in cases]
    fitted = _fitted()
    per_element = float(prior.bn_instructions_per_element)
    ratio = per_element / float(fitted.gpu_utilisation)
    prior_ratio = per_element / float(prior.gpu_utilisation)
    fit_note = (
        f"instructions per element / utilisation fitted to {ratio:.0f} for all four "
        f"networks; our prior is {prior_ratio:.0f}"
    )
    work = [1 - _bn_elements(case.kept) / _bn_elements(case.full) for case in cases]
    found = [
        Quantity(
            "published.gpu_work_reduction",
            float(np.mean(work)),
            "",
            kind="derived",
            paper=0.82,
            source="Fig. 9(b)",
            note="elements of the sites; the paper counts GPGPU-Sim instructions",
        )
    ]
    vgg19 = next(case.full for case in cases if case.name == "vgg19")
    for r, g in _STACKS:
        found.append(
            Quantity(
                f"published.holds[vgg19,{r}R{g}G]",
                bool(_estimate(reram_gpu.deeptrain(r, g), vgg19).feasible),
                "",
                kind="derived",
                paper=r > 1,
                source="Section VI-A",
            )
        )
    for label, spec in (("fitted", fitted), ("prior", prior)):
        found += _cut_quantities(label, spec, pairs, fit_note)
        found += _balance_quantities(label, spec, fit_note)
    found.append(
        Quantity(
            "published.speedup_over_gpu[max]",
            max(_speedups(fitted, efficiency=0.5).values()),
            "",
            kind="fitted",
            paper=15.0,
            source="Fig. 14",
            note=f"{fit_note}; Titan Xp at half its peak, assumed: see the curve",
        )
    )
    gpu = {case.name: _gpu_period(case.full, 0.5) for case in cases}
    gpu_cut = [
        1 - _gpu_period(case.kept, 0.5) / _gpu_period(case.full, 0.5) for case in cases
    ]
    found += [
        Quantity(
            "published.gpu_time_ratio[vgg19/vgg11]",
            gpu["vgg19"] / gpu["vgg11"],
            "",
            kind="assumed",
            paper=2.0,
            source="Section I",
            note="roofline at half the peak of a Titan Xp",
        ),
        Quantity(
            "published.gpu_period_cut",
            float(np.mean(gpu_cut)),
            "",
            kind="assumed",
            paper=0.0,
            source="Fig. 14",
            note="the paper sees none; batch norm is memory-bound, so a roofline does",
        ),
    ]
    return found


def speedup_table() -> Table:
    """Speed-up of 3R1G with the published placements over a Titan Xp with all norms."""
    cases = _cases()
    fitted = _fitted()
    table = Table(
        "Speed-up of 3R1G with the published placements over a Titan Xp (All-BN)",
        [
            Column("GPU efficiency", format="percent"),
            *(Column(case.name, format=".1f") for case in cases),
        ],
        footnotes=[
            "GPU efficiency: part of the peak that its convolutions reach, assumed. "
            "The paper measures up to 15x. Latency of batch norm fitted to Fig. 12."
        ],
    )
    for efficiency in _GPU_EFFICIENCIES:
        table.add(efficiency, *_speedups(fitted, efficiency).values())
    return table


def _cut_quantities(label, spec, pairs, fit_note) -> list[Quantity]:
    period, energy = calibration.cuts(spec, pairs)
    prior_note = "at our sourced prior, nothing fitted"
    picojoules = float(spec.gpu_instruction_energy_j) * 1e12
    energy_note = f"energy of a GPU instruction fitted to {picojoules:.0f} pJ"
    is_fit = label == "fitted"
    return [
        Quantity(
            f"published.period_cut[{label}]",
            float(period.mean()),
            "",
            kind="fitted" if is_fit else "assumed",
            paper=calibration.PAPER_PERIOD_CUT,
            source="Fig. 12",
            note=fit_note if is_fit else prior_note,
        ),
        Quantity(
            f"published.energy_cut[{label}]",
            float(energy.mean()),
            "",
            kind="fitted" if is_fit else "assumed",
            paper=calibration.PAPER_ENERGY_CUT,
            source="Fig. 12",
            note=energy_note if is_fit else f"{prior_note}: {picojoules:.0f} pJ",
        ),
    ]


def _balance_quantities(label, spec, fit_note) -> list[Quantity]:
    """Slowest batch-norm stage over slowest conv stage, All-BN: Fig. 7."""
    found = []
    for r, g in ((2, 2), (3, 1)):
        stack = spec.replace(num_reram_tiers=np.float32(r), num_gpu_tiers=np.float32(g))
        ratios = []
        for case in _cases():
            parts = _estimate(stack, case.full).breakdown
            ratios.append(float(parts["slowest_bn_s"] / parts["slowest_conv_s"]))
        spread = ", ".join(
            f"{case.name} {ratio:.2f}"
            for case, ratio in zip(_cases(), ratios, strict=True)
        )
        note = f"paper: {'near 1' if r == 2 else 'well above 1'}; {spread}"
        found.append(
            Quantity(
                f"published.bn_over_conv[{r}R{g}G,{label}]",
                float(np.mean(ratios)),
                "",
                kind="fitted" if label == "fitted" else "assumed",
                source="Fig. 7",
                note=f"{note}; {fit_note}" if label == "fitted" else note,
            )
        )
    return found


def _bn_elements(ops: Workload) -> float:
    return float(ops.select("norm").elements.sum())


def _gpu_period(ops: Workload, efficiency: float) -> float:
    spec = dataclasses.replace(
        roofline.titan_xp(), compute_efficiency=np.float32(efficiency)
    )
    return float(_roofline(spec, ops).period_s)


def _speedups(spec: ReramGpuSpec, efficiency: float) -> dict[str, float]:
    return {
        case.name: _gpu_period(case.full, efficiency)
        / float(_estimate(spec, case.kept).period_s)
        for case in _cases()
    }


_estimate = jax.jit(reram_gpu.estimate)
_roofline = jax.jit(roofline.estimate)
