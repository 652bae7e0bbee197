"""One self-contained HTML page per experiment: opens from disk, without a network."""

import base64
import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jinja2

from codesign.report import comparison
from codesign.report.format import NO_VALUE, format_duration
from codesign.report.quantity import Quantity
from codesign.report.results import Results
from codesign.report.table import Table

if TYPE_CHECKING:
    import matplotlib.figure  # which results and tables do without

_KINDS = {
    "measured": "we ran it",
    "derived": "follows from shapes and published constants",
    "fitted": "a free parameter was chosen to reach it; the note names it",
    "assumed": "nobody published it",
}


@dataclasses.dataclass(frozen=True)
class Card:
    """A headline number: `Card("Period", "21 µs", "64 µs with All-BN")`."""

    label: str
    value: str
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Paragraph:
    """Plain text; HTML in it is shown as text."""

    text: str


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure with its caption; saved as `name.png`. `drawn` can be changed further."""

    name: str
    drawn: "matplotlib.figure.Figure"
    caption: str

    @functools.cached_property
    def png(self) -> bytes:
        """The image, drawn when it is first asked for."""
        from codesign.report import canvas

        return canvas.to_png(self.drawn)

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """For a notebook: as `drawn` is by now, half as wide as it has pixels."""
        from codesign.report import canvas

        width = round(100 * self.drawn.get_figwidth())
        return canvas.to_png(self.drawn, dpi=200), {"width": width}

    @property
    def data_uri(self) -> str:
        """The image as a `data:` address."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")


@dataclasses.dataclass(frozen=True)
class Section:
    """A headed part of the page."""

    title: str
    body: Sequence[Paragraph | Table | Figure]


def render_page(
    title: str,
    summary: str,
    *,
    cards: Sequence[Card] = (),
    sections: Sequence[Section] = (),
    results: Results | None = None,
    config: Any = None,
    warnings: Sequence[str | Table] = (),
) -> str:
    """Renders the report of an experiment as one HTML document.

    The page holds its images and styles, loads nothing and runs nothing. It follows the
    reader's light or dark scheme, and can be printed. Every text is escaped.

    Args:
        title: Heading, e.g. "Batch-norm placement for VGG-11 on 3R1G".
        summary: The answer, in one paragraph; it comes first.
        cards: Headline numbers below it.
        sections: The main table, the figures, what there is to say.
        results: Adds the comparison with published numbers, and the environment.
        config: Settings, as a dataclass or a mapping; nested ones are joined by dots.
        warnings: What went wrong, e.g. a table of failed candidates with reasons.

    Returns:
        The document; write it with `write_atomic(path, page)`.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("codesign.report", package_path=""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    settings = [] if config is None else list(_flat(config))
    return environment.get_template("page.html").render(
        title=title,
        summary=summary,
        cards=cards,
        sections=sections,
        warnings=[Paragraph(w) if isinstance(w, str) else w for w in warnings],
        results=results,
        **_compared(results.quantities if results else ()),
        kinds=_KINDS,
        settings=[(key, _shown(value)) for key, value in settings],
        environment=[(key, _shown(v)) for key, v in results.environment.items()]
        if results
        else [],
        wall_time=format_duration(results.wall_s) if results else "",
        is_figure=lambda item: isinstance(item, Figure),
        is_table=lambda item: isinstance(item, Table),
    )


def _compared(quantities: Sequence[Quantity]) -> dict[str, Any]:
    """The comparison, rows with a published or an asked number first; no empty columns."""
    first = sorted(quantities, key=lambda q: q.paper is None and q.asked is None)
    asked = any(q.asked is not None for q in first)
    published = any(q.asked is None and q.paper is not None for q in first)
    against = "Paper or asked" if asked and published else "Asked" if asked else "Paper"
    rows = [
        {
            "name": q.key,
            "title": q.title,
            "ours": comparison.ours(q),
            "wanted": comparison.wanted(q),
            "difference": comparison.difference(q),
            "verdict": q.verdict,
            "source": q.source,
            "kind": q.kind,
            "note": q.note,
        }
        for q in first
    ]
    titles = dict(
        name="Quantity", ours="Ours", wanted=against, difference="Difference",
        verdict="Verdict", source="Source", kind="Kind", note="Note",
    )  # fmt: skip
    return {
        "comparison": rows,
        "compared": "Paper and ours" if published
        else "Targets and ours" if asked
        else "Quantities",
        "columns": {
            key: title
            for key, title in titles.items()
            if key == "ours" or any(row[key] not in ("", NO_VALUE) for row in rows)
        },
    }  # fmt: skip


def _flat(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields settings by dotted names."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        config = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    if isinstance(config, Mapping) and (config or not prefix):
        for key, value in config.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, config


def _shown(value: Any) -> str:
    if value is None or value == "":
        return NO_VALUE
    if isinstance(value, bool):
        return "yes" if value else "no"
    return repr(value) if isinstance(value, float) else str(value)
