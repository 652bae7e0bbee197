"""The trials of a study, rebuilt from its journal's events."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from codesign.records.journal import Event
from codesign.search import points
from codesign.search.worker import Worker

Status = Literal["queued", "running", "told", "failed"]
Origin = Literal["initial", "guided", "enqueued", "told"]


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

    @property
    def value(self) -> float | None:
        return float(np.mean(self.values)) if self.values else None


class TrialTable:
    """Trials by their points, in the order of their numbers.

    Events name points, not numbers, so that any subset of a journal's results can be
    replayed, as after a recovery from damage.
    """

    def __init__(self):
        self._trials: dict[str, Trial] = {}

    def get(self, x: np.ndarray) -> Trial | None:
        return self._trials.get(points.encode(x))

    def all(self) -> list[Trial]:
        return list(self._trials.values())

    def apply(self, event: Event) -> None:
        """Takes one event of the kinds "ask", "tell", "fail" and "enqueue" into account."""
        kind, text = event["event"], event["x"]
        trial = self._trials.get(text)
        if trial is None:
            origin = {"ask": event.get("origin"), "enqueue": "enqueued"}.get(
                kind, "told"
            )
            x = points.decode(text)
            x.flags.writeable = False
            trial = Trial(len(self._trials), x, "queued", origin)
        self._trials[text] = _after(trial, event)


def _after(trial: Trial, event: Event) -> Trial:
    """`trial` after one event about it. A told trial stays told."""
    seconds = None
    if trial.asked_at is not None and "time" in event:
        seconds = max(event["time"] - trial.asked_at, 0.0)
    match event["event"]:
        case "ask" if trial.status in ("queued", "running"):
            return dataclasses.replace(
                trial, status="running", worker=event["worker"], asked_at=event["time"]
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
