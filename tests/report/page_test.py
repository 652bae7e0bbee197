"""Tests of `codesign.report.page`."""

import dataclasses
import html.parser
import re

from absl.testing import absltest, parameterized

from codesign.report import canvas, page
from codesign.report.quantity import Quantity
from codesign.report.results import Results
from codesign.report.table import Table

_EVIL = "<script>alert('x')</script>"
_VOID = {"meta", "img", "br"}


@dataclasses.dataclass(frozen=True)
class _Chip:
    read_time_s: float = 1e-7


@dataclasses.dataclass(frozen=True)
class _Config:
    dataset: str = _EVIL
    resume: bool = True
    chip: _Chip = dataclasses.field(default_factory=_Chip)


class _Reader(html.parser.HTMLParser):
    """Collects tags, and the attributes that could load something."""

    def __init__(self):
        super().__init__()
        self.tags, self.open, self.sources = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in _VOID:
            self.open.append(tag)
        self.sources += [v for k, v in attrs if k in ("src", "href", "srcset", "data")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def _results(*quantities, name="bn_placement"):
    return Results(
        experiment=name,
        preset="smoke",
        seed=0,
        environment={"jax": "0.10.2", "device": _EVIL},
        wall_s=200.0,
        quantities=quantities,
    )


def _full_page():
    return page.render_page(
        f"Placement for {_EVIL}",
        f"BO-N wins on {_EVIL}.",
        cards=[page.Card(_EVIL, "21 µs", _EVIL)],
        sections=[
            page.Section(
                f"Section {_EVIL}",
                [
                    page.Paragraph(_EVIL),
                    Table(_EVIL, [_EVIL], [(_EVIL,)], [_EVIL]),
                    page.Figure("x", canvas.blank(0.5), f'"{_EVIL}" onerror="x'),
                ],
            )
        ],
        results=_results(
            Quantity("a", 1, "s", kind="fitted", paper=2, source=_EVIL, note=_EVIL),
            Quantity(_EVIL, 1.0, _EVIL, kind="measured"),
            name=_EVIL,
        ),
        config=_Config(),
        warnings=[_EVIL, Table("", ["Reason"], [(_EVIL,)])],
    )


class RenderPageTest(parameterized.TestCase):
    def test_every_text_is_escaped(self):
        reader = _Reader()
        text = _full_page()
        reader.feed(text)
        self.assertNotIn("script", reader.tags)
        self.assertEmpty(reader.open)
        self.assertNotIn('onerror="', text)
        self.assertGreaterEqual(text.count("&lt;script&gt;"), 15)

    def test_loads_nothing(self):
        reader = _Reader()
        text = _full_page()
        reader.feed(text)
        self.assertNotRegex(text, r"https?://|@import|url\(")
        self.assertNotIn("link", reader.tags)
        self.assertLen(reader.sources, 1)
        self.assertStartsWith(reader.sources[0], "data:image/png;base64,")

    def test_a_figure_shows_itself_as_it_is_by_now(self):
        figure = page.Figure("x", canvas.blank(0.5), "caption")
        first, look = figure._repr_png_()
        self.assertEqual(first, figure.png)
        figure.drawn.suptitle("mine")
        self.assertNotEqual(figure._repr_png_()[0], first)
        self.assertStartsWith(first, b"\x89PNG")
        # Two pixels to one of the page, for screens that have them: PNG's header says.
        self.assertEqual(int.from_bytes(first[16:20], "big"), 2 * look["width"])

    def test_parts_come_in_order(self):
        headings = re.findall(r"<h2>(.*?)</h2>", _full_page())
        self.assertEqual(
            headings[1:],
            ["Paper and ours", "Warnings and failures", "Settings", "Environment"],
        )

    def test_small_page_has_no_empty_parts(self):
        text = page.render_page("T", "S")
        self.assertNotIn("<h2>", text)
        self.assertNotIn('class="cards"', text)

    def test_settings_are_flat(self):
        text = page.render_page("T", "S", config=_Config(dataset="digits"))
        rows = re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td>', text)
        self.assertEqual(
            rows,
            [("dataset", "digits"), ("resume", "yes"), ("chip.read_time_s", "1e-07")],
        )

    @parameterized.parameters(
        # 64.8 % instead of 67.1 %: points; 18 instead of 20 µs: 2 / 20 less.
        (64.8, "%", 67.1, ["64.8%", "67.1%", "−2.3 points"]),
        (18e-6, "s", 20e-6, ["18 µs", "20 µs", "−10.0%"]),
        (22e-6, "s", 20e-6, ["22 µs", "20 µs", "+10.0%"]),
        (False, "", False, ["no", "no", "same"]),
        (True, "", False, ["yes", "no", "differs"]),
        (12, "layers", 12, ["12 layers", "12 layers", "same"]),
        (None, "s", 20e-6, ["–", "20 µs"]),  # No column of differences is left.
    )
    def test_comparison(self, value, unit, paper, cells):
        quantity = Quantity(
            "x", value, unit, kind="derived", paper=paper, source="Fig. 1", note="why"
        )
        text = page.render_page("T", "S", results=_results(quantity))
        numbers = r'<td class="(?:ours|wanted|difference)">(.*?)</td>'
        self.assertEqual(re.findall(numbers, text), cells)
        self.assertIn('<span class="badge derived">derived</span>', text)

    @parameterized.parameters(
        ({"paper": 1.0, "source": "Fig. 1"}, "Paper and ours", "Paper"),
        ({"asked": 2.0, "paper": 1.0, "source": "a peer"}, "Targets and ours", "Asked"),
        ({}, "Quantities", None),
    )
    def test_comparison_is_headed_by_what_ours_is_held_against(
        self, held, heading, column
    ):
        quantity = Quantity("x", 1.0, "s", kind="measured", **held)
        text = page.render_page("T", "S", results=_results(quantity))
        self.assertIn(f"<h2>{heading}</h2>", text)
        found = re.findall(r'<th scope="col" class="wanted">(.*?)</th>', text)
        self.assertEqual(found, [column] if column else [])

    def test_tables_and_figures_share_a_width_and_only_numbers_stay_whole(self):
        text = page.render_page("T", "S")
        (figure,) = re.findall(r"figure img \{ display.*", text)
        self.assertNotIn("max-width", figure)
        (cells,) = re.findall(r"\nth, td \{.*", text)
        self.assertNotIn("nowrap", cells)
        self.assertIn(
            "td.ours, td.wanted, td.difference { white-space: nowrap; }", text
        )


if __name__ == "__main__":
    absltest.main()
