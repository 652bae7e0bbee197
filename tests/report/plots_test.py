"""Tests of `codesign.report.plots`: what is drawn, not how it looks."""

import io
import math

import matplotlib
import numpy as np
from absl.testing import absltest, parameterized
from matplotlib.text import Text

from codesign.report import canvas, plots
from codesign.report.panels import draw_panels


def _best_so_far():
    return plots.best_so_far(
        [0.99, 0.1, None, 0.95, 0.97, math.nan, 0.992],
        ["enqueued", "at chance", "failed", "initial", "guided", "guided", "mine"],
        references={"All-BN": 0.99, "No-BN": 0.1},
        tolerance=0.01,
    )


def _pareto():
    return plots.pareto(
        [64e-6, 21e-6, 17e-6, 30e-6],
        [0.991, 0.989, 0.1, 0.95],
        front=[True, True, True, False],
        labels=["All-BN", "BO-N", "No-BN", None],
        highlight=1,
        y_floor=0.5,
    )


def _curves():
    return plots.curves(
        {"All-BN": ([1, 2, 3], [0.5, 0.9, 0.99]), "stopped": ([2, 3], [0.1, None])},
        x_label="Epoch",
        y_label="Accuracy",
        y_unit="%",
        references={"chance": 0.1},
    )


def _regret_curves():
    ours = np.array([[2.0, 0.5, 0.0], [1.0, 0.5, 0.0], [4.0, 0.1, 0.0]])
    return plots.regret_curves(
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
    _curves,
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
        first = canvas.to_png(_pareto(), dpi=60)
        with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black"}):
            self.assertEqual(canvas.to_png(_pareto(), dpi=60), first)
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
        figure = plots.best_so_far(
            [3.0, 1.0, 2.0], ["told"] * 3, maximize=False, y_label="Loss", y_unit=""
        )
        np.testing.assert_allclose(figure.axes[0].get_lines()[0].get_ydata(), [3, 1, 1])

    @parameterized.parameters(([], []), ([None], ["failed"]), ([0.5], ["guided"]))
    def test_best_so_far_of_little(self, values, statuses):
        canvas.to_png(plots.best_so_far(values, statuses), dpi=40)

    def test_pareto_front_is_a_staircase_in_scaled_units(self):
        axes = _pareto().axes[0]
        self.assertEqual(axes.get_xlabel(), "Pipeline period (µs)")
        # From (21, 98.9) flat to 64, then up to 99.1; No-BN lies below the floor.
        corners = axes.get_lines()[0].get_xydata()
        np.testing.assert_allclose(corners, [[21, 98.9], [64, 98.9], [64, 99.1]])

    @parameterized.parameters(0, 1)
    def test_pareto_of_little(self, count):
        figure = plots.pareto(
            [1e-6] * count, [0.1] * count, front=[True] * count, y_floor=0.5
        )
        canvas.to_png(figure, dpi=40)

    def test_pareto_names_do_not_overlap(self):
        values = np.linspace(0.98, 0.981, 5)
        names = [f"placement {index}" for index in range(5)]
        figure = plots.pareto(values * 1e-6, values, front=[True] * 5, labels=names)
        texts = [text for text in figure.axes[0].texts if text.get_text()]
        self.assertCountEqual([text.get_text() for text in texts], names)
        boxes = [Text.get_window_extent(text) for text in texts]  # Leaders may cross.
        for index, box in enumerate(boxes):
            self.assertEqual(box.count_overlaps(boxes[index + 1 :]), 0)

    def test_curves_leave_gaps(self):
        lines = _curves().axes[0].get_lines()
        np.testing.assert_allclose(lines[0].get_ydata(), [50, 90, 99])
        np.testing.assert_allclose(lines[1].get_xdata(), [2, 3])
        np.testing.assert_allclose(lines[1].get_ydata(), [10, np.nan])

    def test_curves_say_what_their_axes_show(self):
        axes = _curves().axes[0]
        self.assertEqual(
            (axes.get_xlabel(), axes.get_ylabel()), ("Epoch", "Accuracy (%)")
        )
        self.assertTrue(all(float(tick).is_integer() for tick in axes.get_xticks()))
        line = {"ours": ([1e-3, 1.25e-3], [3.0, 4.0])}
        axes = plots.curves(line, x_label="Time", x_unit="s", y_label="Loss").axes[0]
        self.assertEqual((axes.get_xlabel(), axes.get_ylabel()), ("Time (ms)", "Loss"))
        np.testing.assert_allclose(axes.get_lines()[0].get_xdata(), [1, 1.25])
        self.assertFalse(all(float(tick).is_integer() for tick in axes.get_xticks()))

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
        figure = plots.regret_curves({"A": {"ours": np.full((1, 1), regret)}})
        canvas.to_png(figure, dpi=40)

    def test_regret_curves_reject(self):
        with self.assertRaisesRegex(ValueError, "panels.*at least 0.*-1.*ours"):
            plots.regret_curves({"A": {"ours": np.array([[-1.0]])}})
        with self.assertRaisesRegex(ValueError, "panels.*must hold"):
            plots.regret_curves({})

    def test_rejects(self):
        with self.assertRaisesRegex(ValueError, r"`statuses` \(of 2\).*same length"):
            plots.best_so_far([1.0], ["told", "told"])
        with self.assertRaisesRegex(ValueError, r"`y` \(of 1\) must have the same"):
            plots.curves({"a": ([1, 2], [1.0])}, x_label="x", y_label="y")
        with self.assertRaisesRegex(ValueError, r"`front` \(of 0\).*same length"):
            plots.pareto([1.0], [1.0], front=[])

    @parameterized.parameters("a$\\frac{$b", "$", "$x$", "a_b^c", "\\alpha", "a\\$b")
    def test_a_name_is_drawn_as_text_wherever_it_stands(self, name):
        figures = (
            plots.best_so_far([0.5], [name], references={name: 0.5}, y_label=name),
            plots.pareto([1.0], [0.5], front=[True], labels=[name], x_label=name),
            plots.curves({name: ([1, 2], [1, 2])}, x_label=name, y_label=name),
            draw_panels([(name, lambda axes: axes.set_yticks([1], [name]))] * 2,
                        x_label=name, y_label=name),
        )  # fmt: skip
        for figure in figures:
            self.assertStartsWith(canvas.to_png(figure), b"\x89PNG")
            buffer = io.BytesIO()
            figure.savefig(buffer, format="svg")  # as a notebook may
            drawn = [each for each in figure.findobj(Text) if isinstance(each, Text)]
            texts = [each for each in drawn if name in each.get_text()]
            self.assertNotEmpty(texts)
            self.assertFalse(any(text.get_parse_math() for text in texts))

    def test_a_logarithmic_axis_is_labelled_without_formulas(self):
        with canvas.style():
            figure, axes = canvas.single(2.0)
            canvas.log_scale(axes, "xy")
            axes.set(xlim=(0.5, 3e4), ylim=(0.5, 3))
            figure.draw_without_rendering()
        shown = [text.get_text() for text in axes.get_xticklabels()]
        self.assertContainsSubset(["10⁰", "10⁴"], shown)
        shown = [text.get_text() for text in axes.get_yticklabels(which="both")]
        self.assertContainsSubset(["10⁻¹", "10⁰", "2×10⁰"], shown)


if __name__ == "__main__":
    absltest.main()
