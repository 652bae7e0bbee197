"""Boundaries that XLA keeps: what is computed apart, and not before something else."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from codesign.kernels.named_op import uncounted
from codesign.types import Array


def zero_after(arrays: Sequence[Array]) -> Array:
    """[] int32: 0, but XLA does not know, and takes a number of each array to compute it.

    What is indexed by it is not read before `arrays` are there, as `optimization_barrier`
    would have it: that one is gone before XLA:CPU fuses and schedules. Under `vmap` it
    stays one number. Of arrays on several devices each device takes a number of its own
    piece, and none waits for another. Random keys are left out.
    """
    kept = [
        a for a in arrays if a.size and not jnp.issubdtype(a.dtype, jax.dtypes.prng_key)
    ]
    return uncounted(_zero, *kept) if kept else jnp.int32(0)


def _zero(*arrays):
    return _zero_of_all(arrays)


@jax.custom_batching.custom_vmap
def _zero_of_all(arrays):
    arrays = [jnp.atleast_1d(a) for a in arrays]
    meshes = [jax.typeof(a).sharding.mesh for a in arrays]
    explicit = [mesh for mesh in meshes if AxisType.Explicit in mesh.axis_types]
    if not explicit:
        return _zero_of(*arrays)
    zero_of: Any = jax.sharding.auto_axes(
        _zero_of, out_sharding=_everywhere(explicit[0])
    )
    return zero_of(*arrays)


@custom_partitioning
def _zero_of(*arrays: Array) -> Array:
    """Of arrays [n, ...], or of a device's pieces of them."""
    firsts = [lax.slice(a, (0,) * a.ndim, (1,) * a.ndim).reshape(()) for a in arrays]
    sums = sum((first.astype(jnp.float32) for first in firsts), jnp.float32(0))
    return (sums * 0 > 1).astype(jnp.int32)  # NaN > 1 is false, too


def _everywhere(mesh: Any, *_: Any) -> NamedSharding:
    """Every device has all of it."""
    return NamedSharding(mesh, PartitionSpec())


def _of_pieces(mesh: Any, arrays: Sequence[Any], result: Any) -> tuple[Any, ...]:
    return mesh, _zero_of.fun, result.sharding, tuple(a.sharding for a in arrays)


def _axes(mesh: Any, arrays: Sequence[Any], result: Any) -> str:
    """Says that each axis of each array may be cut, and that a number has no axes."""
    del mesh, result
    names = [
        [f"a{k}_{axis}" for axis in range(len(a.shape))] for k, a in enumerate(arrays)
    ]
    return f"{', '.join(map(' '.join, names))} -> "


_zero_of.def_partition(
    partition=_of_pieces,
    infer_sharding_from_operands=_everywhere,
    sharding_rule=_axes,
)


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
