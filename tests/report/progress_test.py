"""Tests of `codesign.report.progress`."""

import contextlib
import io
import sys

import rich.console
from absl import logging
from absl.testing import absltest

from codesign.report.progress import Progress


class _Terminal(io.StringIO):
    def isatty(self):
        return True


class _Clock:
    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


class PlainProgressTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.lines = []
        self.clock = _Clock()

    def _progress(self, total, **kwargs):
        return Progress(
            total, "Search", log=self.lines.append, clock=self.clock, **kwargs
        )

    def test_one_line_about_each(self):
        with self._progress(4) as progress:
            for step, mask in enumerate(("●●", "●●", "○●", "○●"), start=1):
                self.clock.now_s += 2
                progress.update(step, mask, epoch=step % 2, accuracy="90.0%")
        self.assertEqual(
            self.lines,
            [
                "Search: 1/4; ●●, epoch 1, accuracy 90.0%",  # A pipe shows it at once.
                # Two steps of 2 s each are left, and 2 s went by until the next update.
                "Search: 2/4, 2 s left; ●●, epoch 0, accuracy 90.0%",
                "Search: 4/4, took 8 s; ○●, epoch 0, accuracy 90.0%",
            ],
        )

    def test_long_work_is_logged_at_intervals(self):
        with self._progress(100, every_s=10) as progress:
            for step in range(1, 101):
                self.clock.now_s += 1
                progress.update(step, "●", best="50.0%")
        self.assertLen(self.lines, 11)
        self.assertEqual(
            self.lines[1], "Search: 11/100, 1 min 29 s left; ●, best 50.0%"
        )

    def test_steps_of_an_earlier_run_do_not_count_as_pace(self):
        with self._progress(100, initial_step=90, every_s=0) as progress:
            for step in (91, 92):
                self.clock.now_s += 5
                progress.update(step)
        self.assertEqual(
            self.lines,
            [
                "Search: 91/100",
                "Search: 92/100, 40 s left",
                "Search: 100/100, took 10 s",
            ],
        )

    def test_compilation_does_not_count_as_pace(self):
        with self._progress(10, every_s=0) as progress:
            for step, took_s in enumerate((60, 2, 4), start=1):  # 60 s of compilation
                self.clock.now_s += took_s
                progress.update(step)
        self.assertEqual(
            self.lines[:3],
            ["Search: 1/10", "Search: 2/10, 16 s left", "Search: 3/10, 21 s left"],
        )

    def test_what_compiles_later_does_not_count_either(self):
        with self._progress(10, every_s=0) as progress:
            for step, took_s, compiles in ((1, 9, True), (2, 2, False), (3, 30, True)):
                state = "compiling" if compiles else None
                progress.update(step - 1, "a", state=state)
                self.clock.now_s += took_s
                progress.update(step, "a")
            self.clock.now_s += 2
            progress.update(4, "a")
        left = [
            line.split(", ")[1].split(";")[0]
            for line in self.lines[2:]
            if "left" in line
        ]
        self.assertEqual(set(left), {"16 s left", "14 s left", "12 s left"})

    def test_work_that_ends_is_done_though_more_was_planned(self):
        with self._progress(10) as progress:
            self.clock.now_s += 1
            progress.update(4, "a")
            self.clock.now_s += 2
        self.assertEqual(self.lines[-1], "Search: 10/10, took 3 s; a")

    def test_a_finished_job_takes_no_time(self):
        with self._progress(3, initial_step=3):
            self.clock.now_s -= 26e-6  # Nothing was updated, so no time is known.
        self.assertEqual(self.lines, [])
        with self._progress(3, initial_step=3) as progress:
            progress.update(3)
        self.assertEqual(self.lines, ["Search: 3/3, done before"])

    def test_facts_are_those_of_the_last_update(self):
        with self._progress(9) as progress:
            progress.update(1, "a", epoch="1/3", accuracy=None, best="50.0%")
            progress.update(2, "b", state="compiling")
        self.assertEndsWith(self.lines[0], "; a, epoch 1/3, best 50.0%")
        self.assertEndsWith(self.lines[-1], "; b, state compiling")

    def test_steps_that_turn_out_to_be_done_do_not_count_as_pace(self):
        with self._progress(100, every_s=0) as progress:
            progress.skip(40)
            self.clock.now_s += 5
            progress.update(41)
            progress.skip(50)  # Those after the 41st.
            self.clock.now_s += 5
            progress.update(92)
        self.assertEqual(
            self.lines[:2], ["Search: 41/100", "Search: 92/100, 40 s left"]
        )

    def test_no_control_characters_when_not_on_a_terminal(self):
        out, err = io.StringIO(), io.StringIO()
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            absltest.mock.patch.object(logging, "level_info", return_value=False),
            Progress(3, "Search\x1b[1m", every_s=0) as progress,
        ):
            progress.update(1, "●○\r", epoch=1, accuracy=0.1, best=float("nan"))
            progress.log("a line\nor two \x1b[31m")
            progress.update(2, "○○")
        text = out.getvalue() + err.getvalue()
        self.assertIn("a line or two", text)
        self.assertTrue(all(c == "\n" or c.isprintable() for c in text), repr(text))

    def test_a_notebook_has_one_line_and_what_is_logged(self):
        console = rich.console.Console(force_jupyter=True)
        out = io.StringIO()
        with (
            contextlib.redirect_stdout(out),
            absltest.mock.patch("IPython.display.display") as display,
            absltest.mock.patch.object(logging, "level_info", return_value=False),
            Progress(3, "Search", console=console, clock=self.clock) as progress,
        ):
            progress.update(1, "●○")
            progress.log("●○ is done")
            progress.update(2, "○○")
        display.assert_called_once()
        ((first,), _), ((last,), _) = (
            display.call_args,
            display.return_value.update.call_args,
        )
        self.assertEqual(first, {"text/plain": "Search: 1/3; ●○"})
        self.assertEqual(last, {"text/plain": "Search: 3/3, took 0 s; ○○"})
        self.assertEqual(out.getvalue(), "●○ is done\n")

    def test_exception_passes(self):
        with (
            self.assertRaisesRegex(RuntimeError, "boom"),
            self._progress(3) as progress,
        ):
            progress.update(1, "●")
            raise RuntimeError("boom")
        self.assertLen(self.lines, 1)

    def test_rejects_nothing_to_do(self):
        with self.assertRaisesRegex(
            ValueError, "`total_steps` must be a positive whole number, got 0"
        ):
            self._progress(0)


class LiveProgressTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.terminal = _Terminal()
        self.console = rich.console.Console(
            file=self.terminal, force_terminal=True, width=80, _environ={}
        )

    def test_shows_the_last_state_and_lines_above_it(self):
        clock = _Clock()
        progress = Progress(10, "Search", console=self.console, clock=clock)
        with self.assertRaises(KeyboardInterrupt), progress:
            progress.update(1, "○○")
            clock.now_s += 4
            progress.update(5, "●○", epoch="2/3", accuracy=0.5, best="75.0%")
            progress.log("[not markup]")
            raise KeyboardInterrupt
        shown = self.terminal.getvalue()
        for text in ("Search", "5/10  5 s left", "●○", "2/3", "75.0%", "[not markup]"):
            self.assertIn(text, shown)
        self.assertLess(shown.index("[not markup]"), shown.rindex("75.0%"))

    def test_shows_at_the_end_how_long_it_took(self):
        clock = _Clock()
        with Progress(10, "Search", console=self.console, clock=clock) as progress:
            progress.update(5)
            clock.now_s += 4
        self.assertIn("10/10  took 4 s", self.terminal.getvalue())
        with Progress(10, "Search", initial_step=10, console=self.console):
            pass
        self.assertIn("10/10  done before", self.terminal.getvalue())

    def test_exception_restores_terminal_and_streams(self):
        before = (sys.stdout, sys.stderr)
        with (
            absltest.mock.patch.object(sys, "stderr", _Terminal()) as stderr,
            absltest.mock.patch.object(
                logging.get_absl_handler().python_handler, "stream", stderr
            ),
        ):
            with (
                self.assertRaisesRegex(RuntimeError, "boom"),
                Progress(3, "Search", console=self.console),
            ):
                self.assertIsNot(sys.stderr, stderr)
                handler = logging.get_absl_handler().python_handler
                self.assertIs(handler.stream, sys.stderr)
                raise RuntimeError("boom")
            self.assertIs(sys.stderr, stderr)
            self.assertIs(handler.stream, stderr)  # pyright: ignore[reportPossiblyUnboundVariable]
        self.assertEqual((sys.stdout, sys.stderr), before)
        shown = self.terminal.getvalue()
        self.assertGreater(shown.rindex("\x1b[?25h"), shown.rindex("\x1b[?25l"))


if __name__ == "__main__":
    absltest.main()
