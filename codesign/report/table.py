"""One table for terminals, logs and HTML."""

import dataclasses
import itertools
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import rich.cells
import rich.text
from markupsafe import Markup

from codesign.records import html
from codesign.report.format import (
    NO_VALUE,
    format_number,
    format_percent,
    format_si,
    one_line,
)

Justify = Literal["left", "right", "center"]
RowStyle = Literal["", "highlight", "muted", "bad"]

_RICH_STYLES = {"": "", "highlight": "bold green", "muted": "dim", "bad": "red"}


@dataclasses.dataclass(frozen=True)
class Column:
    """A column and how its values are written.

    Attributes:
        name: Heading.
        unit: Unit of the values, without prefix where `format` is "si".
        format: "si" (prefix and unit in every cell: "64 µs", "9.88 M" without a unit),
            "percent" (of ratios), a format specification such as ".2f", a function of
            the value, or None: text as it is, numbers to three significant digits.
        justify: By default numbers stand on the right and all else on the left.
    """

    name: str
    unit: str = ""
    format: str | Callable[[Any], str] | None = None
    justify: Justify | None = None

    @property
    def heading(self) -> str:
        """The name, with the unit behind it unless the cells show it."""
        shown = self.unit and self.format not in ("si", "percent")
        return one_line(f"{self.name} ({self.unit})" if shown else self.name)

    def text(self, value: Any) -> str:
        """Writes one value on one line, without control characters."""
        if hasattr(value, "item") and getattr(value, "shape", None) == ():
            value = value.item()
        if value is None:
            return NO_VALUE
        if callable(self.format):
            return one_line(self.format(value))
        if isinstance(value, str) or not isinstance(value, bool | int | float):
            return one_line(str(value))
        if isinstance(value, bool):
            return "yes" if value else "no"
        if self.format == "si":
            return format_si(value, self.unit)
        if self.format == "percent":
            return format_percent(value)
        return format_number(value) if self.format is None else f"{value:{self.format}}"


@dataclasses.dataclass(frozen=True)
class Row:
    """Cells in column order; `marker`, e.g. "★", stands in a column before them."""

    cells: tuple[Any, ...]
    style: RowStyle = ""
    marker: str = ""


