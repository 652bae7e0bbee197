"""Tests of `codesign.report.format`."""

import math
import os

from absl.testing import absltest, parameterized

from codesign.report import format as fmt


class FormatTest(parameterized.TestCase):
    @parameterized.parameters(
        (6.4e-5, "s", "64 µs"),
        (2.134e-5, "s", "21.3 µs"),
        (1e-6, "s", "1 µs"),
        (999.96e-6, "s", "1 ms"),  # Rounding comes before the choice of a prefix.
        (0.0, "J", "0 J"),
        (-2.5e-12, "J", "−2.5 pJ"),
        (330e-3, "W", "330 mW"),
        (7e8, "Hz", "700 MHz"),
        (3600.0, "s", "3,600 s"),  # Nobody says kiloseconds,
        (0.5, "B", "0.5 B"),  # or millibytes.
        (6.4e9, "bytes", "6.4 GB"),
        (9e11, "bytes/s", "900 GB/s"),
        (3.4e-4, "m2", "340 mm²"),  # 1 mm² is 1e-6 m²
        (2e-12, "m2", "2 µm²"),
        (1e-30, "J", "1e−30 J"),
        (1234, "MACs", "1.23 kMAC"),
        (9_880_000, "", "9.88 M"),
        (0.25, "", "0.25"),
        (math.nan, "s", "NaN s"),
        (None, "s", "–"),
    )
    def test_si(self, value, unit, text):
        self.assertEqual(fmt.format_si(value, unit), text)

    @parameterized.parameters(
        (0.978, "97.8%"), (1, "100.0%"), (-0.159, "−15.9%"), (None, "–")
    )
    def test_percent(self, ratio, text):
        self.assertEqual(fmt.format_percent(ratio), text)

    @parameterized.parameters(
        (11689512, "11,689,512"),
        (12345.6, "12,300"),
        (0.5, "0.5"),
        (999.96, "1,000"),
        (0.0625, "0.0625"),
        (1.5e-9, "1.5e−09"),
        (-3, "−3"),
        (math.inf, "∞"),
    )
    def test_number(self, value, text):
        self.assertEqual(fmt.format_number(value), text)

    @parameterized.parameters(
        (True, "", "yes"),
        (False, "", "no"),
        (82, "%", "82%"),
        (12, "layers", "12 layers"),
        (13.2, "×", "13.2×"),
        (0.25, "ratio", "25.0%"),
        (6.4e-5, "s", "64 µs"),
        (None, "s", "–"),
    )
    def test_quantity(self, value, unit, text):
        self.assertEqual(fmt.format_quantity(value, unit), text)

    @parameterized.parameters(
        (0.0004, "400 µs"),
        (48.2, "48 s"),
        (119.6, "2 min"),
        (200, "3 min 20 s"),
        (3599.7, "1 h"),
        (7300, "2 h 1 min"),
        (187_200, "2 d 4 h"),
        (math.inf, "–"),
    )
    def test_duration(self, duration_s, text):
        self.assertEqual(fmt.format_duration(duration_s), text)

    def test_scale_is_that_of_the_largest(self):
        factor, unit = fmt.si_scale([2e-6, None, 64e-6, math.nan], "s")
        self.assertEqual(unit, "µs")
        self.assertAlmostEqual(factor, 1e6)
        self.assertEqual(fmt.si_scale([], "J"), (1.0, "J"))
        self.assertEqual(fmt.si_scale([1e9], ""), (1.0, ""))  # No axis is "Loss (G)".

    def test_mask(self):
        self.assertEqual(fmt.format_mask([1, 0, 0.3, 1.0]), "●○◐●")

    def test_one_line_has_no_control_characters(self):
        self.assertEqual(fmt.one_line(" a\n\tb\x1b[31m\x07 "), "a b[31m")

    def test_one_line_can_be_written_anywhere(self):
        name = os.fsdecode(b"a\xff")  # as Python has names that are not UTF-8
        self.assertEqual(fmt.one_line(name), "a\\udcff")


if __name__ == "__main__":
    absltest.main()
