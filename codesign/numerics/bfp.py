"""Block floating point: signed mantissas of a few bits that share one exponent.

A number of a block is (-1)^s M 2^(E - (m - 1)): M of m bits without a hidden one, E the
exponent of the block's largest magnitude. Nine of them with m = 5 and an exponent of 4
bits are the 58-bit word of CAMEL (Zhang et al., HPCA 2024, V-C).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from numpy.typing import ArrayLike, NDArray

from codesign.numerics import blocks, rounding
from codesign.numerics.bfp_format import MAX_MANTISSA_BITS, Format, check_format
from codesign.types import Array, Scalar, is_number, is_whole


class Codes(NamedTuple):
    """What a block-floating-point array stores."""

    mantissas: Array  # [...] float32, signed whole numbers up to 2^m - 1
    exponents: Array  # [...] int32 E of each block, its axes shortened
    is_saturated: Array  # [...] bool, where the format's range cut a number


def quantize(
    x: ArrayLike,
    fmt: Format,
    axis: int = -1,
    key: Array | None = None,
    *,
    tile: Sequence[int] | None = None,
    mantissa_bits: Scalar | None = None,
) -> Array:
    """Nearest numbers of `fmt` in its sense of rounding, [...] of the type of `x`.

        E = clip(floor(log2 max |x|), Emin, Emax),  M = min(round(|x| 2^(m-1-E)), 2^m - 1)

    A short last block counts as padded with zeros. What is beyond float32, or the type of
    `x`, in a format of a wider range is its largest number; subnormal numbers and
    results may flush to zero. The derivative is straight-through: 1, also where a number
    saturates.

    Args:
        x: [...] of a floating-point type; float32 is what is quantised.
        fmt: The format.
        axis: That blocks lie along.
        key: For stochastic rounding.
        tile: (rows, columns) of a block over the last two axes, in place of `axis`. A
            square tile of a transposed array is the transposed tile.
        mantissa_bits: [] a real width in place of the format's, traced or not: between
            two whole widths the results are interpolated, so that it has a derivative,
            q(k + 1) - q(k) at k and above. A traced one out of range makes all NaN.

    Raises:
        TypeError: If `x` is of whole numbers, or `fmt` is none.
        ValueError: If stochastic rounding has no key, there is no such axis, a tile does
            not hold `block_size` numbers, or `mantissa_bits` is not within 1 to 23.
    """
    x = blocks.floating(x)
    values = lax.stop_gradient(blocks.real(x))
    lies = _layout(x.ndim, fmt, axis, key, tile)
    if mantissa_bits is None:
        q = _values(values, fmt, lies, key, fmt.mantissa_bits)
    else:
        bits = _checked_width(mantissa_bits)
        whole = lax.stop_gradient(jnp.clip(jnp.floor(bits), 1, MAX_MANTISSA_BITS - 1))
        low, high = (
            _values(values, fmt, lies, key, whole.astype(jnp.int32) + i) for i in (0, 1)
        )
        q = low + (bits - whole) * (high - low)
    return rounding.straight_through(x, blocks.cast(q, x.dtype))


def encode(
    x: ArrayLike,
    fmt: Format,
    axis: int = -1,
    key: Array | None = None,
    *,
    tile: Sequence[int] | None = None,
) -> Codes:
    """Mantissas and exponents of `quantize`; takes and raises what it does.

    A block that `nan_block` makes NaN is encoded as with `saturate`.
    """
    given = lax.stop_gradient(blocks.real(x))
    lies = _layout(given.ndim, fmt, axis, key, tile)
    return _codes(given, fmt, lies, key, fmt.mantissa_bits)


def _layout(rank: int, fmt: Format, axis: int, key, tile) -> blocks.Layout:
    check_format(fmt)
    rounding.check_mode(fmt.rounding, key)
    return blocks.layout(rank, fmt.block_size, axis, tile)


def _checked_width(bits: Any) -> Array:
    is_traced = isinstance(bits, Tracer)
    if not is_number(bits) or not (is_traced or 1 <= bits <= MAX_MANTISSA_BITS):
        raise ValueError(
            f"`mantissa_bits` (={bits!r}) must be one number from 1 to "
            f"{MAX_MANTISSA_BITS}."
        )
    bits = jnp.asarray(bits, jnp.float32)
    return jnp.where((bits >= 1) & (bits <= MAX_MANTISSA_BITS), bits, jnp.nan)


def _codes(x: Array, fmt: Format, lies: blocks.Layout, key, bits) -> Codes:
    low, high = fmt.exponent_limits

    def windowed(exponent):
        if fmt.bias != "tensor":
            return exponent
        top = jnp.max(exponent, initial=low)
        return jnp.maximum(exponent, top - 2**fmt.exponent_bits + 1)

    found = blocks.exponents(blocks.largest(x, lies))
    exponent = windowed(jnp.clip(found, low, high))
    x = jnp.where(jnp.isnan(x), 0.0, x)

    def rounded(exponent):
        least, most = (bits, bits) if is_whole(bits) else (1, MAX_MANTISSA_BITS)
        limits = least - 1 - high, most - 1 - low
        factors = blocks.scale_of(bits - 1 - exponent, limits)
        spread = [blocks.spread(factor, lies, x.shape) for factor in factors]
        return rounding.round_to_whole(blocks.scaled(x, spread), fmt.rounding, key)

    # `jnp.exp2` is off from 13 on.
    most = 2.0**bits - 1 if is_whole(bits) else blocks.power_of_two(bits) - 1
    mantissas = rounded(exponent)
    if fmt.carry == "renorm":
        is_over = blocks.largest(mantissas, lies) > most
        exponent = windowed(jnp.minimum(exponent + is_over, high))
        mantissas = rounded(exponent)
    cut = jnp.clip(mantissas, -most, most)
    return Codes(cut, exponent, mantissas != cut)


def _values(x: Array, fmt: Format, lies: blocks.Layout, key, bits) -> Array:
    mantissas, exponent, _ = _codes(x, fmt, lies, key, bits)
    low, high = fmt.exponent_limits
    least, most = (bits, bits) if is_whole(bits) else (1, MAX_MANTISSA_BITS)
    limits = low - (most - 1), high - (least - 1)
    factors = blocks.scale_of(exponent - (bits - 1), limits)
    spread = [blocks.spread(factor, lies, x.shape) for factor in factors]
    q = blocks.scaled(mantissas, spread)
    if high > blocks.LARGEST_EXPONENT:
        q = jnp.clip(q, -blocks.LARGEST_NUMBER, blocks.LARGEST_NUMBER)
    if fmt.nonfinite == "nan_block":
        bad = blocks.largest((~jnp.isfinite(x)).astype(jnp.float32), lies)
        q = jnp.where(blocks.spread(bad, lies, x.shape) > 0, jnp.nan, q)
    return q


def pack(
    x: ArrayLike,
    fmt: Format,
    axis: int = -1,
    key: Array | None = None,
    *,
    tile: Sequence[int] | None = None,
) -> NDArray[np.uint64]:
    """Words of the blocks of `quantize(x, ...)`, on the host; see also `tensor_bias`.

    The exponent's field is on top, then the numbers, first to last (row by row of a
    tile), a sign before its magnitude; the lowest `word_bits` are used. Zero has sign 0,
    and a block of zeros is all zero bits.

    Returns:
        [...] one word a block: the axes that blocks lie along are shortened.

    Raises:
        TypeError, ValueError: As `quantize`; under `jax.jit`; if a word is wider than 64
            bits, or the exponent has no bounds.
    """
    _check_packs(fmt)
    codes = blocks.on_host(encode(x, fmt, axis, key, tile=tile), "pack")
    bias = fmt.bias if isinstance(fmt.bias, int) else _bias_of(codes, fmt)
    lies = blocks.layout(codes.mantissas.ndim, fmt.block_size, axis, tile)
    numbers = blocks.gathered(
        codes.mantissas.astype(np.int64), lies
    )  # [..., block_size]
    field = np.where(numbers.any(-1), codes.exponents + bias, 0)
    assert np.all((field >= 0) & (field < 2**fmt.exponent_bits))
    words = field.astype(np.uint64)
    for i in range(fmt.block_size):
        number = numbers[..., i]
        sign = (number < 0).astype(np.uint64) << np.uint64(fmt.mantissa_bits)
        code = sign | np.abs(number).astype(np.uint64)
        words = (words << np.uint64(fmt.mantissa_bits + 1)) | code
    return words


def unpack(
    words: ArrayLike,
    fmt: Format,
    axis: int = -1,
    *,
    tile: Sequence[int] | None = None,
    shape: tuple[int, ...] | None = None,
    bias: int | None = None,
) -> NDArray[np.float32]:
    """Numbers that `pack` has written, on the host.

    Args:
        words: [...] of `pack`; bits above `word_bits` must be zero.
        fmt, axis, tile: As packed.
        shape: Of the packed array, without its padding; None leaves that in.
        bias: Of the packed array, by `tensor_bias`, where the format's is `tensor`.

    Raises:
        TypeError: If `words` are not whole numbers.
        ValueError: As `pack`; if a word has more bits than the format, `shape` is not
            that of so many words, or `bias` is not one of the format's arrays.
    """
    _check_packs(fmt)
    bias = _checked_bias(fmt, bias)
    given = np.asarray(words)
    lies = blocks.layout(given.ndim, fmt.block_size, axis, tile, name="words")
    if given.dtype.kind not in "iu":
        raise TypeError(f"`words` are {given.dtype}; pass the whole numbers of `pack`.")
    if given.size and given.min() < 0:
        raise ValueError(f"`words` holds {given.min()}; they must be 0 or more.")
    found = given.astype(np.uint64)
    if fmt.word_bits < 64 and found.size and int(found.max()) >> fmt.word_bits:
        raise ValueError(
            f"`words` holds {int(found.max()):#x}, which has more than the format's "
            f"{fmt.word_bits} bits; they were packed with another format."
        )
    width = fmt.mantissa_bits + 1
    numbers = []
    for i in reversed(range(fmt.block_size)):
        code = (found >> np.uint64(i * width)) & np.uint64(2**width - 1)
        magnitude = (code & np.uint64(2**fmt.mantissa_bits - 1)).astype(float)
        numbers.append(
            np.where(code >> np.uint64(fmt.mantissa_bits), -magnitude, magnitude)
        )
    field = (found >> np.uint64(fmt.block_size * width)).astype(int)
    exponent = field - bias - (fmt.mantissa_bits - 1)
    with np.errstate(over="ignore"):
        values = np.ldexp(np.stack(numbers, -1), exponent[..., None])
    most = blocks.LARGEST_NUMBER
    values = np.clip(values, -most, most).astype(np.float32)
    return blocks.scattered(values, lies, shape) + np.float32(0)  # zero has one sign


def tensor_bias(
    x: ArrayLike,
    fmt: Format,
    axis: int = -1,
    key: Array | None = None,
    *,
    tile: Sequence[int] | None = None,
) -> int:
    """The bias with which `pack` writes an array, where the format's is `tensor`.

    It is 2^exponent_bits - 1 - E of the largest block after rounding, so that it depends
    on how blocks lie and on the key. `unpack(pack(x, fmt), fmt, bias=tensor_bias(x, fmt))`
    is `quantize(x, fmt)`, padded to whole blocks.

    Raises:
        TypeError, ValueError: As `quantize`; under `jax.jit`; if the format has a bias
            of its own, or an exponent without bounds.
    """
    check_format(fmt)
    if fmt.bias != "tensor":
        raise ValueError(
            f"`fmt.bias` (={fmt.bias!r}) is the same for every array; only where it is "
            "`tensor` does each have its own."
        )
    codes = encode(x, fmt, axis, key, tile=tile)
    return _bias_of(blocks.on_host(codes, "tensor_bias"), fmt)


def _bias_of(codes: Codes, fmt: Format) -> int:
    low, _ = fmt.exponent_limits
    return 2**fmt.exponent_bits - 1 - int(np.max(codes.exponents, initial=low))


def _check_packs(fmt: Any) -> None:
    check_format(fmt)
    if fmt.bias is None:
        raise ValueError(
            "`fmt.bias` (=None): an exponent without bounds has no field of bits; give "
            "it a bias, such as 7, or `tensor`."
        )
    if fmt.word_bits > 64:
        raise ValueError(
            f"`fmt` has words of {fmt.word_bits} bits: {fmt.exponent_bits} + "
            f"{fmt.block_size} x {fmt.mantissa_bits + 1}; at most 64 can be packed."
        )


def _checked_bias(fmt: Format, bias: Any) -> int:
    if isinstance(fmt.bias, int):
        if bias is not None:
            raise ValueError(
                f"`bias` (={bias!r}) is given, but the format has its own, `fmt.bias` "
                f"(={fmt.bias}); leave `bias` out."
            )
        return fmt.bias
    low, high = (
        2**fmt.exponent_bits - 1 - end for end in reversed(fmt.exponent_limits)
    )
    if not is_whole(bias) or not low <= bias <= high:
        raise ValueError(
            f"`bias` (={bias!r}) must be a whole number from {low} to {high}, as "
            "`tensor_bias(x, fmt)` gives it, where `fmt.bias` is `tensor`."
        )
    return int(bias)
