"""A search that many processes share and that no kill can lose: ask, evaluate, tell."""

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from codesign.records.journal import FileJournal, JournalDamaged, read_header
from codesign.records.lines import Event
from codesign.records.memory_journal import MemoryJournal
from codesign.search import checks, points, proposals, thompson
from codesign.search.leases import Key, Leases, begun
from codesign.search.trials import Reservation, Trial, TrialTable, to_html

DAY_S = 86400.0
MAX_VARIABLES = 128  # 8256 coefficients


class SearchSpaceExhausted(RuntimeError):
    """Fewer points are left than were asked for."""


class Study:
    """Maximises F(x) - sparsity_penalty * |x|_1 over x in {0, 1}^C, F being expensive.

    Sparsity-aware Bayesian optimisation of DeepTrain, section V, after BOCS (Baptista &
    Poloczek, ICML 2018): random points first, then Thompson proposals of a sparse second-
    order model. Every event is in the journal before a method returns. A new trial is
    reserved in the journal before its point is worked out, which keeps nobody else
    waiting. The point is a function of the seed, the number of the reservation and the
    events before it, save that a point taken meanwhile gives way to the next best; so the
    journal's order of events determines every point, and a study that was killed, however
    often, goes on as if it had not been. Clocks and process ids in the journal only
    decide who gets a trial whose worker was lost.

        study = Study(num_variables=8, journal="runs/study.jsonl", seed=0)
        while len(study.trials) < 30:
            x = study.ask()[0]
            study.tell(x, accuracy_of(x))
        print(study.best)
    """

    def __init__(
        self,
        num_variables: int,
        journal: str | os.PathLike[str] | None = None,
        *,
        seed: int = 0,
        sparsity_penalty: float = 0.0,
        num_initial: int = 5,
        lease_s: float = DAY_S,
        recover: bool = False,
        noisy: bool = False,
        exclusive: bool = False,
    ):
        """Opens a study, or starts one.

        Args:
            num_variables: C, at most 128.
            journal: File of the study, made if need be; None keeps it in memory.
            seed: Root of every random draw.
            sparsity_penalty: Loss of objective that one more 1 in x must win back.
            num_initial: Random points before the model proposes; others take the place
                of those that fail.
            lease_s: A trial that was asked for and neither told nor failed for so long is
                handed out again, whoever holds it; setting this host's clock changes
                nothing. One whose process has ended on this host is, at once.
            recover: Go on from the sound part of a damaged journal, keeping the damaged
                file under another name.
            noisy: Whether a point may be told more than once with different values.
            exclusive: Whether the caller sees to it that nobody else uses the journal.
                Then every trial that is under way when it is opened is handed out again
                at once, wherever it ran; and studies of this journal that this process
                opened before, as an earlier run of a notebook's cell, write no more.

        Raises:
            ValueError: If a setting is out of range, or differs from the journal's.
            JournalDamaged: If the journal is damaged and not `recover`.
        """
        num_variables = checks.checked_int("num_variables", num_variables, 1)
        if num_variables > MAX_VARIABLES:
            raise ValueError(
                f"`num_variables` must be at most {MAX_VARIABLES}, got "
                f"{checks.shown(num_variables)}; tie neighbouring sites."
            )
        self._num_variables = num_variables
        self._seed = checks.checked_int("seed", seed, 0)
        if self._seed >= 2**63:
            raise ValueError(f"`seed` must be below 2**63, got {checks.shown(seed)}.")
        self._penalty = thompson.checked_penalty(sparsity_penalty)
        self._num_initial = checks.checked_int("num_initial", num_initial, 0)
        self._leases, self._noisy = Leases(lease_s), bool(noisy)
        header = {
            "num_variables": self._num_variables,
            "seed": self._seed,
            "sparsity_penalty": self._penalty,
            "num_initial": self._num_initial,
            "noisy": self._noisy,
        }
        self._table, self._is_in_step = TrialTable(self._num_variables), True
        opening = {"recover": recover, "exclusive": exclusive}
        self._journal = (
            MemoryJournal()
            if journal is None
            else FileJournal(journal, header, self._table.is_event, **opening)
        )
        with self._current() as table:
            if exclusive:  # nobody works on what is under way
                running = [t for t in table.all() if t.status == "running"]
                reserved = table.reservations.values()
                self._leases.orphans.update(o.key for o in [*running, *reserved])

    @classmethod
    def load(cls, journal: str | os.PathLike[str]) -> "Study":
        """Opens the study of a journal, whatever its settings are.

        A journal that this user may only read is open for reading: what writes is refused.

        Raises:
            ValueError: If the journal is damaged, or not of a study.
            OSError: If it cannot be read.
        """
        header = read_header(journal)
        try:
            return cls(journal=journal, **header)
        except JournalDamaged:
            raise
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"`journal` (={os.fspath(journal)}) is not of a study ({error})."
            ) from error

    @property
    def num_variables(self) -> int:
        """C."""
        return self._num_variables

    @property
    def sparsity_penalty(self) -> float:
        return self._penalty

    @property
    def trials(self) -> list[Trial]:
        """All trials, by number."""
        with self._current() as table:
            return table.all()

    @property
    def best(self) -> Trial | None:
        """The told trial of largest value - sparsity_penalty * |x|_1; the first of equals.

        None before anything was told.
        """
        told = [trial for trial in self.trials if trial.status == "told"]
        return max(told, key=self.penalised, default=None)

    def penalised(self, trial: Trial) -> float:
        """What `best` maximises, value - sparsity_penalty * |x|_1, of a told trial."""
        if trial.value is None:
            raise ValueError(
                f"`trial` (number {trial.number}) is {trial.status} and has no value yet."
            )
        return trial.value - self._penalty * int(trial.x.sum())

    def _repr_html_(self) -> str:
        return to_html(self.trials, self.best, self.penalised)

    def observations(self) -> tuple[np.ndarray, np.ndarray]:
        """What the surrogate sees: x `[N, C]` int8 and y `[N]`, without the penalty."""
        return proposals.observations(self.trials, self._num_variables)

    def ask(self, q: int = 1) -> np.ndarray:
        """The next points to evaluate, leased to this process.

        In this order: trials whose lease has run out or whose process has ended on this
        host; points enqueued; random points, uniform over those not yet met, until there
        are `num_initial` of them and a result; Thompson proposals. While a point is worked
        out others ask and tell. The next call hands out again what an interrupted one had.

        Args:
            q: Number of points, as by q calls; a process may hold any number of them.

        Returns:
            `[q, C]` int8, all different.

        Raises:
            SearchSpaceExhausted: If fewer than q points can be handed out.
            ValueError: If q is not positive.
        """
        q = checks.checked_int("q", q, 1)
        if q > 1:  # before any is handed out
            with self._current() as table:
                self._check_left(table, q)
        chosen: list[np.ndarray] = []
        leases: list[Key] = []
        try:
            while len(chosen) < q:
                chosen.append(self._ask_one(leases))
        except BaseException:
            self._leases.orphans.update(leases)
            raise
        return np.stack(chosen)

    def tell(
        self, x: ArrayLike, value: float, metrics: Mapping[str, Any] | None = None
    ) -> None:
        """Records the result of a point, asked for or not.

        A result wins over an earlier failure. The same value again changes nothing,
        unless the study is noisy: then it is one more observation.

        Args:
            x: `[C]`.
            value: The objective without the penalty, larger is better.
            metrics: Anything that JSON holds, such as {"latency_s": 0.1}.

        Raises:
            ValueError: If x is not a binary point, the value is not finite, the metrics
                are not JSON, or the point has another value and the study is not noisy.
        """
        x = points.checked_point(x, self._num_variables)
        value = checks.checked_value(value)
        event: Event = {"event": "tell", "x": points.encode(x), "value": value}
        if metrics is not None:
            event["metrics"] = checks.checked_metrics(metrics)
        with self._current() as table:
            trial = table.get(x)
            if trial is not None and trial.status == "told" and not self._noisy:
                if trial.values[0] == value:
                    return
                raise ValueError(
                    f"`value` (={value!r}) contradicts {trial.values[0]!r}, told before "
                    f"for x = {points.encode(x)} (trial {trial.number}); if evaluations "
                    "are noisy, start the study with `noisy=True`."
                )
            self._append({**event, "time": time.time()})

    def fail(
        self, x: ArrayLike, reason: str, metrics: Mapping[str, Any] | None = None
    ) -> None:
        """Records that a point cannot be evaluated; it is never proposed again.

        Failing a point twice changes nothing.

        Args:
            x: `[C]`.
            reason: For the reader of `trials`.
            metrics: As for `tell`.

        Raises:
            ValueError: If x is not a binary point or has been told, or the metrics are
                not JSON.
        """
        x = points.checked_point(x, self._num_variables)
        event: Event = {"event": "fail", "x": points.encode(x), "reason": str(reason)}
        if metrics is not None:
            event["metrics"] = checks.checked_metrics(metrics)
        with self._current() as table:
            trial = table.get(x)
            if trial is not None and trial.status == "failed":
                return
            if trial is not None and trial.status == "told":
                raise ValueError(
                    f"`x` (={points.encode(x)}, trial {trial.number}) has been told with "
                    f"the value {trial.value!r}; a result cannot become a failure."
                )
            self._append({**event, "time": time.time()})

    def enqueue(self, x: ArrayLike) -> None:
        """Has `ask` hand out a point `[C]` next; a point that is known changes nothing.

        Raises:
            ValueError: If x is not a binary point.
        """
        x = points.checked_point(x, self._num_variables)
        with self._current() as table:
            if table.get(x) is None:
                self._append({"event": "enqueue", "x": points.encode(x)})

    def warm_start(self, other: "Study", num_points: int = 3) -> np.ndarray:
        """Enqueues the best points of another study, such as one on another data set.

        Its values are not taken over, since they are of another objective; only its
        order is, under this study's penalty. Doing it again changes nothing.

        Args:
            other: A study of the same sites.
            num_points: How many of its best points; those known here are passed over.

        Returns:
            `[<= num_points, C]` int8, the points enqueued, best first.

        Raises:
            ValueError: If the other study has another C, or `num_points` is not positive.
        """
        num_points = checks.checked_int("num_points", num_points, 1)
        if other.num_variables != self._num_variables:
            raise ValueError(
                f"`other` is a study of {other.num_variables} variables, this one has "
                f"{self._num_variables}; warm-start from a search over the same sites."
            )
        told = [trial for trial in other.trials if trial.status == "told"]
        told.sort(key=lambda t: (-self.penalised(t), t.number))
        known = {points.encode(trial.x) for trial in self.trials}
        best = [trial.x for trial in told[:num_points]]
        new = [x for x in best if points.encode(x) not in known]
        for x in new:
            self.enqueue(x)
        return np.array(new, np.int8).reshape(len(new), self._num_variables)

    @contextlib.contextmanager
    def _current(self) -> Iterator[TrialTable]:
        """The table, up to date, with everybody else kept out."""
        with self._journal.locked():
            yield self._refreshed()

    def _refreshed(self) -> TrialTable:
        if not self._is_in_step:  # interrupted after reading and before applying
            self._journal.rewind()
            self._table = TrialTable(self._num_variables)
        self._is_in_step = False
        try:
            restarted, events = self._journal.read()
        except JournalDamaged:  # nothing was read; the next call is to say so too
            self._is_in_step = True
            raise
        if restarted:
            self._table = TrialTable(self._num_variables)
        for event in events:
            self._table.apply(event)
        self._is_in_step = True
        return self._table

    def _append(self, event: Event) -> TrialTable:
        self._journal.append([event])
        return self._refreshed()

    def _ask_one(self, leases: list[Key]) -> np.ndarray:
        """One point; notes the leases taken for it before they are in the journal."""
        while True:
            with self._current() as table:
                for trial in self._waiting(table):
                    return self._hand_out(trial.x, {"origin": trial.origin}, leases)
                reserved = self._reserve(table, leases)
            for x in self._candidates(reserved):
                with self._current() as table:
                    if reserved.slot not in table.reservations:
                        break  # filled by one who took it over
                    if table.get(x) is None:
                        origin = {"origin": reserved.origin, "slot": reserved.slot}
                        return self._hand_out(x, origin, leases)

    def _candidates(self, reserved: Reservation) -> Iterator[np.ndarray]:
        return proposals.candidates(
            reserved,
            self._num_variables,
            seed=self._seed,
            sparsity_penalty=self._penalty,
        )

    def _hand_out(self, x: np.ndarray, about: Event, leases: list[Key]) -> np.ndarray:
        text, lease = points.encode(x), begun()
        leases.append((text, lease["time"]))
        self._append({"event": "ask", **lease, "x": text, **about})
        return x

    def _reserve(self, table: TrialTable, leases: list[Key]) -> Reservation:
        """Takes over a reservation whose worker was lost, or makes one."""
        self._check_left(table, 1)
        lost = self._leases.lost(table.reservations.values())
        if lost:
            slot, origin = lost[0].slot, lost[0].origin
        else:
            slot, others = table.next_slot(), table.reservations.values()
            origin = proposals.origin(table.all(), others, self._num_initial)
        lease = begun()
        leases.append((slot, lease["time"]))
        event = {"event": "reserve", "slot": slot, "origin": origin, **lease}
        return self._append(event).reservations[slot]

    def _waiting(self, table: TrialTable) -> list[Trial]:
        """What was asked for and lost, then what is enqueued."""
        trials = table.all()
        running = (trial for trial in trials if trial.status == "running")
        return self._leases.lost(running) + [t for t in trials if t.status == "queued"]

    def _check_left(self, table: TrialTable, q: int) -> None:
        reserved = table.reservations.values()
        num_left = 2**self._num_variables - len(table.all()) - len(reserved)
        num_left += len(self._leases.lost(reserved)) + len(self._waiting(table))
        if q > num_left:
            raise SearchSpaceExhausted(
                f"`q` (={checks.shown(q)}) points were asked for and {max(num_left, 0)} "
                f"of the {2**self._num_variables} are neither evaluated nor being "
                "evaluated; ask for fewer, or stop: `best` is final once all are told."
            )
