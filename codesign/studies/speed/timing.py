"""Times of functions that run in turn, and the quantities that are made of them."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from codesign.report import Quantity


def interleaved(repeats: int, *functions: Callable[[], object]) -> np.ndarray:
    """Times functions in turn, so that noise falls on all alike.

    Each runs once before it is timed, which compiles it.

    Returns:
        Wall-clock time of every run in seconds, `[functions, repeats]`.
    """
    for fn in functions:
        jax.block_until_ready(fn())
    times = np.empty((len(functions), repeats))
    for index in np.ndindex(repeats, len(functions)):
        start = time.perf_counter()
        jax.block_until_ready(functions[index[1]]())
        times[index[::-1]] = time.perf_counter() - start
    return times


def row(name: str, value: Any, title: str, of: dict[str, Any], **more: Any) -> Quantity:
    """Makes a quantity, in seconds if its name ends so; `more` are fields of it."""
    unit = "s" if name.endswith("_s") else ""
    of = {key: str(each) for key, each in of.items()}
    return Quantity(name, value, unit, kind="measured", of=of, title=title, **more)
