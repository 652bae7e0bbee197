"""Compiles functions for the host once, and keeps the result on disk where it can."""

from collections.abc import Callable
from typing import Any

import numba


def compiled(fn: Callable) -> Any:
    """`numba.njit` with its cache on disk; without one where nothing can be written.

    The cache knows the text of the function's own file, not of others whose compiled
    functions it calls: those compile each time.
    """
    try:
        return numba.njit(cache=True, nogil=True)(fn)
    except RuntimeError:  # no folder for the cache: a read-only installation
        return numba.njit(nogil=True)(fn)
