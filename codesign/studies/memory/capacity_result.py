"""What the sweep of one network found."""

import dataclasses
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from codesign.hardware.memory import Sweep
from codesign.hardware.memory.validation import Validation
from codesign.report.quantity import Number
from codesign.workload import load as networks

_Part = TypeVar("_Part")


class NotRun(Exception):
    """The network, or the capacities, that a number needs were not run."""

    def __init__(self, needs: str = "needs capacities that were not swept"):
        super().__init__(needs)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Curves(Sweep):
    """A sweep in two groups of steps, of which the second is type II."""

    capacities_mb: np.ndarray  # [C] as they were asked for
    type_ii_compute_s: np.ndarray  # [M] with nothing to wait for

    def machine(self, index: int) -> "Curves":
        """One machine's, still with an axis for it."""
        names = ("total_s", "group_s", "compute_s", "type_ii_compute_s", "bandwidth")
        one = {name: getattr(self, name)[index : index + 1] for name in names}
        return dataclasses.replace(self, **one)

    @property
    def traffic(self) -> np.ndarray:
        """[C] bytes, both ways."""
        return self.traffic_in_bytes + self.traffic_out_bytes

    @property
    def type_ii_s(self) -> np.ndarray:
        """[M, C] time of the point-wise steps, stalls included."""
        return self.group_s[..., 1]

    @property
    def type_ii_share(self) -> np.ndarray:
        """[M, C] fraction of the time that point-wise steps take."""
        return self.type_ii_s / self.total_s

    def index(self, mebibytes: float) -> int:
        """Place of a capacity.

        Raises:
            NotRun: If it was not swept.
        """
        found = np.flatnonzero(np.isclose(self.capacities_mb, mebibytes, rtol=1e-9))
        if not found.size:
            raise NotRun
        return int(found[0])


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Layers:
    """What Fig. 5.1 shows of each op that has work: eq. 3.4."""

    names: list[str]  # [L]
    kinds: list[str]  # [L]
    is_type_ii: np.ndarray  # [L]
    operations: np.ndarray  # [L] forward, of a batch
    touched_bytes: np.ndarray  # [L] inputs, weights and output
    capacities_mb: np.ndarray  # [K]
    time_s: np.ndarray  # [K, L] forward and backward, stalls included

    @property
    def reuse_frequency(self) -> np.ndarray:
        """[L] operations per byte, eq. 3.4."""
        return self.operations / self.touched_bytes


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ByKind:
    """Time by layer type at some capacities: Fig. 5.5."""

    kinds: list[str]  # [K] type I first
    is_type_ii: np.ndarray  # [K]
    capacities_mb: np.ndarray  # [C]
    time_s: np.ndarray  # [C, K]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Batches:
    """Training throughput over the batch: Fig. 5.6, eq. 5.2."""

    sizes: np.ndarray  # [B]
    capacities_mb: np.ndarray  # [C]
    samples_per_s: np.ndarray  # [C, B]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Policies:
    """Ways to manage the cache, side by side."""

    names: list[str]  # [P]
    capacities_mb: np.ndarray  # [C]
    time_s: np.ndarray  # [P, C]
    traffic_bytes: np.ndarray  # [P, C]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Reuse:
    """Traffic that a cache spares, by scope: Section 3.3."""

    scopes: list[str]  # [R] without the reuse inside a layer
    capacities_mb: np.ndarray  # [C]
    saved_bytes: np.ndarray  # [C, R]
    possible_bytes: np.ndarray  # [R]
    streamed_bytes: int  # traffic of a chip that keeps nothing between two steps
    intra_layer_bytes: int
    needed_bytes: np.ndarray  # [R] capacity with which a scope is captured whole


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Timeline:
    """One iteration in time: steps `[S]` and transfers `[X]`."""

    hardware: str
    capacity_mb: float
    total_s: float
    names: list[str]  # [S]
    kinds: list[str]  # [S]
    is_type_ii: np.ndarray  # [S]
    is_backward: np.ndarray  # [S]
    start_s: np.ndarray  # [S] compute begins
    compute_s: np.ndarray  # [S]
    end_s: np.ndarray  # [S]
    held_bytes: np.ndarray  # [S]
    transfer_start_s: np.ndarray  # [X]
    transfer_end_s: np.ndarray  # [X]
    direction: np.ndarray  # [X] 0 load, 1 offload, 2 pass through


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class NetworkSweep:
    """Everything about one network; a part is None where no capacity can run it.

    Attributes:
        network: Name that the sweep was given.
        family: The network of the paper whose numbers may be compared, or "".
        batch_size: Examples in a batch.
        num_steps: Of the iteration.
        smallest_capacity_mb: Below which the iteration cannot run at all.
        largest_step_mb: Working set of the largest step.
        map_mb: Smallest and largest feature map of an image.
        sweep_s: Warm seconds of the capacity sweep on the first machine.
        sweeps: By name of the hardware, on the capacities of `sweep.csv`.
        paper: On the machines of `capacity_measure.PAPER_MACHINES`, for figures 5.2 to
            5.4.
    """

    network: str
    family: str
    batch_size: int
    num_steps: int
    smallest_capacity_mb: float
    largest_step_mb: float
    map_mb: np.ndarray  # [2]
    sweep_s: float
    sweeps: dict[str, Curves]
    paper: Curves | None
    layers: Layers
    by_kind: ByKind | None
    batches: Batches | None
    policies: Policies | None
    reuse: Reuse | None
    timeline: Timeline | None
    fidelity: Validation | None

    @property
    def label(self) -> str:
        """As a figure calls it."""
        return networks.label(self.network)


def ran(part: _Part | None) -> _Part:
    """Returns `part` of a sweep; raises `NotRun` if it is None."""
    if part is None:
        raise NotRun
    return part


def or_none(
    number: Callable[[NetworkSweep], Number],
) -> Callable[[NetworkSweep], Number | None]:
    """Makes a function that returns None where `number` raises `NotRun`."""

    def found(sweep: NetworkSweep) -> Number | None:
        try:
            return number(sweep)
        except NotRun:
            return None

    return found
