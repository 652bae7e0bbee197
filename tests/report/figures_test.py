"""Tests of `codesign.report.figures`: what is drawn, not how it looks."""

import math
import pathlib
import tempfile

import matplotlib
import numpy as np
from absl.testing import absltest, parameterized
from matplotlib.text import Text

from codesign.report import figures


def _best_so_far():
    return figures.best_so_far(
        [0.99, 0.1, None, 0.95, 0.97, math.nan, 0.992],
        ["enqueued", "at chance", "failed", "initial", "guided", "guided", "mine"],
        references={"All-BN": 0.99, "No-BN": 0.1},
        tolerance=0.01,
    )


def _pareto():
    return figures.pareto(
        [64e-6, 21e-6, 17e-6, 30e-6],
        [0.991, 0.989, 0.1, 0.95],
        front=[True, True, True, False],
        labels=["All-BN", "BO-N", "No-BN", None],
        highlight=1,
        y_floor=0.5,
    )


def _stage_bars(**kwargs):
    panels = {
        "All-BN": {"2R2G": (60e-6, 66e-6), "3R1G": (20e-6, 130e-6)},
        "BO-N": {"2R2G": (60e-6, 9e-6), "3R1G": (20e-6, 15e-6)},
    }
    return figures.stage_bars(panels, **kwargs)


def _inclusion_probability():
    return figures.inclusion_probability(
        [0.1, 0.95],
        [0, 1],
        ["C1", "C2"],
        intervals=[(0.0, 0.2), (0.9, 1.0)],
        elements=[65536, 2048],
    )


def _training_curves():
    return figures.training_curves(
        {"All-BN": [0.5, 0.9, 0.99], "stopped": [0.1, None]}, references={"chance": 0.1}
    )


def _regret_curves():
    ours = np.array([[2.0, 0.5, 0.0], [1.0, 0.5, 0.0], [4.0, 0.1, 0.0]])
    return figures.regret_curves(
        {
            "A": {"ours": ours, "theirs": ours + 1},
            "B": {"theirs": ours},
            "C": {"x": ours},
        }
    )


_ALL = (
    _best_so_far,
    _regret_curves,
    _pareto,
    _stage_bars,
    _inclusion_probability,
    _training_curves,
)


