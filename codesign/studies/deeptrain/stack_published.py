"""The published placements on the stack, at full width, beside the paper's numbers."""

import dataclasses
import functools

import jax
import numpy as np

from codesign import models, workload
from codesign.hardware import reram_gpu, roofline
from codesign.hardware.reram_gpu import ReramGpuSpec
from codesign.report import Column, Quantity, Table
from codesign.studies.deeptrain import stack_fit
from codesign.studies.published import Published, quantities
from codesign.workload import Workload

GPU_WORK_CUT = 0.82  # Fig. 9(b), mean of four networks
_PERIOD_CUT, _ENERGY_CUT = 0.671, 0.166  # Fig. 12: on 3R1G, mean of four networks
_NETWORKS = ("vgg11", "vgg16", "vgg19", "resnet18")
_STACKS = ((1, 3), (2, 2), (3, 1))  # R, G
_GPU_EFFICIENCIES = (0.2, 0.35, 0.5, 0.65, 0.8)
_GPU_EFFICIENCY = 0.5  # assumed, of the comparison with a GPU: see the curve


@dataclasses.dataclass(frozen=True, eq=False)
class PublishedPlacements:
    """The four networks, and 3R1G with the constants that nobody published.

    Attributes:
        full: With all their batch norms, by name.
        kept: With those of the published placements.
        specs: At our sourced prior ("prior"), and fitted to Fig. 12 ("fitted").
    """

    full: dict[str, Workload]
    kept: dict[str, Workload]
    specs: dict[str, ReramGpuSpec]

    @property
    def pairs(self) -> list[stack_fit.Pair]:
        return list(zip(self.full.values(), self.kept.values(), strict=True))

    def instruction_ratio(self, label: str) -> float:
        """Instructions per element over utilisation, on which periods depend."""
        spec = self.specs[label]
        return float(spec.bn_instructions_per_element) / float(spec.gpu_utilisation)

    def work_cut(self) -> float:
        """Mean cut in the elements that batch norms work on."""
        cuts = [
            1 - _bn_elements(kept) / _bn_elements(full) for full, kept in self.pairs
        ]
        return float(np.mean(cuts))

    def holds(self, network: str, num_reram_tiers: int, num_gpu_tiers: int) -> bool:
        """Whether a stack holds a network with all its batch norms."""
        spec = reram_gpu.deeptrain(num_reram_tiers, num_gpu_tiers)
        return bool(_estimate(spec, self.full[network]).feasible)

    @functools.cache  # noqa: B019, one instance a process
    def cuts(self, label: str) -> tuple[float, float]:
        """Mean cuts in period and in energy."""
        period, energy = stack_fit.cuts(self.specs[label], self.pairs)
        return float(period.mean()), float(energy.mean())

    @functools.cache  # noqa: B019
    def bn_over_conv(self, label: str, r: int, g: int) -> dict[str, float]:
        """Slowest batch-norm stage over slowest conv stage, All-BN, by network."""
        tiers = dict(num_reram_tiers=np.float32(r), num_gpu_tiers=np.float32(g))
        spec = dataclasses.replace(self.specs[label], **tiers)
        ratios = {}
        for name, ops in self.full.items():
            parts = _estimate(spec, ops).breakdown
            ratios[name] = float(parts["slowest_bn_s"] / parts["slowest_conv_s"])
        return ratios

    def speedups(self, efficiency: float) -> list[float]:
        """Of the fitted 3R1G with the published placements over a GPU with all norms."""
        return [
            _gpu_period(full, efficiency)
            / float(_estimate(self.specs["fitted"], kept).period_s)
            for full, kept in self.pairs
        ]

    def gpu_cut(self) -> float:
        """Mean cut in a GPU's period."""
        ratios = [
            _gpu_period(kept, _GPU_EFFICIENCY) / _gpu_period(full, _GPU_EFFICIENCY)
            for full, kept in self.pairs
        ]
        return float(1 - np.mean(ratios))


@functools.cache
def placements() -> PublishedPlacements:
    """Traces the four networks and fits 3R1G, once a process."""
    full, kept = {}, {}
    for name in _NETWORKS:
        network = models.create(name)
        full[name] = workload.trace(*network.trace_args())
        kept[name] = full[name].masked(network.mask(network.paper_sites))
    prior = reram_gpu.deeptrain(3, 1)
    pairs = list(zip(full.values(), kept.values(), strict=True))
    fitted = stack_fit.fit(prior, pairs, period_cut=_PERIOD_CUT, energy_cut=_ENERGY_CUT)
    return PublishedPlacements(full, kept, {"fitted": fitted, "prior": prior})


def _fit_note(found: PublishedPlacements) -> str:
    return (
        "instructions per element / utilisation fitted to "
        f"{found.instruction_ratio('fitted'):.0f} for all four networks; our prior is "
        f"{found.instruction_ratio('prior'):.0f}"
    )