class Table:
    """A titled table with typed columns, row styles and footnotes.

        table = Table("Placements", [Column("Name"), Column("Period", "s", "si")])
        table.add("All-BN", 64e-6)
        table.add("BO-N", 21e-6, style="highlight", marker="★")
        print(table.to_text())

    Every rendering escapes what its format treats as special, so names of data sets or
    networks may hold any character.
    """

    def __init__(
        self,
        title: str,
        columns: Iterable[Column | str],
        rows: Iterable[Sequence[Any] | Row] = (),
        footnotes: Iterable[str] = (),
    ):
        self.title = title
        self.columns = [Column(c) if isinstance(c, str) else c for c in columns]
        self.rows: list[Row] = []
        self.footnotes = list(footnotes)
        for row in rows:
            if isinstance(row, Row):
                self.add(*row.cells, style=row.style, marker=row.marker)
            else:
                self.add(*row)

    def add(self, *cells: Any, style: RowStyle = "", marker: str = "") -> None:
        """Appends a row.

        Raises:
            ValueError: If there is not one cell per column, or `style` is unknown.
        """
        if len(cells) != len(self.columns):
            raise ValueError(
                f"`cells` (={cells}) must be {len(self.columns)}, one per column."
            )
        if style not in _RICH_STYLES:
            raise ValueError(f"`style` must be in {list(_RICH_STYLES)}, got {style!r}.")
        self.rows.append(Row(cells, style, marker))

    def to_rich(self, width: int | None = None) -> rich.text.Text:
        """Renders for a terminal: `console.print(table.to_rich(console.width))`.

        Args:
            width: Columns of the terminal. Cells are broken at blanks to keep to it, but
                no word and no number. A table that is still too wide is turned round, so
                that four placements with ten metrics take five columns; where cells do
                not fit whole then, every row becomes a block of lines, one a cell.
        """
        room = sys.maxsize if width is None else width
        justify: list[Justify]
        headings, justify, lines = self._layout()
        looks = [_RICH_STYLES[row.style] for row in self.rows]
        rows = [headings, *lines]
        styles = [[look] * len(headings) for look in ("bold", *looks)]
        widths = _widths(rows, room)
        if widths is None:
            if any(row.marker for row in self.rows):
                blank = "\N{NO-BREAK SPACE}"
                rows = [[f"{r[0]}{blank}{r[1]}".strip(), *r[2:]] for r in rows]
            headings, *lines = rows
            justify = ["left"] * len(rows)
            rows = [list(cells) for cells in zip(*rows, strict=True)]
            styles = [["dim", *looks]] * len(rows)
            widths = _widths(rows, room, whole=True)
        if widths is not None:
            rows.insert(1, ["─" * each for each in widths])
            styles.insert(1, [""] * len(widths))
        else:
            pairs = [[*zip(headings, line, strict=True), ("", "")] for line in lines]
            rows = list(itertools.chain(*pairs))[:-1]
            styles = [["dim", look] for look in looks for _ in pairs[0]][:-1]
            justify = justify[:1] * 2
            widths = _widths(rows, room) or _widths(rows, sys.maxsize) or []
        title = _wrapped(one_line(self.title), room) if self.title else []
        drawn = [rich.text.Text(line, "bold") for line in title]
        for row, style in zip(rows, styles, strict=True):
            pieces = map(_wrapped, row, widths)
            for cells in itertools.zip_longest(*pieces, fillvalue=""):
                padded = map(_padded, cells, widths, justify)
                line = map(rich.text.Text, padded, style)
                drawn.append(rich.text.Text("  ").join(line))
                drawn[-1].rstrip()
        for note in self.footnotes:
            lines = _wrapped(one_line(note), room)
            drawn += [rich.text.Text(line, "dim") for line in lines]
        return rich.text.Text("\n").join(drawn)

    def to_text(self) -> str:
        """Renders as aligned plain text, for logs; no line ends in blanks."""
        return self.to_rich().plain.replace("\N{NO-BREAK SPACE}", " ")

    def to_html(self) -> Markup:
        """Renders as an HTML `<table>` with classes for alignment and row styles."""
        headings, justify, lines = self._layout()
        return html.table(
            headings,
            lines,
            one_line(self.title),
            sides=justify,
            looks=[row.style for row in self.rows],
            notes=[*map(one_line, self.footnotes)],
        )

    def _repr_html_(self) -> str:
        return html.notebook(self.to_html())

    def _layout(self) -> tuple[list[str], list[Justify], list[list[str]]]:
        """Returns headings, sides and cell texts; markers, if any, come first."""
        headings = [column.heading for column in self.columns]
        justify: list[Justify] = [
            column.justify or _side([row.cells[index] for row in self.rows])
            for index, column in enumerate(self.columns)
        ]
        lines = [
            [c.text(cell) for c, cell in zip(self.columns, row.cells, strict=True)]
            for row in self.rows
        ]
        if any(row.marker for row in self.rows):
            headings.insert(0, "")
            justify.insert(0, "center")
            for row, line in zip(self.rows, lines, strict=True):
                line.insert(0, one_line(row.marker))
        lines = [[_glued(cell) for cell in line] for line in lines]
        return [*map(_glued, headings)], justify, lines


def _side(values: Sequence[Any]) -> Justify:
    """Puts columns of numbers on the right."""
    numbers = [value for value in values if value is not None]
    is_text = any(
        isinstance(v, str | bool) or not hasattr(v, "__float__") for v in numbers
    )
    return "left" if is_text or not numbers else "right"


def _glued(text: str) -> str:
    """Keeps a number, its unit and its error or the sign of a bound on one line."""
    blank = r"(?<=\d) (?=[^\W\d]{1,3}\b|%)| (?=±)|(?<=[≤≥±]) "
    return re.sub(blank, "\N{NO-BREAK SPACE}", text) if len(text) < 30 else text


def _widths(
    rows: Sequence[Sequence[str]], room: int, whole: bool = False
) -> list[int] | None:
    """Widths of columns that fit into `room`; None if words do not.

    With `whole` cells are broken in the first column only.
    """
    columns = list(zip(*rows, strict=True))
    most = [max(map(rich.cells.cell_len, column)) for column in columns]
    words = [" ".join(column).split(" ") for column in columns]
    widths = [max(map(rich.cells.cell_len, each)) for each in words]
    if whole:
        widths[1:] = most[1:]
    room -= sum(widths) + 2 * (len(widths) - 1)
    if room < 0:
        return None
    lacking = [most - least for most, least in zip(most, widths, strict=True)]
    order = sorted(range(len(widths)), key=lacking.__getitem__)
    for count, index in zip(range(len(widths), 0, -1), order, strict=True):
        more = min(lacking[index], room // count)  # What one leaves is for the others.
        widths[index] += more
        room -= more
    return widths


def _wrapped(text: str, width: int) -> list[str]:
    """Breaks a line at blanks; a word that is longer than `width` stays whole."""
    lines: list[str] = []
    for word in text.split(" "):
        if lines and rich.cells.cell_len(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _padded(text: str, width: int, justify: Justify) -> str:
    blanks = width - rich.cells.cell_len(text)  # Cells, as some characters take two.
    left = {"left": 0, "right": blanks, "center": blanks // 2}[justify]
    text = text.replace("\N{NO-BREAK SPACE}", " ")
    return " " * left + text + " " * (blanks - left)
