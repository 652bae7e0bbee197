"""Number formats by name, and one door to all of them: `cast` and what it costs."""

import dataclasses
import re
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from numpy.typing import ArrayLike

from codesign.numerics import bfp, blocks, mx, rounding
from codesign.records.named import nearest
from codesign.types import Array, Scalar

NumberFormat = bfp.Format | str  # a name as `by_name` takes it
PLAIN = ("float32", "bfloat16")
_BFP_NAME = re.compile(r"bfp([0-9]{1,2})(?:x([0-9]{1,4}))?")


def by_name(name: str) -> NumberFormat:
    """The format of a name.

    by_name("bfp5")     # blocks of 9 with mantissas of 5 bits: CAMEL's 58-bit word
    by_name("bfp3x16")  # blocks of 16 with mantissas of 3 bits
    by_name("mxfp4_e2m1"), by_name("bfloat16"), by_name("float32")

    A name's block format has an exponent of 4 bits whose bias is each tensor's own, since
    no one bias serves weights, activations and gradients; it truncates.

    Raises:
        ValueError: If there is none of that name; says which are near.
    """
    known = (*PLAIN, "bfp5", "bfp5x16", *mx.FORMATS)
    match = _BFP_NAME.fullmatch(name) if isinstance(name, str) else None
    if match is None:
        if isinstance(name, str) and (name in PLAIN or name in mx.FORMATS):
            return name
        raise ValueError(f"`format` (={name!r}) is none; {nearest(name, known)}")
    mantissa_bits, block_size = match.groups()
    try:
        return bfp.Format(
            block_size=int(block_size or 9),
            mantissa_bits=int(mantissa_bits),
            bias="tensor",
        )
    except ValueError as error:
        raise ValueError(f"`format` (={name!r}): {error}") from None


def checked(fmt: NumberFormat, name: str = "format") -> NumberFormat:
    """A format as it is, or of its name.

    Raises:
        ValueError: If it is none; names the argument `name`.
    """
    if isinstance(fmt, bfp.Format):
        return fmt
    try:
        return by_name(fmt)
    except ValueError as error:
        raise ValueError(f"{error}".replace("`format`", f"`{name}`")) from None


def label(fmt: NumberFormat) -> str:
    """What tables call a format."""
    if isinstance(fmt, str):
        return fmt
    size = "" if fmt.block_size == 9 else f"x{fmt.block_size}"
    return f"bfp{fmt.mantissa_bits}{size}"


def bits_per_number(fmt: NumberFormat) -> float:
    """Storage of one number, the shared exponent or scale of 8 bits shared out."""
    fmt = checked(fmt, "fmt")
    if isinstance(fmt, bfp.Format):
        return fmt.bits_per_number
    if fmt in PLAIN:
        return {"float32": 32.0, "bfloat16": 16.0}[fmt]
    return mx.element_format(fmt).bits + 8 / mx.BLOCK_SIZE


def is_random(fmt: NumberFormat) -> bool:
    """Whether it needs a key."""
    return isinstance(fmt, bfp.Format) and fmt.rounding == "stochastic"


def without_chance(fmt: NumberFormat) -> NumberFormat:
    """The format that rounds to the nearest where this one rounds at random."""
    if isinstance(fmt, bfp.Format) and is_random(fmt):
        return dataclasses.replace(fmt, rounding="nearest_even")
    return fmt


def has_width(fmt: NumberFormat) -> bool:
    """Whether a width in bits can take the place of the format's own."""
    return isinstance(checked(fmt, "fmt"), bfp.Format)


def cast(
    x: ArrayLike,
    fmt: NumberFormat,
    axis: int = -1,
    key: Array | None = None,
    *,
    tile: Sequence[int] | None = None,
    mantissa_bits: Scalar | None = None,
) -> Array:
    """`x` in the numbers of a format: [...] -> [...] of the type of `x`.

    The derivative is straight-through. What is not finite stays so in `float32` and
    `bfloat16`; what is beyond the largest number of bfloat16 becomes infinity there, as
    in a conversion, but the largest number of a type, such as float16, that holds less.

    Args:
        x: [...] of a floating-point type; float32 is what is cast.
        fmt: A format, or a name that `by_name` knows.
        axis: That blocks lie along; an axis of `x` also where there are no blocks.
        key: For stochastic rounding; formats without it take no notice.
        tile: (rows, columns) of a block, of block floating point only.
        mantissa_bits: Its real width, of block floating point only; see `bfp.quantize`.

    Raises:
        TypeError, ValueError: As `bfp.quantize` and `mx.quantize`; for an unknown name;
            or for a tile or a width of a format that has none.
    """
    fmt, x = checked(fmt, "fmt"), blocks.floating(x)
    if isinstance(fmt, bfp.Format):
        return bfp.quantize(x, fmt, axis, key, tile=tile, mantissa_bits=mantissa_bits)
    for name, value in (("tile", tile), ("mantissa_bits", mantissa_bits)):
        if value is not None:
            raise ValueError(
                f"`{name}` (={value!r}) has no meaning in {fmt}; leave it out, or pass a "
                "format of block floating point, such as `bfp.Format()`."
            )
    if fmt not in PLAIN:
        return mx.quantize(x, fmt, axis)
    exact = lax.stop_gradient(blocks.real(x))
    if x.ndim or axis != -1:
        blocks.layout(x.ndim, 1, axis)
    if fmt == "bfloat16":
        # Not two conversions, which XLA may take out.
        exact = lax.reduce_precision(exact, 8, 7)
    elif x.dtype == jnp.float32:
        return x
    return rounding.straight_through(x, blocks.cast(exact, x.dtype))


class Statistics(NamedTuple):
    """What a format did to an array: fractions of its values, or of its blocks."""

    zero: Array  # [] of values that were zero before
    zero_mantissa: Array  # [] of values that are zero after
    zero_block: Array  # [] of blocks that are zero after
    saturated: Array  # [] of values that the format's range cut
    flushed: Array  # [] of values that were not zero before, and are after
    error: Array  # [] root of the mean squared error over that of the values


def statistics(
    x: ArrayLike,
    fmt: NumberFormat,
    axis: int = -1,
    key: Array | None = None,
    *,
    tile: Sequence[int] | None = None,
) -> Statistics:
    """What `cast` does to `x`; takes and raises what it does.

    A multiplier rests on a zero block (CAMEL's first gate) or a zero mantissa (its
    second); without blocks a value is its own block.
    """
    fmt = checked(fmt, "fmt")
    q = blocks.real(cast(x, fmt, axis, key, tile=tile))
    x = blocks.real(x)
    is_saturated, size = jnp.zeros((), bool), 1
    if isinstance(fmt, bfp.Format):
        is_saturated = bfp.encode(x, fmt, axis, key, tile=tile).is_saturated
        size = fmt.block_size
    elif fmt not in PLAIN:
        is_saturated = mx.is_saturated(x, fmt, axis)
        size = mx.BLOCK_SIZE
    largest = blocks.largest(q, blocks.layout(q.ndim, size, axis, tile))

    def share(is_so: Array) -> Array:
        return jnp.mean(is_so.astype(jnp.float32))

    total = jnp.sum(jnp.square(x))
    error = jnp.sqrt(jnp.sum(jnp.square(q - x)) / jnp.where(total > 0, total, 1.0))
    return Statistics(
        zero=share(x == 0),
        zero_mantissa=share(q == 0),
        zero_block=share(largest == 0),
        saturated=share(is_saturated),
        flushed=share((q == 0) & (x != 0)),
        error=error,
    )
