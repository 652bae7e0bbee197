"""Runs a whole experiment: checks, searches, and writes what was found."""

import dataclasses
import os
import pathlib
import time

import filelock
import jax

from codesign import data, models, workload
from codesign.data import Dataset
from codesign.hardware import reram_gpu
from codesign.hardware.reram_gpu import ReramGpuSpec
from codesign.models import Network
from codesign.objective import chip_costs
from codesign.records import workdir as folders
from codesign.studies.deeptrain import placement_report as report
from codesign.studies.deeptrain.placement_result import Outcome
from codesign.studies.deeptrain.placement_search import PlacementSearch
from codesign.studies.deeptrain.placement_settings import (
    PRESETS,
    PlacementConfig,
)
from codesign.training import Trainer
from codesign.workload import Workload

__all__ = ["PRESETS", "PlacementConfig", "prepare", "run"]

StrPath = str | os.PathLike[str]


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A checked experiment, ready to run."""

    config: PlacementConfig
    workdir: pathlib.Path
    searches: tuple[PlacementSearch, ...]
    lock: filelock.BaseFileLock  # held from `prepare` until `run` returns

    def run(self) -> list[Outcome]:
        """Searches every network, then writes and prints what was found."""
        start = time.monotonic()
        try:
            outcomes = [search.run() for search in self.searches]
            wall_s = time.monotonic() - start
            report.write(self.config, outcomes, workdir=self.workdir, wall_s=wall_s)
        finally:
            self.lock.release()
        return outcomes


def prepare(
    config: PlacementConfig, *, workdir: StrPath, data_dir: StrPath | None = None
) -> Experiment:
    """Checks everything before any training, and opens the workdir.

    Raises:
        ValueError: For a setting out of range, a stack that cannot hold a network, a
            damaged or unfit data file, or a workdir made with other settings or in use.
        OSError: For data or a workdir that cannot be read or written.
    """
    workdir = pathlib.Path(workdir)
    config.checked()
    dataset = data.load(
        config.dataset,
        data_dir=data_dir,
        image_size=config.image_size,
        num_train=config.num_train,
        num_validation=config.num_validation,
        num_test=config.num_test,
    )
    spec = reram_gpu.deeptrain(config.num_reram_tiers, config.num_gpu_tiers)
    networks = {name: _network(config, name, dataset) for name in config.networks}
    traced = {n: workload.trace(*net.trace_args()) for n, net in networks.items()}
    for name, ops in traced.items():
        check_capacity(spec, ops, name)
        num_placements = 2 ** networks[name].num_sites
        if config.num_evaluations > num_placements:
            raise ValueError(
                f"`num_evaluations` (={config.num_evaluations}) must be at most "
                f"{num_placements}, the placements of {name!r}."
            )
    trainers = {
        name: Trainer(
            network,
            dataset,
            config.train,
            chip_costs=chip_costs(
                traced[name], reram_gpu.estimate, batch_size=config.train.batch_size
            ),
        )
        for name, network in networks.items()
    }
    lock = folders.lock(workdir)
    try:
        folders.check_settings(config, workdir)
        several = len(config.networks) > 1
        searches = tuple(
            PlacementSearch(
                config,
                name,
                trainer,
                traced[name],
                spec,
                workdir / name if several else workdir,
            )
            for name, trainer in trainers.items()
        )
    except BaseException:
        lock.release()
        raise
    return Experiment(config, workdir, searches, lock)


def run(
    config: PlacementConfig, *, workdir: StrPath, data_dir: StrPath | None = None
) -> list[Outcome]:
    """Searches every network of `config` and writes results, figures and a report.

    The workdir receives `config.json`, `metrics.jsonl`, `results.json`, figures and
    `report.html`; with several networks each has a folder of its own for its journal.
    Running it again goes on, and gives the same quantities as if it had never been
    interrupted.

    Args:
        config: See `PRESETS`.
        workdir: Made if it is not there.
        data_dir: Where data sets lie; see `data.load`.

    Raises:
        ValueError, FileNotFoundError: As `prepare`, before any training.
    """
    return prepare(config, workdir=workdir, data_dir=data_dir).run()


def _network(config: PlacementConfig, name: str, dataset: Dataset) -> Network:
    return models.create(
        name,
        num_classes=dataset.num_classes,
        image_shape=dataset.train.images.shape[1:],
        width=config.width,
        initialisation=config.initialisation,
    )


def check_capacity(spec: ReramGpuSpec, ops: Workload, name: str) -> None:
    """Checks that the stack holds one copy of the network and its activations.

    Raises:
        ValueError: Says by how many crossbars it does not.
    """
    parts = jax.jit(reram_gpu.estimate)(spec, ops).breakdown
    needed = int(parts["crossbars_needed"])
    budget = int(parts["crossbars_budget"])
    if needed > budget:
        raise ValueError(
            f"The stack's `R` (={int(spec.num_reram_tiers)}) ReRAM tiers have {budget} "
            f"crossbars, but {name!r} needs {needed}, {needed - budget} more; take more "
            "ReRAM tiers, a smaller `width` or a smaller network."
        )
