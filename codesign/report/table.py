"""One table for terminals, logs and HTML."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import rich.box
import rich.cells
import rich.table
import rich.text
from markupsafe import Markup, escape

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
        format: "si" (prefix and unit in every cell), "percent" (of ratios), a format
            specification such as ".2f", a function of the value, or None: text as it
            is, numbers to three significant digits.
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

    def to_rich(self, width: int | None = None) -> rich.table.Table:
        """Renders for a terminal: `console.print(table.to_rich(console.width))`.

        Args:
            width: Columns of the terminal. Where no word would stay whole in them, every
                row becomes a block of lines, one a cell.
        """
        headings, justify, lines = self._layout()
        words = [  # Width of the longest word of each column.
            max(map(rich.cells.cell_len, " ".join([*column, "x"]).split(" ")))
            for column in zip(headings, *lines, strict=True)
        ]
        stacked = width is not None and sum(words) + 2 * len(words) > width
        table = rich.table.Table(
            title=rich.text.Text(one_line(self.title), "bold"),
            title_justify="left",
            caption=rich.text.Text("\n".join(map(one_line, self.footnotes)), "dim"),
            caption_justify="left",
            box=None if stacked else rich.box.SIMPLE_HEAD,
            show_header=not stacked,
        )
        if stacked:
            table.add_column(style="dim", no_wrap=True)
            table.add_column(overflow="fold")
        else:
            for heading, side, least in zip(headings, justify, words, strict=True):
                table.add_column(rich.text.Text(heading), justify=side, min_width=least)
        for row, line in zip(self.rows, lines, strict=True):
            style = _RICH_STYLES[row.style]
            cells = [rich.text.Text(cell) for cell in line]
            if not stacked:
                table.add_row(*cells, style=style)
                continue
            for heading, cell in zip(headings, cells, strict=True):
                table.add_row(heading, cell, style=style)
            table.add_row()
        return table

    def to_text(self) -> str:
        """Renders as aligned plain text, for logs; no line ends in blanks."""
        headings, justify, lines = self._layout()
        widths = [
            max(rich.cells.cell_len(cell) for cell in column)
            for column in zip(headings, *lines, strict=True)
        ]

        def aligned(cells: Sequence[str]) -> str:
            padded = map(_padded, cells, widths, justify)
            return "  ".join(padded).rstrip()

        rule = "  ".join("─" * width for width in widths)
        body = [aligned(headings), rule, *map(aligned, lines)]
        title = [one_line(self.title)] if self.title else []
        return "\n".join([*title, *body, *map(one_line, self.footnotes)])

    def to_html(self) -> Markup:
        """Renders as an HTML `<table>` with classes for alignment and row styles."""
        headings, justify, lines = self._layout()
        parts = [Markup("<table>")]
        if self.title:
            parts.append(Markup("<caption>{}</caption>").format(one_line(self.title)))
        parts.append(Markup("<thead><tr>"))
        for heading, side in zip(headings, justify, strict=True):
            cell = Markup('<th scope="col" class="{}">{}</th>').format(side, heading)
            parts.append(cell)
        parts.append(Markup("</tr></thead><tbody>"))
        for row, line in zip(self.rows, lines, strict=True):
            parts.append(Markup('<tr class="{}">').format(row.style))
            for cell, side in zip(line, justify, strict=True):
                kind = f"{side} long" if len(cell) > 40 else side  # May be wrapped.
                parts.append(Markup('<td class="{}">{}</td>').format(kind, cell))
            parts.append(Markup("</tr>"))
        parts.append(Markup("</tbody>"))
        if self.footnotes:
            notes = Markup("<br>").join(
                escape(one_line(note)) for note in self.footnotes
            )
            parts.append(
                Markup('<tfoot><tr><td colspan="{}">{}</td></tr></tfoot>').format(
                    len(headings), notes
                )
            )
        return Markup("").join([*parts, Markup("</table>")])

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
        return headings, justify, lines


def _side(values: Sequence[Any]) -> Justify:
    """Puts columns of numbers on the right."""
    numbers = [value for value in values if value is not None]
    is_text = any(
        isinstance(v, str | bool) or not hasattr(v, "__float__") for v in numbers
    )
    return "left" if is_text or not numbers else "right"


def _padded(text: str, width: int, justify: Justify) -> str:
    blanks = width - rich.cells.cell_len(text)  # Cells, as some characters take two.
    left = {"left": 0, "right": blanks, "center": blanks // 2}[justify]
    return " " * left + text + " " * (blanks - left)
