"""Tables as HTML: aligned, folded, escaped, and styled for themselves alone."""

import html.parser
import re

import pytest
from markupsafe import Markup

from codesign.records import html as writer

EVIL = "<script>alert('x')</script>\" onload=\"x"


class Reader(html.parser.HTMLParser):
    """Texts of cells by row, and every tag."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.rows: list[list[str]] = []
        self._inside: list[str] = []
        self.feed(text)
        assert not self._inside, "a tag is not closed"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag == "br":
            return
        self._inside.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self._inside.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & {*self._inside}:
            self.rows[-1][-1] += data


def test_cells_stand_where_their_column_does():
    made = writer.table(
        ["Op", "MACs"], [("a", "1"), ("b", "20")], sides=["left", "right"],
        looks=["", "bad"], caption="Ops",
    )  # fmt: skip
    assert made == (
        "<table><caption>Ops</caption><thead><tr>"
        '<th scope="col" class="left">Op</th><th scope="col" class="right">MACs</th>'
        '</tr></thead><tbody><tr class=""><td class="left">a</td>'
        '<td class="right">1</td></tr><tr class="bad"><td class="left">b</td>'
        '<td class="right">20</td></tr></tbody></table>'
    )


@pytest.mark.parametrize(
    ("most", "shown"),
    [
        # Of 7 rows: 3 at the head, 2 at the tail, and a line for the other 2.
        (5, ["0", "1", "2", "⋮ 2 more", "5", "6"]),
        (2, ["0", "⋮ 5 more", "6"]),
        (1, ["0", "⋮ 6 more"]),
        (7, list("0123456")),
        (None, list("0123456")),
    ],
)
def test_long_tables_are_folded(most, shown):
    made = writer.table(["n"], [(str(i),) for i in range(7)], most=most)
    assert [row[0] for row in Reader(made).rows[1:]] == shown


def test_every_text_is_escaped():
    made = writer.table([EVIL], [(EVIL,)], EVIL, notes=[EVIL])
    page = writer.notebook(EVIL, made)
    assert page.count("&lt;script&gt;") == 5
    assert "script" not in Reader(page).tags
    # What is HTML already stays it; text never becomes it.
    assert writer.notebook(Markup("<hr>")).count("<hr>") == 1
    assert "<hr>" not in writer.notebook("<hr>")


def test_its_style_reaches_nothing_else_and_sets_no_ground():
    page = writer.notebook("text")
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    selectors = re.findall(r"([^{}]+)\{", style)
    assert len(selectors) > 5
    for each in selectors:
        assert all(name.strip().startswith(".codesign") for name in each.split(","))
    # Text has the colour of whoever shows it, so that it is read on dark and light.
    assert {*re.findall(r"[^-]color: ([^;}]+)", style)} == {"inherit"}
    grounds = re.findall(r"background: ([^;}]+?) ?[;}]", style)
    assert all(each == "none" or len(each) in (5, 9) for each in grounds)  # with alpha
    assert "url(" not in style
