"""What the same search finds from other seeds or on other numbers of cores."""

import dataclasses
import os
import pathlib
import re
from collections.abc import Sequence
from types import NoneType
from typing import Any, get_args

from codesign.records import settings
from codesign.records.files import jsonable, parse_json
from codesign.report import Column, Results, Table
from codesign.studies.claims import Verdict
from codesign.studies.deeptrain.placement_settings import PlacementConfig

_UNFIT = (OSError, ValueError)
_DAMAGED = (KeyError, TypeError, AttributeError, RecursionError)
_MAY_DIFFER = {"preset", "seed"}  # besides what may differ in one workdir


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """What one search found for one network, as its results.json has it."""

    seed: int
    num_cpus: int | None
    num_evaluations: int
    sites: (
        tuple[int, ...] | None
    )  # from 0, those that keep their norm; None: none found
    period_s: float
    loss: float | None  # mean over seeds of BO-N against All-BN, test split
    loss_upper: float | None  # its one-sided 95 % bound
    verdict: Verdict | None


def site_names(sites: Sequence[int]) -> str:
    """As they are printed and kept: "C3,C7"."""
    return ",".join(f"C{site + 1}" for site in sites)


def read(
    config: PlacementConfig,
    study: str,
    workdir: pathlib.Path,
    network: str,
    num_sites: int,
) -> tuple[Finding, ...]:
    """Reads what the workdirs in `config.beside` found for one network.

    Args:
        config: Settings of this search.
        study: Its name in config.json.
        workdir: Its own folder.
        network: One of `config.networks`.
        num_sites: Where its batch norms may stand.

    Raises:
        ValueError: For a folder that is not a finished search with the same settings, or
            whose files are damaged.
    """
    found, seen = [], {os.path.realpath(workdir)}
    for text in config.beside or ():
        folder = pathlib.Path(text)
        try:
            if os.path.realpath(folder) in seen:
                raise ValueError("it is this search's own `workdir`, or there twice")
            seen.add(os.path.realpath(folder))
            _check_settings(config, study, folder / "config.json")
            results = Results.read(folder / "results.json")
            several = len(config.networks) > 1
            found.append(_finding(results, network, num_sites, several))
        except _UNFIT as error:
            raise ValueError(
                f"`beside` (={text!r}) must be the workdir of the same search, which has "
                f"ended, but {error}."
            ) from error
        except _DAMAGED as error:
            raise ValueError(
                f"`beside` (={text!r}) must be the workdir of the same search, but a file "
                f"in it is damaged ({error!r}); run that search again."
            ) from error
    return tuple(found)


def _check_settings(config: PlacementConfig, study: str, path: pathlib.Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"No such file: {path}")
    there = parse_json(path.read_bytes())
    if not isinstance(there, dict) or there.pop("experiment", None) != study:
        raise ValueError(f"{path.name} is not one of {study}")
    ours = jsonable(config)
    free = (ours.keys() - settings.identity(config).keys()) | _MAY_DIFFER
    if lines := settings.differences(config, there | {key: ours[key] for key in free}):
        raise ValueError(f"it has other settings: {'; '.join(lines)}")


def _finding(results: Results, network: str, num_sites: int, several: bool) -> Finding:
    """Reads one network's; whatever is not there, or not as we write it, raises."""
    of = f"[bo_n,{network}]" if several else "[bo_n]"
    try:
        names = results.extras["found"][network]
        verdict = results.extras["claim"][network]
    except (KeyError, TypeError) as error:
        raise ValueError(
            "results.json does not say what was found, as an earlier version wrote it; "
            "run that search again in its folder"
        ) from error
    if verdict is not None and verdict not in get_args(Verdict):
        raise ValueError(f"`claim` in results.json is {verdict!r}")

    def number(name: str, *kinds: type, of: str) -> Any:
        value = results[name + of].value
        return _checked(value, name, *kinds)

    found = Finding(
        seed=_checked(results.seed, "seed", int),
        num_cpus=_checked(results.environment["num_cpus"], "num_cpus", int, NoneType),
        num_evaluations=number("num_evaluations", int, of=f"[{network}]" * several),
        sites=None if names is None else _sites(names, num_sites),
        period_s=number("period_s", float, of=of),
        loss=number("accuracy_loss", float, NoneType, of=of),
        loss_upper=number("accuracy_loss_upper", float, NoneType, of=of),
        verdict=verdict,
    )
    if found.num_evaluations < 0 or not found.period_s > 0:
        raise ValueError("results.json has a count or a time below 0")
    return found


def _checked(value: Any, name: str, *kinds: type) -> Any:
    if type(value) not in kinds:
        raise ValueError(f"`{name}` in results.json is {value!r}")
    return value


def _sites(names: Any, num_sites: int) -> tuple[int, ...]:
    names = _checked(names, "found", str)
    parts = names.split(",") if names else []  # none are kept by No-BN
    sites = tuple(int(p[1:]) - 1 for p in parts if re.fullmatch(r"C[1-9]\d{0,3}", p))
    in_order = sorted({*sites}) == [*sites] and all(s < num_sites for s in sites)
    if site_names(sites) != names or not in_order:
        raise ValueError(f"`found` in results.json is {names!r}, of {num_sites} sites")
    return sites


def table(this: Finding, others: Sequence[Finding]) -> Table:
    """Shows this search's finding and the others', one a row."""
    same = sum(other.sites == this.sites for other in others)
    shown = Table(
        "What other searches found",
        [
            Column("Seed", format="d"),
            Column("Cores", format="d"),
            Column("Evaluations", format="d"),
            "Found",
            Column("Period", "s", "si"),
            Column("Loss", format=format_points, justify="right"),
            Column("At most", format=format_points, justify="right"),
            "Claim",
        ],
        footnotes=[
            f"First this search; {same} of {len(others)} others found the same. Another "
            "seed draws other weights and placements; another number of cores only "
            "rounds other sums. Loss: points of test accuracy against All-BN, and its "
            "one-sided 95% bound; each claim is decided on its own page.",
        ],
    )
    for finding in (this, *others):
        none = "none found" if finding.sites is None else "No-BN"
        shown.add(
            finding.seed,
            finding.num_cpus,
            finding.num_evaluations,
            site_names(finding.sites or ()) or none,
            finding.period_s,
            finding.loss,
            finding.loss_upper,
            finding.verdict and format_verdict(finding.verdict),
            style="highlight" if finding is this else "",
        )
    return shown


def format_verdict(verdict: Verdict) -> str:
    """Writes it for people: "non-inferior", "inferior" or "not decided"."""
    return verdict.replace("non_", "non-").replace("_", " ")


def format_points(loss: float) -> str:
    """Writes a loss of accuracy in points, without the unit: 0.002 is "0.20"."""
    return f"{100 * loss:.2f}".replace("-", "−")
