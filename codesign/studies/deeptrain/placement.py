"""The main job: the few batch norms that a network needs on a ReRAM + GPU stack."""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from codesign import data, models, workload
from codesign.data import Dataset
from codesign.hardware import Chip, Cost, chips
from codesign.models import Network
from codesign.numerics.relax import smooth
from codesign.objective import Design, chip_costs
from codesign.records import StrPath, settings
from codesign.search import Study
from codesign.studies import brought, frame
from codesign.studies.deeptrain import placement_beside
from codesign.studies.deeptrain.placement_report import report
from codesign.studies.deeptrain.placement_result import PlacementResult
from codesign.studies.deeptrain.placement_runs import Prepared
from codesign.studies.deeptrain.placement_search import search
from codesign.studies.deeptrain.placement_settings import PRESETS, PlacementConfig
from codesign.training import Trainer
from codesign.workload import Workload

__all__ = ["PRESETS", "STUDY", "PlacementConfig", "run"]

TEMPERATURE = 0.1  # of the smooth model that every training step differentiates


def prepare(
    config: PlacementConfig,
    pending: list[str],
    workdir: pathlib.Path,
    *,
    data_dir: StrPath | None = None,
    network: Network | None = None,
    dataset: Dataset | None = None,
    chip: Chip | None = None,
) -> dict[str, Prepared]:
    """Reads the data and checks every network against them and against the chip.

    Raises:
        ValueError: For a chip that cannot hold a network, a damaged or unfit data file,
            a warm start from another network, or a folder in `beside` that is not of
            the same search.
        OSError: For data that cannot be read.
    """
    if (network or dataset or chip) and not config.brought:
        raise ValueError(
            "A `network`, `dataset` or `chip` of one's own goes to `placement.run`, which "
            "records in the settings whose results these are."
        )
    dataset = dataset or data.load(
        config.dataset,
        data_dir=data_dir,
        image_size=config.image_size,
        num_train=config.num_train,
        num_validation=config.num_validation,
        num_test=config.num_test,
    )
    chip = chip or chips.by_name(config.chip)
    batch_size = config.train.batch_size
    prepared = {}
    for name in pending:
        made = network or models.create(
            name,
            num_classes=dataset.num_classes,
            image_shape=dataset.train.images.shape[1:],
            width=config.width,
            initialisation=config.initialisation,
        )
        ops = workload.trace(*made.trace_args())
        has_begun = (config.folder(workdir, name) / "journal.jsonl").exists()
        _check_search(config, name, made.num_sites, has_begun)
        others = placement_beside.read(
            config, STUDY.name, workdir, name, made.num_sites
        )
        costs = chip_costs(
            ops, chip.estimate, batch_size=batch_size, relax=smooth(TEMPERATURE)
        )
        trainer = Trainer(made, dataset, config.train, chip_costs=costs)
        exact = check_chip(chip, ops, name, batch_size)
        design = Design(bn_mask=jnp.zeros(made.num_sites), chip=chip.spec)
        _check_slopes(chip, costs, design, exact, is_run=config.brought is not None)
        prepared[name] = Prepared(name, trainer, ops, chip, others)
    return prepared


def _check_slopes(
    chip: Chip, costs: Any, design: Design, exact: Cost, *, is_run: bool
) -> None:
    """Checks that JAX can differentiate the smooth model; and of a caller's own, runs it.

    Raises:
        ValueError: Says what cannot be differentiated, where a value or slope is not
            finite, or which costs only the exact or the smooth model has.
    """

    def slopes(design):
        return costs(design), jax.jacrev(costs)(design)

    try:
        found = jax.jit(slopes)(design) if is_run else jax.eval_shape(slopes, design)
    except jax.errors.ConcretizationTypeError as error:
        raise ValueError(
            f"`chip` (={chip.name}): its `estimate` cannot be differentiated, as it needs "
            "Python's own numbers somewhere; where `relax` is smooth, keep to jax.numpy: "
            f"{str(error).splitlines()[0]}"
        ) from error
    if differ := found[0].keys() ^ exact.scalars().keys():
        raise ValueError(
            f"`chip` (={chip.name}): only its exact or only its smooth model returns "
            f"{sorted(differ)}; return the same costs from both."
        )
    for path, slope in jax.tree_util.tree_leaves_with_path(found if is_run else ()):
        if not np.all(np.isfinite(slope)):
            raise ValueError(
                f"`chip` (={chip.name}): with no batch norm the smooth model's value or "
                f"slope {jax.tree_util.keystr(path)} is {slope}; keep `estimate` finite "
                "and differentiable there, such as with `jnp.sqrt(x + 1e-12)`."
            )


