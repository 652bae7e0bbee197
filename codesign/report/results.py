"""results.json: every number of an experiment, beside the published one."""

import dataclasses
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from codesign.records import html
from codesign.records.files import StrPath, parse_json, write_atomic
from codesign.report import comparison
from codesign.report.quantity import Quantity
from codesign.report.table import Table
from codesign.types import is_number

_KEYS = (
    *("experiment", "preset", "seed", "environment", "wall_s"),
    *("quantities", "figures"),
)
_PACKAGES = ("codesign", "jax", "jaxlib", "flax", "numpyro", "optax", "numpy")


class Quantities(list[Quantity]):
    """A list of quantities that a notebook and a terminal show as a table."""

    def table(self, title: str = "") -> Table:
        """All of them, beside the published and the asked numbers."""
        return comparison.table(self, title, everything=True)

    def __repr__(self) -> str:
        return self.table().to_text() if self else "Quantities()"

    def _repr_html_(self) -> str:
        return html.notebook(self.table().to_html() if self else repr(self))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Results:
    """What one run of an experiment found: the content of results.json.

    Attributes:
        experiment: Name of the launcher, e.g. "bn_placement".
        preset: Name of the settings it ran with.
        seed: Root of every random key.
        environment: Versions and devices, from `environment()`.
        wall_s: Wall-clock time in seconds of the session that wrote it.
        quantities: In the order of the report; `results[name]` finds one.
        figures: File names of the figures, relative to results.json.
        extras: Further keys of results.json that others rely on, such as `sweep_s`.

    Raises:
        ValueError: If two quantities share a name, `wall_s` is not finite, or an extra
            key is one of the others.
    """

    experiment: str
    preset: str
    seed: int
    environment: Mapping[str, Any]
    wall_s: float
    quantities: Sequence[Quantity]
    figures: Sequence[StrPath] = ()
    extras: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        taken = sorted(set(_KEYS) & set(self.extras))
        if taken:
            raise ValueError(f"`extras` must not hold {taken}, which are fields.")
        object.__setattr__(self, "quantities", tuple(self.quantities))
        object.__setattr__(
            self, "figures", tuple(os.fspath(figure) for figure in self.figures)
        )
        if not is_number(self.wall_s) or not math.isfinite(self.wall_s):
            raise ValueError(f"`wall_s` must be a finite number, got {self.wall_s!r}.")
        seen = set()
        for quantity in self.quantities:
            if quantity.key in seen:
                raise ValueError(
                    f"`quantities` holds {quantity.key!r} twice; names are unique."
                )
            seen.add(quantity.key)

    def __getitem__(self, name: str) -> Quantity:
        for quantity in self.quantities:
            if quantity.key == name:
                return quantity
        names = ", ".join(quantity.key for quantity in self.quantities)
        raise KeyError(f"No quantity {name!r}; there are: {names}.")

    def _repr_html_(self) -> str:
        run = f"{self.experiment}, preset {self.preset}, seed {self.seed}"
        table = Quantities(self.quantities).table(run)
        return html.notebook(table.to_html() if self.quantities else run)

    def to_json(self) -> str:
        """Returns the text of results.json."""
        content = {key: getattr(self, key) for key in _KEYS} | dict(self.extras)
        content["quantities"] = [quantity.to_dict() for quantity in self.quantities]
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def write(self, path: StrPath) -> None:
        """Writes results.json atomically."""
        write_atomic(path, self.to_json())

    @classmethod
    def read(cls, path: StrPath) -> "Results":
        """Reads what `write` wrote.

        Raises:
            ValueError: If the file is not JSON, or not as `write` makes it.
        """
        if not pathlib.Path(path).is_file():
            raise FileNotFoundError(f"No such file: {path}.")
        try:
            content = parse_json(pathlib.Path(path).read_bytes())
            if not isinstance(content, dict) or not set(_KEYS) <= set(content):
                raise ValueError(f"it must hold the keys {_KEYS}")
            quantities = [Quantity.from_dict(each) for each in content["quantities"]]
            extras = {key: content.pop(key) for key in content.keys() - set(_KEYS)}
            found = cls(**{**content, "quantities": quantities}, extras=extras)
            found.to_json()  # what cannot be written was not written
            return found
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"`path` (={path}) is damaged, or of another version: {error!r}."
            ) from error


def environment() -> dict[str, Any]:
    """Describes where a run happens: versions, devices, precision, and our git commit.

    Asks JAX for its devices, and so starts its backend. What cannot be found out is
    None; nothing raises, and nothing names a path or a user of the machine.
    """
    found: dict[str, Any] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    found["git_commit"] = _git_commit()
    found["os"] = f"{platform.system()} {platform.machine()}"
    found["num_cpus"] = (
        len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")  # Linux: the CPUs this process may use.
        else os.cpu_count()
    )
    try:
        devices = jax.devices()
        found["platform"] = devices[0].platform
        found["device_kind"] = devices[0].device_kind
        found["num_devices"] = len(devices)
    except RuntimeError:
        found |= {"platform": None, "device_kind": None, "num_devices": None}
    for name in ("jax_enable_x64", "jax_default_matmul_precision"):
        found[name] = getattr(jax.config, name, None)
    return found


def _git_commit() -> str | None:
    """Returns our commit, "-dirty" behind it if files differ; None without one."""
    folder = pathlib.Path(__file__).parent
    git = ["git", "-C", str(folder), "--no-optional-locks"]
    try:
        # An installed package may lie inside a checkout of something else.
        for arguments in (
            ["ls-files", "--error-unmatch", "__init__.py"],
            ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
        ):
            answer = subprocess.run(
                git + arguments, capture_output=True, text=True, timeout=5, check=True
            )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None
