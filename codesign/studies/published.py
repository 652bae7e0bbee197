"""A number that somebody printed or asks for, and where ours comes from."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

from codesign.report import Quantities, Quantity
from codesign.report.quantity import Kind, Number

_Found = TypeVar("_Found")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published(Generic[_Found]):
    """One row of a study's comparison.

    Attributes:
        name: What it is, as in results.json.
        ours: Finds our value in what the study found; None where it was not run.
        of: What it is of, e.g. `{"network": "resnet50"}`.
        value: As printed, in `unit`; None where only words are.
        asked: A target instead, or beside it; see `Quantity`.
        at_least: Whether `asked` is the least, not the most.
        unit: SI unit, or "%" for percentages.
        source: Where `value` stands: "Fig. 12", or who reached it.
        kind: How our value comes about.
        title: In words.
        note: What a reader should know before comparing the two; may depend on what was
            found.
        why: Added to the note where ours misses.
        missing: Note where there is no value.
        peer: Finds somebody else's value in the same run.
    """

    name: str
    ours: Callable[[_Found], Number | None]
    of: Mapping[str, str] = dataclasses.field(default_factory=dict)
    value: Number | None = None
    asked: float | None = None
    at_least: bool = False
    unit: str = ""
    source: str = ""
    kind: Kind = "measured"
    title: str = ""
    note: str | Callable[[_Found], str] = ""
    why: str = ""
    missing: str = "not run"
    peer: Callable[[_Found], tuple[str, float | None] | None] = lambda found: None

    def quantity(self, found: _Found, **changes: Any) -> Quantity:
        """Ours beside theirs; `changes` are of the quantity's fields."""
        value = self.ours(found)
        note = self.note if isinstance(self.note, str) else self.note(found)
        fields: dict[str, Any] = dict(
            name=self.name,
            value=value,
            unit=self.unit,
            kind=self.kind,
            paper=self.value,
            source=self.source,
            note=note,
            of=self.of,
            title=self.title,
            asked=self.asked,
            at_least=self.at_least,
            peer=self.peer(found),
        )
        if value is None:
            fields["note"] = _joined(self.missing, note)
        made = Quantity(**(fields | changes))
        if self.why and made.verdict == "missed":
            made = dataclasses.replace(made, note=_joined(made.note, self.why))
        return made


def quantities(rows: Iterable[Published[_Found]], found: _Found) -> Quantities:
    """Every row's, none left out."""
    return Quantities(row.quantity(found) for row in rows)


def _joined(*notes: str) -> str:
    return "; ".join(filter(None, notes))
