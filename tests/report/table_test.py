"""Tests of `codesign.report.table`."""

import io

import jax.numpy as jnp
import numpy as np
import rich.console
from absl.testing import absltest

from codesign.report.table import Column, Row, Table


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


class TableTest(absltest.TestCase):
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
            '<tr class=""><td class="left">x</td><td class="right">1 ms</td></tr>'
            '<tr class="highlight"><td class="left">y</td><td class="right">–</td></tr>'
            '</tbody><tfoot><tr><td colspan="2">n</td></tr></tfoot></table>',
        )

    def test_terminal(self):
        console = rich.console.Console(file=io.StringIO(), width=80)
        console.print(_table().to_rich())
        lines = [line.split() for line in console.file.getvalue().splitlines()]  # pyright: ignore[reportAttributeAccessIssue]
        self.assertIn(["★", "BO-N", "21.3", "µs", "98.9%", "2"], lines)
        self.assertIn(["Mean", "of", "three", "seeds."], lines)

    def test_special_characters_are_only_text(self):
        table = Table("<b>", ["[red]x|y"], [("<script>|`*[bold]\n\x1b[31m",)])
        text = table.to_text()
        self.assertNotIn("\x1b", text)
        self.assertLen(text.splitlines(), 4)
        html = table.to_html()
        self.assertNotIn("<script>", html)
        self.assertIn("&lt;script&gt;", html)
        console = rich.console.Console(file=io.StringIO(), width=80)
        console.print(table.to_rich())
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