def _cut_rows(label: str) -> tuple[Published[PublishedPlacements], ...]:
    """Cuts in period and energy, Fig. 12."""
    is_fit = label == "fitted"
    prior = "at our sourced prior, nothing fitted"

    def energy_note(found: PublishedPlacements) -> str:
        picojoules = float(found.specs[label].gpu_instruction_energy_j) * 1e12
        if is_fit:
            return f"energy of a GPU instruction fitted to {picojoules:.0f} pJ"
        return f"{prior}: {picojoules:.0f} pJ"

    return (
        Published(
            name="published.period_cut", of={"constants": label}, value=_PERIOD_CUT,
            unit="ratio", source="Fig. 12",
            kind="fitted" if is_fit else "assumed",
            ours=lambda found: found.cuts(label)[0], note=_fit_note if is_fit else prior,
            title=f"period cut on 3R1G, {label}",
        ),
        Published(
            name="published.energy_cut", of={"constants": label}, value=_ENERGY_CUT,
            unit="ratio", source="Fig. 12",
            kind="fitted" if is_fit else "assumed",
            ours=lambda found: found.cuts(label)[1], note=energy_note,
            title=f"energy cut on 3R1G, {label}",
        ),
    )  # fmt: skip


def _balance_row(label: str, r: int, g: int) -> Published[PublishedPlacements]:
    """Fig. 7, whose bars are read as words."""

    def note(found: PublishedPlacements) -> str:
        ratios = found.bn_over_conv(label, r, g).items()
        spread = ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios)
        text = f"paper: {'near 1' if r == 2 else 'well above 1'}; {spread}"
        return f"{text}; {_fit_note(found)}" if label == "fitted" else text

    return Published(
        name="published.bn_over_conv", of={"stack": f"{r}R{g}G", "constants": label},
        source="Fig. 7", kind="fitted" if label == "fitted" else "assumed", note=note,
        ours=lambda found: float(np.mean([*found.bn_over_conv(label, r, g).values()])),
    )  # fmt: skip


PUBLISHED: tuple[Published[PublishedPlacements], ...] = (
    Published(
        name="published.gpu_work_reduction", value=GPU_WORK_CUT, unit="ratio",
        source="Fig. 9(b)", kind="derived", ours=PublishedPlacements.work_cut,
        title="GPU work saved",
        note="elements of the sites; the paper counts GPGPU-Sim instructions",
    ),
    *(
        Published(
            name="published.holds", of={"network": "vgg19", "stack": f"{r}R{g}G"},
            value=r > 1, source="Section VI-A", kind="derived",
            ours=lambda found, r=r, g=g: found.holds("vgg19", r, g),
            title=f"{r}R{g}G holds VGG-19",
        )
        for r, g in _STACKS
    ),
    *(row for label in ("fitted", "prior") for row in _cut_rows(label)),
    *(
        _balance_row(label, r, g)
        for label in ("fitted", "prior")
        for r, g in ((2, 2), (3, 1))
    ),
    Published(
        name="published.speedup_over_gpu", of={"network": "max"}, value=15,
        source="abstract, Fig. 14", kind="fitted", title="speed-up over a Titan Xp, most",
        ours=lambda found: max(found.speedups(_GPU_EFFICIENCY)),
        note=lambda found: f"{_fit_note(found)}; Titan Xp at half its peak, assumed: "
        "see the curve",
    ),
    Published(
        name="published.gpu_time_ratio", of={"networks": "vgg19/vgg11"}, value=2,
        source="Section I", kind="assumed", title="VGG-19 over VGG-11 on the GPU",
        ours=lambda found: _gpu_period(found.full["vgg19"], _GPU_EFFICIENCY)
        / _gpu_period(found.full["vgg11"], _GPU_EFFICIENCY),
        note="roofline at half the peak of a Titan Xp",
    ),
    Published(
        name="published.gpu_period_cut", value=0.0, unit="ratio",
        source="Section VI-G", kind="assumed",
        ours=PublishedPlacements.gpu_cut, title="period cut on the GPU itself",
        note="the paper sees none; batch norm is memory-bound, so a roofline does",
    ),
)  # fmt: skip


def published_quantities() -> list[Quantity]:
    """Every published number of the DeepTrain hardware with ours, none left out."""
    return quantities(PUBLISHED, placements())


def speedup_table() -> Table:
    """Speed-up of 3R1G with the published placements over a Titan Xp with all norms."""
    table = Table(
        "Speed-up of 3R1G with the published placements over a Titan Xp (All-BN)",
        [
            Column("GPU efficiency", format="percent"),
            *(Column(name, format=".1f") for name in _NETWORKS),
        ],
        footnotes=[
            "GPU efficiency: fraction of the peak that its convolutions reach, assumed. "
            "The paper measures up to 15x. Latency of batch norm fitted to Fig. 12."
        ],
    )
    for efficiency in _GPU_EFFICIENCIES:
        table.add(efficiency, *placements().speedups(efficiency))
    return table


def _bn_elements(ops: Workload) -> float:
    return float(ops.select("norm").elements.sum())


def _gpu_period(ops: Workload, efficiency: float) -> float:
    spec = dataclasses.replace(
        roofline.titan_xp(), compute_efficiency=np.float32(efficiency)
    )
    return float(_roofline(spec, ops).period_s)


_estimate = jax.jit(reram_gpu.estimate)
_roofline = jax.jit(roofline.estimate)
