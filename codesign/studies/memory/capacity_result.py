"""What one network's sweep found, and how it is kept on disk."""

import dataclasses
import functools
import typing
from typing import Any

import numpy as np

from codesign.hardware.memory import Sweep
from codesign.workload import load as networks


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Curves:
    """Totals over `[M]` machines and `[C]` capacities."""

    capacities_mb: np.ndarray  # [C]
    total_s: np.ndarray  # [M, C]
    type_ii_s: np.ndarray  # [M, C] of the point-wise steps, stalls included
    traffic_in: np.ndarray  # [C] bytes
    traffic_out: np.ndarray  # [C] bytes
    compute_s: np.ndarray  # [M]
    type_ii_compute_s: np.ndarray  # [M]
    bandwidth: np.ndarray  # [M] bytes per second

    @classmethod
    def of(cls, sweep: Sweep, mebibytes: np.ndarray, type_ii_part: float) -> "Curves":
        """From a sweep in two groups, of which the second is type II."""
        return cls(
            capacities_mb=mebibytes,
            total_s=sweep.total_s,
            type_ii_s=sweep.group_s[..., 1],
            traffic_in=sweep.traffic_in_bytes,
            traffic_out=sweep.traffic_out_bytes,
            compute_s=sweep.compute_s,
            type_ii_compute_s=sweep.compute_s * type_ii_part,
            bandwidth=sweep.bandwidth,
        )

    def machine(self, index: int) -> "Curves":
        """One machine's, still with an axis for it."""
        every = {
            name: getattr(self, name)[index : index + 1]
            for name in ("total_s", "type_ii_s", "compute_s", "type_ii_compute_s")
        }
        return dataclasses.replace(
            self, **every, bandwidth=self.bandwidth[index : index + 1]
        )

    @property
    def traffic(self) -> np.ndarray:
        """[C] bytes, both ways."""
        return self.traffic_in + self.traffic_out

    @property
    def average_bandwidth(self) -> np.ndarray:
        """[M, C] bytes per second, eq. 4.1."""
        return self.traffic / self.total_s

    @property
    def active_time(self) -> np.ndarray:
        """[M, C] eq. 4.2."""
        return self.average_bandwidth / self.bandwidth[:, None]

    @property
    def utilisation(self) -> np.ndarray:
        """[M, C] eq. 4.3."""
        return self.compute_s[:, None] / self.total_s

    @property
    def type_ii_share(self) -> np.ndarray:
        """[M, C] part of the time that point-wise steps take."""
        return self.type_ii_s / self.total_s

    def index(self, mebibytes: float) -> int | None:
        """Place of a capacity; None if it was not swept."""
        found = np.flatnonzero(np.isclose(self.capacities_mb, mebibytes, rtol=1e-9))
        return int(found[0]) if found.size else None


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
    direction: np.ndarray  # [X] index into `DIRECTIONS`


DIRECTIONS = ("load", "offload", "pass through")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Fidelity:
    """The surrogate against the simulator, in seconds of an iteration."""

    exact_s: np.ndarray  # [N] some of the points
    surrogate_s: np.ndarray  # [N]
    num_points: int  # of the numbers below
    spearman: float
    median_error: float  # relative
    p90_error: float
    max_error: float
    slower_pairs: int  # of `num_designs` that more of a resource made slower
    wrong_signs: int  # of `num_designs` with a gradient of the wrong sign
    num_designs: int


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """Everything about one network; `paper` and what follows may be None.

    Attributes:
        network: Name that the sweep was given.
        digest: Of the file that the network comes from, if any.
        batch_size: Examples in a batch.
        is_papers: Whether batch and images are those of the paper's Table 5.1, so that
            its numbers may be compared.
        num_steps: Of the iteration.
        smallest_capacity_mb: Below which the iteration cannot run at all.
        largest_step_mb: Working set of the largest step.
        map_mb: Smallest and largest feature map of an image.
        sweep_s: Warm seconds of the capacity sweep on the first machine.
        sweeps: By name of the hardware, on the capacities of `sweep.csv`.
        paper: On the machines of `measure.PAPER_MACHINES`, for figures 5.2 to 5.4; None
            where none of their capacities can run the network.
    """

    network: str
    digest: str
    batch_size: int
    is_papers: bool
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
    fidelity: Fidelity | None

    @functools.cached_property
    def family(self) -> str:
        """The network of the paper that this is, or nothing."""
        return networks.family(self.network) if self.is_papers else ""

    @property
    def label(self) -> str:
        """As a figure calls it."""
        return networks.label(self.network)


def restore(record: dict[str, Any]) -> Outcome:
    """Reads what `records.jsonable` made of an outcome.

    Raises:
        KeyError, TypeError: If the record is not one.
    """
    return _restore(Outcome, record)


def _restore(kind: Any, value: Any) -> Any:
    options = typing.get_args(kind)
    if value is None or kind is Any:
        return value
    if type(None) in options:
        return _restore(options[0], value)
    if kind is np.ndarray:
        return np.asarray(value)
    if typing.get_origin(kind) is dict:
        return {name: _restore(options[1], each) for name, each in value.items()}
    if dataclasses.is_dataclass(kind):
        fields = dataclasses.fields(kind)
        made: Any = kind
        return made(**{f.name: _restore(f.type, value[f.name]) for f in fields})
    return value
