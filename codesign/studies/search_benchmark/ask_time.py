"""How long our study takes to propose a point, and where the time goes."""

import contextlib
import dataclasses
import functools
import statistics
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

from codesign.search import bqp, surrogate
from codesign.search.draws import Draws
from codesign.search.study import Study
from codesign.studies.search_benchmark.problems import PlantedQuadratic

BATCH = 8  # points of a batch ask
_REPEATS = 5


@dataclasses.dataclass(frozen=True)
class Speed:
    """Medians over warm calls, in seconds of CPU time over all threads.

    Attributes:
        num_variables: C.
        num_observations: N, at random points of a planted sparse quadratic.
        posterior_s: The draw of a proposal.
        acquisition_s: Its maximiser.
        ask_s: `Study.ask()`, which does both.
        batch_ask_s: `Study.ask(8)`.
    """

    num_variables: int
    num_observations: int
    posterior_s: float
    acquisition_s: float
    ask_s: float
    batch_ask_s: float


def measure(num_variables: int, num_observations: int) -> Speed:
    """Times asks of a study, and the two parts of each, after one that compiles."""
    problem = PlantedQuadratic(0, num_variables)
    study = Study(
        num_variables, sparsity_penalty=problem.sparsity_penalty, num_initial=0
    )
    for x in Draws("speed", 0).bits(num_observations, num_variables):
        study.tell(x, problem.value(x))
    study.ask()
    with (
        _stopwatch(surrogate, "sample_posterior") as posterior_s,
        _stopwatch(bqp, "solve") as acquisition_s,
        _stopwatch(study, "ask") as ask_s,
    ):
        for _ in range(_REPEATS):
            study.ask()
    study.ask(BATCH)
    with _stopwatch(study, "ask") as batch_ask_s:
        for _ in range(_REPEATS):
            study.ask(BATCH)
    return Speed(
        num_variables,
        num_observations,
        posterior_s=statistics.median(posterior_s),
        acquisition_s=statistics.median(acquisition_s),
        ask_s=statistics.median(ask_s),
        batch_ask_s=statistics.median(batch_ask_s),
    )


@contextlib.contextmanager
def _stopwatch(owner: Any, name: str) -> Iterator[list[float]]:
    """Collects the CPU time of each call of `owner.name` until the block ends."""
    function, times = getattr(owner, name), []

    @functools.wraps(function)
    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.process_time()
        result = function(*args, **kwargs)
        times.append(time.process_time() - start)
        return result

    with mock.patch.object(owner, name, timed):
        yield times
