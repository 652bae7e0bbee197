"""The points of a study's new trials, each a function of seed, slot and trials before."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import numpy as np

from codesign.search import bqp, cpu, points, thompson
from codesign.search.trials import Origin, Reservation, Trial


def origin(
    trials: Sequence[Trial], reservations: Iterable[Reservation], num_initial: int
) -> Origin:
    """What the next new trial is: "initial" until there are enough, and a result.

    Initial trials that failed do not count; those reserved do.
    """
    num_random = sum(t.origin == "initial" and t.status != "failed" for t in trials)
    num_random += sum(reserved.origin == "initial" for reserved in reservations)
    has_result = any(trial.values for trial in trials)
    return "guided" if has_result and num_random >= num_initial else "initial"


def candidates(
    reserved: Reservation, num_variables: int, *, seed: int, sparsity_penalty: float
) -> Iterator[np.ndarray]:
    """The points for a reservation, best first: the first that is still free is taken.

    They follow from what was known when the reservation was made. Each further one is
    what would have been the first, had those before it been known.

    Yields:
        `[C]` int8, until every point is known.
    """
    known = [trial.x for trial in reserved.before]
    if len(known) == 2**num_variables:
        return
    best_but = _best_but(reserved, num_variables, seed, sparsity_penalty)
    while len(known) < 2**num_variables:
        with cpu.float64_on_cpu():
            x = best_but(known)
        yield x
        known.append(x)


def _best_but(
    reserved: Reservation, num_variables: int, seed: int, sparsity_penalty: float
) -> Callable[[list[np.ndarray]], np.ndarray]:
    """A function of the points that are known, which returns the next one."""
    with cpu.float64_on_cpu():
        root = jax.random.key(seed, impl="threefry2x32")
        key = jax.random.fold_in(root, reserved.slot)
        if reserved.origin == "initial":
            return lambda known: points.random_point(key, known, num_variables)
        x, y = observations(reserved.before, num_variables)
        programme = thompson.programme(
            jax.random.fold_in(key, 0), x, y, sparsity_penalty=sparsity_penalty
        )
        return lambda known: bqp.solve(*programme, exclude=np.array(known)).x


def observations(
    trials: Sequence[Trial], num_variables: int
) -> tuple[np.ndarray, np.ndarray]:
    """Every value told, `[N]`, at its point, `[N, C]` int8."""
    rows = [(trial.x, value) for trial in trials for value in trial.values]
    x = np.array([row for row, _ in rows], np.int8).reshape(len(rows), num_variables)
    return x, np.array([value for _, value in rows], np.float64)