class FiguresTest(parameterized.TestCase):
    @parameterized.parameters(*_ALL)
    def test_axes_are_labelled_and_settings_left_alone(self, draw):
        before = dict(matplotlib.rcParams)
        figure = draw()
        self.assertEqual(dict(matplotlib.rcParams), before)
        self.assertTrue(
            figure.get_supylabel() or all(axes.get_ylabel() for axes in figure.axes)
        )

    def test_png_is_deterministic_and_unaffected_by_the_users_settings(self):
        first = figures.to_png(_pareto(), dpi=60)
        path = (
            pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
            / "pareto.png"
        )
        with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black"}):
            figures.save(_pareto(), path, dpi=60)
        self.assertEqual(path.read_bytes(), first)
        self.assertNotIn(b"tEXt", first)  # Neither a date nor a version.

    def test_best_so_far_ignores_failures(self):
        axes = _best_so_far().axes[0]
        (line,) = [x for x in axes.get_lines() if x.get_label() == "best so far"]
        np.testing.assert_allclose(line.get_ydata(), [99.0] * 6 + [99.2])
        low, high = axes.get_ylim()
        self.assertGreater(low, 90)  # The one at chance does not flatten the others.
        self.assertLess(high, 100)
        for dots in axes.collections:
            heights = np.asarray(dots.get_offsets())[:, 1]
            self.assertTrue(np.all((heights >= low) & (heights <= high)))
        labels = axes.get_legend_handles_labels()[1]
        self.assertContainsSubset(
            ["All-BN", "within 1 point of All-BN", "failed", "at chance", "mine"],
            labels,
        )
        self.assertIn("No-BN (off the scale)", labels)

    def test_best_so_far_of_a_loss_falls(self):
        figure = figures.best_so_far(
            [3.0, 1.0, 2.0], ["told"] * 3, maximize=False, y_label="Loss", y_unit=""
        )
        np.testing.assert_allclose(figure.axes[0].get_lines()[0].get_ydata(), [3, 1, 1])

    @parameterized.parameters(([], []), ([None], ["failed"]), ([0.5], ["guided"]))
    def test_best_so_far_of_little(self, values, statuses):
        figures.to_png(figures.best_so_far(values, statuses), dpi=40)

    def test_pareto_front_is_a_staircase_in_scaled_units(self):
        axes = _pareto().axes[0]
        self.assertEqual(axes.get_xlabel(), "Pipeline period (µs)")
        # From (21, 98.9) flat to 64, then up to 99.1; No-BN lies below the floor.
        corners = axes.get_lines()[0].get_xydata()
        np.testing.assert_allclose(corners, [[21, 98.9], [64, 98.9], [64, 99.1]])

    @parameterized.parameters(0, 1)
    def test_pareto_of_little(self, count):
        figure = figures.pareto(
            [1e-6] * count, [0.1] * count, front=[True] * count, y_floor=0.5
        )
        figures.to_png(figure, dpi=40)

    def test_pareto_names_do_not_overlap(self):
        values = np.linspace(0.98, 0.981, 5)
        names = [f"placement {index}" for index in range(5)]
        figure = figures.pareto(values * 1e-6, values, front=[True] * 5, labels=names)
        texts = [text for text in figure.axes[0].texts if text.get_text()]
        self.assertCountEqual([text.get_text() for text in texts], names)
        boxes = [Text.get_window_extent(text) for text in texts]  # Leaders may cross.
        for index, box in enumerate(boxes):
            self.assertEqual(box.count_overlaps(boxes[index + 1 :]), 0)

    @parameterized.parameters(
        (True, [1, 1, 1.1, 6.5], "Time / slowest Conv/FC stage"),
        (False, [60, 20, 66, 130], "Time of the stage (µs)"),
    )
    def test_stage_bars(self, normalize, heights, label):
        figure = _stage_bars(normalize=normalize)
        bars = figure.axes[0].patches
        np.testing.assert_allclose([bar.get_height() for bar in bars], heights)
        self.assertEqual(figure.get_supylabel(), label)
        self.assertEqual(figure.axes[0].get_ylim(), figure.axes[1].get_ylim())

    def test_inclusion_probability_has_a_panel_of_elements(self):
        top, bottom = _inclusion_probability().axes
        np.testing.assert_allclose([b.get_height() for b in top.patches], [0.95, 0.1])
        np.testing.assert_allclose(
            [b.get_height() for b in bottom.patches], [65536, 2048]
        )

    def test_training_curves_leave_gaps(self):
        lines = _training_curves().axes[0].get_lines()
        np.testing.assert_allclose(lines[0].get_ydata(), [50, 90, 99])
        np.testing.assert_allclose(lines[1].get_ydata(), [10, np.nan])

    def test_regret_curves_show_medians_and_zero(self):
        figure = _regret_curves()
        self.assertLen(figure.axes, 3)
        axes = figure.axes[0]
        np.testing.assert_allclose(axes.get_lines()[0].get_ydata(), [2, 0.5, 0])
        self.assertLess(axes.get_ylim()[0], 0)
        self.assertIn(0, axes.get_yticks())
        same = figure.axes[1].get_lines()[0].get_color()
        self.assertEqual(axes.get_lines()[1].get_color(), same)
        names = [text.get_text() for text in figure.legends[0].get_texts()]
        self.assertEqual(names, ["ours", "theirs", "x"])

    @parameterized.parameters(0.0, 1e-9, 3.0)
    def test_regret_curves_of_little(self, regret):
        figure = figures.regret_curves({"A": {"ours": np.full((1, 1), regret)}})
        figures.to_png(figure, dpi=40)

    def test_regret_curves_reject(self):
        with self.assertRaisesRegex(ValueError, "panels.*at least 0.*-1.*ours"):
            figures.regret_curves({"A": {"ours": np.array([[-1.0]])}})
        with self.assertRaisesRegex(ValueError, "panels.*must hold"):
            figures.regret_curves({})

    def test_rejects(self):
        with self.assertRaisesRegex(ValueError, r"`statuses` \(of 2\).*same length"):
            figures.best_so_far([1.0], ["told", "told"])
        with self.assertRaisesRegex(ValueError, r"`front` \(of 0\).*same length"):
            figures.pareto([1.0], [1.0], front=[])
        with self.assertRaisesRegex(ValueError, "`panels` must hold"):
            figures.stage_bars({})
        with self.assertRaisesRegex(ValueError, "positive first times"):
            figures.stage_bars({"a": {"2R2G": (0.0, 1.0)}})
        with self.assertRaisesRegex(ValueError, r"`sites` \(of 1\).*same length"):
            figures.inclusion_probability([0.1, 0.2], [0, 1], ["C1"])


if __name__ == "__main__":
    absltest.main()
