"""The trials of a study, rebuilt from its journal's events."""

import collections
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from codesign import units
from codesign.records import html
from codesign.records.lines import Event
from codesign.search import points
from codesign.search.leases import Key
from codesign.search.worker import Worker, is_worker
from codesign.types import is_number, is_whole

Status = Literal["queued", "running", "told", "failed"]
Origin = Literal["initial", "guided", "enqueued", "told"]
_LATEST = 5  # trials in a notebook
_LOOKS = {"told": "", "failed": "bad", "queued": "muted", "running": "muted"}


def _is_finite(value: Any) -> bool:
    return is_number(value) and math.isfinite(value)


# What each kind of event must have, and what each part must be where it is there.
_NEEDED = {
    "reserve": {"slot", "origin", "worker", "time"},
    "ask": {"x", "origin", "worker", "time"},
    "tell": {"x", "value"},
    "fail": {"x", "reason"},
    "enqueue": {"x"},
}
_HOLDS: dict[str, Callable[[Any], bool]] = {
    "x": lambda x: isinstance(x, str) and set(x) <= {"0", "1"},
    "slot": lambda slot: is_whole(slot) and slot >= 0,
    "origin": lambda origin: origin in get_args(Origin),
    "worker": is_worker,
    "time": _is_finite,
    "clock": _is_finite,
    "value": _is_finite,
    "reason": lambda reason: isinstance(reason, str),
    "metrics": lambda metrics: isinstance(metrics, dict),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Trial:
    """One point of a study.

    Attributes:
        number: Place in the order in which the study met its points, from 0.
        x: `[C]` int8 of 0 and 1.
        status: "queued", "running", "told" or "failed".
        origin: Where the point came from: "initial" (drawn at random), "guided" (by the
            model), "enqueued", or "told" without having been asked for.
        value: The objective without the penalty; the mean of `values`; None before it
            is told.
        values: Every value told.
        metrics: What was told along with the (last) value, or with the failure.
        reason: Why it failed.
        seconds: From being handed out last to being told or failed, by the wall clock.
        worker: Who evaluates it; see `worker.this_worker`.
        asked_at: When it was handed out last, in seconds since the epoch.
        clock: The same by the monotonic clock of the worker's host; None in a journal that
            was written before it was kept.
    """

    number: int
    x: np.ndarray
    status: Status
    origin: Origin
    values: tuple[float, ...] = ()
    metrics: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    reason: str | None = None
    seconds: float | None = None
    worker: Worker | None = None
    asked_at: float | None = None
    clock: float | None = None

    @property
    def key(self) -> Key:
        return points.encode(self.x), self.asked_at

    @property
    def value(self) -> float | None:
        return float(np.mean(self.values)) if self.values else None


@dataclasses.dataclass(frozen=True, eq=False)
class Reservation:
    """A new trial that has no point yet: a process is working out which.

    Attributes:
        slot: Number that the point's random draws come from: that of the trials and of
            the other reservations when it was made.
        origin: "initial" or "guided".
        before: The trials when it was made, by number, from which the point follows.
        worker, asked_at, clock: Who works it out now and since when, as of a trial.
    """

    slot: int
    origin: Origin
    before: Sequence[Trial]
    worker: Worker
    asked_at: float
    clock: float | None

    @property
    def key(self) -> Key:
        return self.slot, self.asked_at


class TrialTable:
    """Trials by their points, in the order of their numbers, and what is reserved.

    Events name points, not numbers, so that any subset of a journal's results can be
    replayed, as after a recovery from damage.
    """

    def __init__(self, num_variables: int):
        self._num_variables = num_variables
        self._trials: dict[str, Trial] = {}
        self.reservations: dict[int, Reservation] = {}  # open ones, by slot

    def get(self, x: np.ndarray) -> Trial | None:
        return self._trials.get(points.encode(x))

    def all(self) -> list[Trial]:
        return list(self._trials.values())

    def next_slot(self) -> int:
        """Slot of a reservation made now."""
        num_taken = len(self._trials) + len(self.reservations)
        # After a loss of lines there may be higher ones.
        return max([num_taken, *(slot + 1 for slot in self.reservations)])

    def is_event(self, event: Event) -> bool:
        """Whether a study of so many variables writes such an event to its journal."""
        needed = _NEEDED.get(event["event"])
        return (
            needed is not None
            and needed <= event.keys()
            and all(_HOLDS[key](event[key]) for key in _HOLDS.keys() & event.keys())
            and ("x" not in event or len(event["x"]) == self._num_variables)
        )

    def apply(self, event: Event) -> None:
        """Takes an event into account, one of `is_event`."""
        if event["event"] == "reserve":
            self._reserve(event)
            return
        kind, text = event["event"], event["x"]
        self.reservations.pop(event.get("slot", -1), None)
        trial = self._trials.get(text)
        if trial is None:
            origin = {"ask": event.get("origin"), "enqueue": "enqueued"}.get(
                kind, "told"
            )
            x = points.decode(text)
            x.flags.writeable = False
            trial = Trial(len(self._trials), x, "queued", origin)
        self._trials[text] = _after(trial, event)

    def _reserve(self, event: Event) -> None:
        slot = event["slot"]
        held = self.reservations.get(slot)  # by one who did not fill it
        self.reservations[slot] = Reservation(
            slot=slot,
            origin=event["origin"],
            before=self.all() if held is None else held.before,
            worker=event["worker"],
            asked_at=event["time"],
            clock=event.get("clock"),
        )


def to_html(
    trials: Sequence[Trial], best: Trial | None, penalised: Callable[[Trial], float]
) -> str:
    """For a notebook: the best trial, how many there are by status, and the latest."""
    if not trials:
        return html.notebook("A study without trials yet.")
    shown = [*trials[-_LATEST:]]
    if best is not None:
        shown = [best, *(trial for trial in shown if trial.number != best.number)]
    marks = ["★" if trial is best else "" for trial in shown]
    values = [units.number(trial.value, 4) for trial in shown]
    after = [
        values[i] if trial.value is None else units.number(penalised(trial), 4)
        for i, trial in enumerate(shown)
    ]
    columns = {
        "": ("center", marks),
        "Trial": ("right", [str(trial.number) for trial in shown]),
        "Point": ("left", [_text(trial.x) for trial in shown]),
        "Status": ("left", [trial.status for trial in shown]),
        "Origin": ("left", [trial.origin for trial in shown]),
        "Value": ("right", values),
        "Penalised": ("right", after if after != values else []),
        "Time": ("right", [units.si(trial.seconds, "s") for trial in shown]),
        "Reason": ("left", [trial.reason or "" for trial in shown]),
    }
    columns = {name: each for name, each in columns.items() if any(each[1])}
    sides, cells = zip(*columns.values(), strict=True)
    counts = collections.Counter(trial.status for trial in trials)
    found = ", ".join(f"{count:,} {status}" for status, count in counts.items())
    return html.notebook(
        html.table(
            [*columns],
            zip(*cells, strict=True),
            f"{len(trials):,} trials: {found}",
            sides=sides,
            looks=["highlight" if t is best else _LOOKS[t.status] for t in shown],
            notes=[f"The best and the latest {_LATEST}."] * (len(trials) > len(shown)),
        )
    )


def _text(x: np.ndarray) -> str:
    """A point as the journal has it; a long one by its ones."""
    if len(x) <= 32:
        return points.encode(x)
    ones = np.flatnonzero(x).tolist()
    listed = ", ".join(map(str, ones[:8])) + (", …" if len(ones) > 8 else "")
    return f"{len(ones)} of {len(x)}: {listed}" if ones else f"none of {len(x)}"


def _after(trial: Trial, event: Event) -> Trial:
    """`trial` after one event about it. A told trial stays told."""
    seconds = None
    if trial.asked_at is not None and "time" in event:
        seconds = max(event["time"] - trial.asked_at, 0.0)
    match event["event"]:
        case "ask" if trial.status in ("queued", "running"):
            return dataclasses.replace(
                trial,
                status="running",
                worker=event["worker"],
                asked_at=event["time"],
                clock=event.get("clock"),
            )
        case "tell":
            return dataclasses.replace(
                trial,
                status="told",
                values=(*trial.values, event["value"]),
                metrics=event.get("metrics", trial.metrics),
                seconds=seconds,
                reason=None,
            )
        case "fail" if trial.status != "told":
            return dataclasses.replace(
                trial,
                status="failed",
                reason=event["reason"],
                metrics=event.get("metrics", {}),
                seconds=seconds,
            )
    return trial
