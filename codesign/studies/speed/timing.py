"""Times of functions that run in turn, and the quantities that are made of them."""

import math
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from codesign.report import Quantity

_LEAST_ROUNDS = 3  # of which a median leaves one disturbance out


def interleaved(
    repeats: int, *functions: Callable[[], object], enough_s: float = math.inf
) -> np.ndarray:
    """Times functions in turn, so that noise falls on all alike.

    Each runs once before it is timed, which compiles it.

    Args:
        repeats: Rounds.
        *functions: Each runs once a round.
        enough_s: Time after which no round begins, once there are three.

    Returns:
        Wall-clock time of every run in seconds, `[functions, rounds]`.
    """
    for fn in functions:
        jax.block_until_ready(fn())
    rounds: list[list[float]] = []
    began = time.perf_counter()
    while len(rounds) < repeats:
        if len(rounds) >= _LEAST_ROUNDS and time.perf_counter() - began >= enough_s:
            break
        rounds.append([])
        for fn in functions:
            start = time.perf_counter()
            jax.block_until_ready(fn())
            rounds[-1].append(time.perf_counter() - start)
    return np.array(rounds).T


def row(name: str, value: Any, title: str, of: dict[str, Any], **more: Any) -> Quantity:
    """Makes a quantity, in seconds if its name ends so; `more` are fields of it."""
    unit = "s" if name.endswith("_s") else ""
    of = {key: str(each) for key, each in of.items()}
    return Quantity(name, value, unit, kind="measured", of=of, title=title, **more)
