"""Blocks of an array that share a scale: along one axis, or as tiles over two."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from numpy.typing import ArrayLike

from codesign.types import Array, PyTree, is_whole

# Of each axis that blocks lie along, its number from the end and their length.
Layout = tuple[tuple[int, int], ...]

_MOST_ROWS = 16
_ZERO = np.float32(0)
LARGEST_EXPONENT, SMALLEST_EXPONENT = 127, -126  # of normal float32
LARGEST_NUMBER = float(np.finfo(np.float32).max)


def layout(
    rank: int,
    block_size: int,
    axis: int = -1,
    tile: Sequence[int] | None = None,
    name: str = "x",
) -> Layout:
    """How blocks lie in an array.

    Args:
        rank: Number of its axes.
        block_size: Numbers of a block.
        axis: That blocks lie along, where there is no `tile`.
        tile: (rows, columns) of a block over the last two axes.
        name: Of the array, for errors.

    Raises:
        ValueError: If there is no such axis; there are fewer than two for a tile; or a
            tile does not hold `block_size` numbers.
    """
    if tile is None:
        if not is_whole(axis) or not -rank <= axis < rank:
            if rank == 0:
                raise ValueError(
                    f"`{name}` is a single number; blocks need an axis, as of [1]."
                )
            raise ValueError(
                f"`axis` (={axis!r}) must be a whole number from {-rank} to {rank - 1}: "
                f"`{name}` has {rank} axes."
            )
        return ((axis % rank - rank, block_size),)
    sizes = tuple(tile) if isinstance(tile, Sequence) else ()
    if len(sizes) != 2 or not all(is_whole(n) and n > 0 for n in sizes):
        raise ValueError(f"`tile` (={tile!r}) must be (rows, columns), such as (3, 3).")
    if math.prod(sizes) != block_size:
        raise ValueError(
            f"`tile` (={sizes}) holds {math.prod(sizes)} numbers, but `block_size` is "
            f"{block_size}; they must be equal."
        )
    if rank < 2:
        raise ValueError(
            f"`tile` (={sizes}) needs two axes, and `{name}` has {rank}; leave `tile` out "
            "for blocks along `axis`."
        )
    return ((-2, sizes[0]), (-1, sizes[1]))


def largest(x: Array, lies: Layout) -> Array:
    """Largest magnitude of each block, NaN aside; a short last one is padded with zeros.

    Each axis that blocks lie along is shortened from n to ceil(n / its block). On XLA:CPU
    a reduction window with its own reducer takes half to a fifth of the time of a maximum
    of |x| without NaN, which would be written to memory first. Long strides miss the
    cache: a window of 32 rows is one of 8, then one of 4.
    """
    for axis, size in reversed(lies):
        size = short = max(1, min(size, x.shape[axis]))
        if axis != -1:
            short = max(n for n in range(1, _MOST_ROWS + 1) if size % n == 0)
        for length in (short, size // short):
            window, pads = [1] * x.ndim, [(0, 0)] * x.ndim
            window[axis], pads[axis] = length, (0, -x.shape[axis] % length)
            if length > 1:
                x = lax.reduce_window(x, _ZERO, _larger, window, window, pads)
    return jnp.abs(jnp.where(jnp.isnan(x), 0.0, x))


def _larger(a: Array, b: Array) -> Array:
    a, b = jnp.abs(a), jnp.abs(b)
    return lax.select(lax.bitwise_or(lax.gt(b, a), lax.ne(a, a)), b, a)


def spread(values: Array, lies: Layout, shape: tuple[int, ...]) -> Array:
    """Gives every number of an array of `shape` the value of its block."""
    for axis, size in lies:
        size = min(size, shape[axis])
        axis %= values.ndim
        ahead, behind = values.shape[: axis + 1], values.shape[axis + 1 :]
        values = jnp.broadcast_to(
            jnp.expand_dims(values, axis + 1), (*ahead, size, *behind)
        )
        values = values.reshape(*ahead[:-1], ahead[-1] * size, *behind)
        values = lax.slice_in_dim(values, 0, shape[axis], axis=axis)
    return values


def exponents(x: Array) -> Array:
    """floor(log2 |x|), int32, from the bits of float32: exact just below powers of two.

    Of 0 and of subnormals it is -127, of infinity 128.
    """
    bits = lax.bitcast_convert_type(jnp.abs(x), jnp.int32)
    return (bits >> 23) - LARGEST_EXPONENT


def power_of_two(exponent: Array) -> Array:
    """2^exponent, float32, of int32 from -126 to 127."""
    return lax.bitcast_convert_type((exponent + LARGEST_EXPONENT) << 23, jnp.float32)


def scale_of(exponent: Array, limits: tuple[int, int]) -> tuple[Array, ...]:
    """Factors, one or two, whose product is 2^exponent.

    Args:
        exponent: int32 from -252 to 254.
        limits: That it is known to lie in; within those of float32 one factor does.
    """
    if limits[0] >= SMALLEST_EXPONENT and limits[1] <= LARGEST_EXPONENT:
        return (power_of_two(exponent),)
    first = jnp.clip(exponent, SMALLEST_EXPONENT, LARGEST_EXPONENT)
    return power_of_two(first), power_of_two(exponent - first)


def scaled(x: Array, factors: Sequence[Array]) -> Array:
    """Multiplies `x` by each factor in turn."""
    for factor in factors:
        x = x * factor
    return x


def floating(x: ArrayLike, name: str = "x") -> Array:
    """An array of floating-point numbers, in their own type.

    Raises:
        TypeError: If `x` holds others, or whole ones.
    """
    try:
        found = jnp.asarray(x)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"`{name}` (={x!r}) must be an array of numbers: {error}"
        ) from None
    if not jnp.issubdtype(found.dtype, jnp.floating):
        raise TypeError(
            f"`{name}` is {found.dtype}; pass floating-point numbers, such as "
            f"`jnp.float32({name})`."
        )
    return found


def real(x: ArrayLike, name: str = "x") -> Array:
    """Float32 of real numbers; raises what `floating` does."""
    return floating(x, name).astype(jnp.float32)


def cast(q: Array, kind: np.dtype) -> Array:
    """Float32 in another type; what is finite stays so."""
    most = float(jnp.finfo(kind).max)
    if most < LARGEST_NUMBER:
        q = jnp.where(jnp.isinf(q), q, jnp.clip(q, -most, most))
    return q.astype(kind)


def on_host(tree: PyTree, name: str) -> PyTree:
    """Arrays of a function of `name`, as NumPy's.

    Raises:
        TypeError: Under `jax.jit`, where an array has no numbers yet.
    """
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree)):
        raise TypeError(
            f"`{name}` works on the host, not under `jax.jit` or another transformation; "
            "call it outside, on what the transformed function returns."
        )
    return jax.device_get(tree)


def gathered(x: np.ndarray, lies: Layout) -> np.ndarray:
    """Numbers of each block, padded with zeros: [...] -> [..., block_size]."""
    rank = x.ndim
    for axis, size in lies:
        at = rank + axis
        pads = [(0, 0)] * x.ndim
        pads[at] = (0, -x.shape[at] % size)
        x = np.pad(x, pads)
        x = x.reshape(*x.shape[:at], x.shape[at] // size, size, *x.shape[at + 1 :])
        x = np.moveaxis(x, at + 1, -1)
    return x.reshape(*x.shape[:rank], math.prod(size for _, size in lies))


def scattered(x: np.ndarray, lies: Layout, shape: Sequence[int] | None) -> np.ndarray:
    """The reverse of `gathered`, cut to `shape`.

    Raises:
        ValueError: If `shape` is not that of an array with so many blocks.
    """
    rank = x.ndim - 1
    x = x.reshape(*x.shape[:rank], *(size for _, size in lies))
    for axis, size in reversed(lies):
        at = rank + axis
        x = np.moveaxis(x, -1, at + 1)
        x = x.reshape(*x.shape[:at], x.shape[at] * size, *x.shape[at + 2 :])
    if shape is None:
        return x
    padding = dict(lies)
    sizes = tuple(shape) if isinstance(shape, Sequence) else ()
    fits = len(sizes) == rank and all(
        is_whole(sizes[axis])
        and 0 <= x.shape[rank + axis] - sizes[axis] < padding.get(axis, 1)
        for axis in range(-rank, 0)
    )
    if not fits:
        raise ValueError(
            f"`shape` (={shape!r}) must be that of the packed array: at most {x.shape}, "
            "which the blocks of `words` hold, and less by no whole block."
        )
    return x[tuple(slice(n) for n in sizes)]
