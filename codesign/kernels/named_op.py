"""Names an operation in the jaxpr, so that a tracer counts what it is, not how it runs.

A convolution may run as XLA's own, as one matmul over unfolded patches, or as a kernel;
its MACs are the same. Calling it under `jit` with an agreed name keeps it one equation
whose operands' shapes say everything. XLA inlines the call, so the name costs nothing.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax

_PREFIX = "codesign"


def named_op(kind: str, fn: Callable, *args: jax.Array, site: int = -1, **static: Any):
    """Returns `fn(*args, **static)` as a single equation named after `kind`.

    Args:
        kind: Kind of the op in a workload, such as `conv`.
        fn: A function at module level; a new one in each call would compile each time.
        *args: Arrays; their order is part of the agreement with the tracer.
        site: Number of the batch-norm site that the op stands for, or -1.
        **static: Hashable settings of `fn`.
    """
    return _named(kind, fn, site, tuple(sorted(static.items())))(*args)


@functools.cache
def _named(kind: str, fn: Callable, site: int, static: tuple) -> Callable:
    def call(*args):
        return fn(*args, **dict(static))

    call.__name__ = call.__qualname__ = f"{_PREFIX}.{kind}.{site}"
    return jax.jit(call)


def parse_name(name: str) -> tuple[str, int] | None:
    """Kind and site of an equation's name, or None if no named op made it."""
    prefix, _, rest = name.partition(".")
    kind, _, site = rest.rpartition(".")
    return (kind, int(site)) if prefix == _PREFIX and kind else None