def check_chip(chip: Chip, ops: Workload, name: str, batch_size: int) -> Cost:
    """Checks that the chip costs a network with all norms and none, and holds it.

    Returns:
        Cost of a batch without norms.

    Raises:
        ValueError: If it does not; of crossbars, says how many are missing.
    """
    chip.cost(ops, batch_size=batch_size)
    cost = chip.cost(ops.masked(jnp.zeros(ops.num_sites)), batch_size=batch_size)
    if cost.feasible is None or cost.feasible:
        return cost
    parts = cost.breakdown
    if "crossbars_needed" in parts:
        needed, budget = (int(parts[f"crossbars_{n}"]) for n in ("needed", "budget"))
        if needed > budget:
            raise ValueError(
                f"`chip` (={chip.name}) has {budget} crossbars, but {name!r} needs "
                f"{needed}, {needed - budget} more; take more ReRAM tiers, a smaller "
                "`width` or a smaller network."
            )
    short = "" if cost.violation is None else f" by {float(cost.violation):.0%}"
    raise ValueError(
        f"`chip` (={chip.name}) cannot run {name!r} even without batch norms: a limit is "
        f"passed{short}; take a larger chip, or a smaller network."
    )


def _check_search(
    config: PlacementConfig, name: str, num_sites: int, has_begun: bool
) -> None:
    if not num_sites:
        raise ValueError(
            f"`network` {name!r} has no batch-norm site; place "
            "`models.MaskedBatchNorm(site=0)` and on where a norm may stand."
        )
    if num_sites == 1:
        raise ValueError(
            f"`network` {name!r} has one site, so All-BN and No-BN are all there is; train "
            "both with `training.Trainer`."
        )
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
    is_brought = "network" in (config.brought or "")
    has_paper = not is_brought and bool(models.create(network).paper_sites)
    further = 3 * (config.num_seeds - 1) + has_paper * config.num_seeds
    return (config.num_evaluations + further) * config.train.epochs


def _stack(text: str) -> dict[str, Any]:
    chips.parse_stack(text)
    return {"chip": f"deeptrain:{text}"}


STUDY = frame.Study(
    name="bn_placement",
    presets=PRESETS,
    units=lambda config: config.networks,
    prepare=prepare,
    measure=measure,
    report=report,
    steps=_num_epochs,
    given={"data_dir": "Where data sets lie; else $CODESIGN_DATA, else downloaded."},
    brought=("network", "dataset", "chip"),
    shorthands={"stack": ("R ReRAM and G GPU tiers: 3R1G is deeptrain:3R1G.", _stack)},
)


def run(
    config: PlacementConfig,
    *,
    workdir: StrPath,
    network: Network | None = None,
    dataset: Dataset | None = None,
    chip: Chip | None = None,
    data_dir: StrPath | None = None,
) -> PlacementResult:
    """Searches one network's placement and writes results, figures and a report.

    The workdir receives `config.json`, `metrics.jsonl`, `results.json`, figures and
    `report.html`. Running it again goes on, and gives the same quantities as if it had
    never been interrupted. `STUDY.run` searches several networks.

    Args:
        config: See `PRESETS`. What is given below takes the place of its settings.
        workdir: Made if it is not there.
        network: A network of one's own.
        dataset: Data of one's own, such as of `Dataset.from_arrays`.
        chip: A chip of one's own, or one of `chips.by_name`.
        data_dir: Where data sets lie; see `data.load`.

    Returns:
        What was found; `found` is the placement, 0 or 1 for every site, and `figures`
        are those of the report. A notebook shows its tables.

    Raises:
        TypeError, ValueError, OSError: As `frame.Study.run`, before any training.
    """
    if not isinstance(config, PlacementConfig):
        raise TypeError(
            f"`config` must be a `PlacementConfig`, got {config!r}; take one of "
            f"`placement.PRESETS`, which are {', '.join(PRESETS)}."
        )
    for name, value, kind, way in (
        ("network", network, Network, "`models.Network(module, image_shape=...)`"),
        ("dataset", dataset, Dataset, "`Dataset.from_arrays(images, labels)`"),
        ("chip", chip, Chip, "`Chip(spec, estimate)` or `chips.by_name(name)`"),
    ):
        if value is not None and not isinstance(value, kind):
            raise TypeError(f"`{name}` must be made by {way}, got a {type(value)}.")
    if (
        network is not None
        and (num_sites := network.count_sites()) != network.num_sites
    ):
        raise ValueError(
            f"`network` says `num_sites` (={network.num_sites}), but its module has "
            f"{num_sites}; leave it out."
        )
    config = settings.checked(config)
    whose = brought.digests(network, dataset, chip, batch_size=config.train.batch_size)
    changes: dict[str, Any] = {"brought": whose}
    if network is not None:
        changes["networks"] = (network.label,)
    elif len(config.networks) != 1:
        raise ValueError(
            f"`networks` (={config.networks}) must name one network here; "
            "`STUDY.run(config, workdir=...)` searches each and returns them by name."
        )
    if dataset is not None:
        parts = dict.fromkeys(("num_train", "num_validation", "num_test"))
        changes |= {"dataset": dataset.name, **parts}
    if chip is not None:
        changes["chip"] = chip.name
    given = {"network": network, "dataset": dataset, "chip": chip}
    config = dataclasses.replace(config, **changes)
    found = STUDY.run(config, workdir=workdir, data_dir=data_dir, **given)
    return dataclasses.replace(found[config.networks[0]], report=found.report)
