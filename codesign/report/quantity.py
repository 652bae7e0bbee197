"""One number of a study, beside the published or the asked one."""

import dataclasses
import decimal
import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

Kind = Literal["measured", "derived", "fitted", "assumed"]
Number = bool | int | float


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
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"`name` of a quantity must be a text, got {self.name!r}.")
        texts = {key: getattr(self, key) for key in ("unit", "source", "note", "title")}
        for key, text in (
            texts | {f"of[{key}]": self.of[key] for key in self.of}
        ).items():
            if not isinstance(text, str):
                raise ValueError(
                    f"`{key}` of {self.name!r} must be a text, got {text!r}."
                )
        for field in ("value", "paper", "asked"):
            object.__setattr__(self, field, self._number(field, getattr(self, field)))
        if self.peer is not None:
            if len(self.peer) != 2 or not isinstance(self.peer[0], str):
                raise ValueError(
                    f"`peer` of {self.key!r} must be a name and a number, got "
                    f"{self.peer!r}."
                )
            peer = self.peer[0], self._number("peer", self.peer[1])
            object.__setattr__(self, "peer", peer)
        if not isinstance(self.kind, str) or self.kind not in get_args(Kind):
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

    def _number(self, field: str, number: Any) -> Number | None:
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
