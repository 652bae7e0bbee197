"""Names an operation in the jaxpr, so that a tracer counts what it is, not how it runs.

A convolution may run as XLA's own, as one matmul over unfolded patches, or as a kernel;
its MACs are the same. Calling it under `jit` with an agreed name keeps it one equation
whose operands' shapes say everything. XLA inlines the call, so the name costs nothing.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax

_PREFIX = "codesign"


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpName:
    """What a named op tells the tracer beside the shapes of its operands.

    Attributes:
        kind: Kind of the op in a workload, such as `conv`.
        variant: Which member of the kind, such as `max`; may be empty.
        window: Values that one output combines, of a pool.
        site: Batch-norm site that the op stands for, or -1.
    """

    kind: str
    variant: str = ""
    window: int = 1
    site: int = -1


def named_op(
    kind: str,
    fn: Callable,
    *args: jax.Array,
    variant: str = "",
    window: int = 1,
    site: int = -1,
    **static: Any,
):
    """Returns `fn(*args, **static)` as a single equation named after `kind`.

    Args:
        kind: Kind of the op in a workload, such as `conv`.
        fn: A function at module level; a new one in each call would compile each time.
        *args: Arrays; their order is part of the agreement with the tracer.
        variant: Which member of the kind.
        window: Values that one output combines.
        site: Number of the batch-norm site that the op stands for, or -1.
        **static: Hashable settings of `fn`.
    """
    name = OpName(kind=kind, variant=variant, window=window, site=site)
    return _named(name, fn, tuple(sorted(static.items())))(*args)


FREE = "free"  # kind of what a chip does not do


def uncounted(fn: Callable, *args: jax.Array, **static: Any):
    """Returns `fn(*args, **static)`, which no chip computes: checks, emulated errors.

    A tracer takes an output for the first operand where it has its shape, and for a
    constant where it has not.
    """
    return named_op(FREE, fn, *args, **static)


@functools.cache
def _named(name: OpName, fn: Callable, static: tuple) -> Callable:
    def call(*args):
        return fn(*args, **dict(static))

    fields = (_PREFIX, name.kind, name.variant, str(name.window), str(name.site))
    call.__name__ = call.__qualname__ = ".".join(fields)
    return jax.jit(call)


def parse_name(name: str) -> OpName | None:
    """What an equation's name says, or None if no named op made it."""
    prefix, *fields = name.split(".")
    if prefix != _PREFIX or len(fields) != 4:
        return None
    kind, variant, window, site = fields
    return OpName(kind=kind, variant=variant, window=int(window), site=int(site))
