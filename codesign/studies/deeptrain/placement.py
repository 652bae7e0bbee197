"""The main job: the few batch norms that a network needs on a ReRAM + GPU stack."""

import pathlib
from typing import Any

import jax

from codesign import data, models, workload
from codesign.hardware import chips, reram_gpu
from codesign.hardware.reram_gpu import ReramGpuSpec
from codesign.objective import chip_costs
from codesign.records import StrPath
from codesign.search import Study
from codesign.studies import frame
from codesign.studies.deeptrain import placement_beside
from codesign.studies.deeptrain.placement_report import report
from codesign.studies.deeptrain.placement_result import PlacementResult
from codesign.studies.deeptrain.placement_runs import Prepared
from codesign.studies.deeptrain.placement_search import search
from codesign.studies.deeptrain.placement_settings import PRESETS, PlacementConfig
from codesign.training import Trainer
from codesign.workload import Workload

__all__ = ["PRESETS", "STUDY", "PlacementConfig", "run"]


def prepare(
    config: PlacementConfig,
    pending: list[str],
    workdir: pathlib.Path,
    data_dir: StrPath | None = None,
) -> dict[str, Prepared]:
    """Reads the data and checks every network against them and against the stack.

    Raises:
        ValueError: For a stack that cannot hold a network, a damaged or unfit data file,
            a warm start from another network, or a folder in `beside` that is not of
            the same search.
        OSError: For data that cannot be read.
    """
    dataset = data.load(
        config.dataset,
        data_dir=data_dir,
        image_size=config.image_size,
        num_train=config.num_train,
        num_validation=config.num_validation,
        num_test=config.num_test,
    )
    spec = reram_gpu.deeptrain(config.num_reram_tiers, config.num_gpu_tiers)
    prepared = {}
    for name in pending:
        network = models.create(
            name,
            num_classes=dataset.num_classes,
            image_shape=dataset.train.images.shape[1:],
            width=config.width,
            initialisation=config.initialisation,
        )
        ops = workload.trace(*network.trace_args())
        check_capacity(spec, ops, name)
        has_begun = (config.folder(workdir, name) / "journal.jsonl").exists()
        _check_search(config, name, network.num_sites, has_begun)
        costs = chip_costs(ops, reram_gpu.estimate, batch_size=config.train.batch_size)
        trainer = Trainer(network, dataset, config.train, chip_costs=costs)
        others = placement_beside.read(
            config, STUDY.name, workdir, name, network.num_sites
        )
        prepared[name] = Prepared(name, trainer, ops, spec, others)
    return prepared


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


def _check_search(
    config: PlacementConfig, name: str, num_sites: int, has_begun: bool
) -> None:
    if config.num_evaluations > 2**num_sites:
        raise ValueError(
            f"`num_evaluations` (={config.num_evaluations}) must be at most "
            f"{2**num_sites}, the placements of {name!r}."
        )
    if config.warm_start is None or has_begun:  # a search goes on by its own journal
        return
    try:
        other = Study.load(config.warm_start)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"`warm_start` (={config.warm_start!r}) must be the journal.jsonl of another "
            f"search: {error}"
        ) from error
    if other.num_variables != num_sites:
        raise ValueError(
            f"`warm_start` (={config.warm_start}) is a search over "
            f"{other.num_variables} sites, but {name!r} has {num_sites}; give one of "
            "the same network."
        )


def measure(
    config: PlacementConfig, network: str, job: frame.Job, prepared: dict[str, Prepared]
) -> PlacementResult:
    """Searches one network; its journal and checkpoints are its own state."""
    return search(config, prepared[network], job)


def _num_epochs(config: PlacementConfig, network: str) -> int:
    """Of all runs that are planned: trials, and the further seeds of the table's rows."""
    paper_runs = config.num_seeds if models.create(network).paper_sites else 0
    further = 3 * (config.num_seeds - 1) + paper_runs
    return (config.num_evaluations + further) * config.train.epochs


def _stack(text: str) -> dict[str, Any]:
    num_reram_tiers, num_gpu_tiers = chips.parse_stack(text)
    return {"num_reram_tiers": num_reram_tiers, "num_gpu_tiers": num_gpu_tiers}


STUDY = frame.Study(
    name="bn_placement",
    presets=PRESETS,
    units=lambda config: config.networks,
    prepare=prepare,
    measure=measure,
    report=report,
    steps=_num_epochs,
    given={"data_dir": "Where data sets lie; else $CODESIGN_DATA, else downloaded."},
    shorthands={"stack": ("R ReRAM and G GPU tiers, such as 3R1G.", _stack)},
)


def run(
    config: PlacementConfig, *, workdir: StrPath, data_dir: StrPath | None = None
) -> list[PlacementResult]:
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
        ValueError, OSError: As `frame.Study.run`, before any training.
    """
    return list(STUDY.run(config, workdir=workdir, data_dir=data_dir).values())
