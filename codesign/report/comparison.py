"""Our numbers beside published and asked ones: one rule, one table."""

from collections.abc import Iterable, Sequence

from codesign.report.format import (
    NO_VALUE,
    format_number,
    format_percent,
    format_quantity,
)
from codesign.report.quantity import Quantity
from codesign.report.table import Column, Table

_TO_PERCENT = {"%": 1, "ratio": 100}


def difference(quantity: Quantity) -> str:
    """Ours less the paper's: points of a percentage, else relative to the paper's."""
    ours, paper = quantity.value, quantity.paper
    if ours is None or paper is None:
        return NO_VALUE
    if isinstance(ours, bool) or isinstance(paper, bool):
        return "same" if ours == paper else "differs"
    off = ours - paper
    if off == 0:
        return "same"
    if quantity.unit in _TO_PERCENT:
        points = round(off * _TO_PERCENT[quantity.unit], 1)
        return f"{points:+.1f} points".replace("-", "−") if points else "same"
    return NO_VALUE if paper == 0 else f"{off / paper:+.1%}".replace("-", "−")


def wanted(quantity: Quantity) -> str:
    """What ours is held against: "48.1%", "≤ 8"; with all the digits that are printed."""
    if quantity.asked is not None:
        sign = "≥" if quantity.at_least else "≤"
        return f"{sign} {format_quantity(quantity.asked, quantity.unit)}"
    if quantity.unit in _TO_PERCENT and quantity.paper is not None:
        return f"{quantity.paper * _TO_PERCENT[quantity.unit]:.6g}%"
    return format_quantity(quantity.paper, quantity.unit)


def ours(quantity: Quantity) -> str:
    """Our value; a percentage with one decimal."""
    if quantity.unit == "%" and quantity.value is not None:
        return format_percent(quantity.value / 100)
    return format_quantity(quantity.value, quantity.unit)


def peer(quantity: Quantity) -> str:
    """Somebody else's value in the same run, and how often ours goes into it."""
    if quantity.peer is None:
        return NO_VALUE
    name, value = quantity.peer
    if value is None:
        return f"not reached ({name})"
    text = f"{format_quantity(value, quantity.unit)} ({name}"
    if quantity.unit == "s" and quantity.value and value:
        return f"{text}; ours is {format_number(quantity.value / value)} of it)"
    return f"{text})"


def table(
    quantities: Iterable[Quantity],
    title: str,
    footnotes: Sequence[str] = (),
    *,
    everything: bool = False,
) -> Table:
    """Those of the quantities that have a published or an asked number.

    A column that is empty throughout is left out, and so is one kind for all: a number
    that a parameter was fitted to is not to be read as one that was measured.

    Args:
        quantities: In the order of the rows.
        title, footnotes: Of the table.
        everything: Show also those without such a number.
    """
    held = [q for q in quantities if q.paper is not None or q.asked is not None]
    rows = [*quantities] if everything else held
    targets = all(q.asked is not None for q in held)
    columns = {
        "Quantity": [q.title or q.key for q in rows],
        "Ours": list(map(ours, rows)),
        "Asked" if targets else "Paper": list(map(wanted, rows)),
        "Difference": list(map(difference, rows)),
        "Verdict": [q.verdict for q in rows],
        "Kind": [q.kind if len({q.kind for q in rows}) > 1 else "" for q in rows],
        "Peer in this run": list(map(peer, rows)),
        "Peer elsewhere": [
            format_quantity(q.paper if targets else None, q.unit) for q in rows
        ],
        "Source": [q.source for q in rows],
    }
    if targets:
        columns.pop("Difference")
    shown = {
        name: cells for name, cells in columns.items() if {*cells} - {NO_VALUE, ""}
    }
    made = Table(
        title,
        [Column(n, justify="left" if n in _WORDS else "right") for n in shown],
        footnotes=[
            *footnotes,
            "Equal: to the digits that are printed, and 5 % off at most. Within: a point "
            "of a percentage, or 1 % of any other number.",
        ][: len(footnotes) + any(q.asked is None for q in held)],
    )
    for row, cells in zip(rows, zip(*shown.values(), strict=True), strict=True):
        made.add(*cells, style="bad" if row.verdict == "missed" else "")
    return made


_WORDS = ("Quantity", "Verdict", "Kind", "Peer in this run", "Source")
