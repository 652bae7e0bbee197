"""results.json: every number of an experiment, beside the published one."""

import dataclasses
import decimal
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import subprocess
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import jax

from codesign.records import html
from codesign.records.files import StrPath, write_atomic

if TYPE_CHECKING:
    from codesign.report.table import Table

Kind = Literal["measured", "derived", "fitted", "assumed"]
Number = bool | int | float

_KEYS = (
    *("experiment", "preset", "seed", "environment", "wall_s"),
    *("quantities", "figures"),
)
_PACKAGES = ("codesign", "jax", "jaxlib", "flax", "numpyro", "optax", "numpy")


@dataclasses.dataclass(frozen=True)
class Quantity:
    """One number of an experiment, beside the published or the asked one.

    Attributes:
        name: What it is, e.g. "period_s".
        value: Finite number or truth value, or None where we cannot say; then `note`
            says why. NumPy and JAX scalars become Python ones.
        unit: SI unit ("s", "J", "m2", "B"), "%" for a value in percent, "ratio" for a
            fraction that people read as a percentage, or "".
        kind: "measured" (we ran it), "derived" (follows from shapes and published
            constants), "fitted" (a free parameter, named in `note`, was chosen to reach
            it) or "assumed".
        paper: The published number in the same unit, or None.
        source: Where the published number stands, e.g. "Fig. 12".
        note: What a reader should know before comparing the two.
        of: What it is of, e.g. `{"placement": "bo_n", "network": "vgg11"}`. The values
            stand behind the name in `key`, which is unique within its results.
        title: What it is, in words for people; else the key.
        asked: A target: the value must not be above, or with `at_least` not below.
        peer: Name of somebody else in the same run, and their value, None if they had none.

    Raises:
        ValueError: If a number is not finite, `kind` is none of the four, or a `note`
            or `source` that the rules above ask for is missing.
    """

    name: str
    value: Number | None
    unit: str = ""
    kind: Kind = dataclasses.field(kw_only=True)
    paper: Number | None = None
    source: str = ""
    note: str = ""
    of: Mapping[str, str] = dataclasses.field(default_factory=dict)
    title: str = ""
    asked: float | None = None
    at_least: bool = False
    peer: tuple[str, float | None] | None = None

    def __post_init__(self):
        object.__setattr__(self, "value", self._number("value"))
        object.__setattr__(self, "paper", self._number("paper"))
        if not self.name:
            raise ValueError("`name` of a quantity must not be empty.")
        if self.kind not in get_args(Kind):
            raise ValueError(
                f"`kind` of {self.key!r} must be one of {get_args(Kind)}, "
                f"got {self.kind!r}."
            )
        if self.value is None and not self.note:
            raise ValueError(f"`note` of {self.key!r} must say why it has no value.")
        if self.kind == "fitted" and not self.note:
            raise ValueError(f"`note` of {self.key!r} must name the fitted parameter.")
        if self.paper is not None and not self.source:
            raise ValueError(
                f"`source` of {self.key!r} must say where `paper` "
                f"(={self.paper}) stands, e.g. 'Fig. 12'."
            )

    @property
    def key(self) -> str:
        """`name[of]`, as results.json has it: "period_s[bo_n,vgg11]"."""
        return f"{self.name}[{','.join(self.of.values())}]" if self.of else self.name

    @property
    def verdict(self) -> str:
        """How `value` stands to `asked`, "met" or "missed", else to `paper`.

        "equal" to the digits that are printed, and 5 % off at most; "within" a point of
        a percentage, or 1 % of any other number; else "missed". Empty where there is
        nothing to compare.
        """
        if self.asked is not None:
            if self.value is None:
                return "missed"
            over = self.value >= self.asked
            return (
                "met" if over == self.at_least or self.value == self.asked else "missed"
            )
        if self.value is None or self.paper is None:
            return ""
        if isinstance(self.paper, bool):
            return "equal" if self.value == self.paper else "missed"
        off = abs(self.value - self.paper)
        printed = decimal.Decimal(str(self.paper)).as_tuple().exponent
        digits = max(0, -printed) if isinstance(printed, int) else 0
        rounded = round(float(self.value), digits)
        if off == 0 or (rounded == self.paper and off <= 0.05 * abs(self.paper)):
            return "equal"
        room = {"%": 1.0, "ratio": 0.01}.get(self.unit, 0.01 * abs(self.paper))
        return "within" if off <= room else "missed"

    def _number(self, field: str) -> Number | None:
        number = getattr(self, field)
        if getattr(number, "shape", None) == ():
            number = number.item()
        if number is None or isinstance(number, bool | int):
            return number
        if isinstance(number, float) and math.isfinite(number):
            return number
        raise ValueError(
            f"`{field}` of {self.key!r} must be a finite number, a truth value, or "
            f"None with the reason in `note`, got {number!r}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the object that stands in results.json, under its key."""
        keys = ("name", "value", "unit", "paper", "source", "kind", "note")
        content = {key: getattr(self, key) for key in keys} | {"name": self.key}
        for name in ("of", "title", "asked", "at_least", "peer"):  # most have none
            given = getattr(self, name)
            if given not in (None, "", {}) and given is not False:
                content[name] = given
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Quantity":
        """Reads what `to_dict` wrote."""
        given = dict(content)
        if "of" in given:
            given["name"] = given["name"].removesuffix(
                f"[{','.join(given['of'].values())}]"
            )
        if given.get("peer"):
            given["peer"] = tuple(given["peer"])
        return cls(**given)


class Quantities(list[Quantity]):
    """A list of quantities that a notebook and a terminal show as a table."""

    def table(self, title: str = "") -> "Table":
        """All of them, beside the published and the asked numbers."""
        from codesign.report import comparison  # which is about quantities

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
        if not math.isfinite(self.wall_s):
            raise ValueError(f"`wall_s` must be finite, got {self.wall_s}.")
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
            ValueError: If the file is not JSON, or a key of `write` is missing.
        """
        content = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        if not isinstance(content, dict) or not set(_KEYS) <= set(content):
            raise ValueError(f"`path` (={path}) must hold the keys {_KEYS}.")
        content["quantities"] = [Quantity.from_dict(q) for q in content["quantities"]]
        extras = {key: content.pop(key) for key in content.keys() - set(_KEYS)}
        return cls(**content, extras=extras)


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
