"""How far a long job is: a live display on a terminal, plain log lines elsewhere."""

import dataclasses
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import rich.console
import rich.live
import rich.progress_bar
import rich.table
import rich.text
from absl import logging

from codesign.report.format import format_duration, one_line
from codesign.types import is_whole


@dataclasses.dataclass(frozen=True)
class _Status:
    """What is known at one moment; replaced as a whole, as another thread draws it."""

    time_s: float
    step: int
    done: int = 0  # steps, those of an earlier run not counted
    about: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    aside_s: float = 0.0  # of steps that compiled
    aside: int = 0  # such steps

    @property
    def compiles(self) -> bool:
        return ("state", "compiling") in self.facts


class Progress:
    """Shows how far a job is, what it works on, and how long it will take.

        with Progress(num_epochs_in_all, "Searching placements") as progress:
            progress.update(12, "●○○●", epoch="3/8", accuracy="91.0%", best="98.0%")

    On a terminal a few lines at the bottom are kept up to date, and what is printed or
    logged meanwhile appears above them. Anywhere else (a file, a pipe) plain lines
    without control characters are logged: at once, when what it is about changes, every
    `every_s` seconds in between, and at the end. In a notebook each of these lines takes
    the place of the last, also in its file. An exception ends the display, restores the
    terminal and goes on.

    The time left follows from the mean pace of the steps done here. The first, which
    compiles, does not count, nor one after an update with `state="compiling"`, nor those
    that an earlier run had done, `initial_step`.
    Work that ends without an exception is done, even where more steps were planned.
    """

    def __init__(
        self,
        total_steps: int,
        description: str,
        *,
        initial_step: int = 0,
        every_s: float = 10.0,
        log: Callable[[str], None] | None = None,
        console: rich.console.Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Prepares the display; entering the `with` block starts it.

        Args:
            total_steps: Steps of the whole job, in whatever unit `update` counts.
            description: A few words for the whole job.
            initial_step: Steps that were done before, when a job resumes.
            every_s: Least time between two plain lines about the same, in seconds.
            log: Receives the plain lines. By default they are logged as INFO where that
                level is shown, as in a launcher, and printed elsewhere.
            console: Where the live display goes; by default standard error.
            clock: Returns the time in seconds.

        Raises:
            ValueError: If `total_steps` is no whole number, or not positive.
        """
        if not is_whole(total_steps) or total_steps <= 0:
            raise ValueError(
                f"`total_steps` must be a positive whole number, got {total_steps!r}."
            )
        self._total = total_steps
        self._description = one_line(description)
        self._initial = initial_step
        self._every_s = every_s
        self._console = console or rich.console.Console(stderr=True)
        self._in_place = log is None and self._console.is_jupyter
        self._log = log or _log_or_print
        self._clock = clock
        self._start_s, self._logged_s = clock(), -math.inf
        self._first: _Status | None = None  # once a step was done here
        self._status = self._logged = _Status(self._start_s, initial_step)
        self._live: rich.live.Live | None = None
        self._shown: Any = None  # IPython's handle of the line in a notebook
        self._streams: list[tuple[logging.PythonHandler, object]] = []

    def __enter__(self) -> "Progress":
        self._start_s = self._clock()
        console = self._console
        if console.is_terminal and not (console.is_dumb_terminal or console.is_jupyter):
            self._live = rich.live.Live(
                console=console,
                get_renderable=self._render,
                refresh_per_second=4,
                redirect_stdout=sys.stdout.isatty(),
                redirect_stderr=sys.stderr.isatty(),
            )
            before = sys.stderr
            self._live.start()
            if sys.stderr is not before:  # absl holds on to the stream it began with.
                handler = logging.get_absl_handler().python_handler
                if getattr(handler, "stream", None) is before:
                    self._streams.append((handler, before))
                    handler.setStream(sys.stderr)
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        if kind is None and self._status.step < self._total:
            self._status = dataclasses.replace(
                self._status, step=self._total, time_s=self._clock()
            )
        if self._live is None:
            if self._status != self._logged:
                self._log_status()
            return
        for handler, stream in self._streams:
            handler.setStream(stream)
        self._streams.clear()
        live, self._live = self._live, None
        live.stop()

    def update(self, step: int, about: str = "", **facts: object) -> None:
        """Says how far the job is.

        Args:
            step: Steps done so far, those before `initial_step` included.
            about: What the job works on, e.g. `format_mask(mask)`.
            **facts: What is known of it, as people read it; a fact that is None is left
                out, and the next update replaces all of them. `best` stands out.
        """
        about = one_line(about)
        last = self._status
        is_new = last.about and about != last.about and last != self._logged
        if self._live is None and is_new:
            self._log_status()  # The last word on what came before.
        known = {name: fact for name, fact in facts.items() if fact is not None}
        status = _Status(
            time_s=self._clock(),
            step=step,
            done=step - self._initial,
            about=about,
            facts=tuple((name, one_line(str(fact))) for name, fact in known.items()),
            aside_s=last.aside_s,
            aside=last.aside,
        )
        if self._first is None and status.done > 0:
            self._first = status
        elif self._first and last.compiles:
            status = dataclasses.replace(
                status,
                aside_s=last.aside_s + status.time_s - last.time_s,
                aside=last.aside + status.done - last.done,
            )
        self._status = status
        if self._live is None and self._clock() - self._logged_s >= self._every_s:
            self._log_status()

    def skip(self, num_steps: int) -> None:
        """Says that an earlier run had done so many steps of those that follow."""
        self._initial += num_steps

    def extend(self, num_steps: int) -> None:
        """Says that the job has so many steps more than was thought."""
        self._total += num_steps

    def log(self, line: str) -> None:
        """Shows a line of text above the display, or logs it."""
        if self._live is None:
            self._log(one_line(line))
        else:
            self._console.print(rich.text.Text(one_line(line)))

    def _log_status(self) -> None:
        facts = ", ".join(f"{name} {value}".strip() for name, value in self._facts())
        left = self._time_left()
        done = f"{self._status.step}/{self._total}"
        line = (
            f"{self._description}: {done}{left and f', {left}'}{facts and '; '}{facts}"
        )
        if self._in_place:
            self._show(line)
        else:
            self._log(line)
        self._logged, self._logged_s = self._status, self._clock()

    def _show(self, line: str) -> None:
        """Puts a line into a notebook in place of the last one."""
        from IPython import display

        shown = {"text/plain": line}
        if self._shown is None:
            self._shown = display.display(shown, raw=True, display_id=True)
        else:
            self._shown.update(shown, raw=True)

    def _facts(self) -> Iterator[tuple[str, str]]:
        """Yields what is known, by name, in the order of reading."""
        if self._status.about:
            yield "", self._status.about
        yield from self._status.facts

    def _time_left(self) -> str:
        status = self._status
        if self._initial >= self._total:
            return "done before"
        if status.step >= self._total:
            return f"took {format_duration(status.time_s - self._start_s)}"
        done = status.done - self._first.done - status.aside if self._first else 0
        if self._first is None or done <= 0:
            return ""
        pace_s = (status.time_s - self._first.time_s - status.aside_s) / done
        left_s = pace_s * (self._total - status.step)
        left_s -= self._clock() - status.time_s  # Counts down during a long step.
        return f"{format_duration(max(left_s, 1))} left"

    def _render(self) -> rich.console.RenderableType:
        step = min(self._status.step, self._total)
        head = rich.table.Table.grid(padding=(0, 1), expand=True)
        head.add_column(no_wrap=True)
        head.add_column(ratio=1, min_width=8)
        head.add_column(no_wrap=True, justify="right")
        head.add_row(
            rich.text.Text(self._description, "bold"),
            rich.progress_bar.ProgressBar(
                self._total, step, complete_style="blue", finished_style="green"
            ),
            rich.text.Text(f"{step}/{self._total}  {self._time_left()}".rstrip()),
        )
        facts = rich.text.Text(overflow="fold")
        for name, value in self._facts():
            facts.append(f"{name} ".lstrip(), "dim")
            facts.append(value, "green" * (name == "best"))
            facts.append("   ")
        facts.rstrip()
        return rich.console.Group(head, facts) if facts else head


def _log_or_print(line: str) -> None:
    if logging.level_info():
        logging.info("%s", line)
    else:
        print(line, flush=True)
