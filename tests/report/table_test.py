"""Tests of `codesign.report.table`."""

import io

import jax.numpy as jnp
import numpy as np
import rich.console
from absl.testing import absltest, parameterized

from codesign.report.table import Column, Row, Table
from tests.records.html_test import Reader


def _table():
    table = Table(
        "Placements",
        [
            Column("Name"),
            Column("Period", "s", "si"),
            Column("Accuracy", format="percent"),
            Column("Depth", "layers"),
        ],
        footnotes=["Mean of three seeds."],
    )
    table.add("All-BN", 64e-6, 0.991, 8)
    table.add("BO-N", jnp.float32(21.3e-6), np.float64(0.989), 2, marker="★")
    table.add("failed", None, None, 1, style="bad")
    return table


class TableTest(parameterized.TestCase):
    maxDiff = None

    def test_text(self):
        self.assertEqual(
            _table().to_text(),
            "Placements\n"
            "   Name     Period  Accuracy  Depth (layers)\n"
            "─  ──────  ───────  ────────  ──────────────\n"
            "   All-BN    64 µs     99.1%               8\n"
            "★  BO-N    21.3 µs     98.9%               2\n"
            "   failed        –         –               1\n"
            "Mean of three seeds.",
        )

    def test_html(self):
        table = Table("T", ["A", Column("B", "s", "si")], [("x", 1e-3)], ["n"])
        table.add("y", None, style="highlight")
        self.assertEqual(
            table.to_html(),
            "<table><caption>T</caption><thead><tr>"
            '<th scope="col" class="left">A</th>'
            '<th scope="col" class="right">B</th></tr></thead><tbody>'
            '<tr class=""><td class="left">x</td><td class="right">1\xa0ms</td></tr>'
            '<tr class="highlight"><td class="left">y</td><td class="right">–</td></tr>'
            '</tbody><tfoot><tr><td class="left" colspan="2">n</td></tr></tfoot></table>',
        )

    def test_notebook(self):
        page = _table()._repr_html_()
        self.assertIn(_table().to_html(), page)
        self.assertEqual(
            Reader(page).rows[2], ["★", "BO-N", "21.3\xa0µs", "98.9%", "2"]
        )

    def test_terminal(self):
        console = rich.console.Console(file=io.StringIO(), width=80)
        console.print(_table().to_rich(80))
        lines = [line.split() for line in console.file.getvalue().splitlines()]  # pyright: ignore[reportAttributeAccessIssue]
        self.assertIn(["★", "BO-N", "21.3", "µs", "98.9%", "2"], lines)
        self.assertIn(["Mean", "of", "three", "seeds."], lines)

    def _shown(self, table, width):
        console = rich.console.Console(file=io.StringIO(), width=width)
        console.print(table.to_rich(width))
        text = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
        self.assertLessEqual(max(map(len, text.splitlines())), width)
        return text

    @parameterized.parameters(40, 60, 80, 100)
    def test_no_word_is_lost_or_broken(self, width):
        # At 80 columns one too few was counted, and "Capacities" stood there as
        # "Capacitie".
        names = ("Network", "Batch", "Steps", "Smallest cache (MB)", "Largest step (MB)",
                 "Capacity sweep", "Capacities")  # fmt: skip
        table = Table("A title that is longer than the table itself is wide", names)
        table.add(
            "MobileNetV2", 32, 12512, 9.04, 26.76, "75.6 ms ± 1.2", "≤ 489", marker="★"
        )
        table.footnotes.append("Smallest cache: a row of each map and some weights.")
        text = self._shown(table, width)
        cells = [each for row in table.rows for each in row.cells]
        words = " ".join([table.title, *names, *table.footnotes, *map(str, cells)])
        words = words.replace("12512", "12,512").replace("26.76", "26.8")
        self.assertContainsSubset([*words.split(), "★"], text.split())
        for number in ("75.6 ms ± 1.2", "≤ 489"):
            self.assertIn(number, text)
        if width == 60:
            self.assertIn(table.title, text)  # Not broken at the table's own width.

    def test_a_wide_table_of_few_rows_is_turned_round(self):
        table = _table()
        table.columns[1] = Column("Period-of-the-pipeline", "s", "si")
        self.assertEqual(
            self._shown(table, 50),
            "Placements\n"
            "Name                    All-BN  ★ BO-N   failed\n"
            "──────────────────────  ──────  ───────  ──────\n"
            "Period-of-the-pipeline  64 µs   21.3 µs  –\n"
            "Accuracy                99.1%   98.9%    –\n"
            "Depth (layers)          8       2        1\n"
            "Mean of three seeds.\n",
        )

    def test_a_table_that_fits_neither_way_becomes_blocks(self):
        table = Table("", ["Name", "Number of parameters"])
        table.add("network-0", 0)
        table.add("network-1", "not counted")
        table.add("network-2", 2, marker="★")
        self.assertEqual(
            self._shown(table, 23),
            "Name        network-0\n"
            "Number of   0\n"
            "parameters\n"
            "\n"
            "Name        network-1\n"
            "Number of   not counted\n"
            "parameters\n"
            "\n"
            "Name        ★ network-2\n"
            "Number of   2\n"
            "parameters\n",
        )

    def test_special_characters_are_only_text(self):
        table = Table("<b>", ["[red]x|y"], [("<script>|`*[bold]\n\x1b[31m",)])
        text = table.to_text()
        self.assertNotIn("\x1b", text)
        self.assertLen(text.splitlines(), 4)
        html = table.to_html()
        self.assertNotIn("<script>", html)
        self.assertIn("&lt;script&gt;", html)
        console = rich.console.Console(file=io.StringIO(), width=80)
        console.print(table.to_rich(80))
        self.assertIn("[red]x|y", console.file.getvalue())  # pyright: ignore[reportAttributeAccessIssue]
        self.assertIn("[bold]", console.file.getvalue())  # pyright: ignore[reportAttributeAccessIssue]

    def test_wide_characters_are_aligned_by_cells(self):
        table = Table("", ["名前", "n"], [("資", 1), ("abcd", 22)])
        self.assertEqual(table.to_text(), "名前   n\n────  ──\n資     1\nabcd  22")

    def test_formats(self):
        self.assertEqual(Column("x", format=".2f").text(1.2345), "1.23")
        self.assertEqual(Column("x", format=lambda v: f"<{v}>").text(3), "<3>")
        self.assertEqual(Column("x").text(True), "yes")
        self.assertEqual(Column("x").text(1234567), "1,234,567")
        self.assertEqual(Column("x").text(0.123456), "0.123")

    def test_rows_with_styles_at_construction(self):
        table = Table("", ["a"], [Row((1,), "bad", "!")])
        self.assertEqual(table.rows, [Row((1,), "bad", "!")])

    def test_rejects_missing_cells_and_unknown_styles(self):
        table = Table("", ["a", "b"])
        with self.assertRaisesRegex(ValueError, r"`cells` \(=\(1,\)\) must be 2"):
            table.add(1)
        with self.assertRaisesRegex(ValueError, "`style`.*'loud'"):
            table.add(1, 2, style="loud")

    def test_empty(self):
        table = Table("", ["a", "bc"])
        self.assertEqual(table.to_text(), "a  bc\n─  ──")


if __name__ == "__main__":
    absltest.main()
