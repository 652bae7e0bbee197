"""What a placement search found."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from codesign import models
from codesign.hardware import Chip, Cost
from codesign.hardware.reram_gpu import ReramGpuSpec
from codesign.models import Network
from codesign.report import Figure
from codesign.search import Trial
from codesign.studies import frame
from codesign.studies.claims import PairedLoss, paired_losses
from codesign.studies.deeptrain.placement_beside import Finding
from codesign.training import StepMetrics
from codesign.workload import Workload


@dataclasses.dataclass(frozen=True)
class PlacementRow:
    """One placement of the final table: its accuracies by seed, and its cost."""

    mask: np.ndarray  # [C] of 0 and 1
    statuses: tuple[str, ...]  # by seed
    validation: tuple[float | None, ...]  # by seed, None where the run diverged
    test: tuple[float | None, ...]
    history: tuple[float, ...]  # validation accuracy after each epoch, first seed
    cost: Cost  # exact, of one batch
    batch_size: int  # images of it
    training_time_s: float  # of the whole run on the chip, by its model
    bn_elements: float  # that batch norms work on, of one image
    observed: tuple[np.ndarray, ...]  # of its runs, as `TrainState.observed` has it
    metrics: StepMetrics | None  # mean of these; None of none

    @property
    def period_s(self) -> float:
        """Time of one image: between two of a full pipeline, else its part of a batch."""
        return image_costs(self.cost, self.batch_size)["period_s"]

    @property
    def energy_j(self) -> float:
        """Energy of one image."""
        return image_costs(self.cost, self.batch_size)["energy_j"]

    @property
    def accuracy(self) -> float | None:
        """Mean test accuracy of the runs that did not diverge, or None if all did."""
        return mean(self.test)

    @property
    def accuracy_error(self) -> float | None:
        """Standard error of `accuracy` over seeds; None of one."""
        return standard_error(self.test)

    @property
    def num_diverged(self) -> int:
        """Runs that diverged."""
        return self.test.count(None)


@dataclasses.dataclass(frozen=True)
class PlacementResult:
    """What the search found for one network.

    `rows` has `all_bn`, `no_bn`, `paper` (the published placement, if there is one; not
    part of the search) and `bo_n`, in this order.
    """

    network: Network
    ops: Workload
    chip: Chip
    trials: list[Trial]
    rows: dict[str, PlacementRow]
    doubt: str  # why `bo_n` is All-BN: no other placement was confirmed; else empty
    num_step_traces: int
    num_test: int  # images of the test split
    others: tuple[Finding, ...] = ()  # of the same network, to be compared
    # Tables and figures, which `placement.run` adds.
    report: frame.Report | None = dataclasses.field(
        default=None, repr=False, compare=False
    )

    @property
    def confirmed(self) -> bool:
        """Whether a placement with fewer norms stayed within tolerance over all seeds."""
        return not self.doubt

    @property
    def loss(self) -> PairedLoss | None:
        """What BO-N loses against All-BN on the test split; None if none was found."""
        if not self.confirmed:
            return None
        candidate, reference = self.rows["bo_n"], self.rows["all_bn"]
        losses = paired_losses(candidate.test, reference.test)
        return PairedLoss(losses, self.num_test)

    @property
    def ended(self) -> list[Trial]:
        """Trials that were told or failed, in order, those screened out included."""
        return [t for t in self.trials if t.status in ("told", "failed")]

    @property
    def trained(self) -> list[Trial]:
        """Trials that were trained, whether or not to an end, in order."""
        return trained(self.trials)

    @property
    def told(self) -> list[Trial]:
        """Trials that have a validation accuracy, in order."""
        return told(self.trials)

    @property
    def network_name(self) -> str:
        """What tables call the network."""
        return self.network.label

    @property
    def is_papers(self) -> bool:
        """Whether the paper has this network, on this kind of chip."""
        on_stack = isinstance(self.chip.spec, ReramGpuSpec)
        is_ours = self.network.label in models.NETWORKS
        return on_stack and is_ours and bool(self.network.paper_sites)

    @property
    def found(self) -> np.ndarray:
        """[C] 1 where a batch norm is kept."""
        return self.rows["bo_n"].mask

    @property
    def figures(self) -> dict[str, Figure]:
        """Those of `report` by name; each has Matplotlib's own figure as `drawn`."""
        return self.report.figures if self.report else {}

    def _repr_html_(self) -> str | None:
        return self.report._repr_html_() if self.report else None

    def cost(self, mask: np.ndarray, chip: Chip | None = None) -> Cost:
        """Exact cost of a placement's batch on the chip, or on another."""
        batch_size = self.rows["all_bn"].batch_size
        return placement_cost(chip or self.chip, self.ops, mask, batch_size)


def told(trials: list[Trial]) -> list[Trial]:
    """Those that have a validation accuracy."""
    return [trial for trial in trials if trial.status == "told"]


def trained(trials: list[Trial]) -> list[Trial]:
    """Those that were trained and have ended."""
    ended = (trial for trial in trials if trial.status in ("told", "failed"))
    return [trial for trial in ended if not is_screened(trial)]


def is_screened(trial: Trial) -> bool:
    """Whether its gradients vanished before any training, and it had none."""
    return trial.metrics.get("status") == "screened"


def found_status(trial: Trial) -> str:
    """`trained`, `at_chance`, `diverged` or `screened`, of a trial that has ended."""
    return trial.metrics.get("status", "diverged")


def placement_cost(
    chip: Chip, ops: Workload, mask: np.ndarray, batch_size: int
) -> Cost:
    """Exact cost of one batch with a placement."""
    masked = ops.masked(jnp.asarray(mask, jnp.float32))
    return chip.cost(masked, batch_size=batch_size)


def image_costs(cost: Cost, batch_size: int) -> dict[str, float]:
    """`period_s` and `energy_j` of one image, given the cost of its batch."""
    period_s = cost.latency_s / batch_size if cost.period_s is None else cost.period_s
    return {"period_s": float(period_s), "energy_j": float(cost.energy_j) / batch_size}


def mean(values: tuple[float | None, ...]) -> float | None:
    """Mean of those that are there; None without any."""
    found = [value for value in values if value is not None]
    return float(np.mean(found)) if found else None


def standard_error(values: tuple[float | None, ...]) -> float | None:
    """Standard error of `mean`; None of a single value, which has none."""
    found = [value for value in values if value is not None]
    if len(found) < 2:
        return None
    return float(np.std(found, ddof=1) / np.sqrt(len(found)))
