"""A search that many processes share and that no kill can lose: ask, evaluate, tell."""

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike

from codesign.records.journal import (
    Event,
    FileJournal,
    Journal,
    MemoryJournal,
    read_header,
)
from codesign.search import checks, cpu, points, thompson, worker
from codesign.search.trials import Trial, TrialTable, to_html

DAY_S = 86400.0
MAX_VARIABLES = 128  # 8256 coefficients


class SearchSpaceExhausted(RuntimeError):
    """Fewer points are left than were asked for."""


class Study:
    """Maximises F(x) - sparsity_penalty * |x|_1 over x in {0, 1}^C, F being expensive.

    Sparsity-aware Bayesian optimisation of DeepTrain, section V, after BOCS (Baptista &
    Poloczek, ICML 2018): random points first, then Thompson proposals of a sparse second-
    order model. Every event is in the journal before a method returns. The proposal of
    trial k is a function of the seed, k and the events before it, so a study that was
    killed, however often, goes on as if it had not been. Clocks and process ids, which
    the journal also holds, only decide who gets a trial whose worker was lost.

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
                handed out again, whoever holds it. One whose process has ended on this
                host is handed out again at once.
            recover: Go on from the sound part of a damaged journal, keeping the damaged
                file under another name.
            noisy: Whether a point may be told more than once with different values.
            exclusive: Whether the caller sees to it that nobody else uses the journal.
                Then every trial that is under way when it is opened is lost, wherever
                it ran, this process included, and is handed out again at once; and
                studies of this journal that this process opened before, as an earlier
                run of a notebook's cell did, write no more.

        Raises:
            ValueError: If a setting is out of range, or differs from the journal's.
            JournalDamaged: If the journal is damaged and not `recover`.
        """
        num_variables = checks.checked_int("num_variables", num_variables, 1)
        if num_variables > MAX_VARIABLES:
            raise ValueError(
                f"`num_variables` must be at most {MAX_VARIABLES}, got "
                f"{num_variables}; tie neighbouring sites to search over fewer."
            )
        if not lease_s > 0:
            raise ValueError(f"`lease_s` must be positive, got {lease_s}.")
        self._num_variables = num_variables
        self._seed = checks.checked_int("seed", seed, 0)
        if self._seed >= 2**63:
            raise ValueError(f"`seed` must be below 2**63, got {seed}.")
        self._penalty = thompson.checked_penalty(sparsity_penalty)
        self._num_initial = checks.checked_int("num_initial", num_initial, 0)
        self._lease_s = lease_s
        self._noisy = bool(noisy)
        header = {
            "num_variables": self._num_variables,
            "seed": self._seed,
            "sparsity_penalty": self._penalty,
            "num_initial": self._num_initial,
            "noisy": self._noisy,
        }
        self._table = TrialTable()
        self._journal: Journal = (
            MemoryJournal()
            if journal is None
            else FileJournal(journal, header, recover=recover, exclusive=exclusive)
        )
        self._orphans: set[str] = set()  # under way when an exclusive study was opened
        if exclusive:
            running = (t for t in self.trials if t.status == "running")
            self._orphans = {points.encode(trial.x) for trial in running}

    @classmethod
    def load(cls, journal: str | os.PathLike[str]) -> "Study":
        """Opens the study of a journal, whatever its settings are.

        Raises:
            ValueError: If the journal is damaged, or not of a study.
            OSError: If it cannot be read.
        """
        header = read_header(journal)
        try:
            return cls(journal=journal, **header)
        except TypeError as error:
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
        return _observations(self.trials, self._num_variables)

    def ask(self, q: int = 1) -> np.ndarray:
        """The next points to evaluate, leased to this process.

        In this order: trials whose lease has run out or whose process has ended on this
        host; points enqueued; random points, uniform over those not yet met, until there
        are `num_initial` of them and a result; Thompson proposals. `ask(q)` returns the
        same points as q calls of `ask()`.

        Args:
            q: Number of points; each process may hold any number of them.

        Returns:
            `[q, C]` int8, all different.

        Raises:
            SearchSpaceExhausted: If fewer than q points can be handed out.
            ValueError: If q is not positive.
        """
        q = checks.checked_int("q", q, 1)
        with self._current() as table:
            trials = table.all()
            now, me = time.time(), worker.this_worker()
            waiting = [t for t in trials if self._is_lost(t, now)]
            waiting += [t for t in trials if t.status == "queued"]
            num_left = len(waiting) + 2**self._num_variables - len(trials)
            if q > num_left:
                raise SearchSpaceExhausted(
                    f"`q` (={q}) points were asked for and {num_left} of the "
                    f"{2**self._num_variables} are neither evaluated nor being evaluated; "
                    "ask for fewer, or stop: `best` is final once all are told."
                )
            chosen = [(trial.x, trial.origin) for trial in waiting[:q]]
            chosen += self._new_points(trials, q - len(chosen))
            lease = {"event": "ask", "worker": me, "time": now}
            self._append(
                *({**lease, "x": points.encode(x), "origin": o} for x, o in chosen)
            )
        self._orphans -= {points.encode(x) for x, _ in chosen}
        return np.stack([x for x, _ in chosen])

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
        """Has `ask` hand out a point next; nothing happens if the study knows it.

        Args:
            x: `[C]`.

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
            self._refresh()
            yield self._table

    def _refresh(self) -> None:
        restarted, events = self._journal.read()
        if restarted:
            self._table = TrialTable()
        for event in events:
            self._table.apply(event)

    def _append(self, *events: Event) -> None:
        self._journal.append(events)
        self._refresh()

    def _is_lost(self, trial: Trial, now: float) -> bool:
        if trial.status != "running":
            return False
        assert trial.worker is not None
        assert trial.asked_at is not None
        if points.encode(trial.x) in self._orphans:
            return True
        return now - trial.asked_at > self._lease_s or worker.is_dead(trial.worker)

    def _new_points(
        self, trials: list[Trial], count: int
    ) -> list[tuple[np.ndarray, str]]:
        """Points that the study has not met, each of which becomes a trial."""
        x, y = _observations(trials, self._num_variables)
        num_random = sum(
            trial.origin == "initial" and trial.status != "failed" for trial in trials
        )
        known = [trial.x for trial in trials]
        chosen: list[tuple[np.ndarray, str]] = []
        with cpu.float64_on_cpu():
            root = jax.random.key(self._seed, impl="threefry2x32")
            for _ in range(count):
                key = jax.random.fold_in(root, len(known))
                if num_random < self._num_initial or len(y) == 0:
                    origin = "initial"
                    new = points.random_point(key, known, self._num_variables)
                    num_random += 1
                else:
                    new = thompson.propose(
                        key, x, y, sparsity_penalty=self._penalty, exclude=known
                    )[0]
                    origin = "guided"
                known.append(new)
                chosen.append((new, origin))
        return chosen


def _observations(
    trials: list[Trial], num_variables: int
) -> tuple[np.ndarray, np.ndarray]:
    rows = [(trial.x, value) for trial in trials for value in trial.values]
    x = np.array([row for row, _ in rows], np.int8).reshape(len(rows), num_variables)
    return x, np.array([value for _, value in rows], np.float64)
