"""Names an operation in the jaxpr, so that a tracer counts what it is, not how it runs.

A convolution may run as XLA's own, as one matmul over unfolded patches, or as a kernel;
its MACs are the same. Calling it under `jit` with an agreed name keeps it one equation
whose operands' shapes say everything. XLA inlines the call, so the name costs nothing.
"""

from collections.abc import Callable

import jax

_PREFIX = "codesign"


def named_op(kind: str, fn: Callable, *args: jax.Array, site: int = -1):
    """Returns `fn(*args)` as a single equation named after `kind`.

    Args:
        kind: Kind of the op in a workload, such as `conv`.
        fn: A pure function of arrays; its result is the op's output.
        *args: Arrays; their order is part of the agreement with the tracer.
        site: Number of the batch-norm site that the op stands for, or -1.
    """

    def call(*args):
        return fn(*args)

    call.__name__ = call.__qualname__ = f"{_PREFIX}.{kind}.{site}"
    return jax.jit(call)(*args)


def parse_name(name: str) -> tuple[str, int] | None:
    """Kind and site of an equation's name, or None if no named op made it."""
    prefix, _, rest = name.partition(".")
    kind, _, site = rest.rpartition(".")
    return (kind, int(site)) if prefix == _PREFIX and kind else None
