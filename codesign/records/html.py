"""Tables as HTML: for the page of a study, and for what a notebook shows of an object."""

from collections.abc import Iterable, Sequence

from markupsafe import Markup, escape

from codesign.records.files import encoded

# Colours are those of whoever shows it, light or dark; lines and marks are half clear.
# Sides name tag and class: JupyterLab's own rule, all to the right, weighs that much.
_STYLE = Markup("""<style>
.codesign { overflow-x: auto; }
.codesign p { margin: .3em 0; max-width: 50em; }
.codesign table { border-collapse: collapse; margin: .3em 0 .8em; font-size: 13px;
  color: inherit; font-variant-numeric: tabular-nums; }
.codesign caption { text-align: left; font-weight: 600; color: inherit; padding: .3em 0; }
.codesign tr, .codesign tbody tr:nth-child(n) { background: none; }
.codesign th, .codesign td { text-align: left; vertical-align: top; border: none;
  padding: .25em .6em; white-space: nowrap; max-width: none; }
.codesign td.long, .codesign tfoot td { white-space: normal; max-width: 32em;
  overflow-wrap: anywhere; }
.codesign th.left, .codesign td.left { text-align: left; }
.codesign th.right, .codesign td.right { text-align: right; }
.codesign th.center, .codesign td.center { text-align: center; }
.codesign thead tr { border-bottom: 1px solid #8889; }
.codesign tbody tr + tr { border-top: 1px solid #8883; }
.codesign tr.sum { border-top: 1px solid #8889; font-weight: 600; }
.codesign tr.muted > *, .codesign tfoot td { opacity: .7; }
.codesign tr.highlight:nth-child(n) { background: #009e7333; font-weight: 600; }
.codesign tr.bad:nth-child(n) { background: #d55e0033; }
</style>""")


def table(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    caption: str = "",
    *,
    sides: Sequence[str] = (),
    looks: Iterable[str] = (),
    notes: Sequence[str] = (),
    most: int | None = None,
) -> Markup:
    """Writes a `<table>`; every text is escaped.

        table(["Op", "MACs"], [("conv1", "1.77 M")], sides=["left", "right"])

    Args:
        headings: One for each column.
        rows: Texts of each row's cells.
        caption: Title.
        sides: Class of each column: "left", "right" or "center"; by default the left.
        looks: Class of each row: "", "highlight", "muted", "bad" or "sum".
        notes: Lines below the rows.
        most: Rows that are shown; of more, the first and the last, with a count between.
    """
    sides = [*sides, *["left"] * (len(headings) - len(sides))]
    written = [*rows]
    looks = [*looks][: len(written)]
    looks += [""] * (len(written) - len(looks))
    parts = [Markup("<table>")]
    if caption:
        parts.append(Markup("<caption>{}</caption>").format(caption))
    parts.append(Markup("<thead><tr>"))
    for heading, side in zip(headings, sides, strict=True):
        parts.append(Markup('<th scope="col" class="{}">{}</th>').format(side, heading))
    parts.append(Markup("</tr></thead><tbody>"))
    lines = [_row(*each, sides) for each in zip(written, looks, strict=True)]
    if most is not None and len(lines) > most:
        head = (most + 1) // 2
        tail = len(lines) - most // 2
        folded = Markup(
            '<tr class="muted"><td class="left" colspan="{}">⋮ {:,} more</td></tr>'
        )
        lines[head:tail] = [folded.format(len(headings), tail - head)]
    parts += [*lines, Markup("</tbody>")]
    if notes:
        foot = Markup('<tfoot><tr><td class="left" colspan="{}">{}</td></tr></tfoot>')
        parts.append(
            foot.format(len(headings), Markup("<br>").join(map(escape, notes)))
        )
    return Markup("").join([*parts, Markup("</table>")])


def _row(cells: Sequence[str], look: str, sides: Sequence[str]) -> Markup:
    written = [Markup('<tr class="{}">').format(look)]
    for cell, side in zip(cells, sides, strict=True):
        kind = f"{side} long" if len(cell) > 40 else side  # may be wrapped
        written.append(Markup('<td class="{}">{}</td>').format(kind, cell))
    return Markup("").join([*written, Markup("</tr>")])


def title(text: str) -> Markup:
    """A heading above tables."""
    return Markup("<p><strong>{}</strong></p>").format(text)


def notebook(*parts: str) -> str:
    """What `_repr_html_` returns: tables, and plain texts as paragraphs.

    Nothing in it runs or loads, and its style reaches nothing else on the page.
    """
    written = [
        each if isinstance(each, Markup) else Markup("<p>{}</p>").format(each)
        for each in parts
    ]
    body = Markup("").join([_STYLE, *written])
    page = Markup('<div class="codesign">{}</div>').format(body)
    return encoded(page).decode()
