"""Boundaries that XLA keeps: what is computed apart, and not before something else."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from codesign.kernels.named_op import uncounted
from codesign.types import Array


def zero_after(arrays: Sequence[Array]) -> Array:
    """[] int32: 0, but XLA does not know, and takes a number of each array to compute it.

    What is indexed by it is not read before `arrays` are there, as `optimization_barrier`
    would have it: that one is gone before XLA:CPU fuses and schedules. Under `vmap` it
    stays one number. Random keys are left out.
    """
    kept = [
        a for a in arrays if a.size and not jnp.issubdtype(a.dtype, jax.dtypes.prng_key)
    ]
    return uncounted(_zero, *kept) if kept else jnp.int32(0)


def _zero(*arrays):
    return _zero_of_all(arrays)


@jax.custom_batching.custom_vmap
def _zero_of_all(arrays):
    firsts = [lax.slice(a, (0,) * a.ndim, (1,) * a.ndim).reshape(()) for a in arrays]
    sums = sum((first.astype(jnp.float32) for first in firsts), jnp.float32(0))
    return (sums * 0 > 1).astype(jnp.int32)  # NaN > 1 is false, too


@_zero_of_all.def_vmap
def _zero_of_batches(axis_size, is_batched, arrays):
    del axis_size
    (flags,) = is_batched
    firsts = [a[0] if b else a for a, b in zip(arrays, flags, strict=True)]
    return _zero_of_all(tuple(firsts)), False


def apart(fn: Callable[..., Any], *operands: Any, after: Sequence[Array]) -> Any:
    """`fn(*operands)`, computed once and as a program of its own.

    XLA neither fuses it with what is around it nor computes it anew for each reader, and
    the same `fn` has the same bits wherever it stands. It is the branch of a condition
    that is always true and that XLA cannot decide, as it depends on `after`; on a GPU a
    condition waits for the host, so keep it out of what has to be quick there.

    Args:
        fn: Function of pytrees of arrays.
        operands: Its arguments.
        after: Arrays, one at least.
    """

    def never(*operands):
        del operands
        return jax.tree.map(jnp.zeros_like, shapes)

    shapes = jax.eval_shape(fn, *operands)
    return lax.cond(zero_after(list(after)) == 0, fn, never, *operands)
