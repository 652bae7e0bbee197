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
MOST_S = {20: 0.05, 50: 0.2, 100: 1.5}  # asked of an ask after about 60 observations
MOST_BATCH_S = 0.25  # likewise of a batch, C = 20
_REPEATS = 5
NUM_ASKED = (1 + BATCH) * (1 + _REPEATS)  # points in all


@dataclasses.dataclass(frozen=True)
class Speed:
    """Medians over warm calls, in seconds of CPU time over all threads."""

    num_variables: int  # C
    num_observations: int  # N, at random points of a planted sparse quadratic
    posterior_s: float  # the draw of a proposal
    acquisition_s: float  # its maximiser
    ask_s: float  # `Study.ask()`, which does both
    batch_ask_s: float  # `Study.ask(8)`


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
    times = (posterior_s, acquisition_s, ask_s, batch_ask_s)
    return Speed(num_variables, num_observations, *map(statistics.median, times))


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
