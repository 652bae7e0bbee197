"""Microscaling (MX) formats: blocks of 32 small numbers and one power-of-two scale.

Open Compute Project, "OCP Microscaling Formats (MX) Specification", version 1.0, 2023:
Table 1 for the formats, sections 5.2 to 5.4 for scales and elements, 6.3 for conversion.
"""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import ArrayLike, NDArray

from codesign.numerics import blocks, rounding
from codesign.records.named import Named, nearest
from codesign.types import Array, is_whole

BLOCK_SIZE = 32
SCALE_BIAS = 127  # of E8M0: 2^(code - 127); code 255 is NaN, which is not written
_SCALES = (-127, 127)
_INFINITY, _FRACTION = np.uint32(0x7F800000), np.uint32(0x7FFFFF)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ElementFormat:
    """The numbers of a block, before its scale.

    Attributes:
        exponent_bits: 0 for whole numbers of sixty-fourths.
        mantissa_bits: Behind the point, without the hidden bit.
        bias: Of the exponent.
        largest_exponent: Of the largest number.
        largest: The largest number itself.
        special: Codes of the magnitude from which on they are infinity or NaN, or 128.
    """

    exponent_bits: int
    mantissa_bits: int
    bias: int
    largest_exponent: int
    largest: float
    special: int = 128

    @property
    def bits(self) -> int:
        """Of one number, its sign among them."""
        return 1 + self.exponent_bits + self.mantissa_bits


FORMATS: Named[ElementFormat] = Named(
    mxint8=ElementFormat(
        exponent_bits=0, mantissa_bits=7, bias=0, largest_exponent=0, largest=127 / 64
    ),
    mxfp8_e4m3=ElementFormat(
        exponent_bits=4,
        mantissa_bits=3,
        bias=7,
        largest_exponent=8,
        largest=448,
        special=0x7F,
    ),
    mxfp8_e5m2=ElementFormat(
        exponent_bits=5,
        mantissa_bits=2,
        bias=15,
        largest_exponent=15,
        largest=57344,
        special=0x7C,
    ),
    mxfp6_e3m2=ElementFormat(
        exponent_bits=3, mantissa_bits=2, bias=3, largest_exponent=4, largest=28
    ),
    mxfp6_e2m3=ElementFormat(
        exponent_bits=2, mantissa_bits=3, bias=1, largest_exponent=2, largest=7.5
    ),
    mxfp4_e2m1=ElementFormat(
        exponent_bits=2, mantissa_bits=1, bias=1, largest_exponent=2, largest=6
    ),
)


def element_format(name: str) -> ElementFormat:
    """The format of a name.

    Raises:
        ValueError: If there is none; says which names are near.
    """
    if not isinstance(name, str) or name not in FORMATS:
        raise ValueError(
            f"`name` (={name!r}) is no MX format; {nearest(name, FORMATS)}"
        )
    return FORMATS[name]


def quantize(
    x: ArrayLike,
    name: str,
    axis: int = -1,
    *,
    block_size: int = BLOCK_SIZE,
    mode: str = "nearest_even",
    key: Array | None = None,
) -> Array:
    """Numbers of an MX format beside those of `x`: [...] of the type of `x`.

        S = clip(floor(log2 max |x|) - emax, -127, 127),    q = 2^S element(x 2^-S)

    `element` rounds to the format's numbers and saturates at the largest. A short last
    block counts as padded with zeros. NaN becomes 0, infinity the block's largest number;
    what is beyond float32, or the type of `x`, is its largest. Subnormal numbers and
    results may flush to zero. The derivative is straight-through.

    Args:
        x: [...] of a floating-point type; float32 is what is quantised.
        name: One of `FORMATS`, such as `mxfp8_e4m3`.
        axis: That blocks lie along.
        block_size: Numbers that share a scale; MX has 32.
        mode: Of `rounding.MODES`; MX rounds to the nearest, of a tie to the even one.
        key: For stochastic rounding.

    Raises:
        TypeError: If `x` is of whole numbers.
        ValueError: For an unknown name or mode, no such axis, a block of less than one,
            or stochastic rounding without a key.
    """
    x = blocks.floating(x)
    values = lax.stop_gradient(blocks.real(x))
    # Half an element by twice the scale: no factor is below the normal numbers.
    halves, scale, lies = _elements(values, name, axis, block_size, mode, key, -1)
    factors = blocks.scale_of(
        scale + 1, (_SCALES[0] + 1, _highest_scale(element_format(name)) + 1)
    )
    spread = [blocks.spread(factor, lies, x.shape) for factor in factors]
    most = blocks.LARGEST_NUMBER
    q = jnp.clip(blocks.scaled(halves, spread), -most, most)
    return rounding.straight_through(x, blocks.cast(q, x.dtype))


def _highest_scale(fmt: ElementFormat) -> int:
    infinity = blocks.LARGEST_EXPONENT + 1
    return min(_SCALES[1], infinity - fmt.largest_exponent)


def _elements(x, name, axis, block_size, mode, key, shift=0):
    """Elements 2^shift [...], float32, int32 scale exponents, and how their blocks lie."""
    fmt = element_format(name)
    rounding.check_mode(mode, key, name="mode")
    y, scale, lies = _scaled(x, fmt, axis, block_size)
    return _rounded(y, fmt, mode, key, shift), scale, lies


def _scaled(x, fmt, axis, block_size):
    """The numbers over their block's scale, its exponent, and how the blocks lie."""
    if not is_whole(block_size) or block_size < 1:
        raise ValueError(
            f"`block_size` (={block_size!r}) must be a whole number above 0."
        )
    lies = blocks.layout(x.ndim, block_size, axis)
    top = blocks.exponents(blocks.largest(x, lies)) - fmt.largest_exponent
    scale = jnp.clip(top, *_SCALES)
    factors = blocks.scale_of(-scale, (-_highest_scale(fmt), -_SCALES[0]))
    x = jnp.where(jnp.isnan(x), 0.0, x)
    y = blocks.scaled(x, [blocks.spread(factor, lies, x.shape) for factor in factors])
    return y, scale, lies


def _rounded(
    y: Array, fmt: ElementFormat, mode: str, key: Array | None, shift: int = 0
) -> Array:
    """Element of a format beside each number of `y`, by 2^shift, float32.

    A product by 2^shift afterwards XLA would move to the scales, which may not hold it.
    """
    y = jnp.clip(y, -2 * fmt.largest, 2 * fmt.largest)  # infinity among them
    if not fmt.exponent_bits:
        q = rounding.round_to_whole(y * 64, mode, key) * 2.0 ** (shift - 6)
    else:
        exponent = jnp.maximum(blocks.exponents(y), 1 - fmt.bias)
        steps = blocks.power_of_two(fmt.mantissa_bits - exponent)
        step = blocks.power_of_two(exponent - fmt.mantissa_bits + shift)
        q = rounding.round_to_whole(y * steps, mode, key) * step
    most = fmt.largest * 2.0**shift
    return jnp.clip(q, -most, most)


def is_saturated(x: ArrayLike, name: str, axis: int = -1) -> Array:
    """Where `quantize` cuts a number to the format's largest: [...] bool.

    Raises:
        TypeError, ValueError: As `quantize`.
    """
    fmt = element_format(name)
    given = lax.stop_gradient(blocks.real(x))
    y, _, _ = _scaled(given, fmt, axis, BLOCK_SIZE)
    wide = dataclasses.replace(fmt, largest=4 * fmt.largest)
    return jnp.abs(_rounded(y, wide, "nearest_even", None)) > fmt.largest


class Packed(NamedTuple):
    """What an MX array stores."""

    scales: NDArray[np.uint8]  # [...] of each block, its axis shortened: 2^(code - 127)
    elements: NDArray[np.uint8]  # [...] codes in the lowest bits, the sign on top


def pack(x: ArrayLike, name: str, axis: int = -1) -> Packed:
    """Scales and element codes of `quantize(x, name, axis)`, on the host.

    A block of zeros has the smallest scale; zero has sign 0.

    Raises:
        TypeError, ValueError: As `quantize`.
    """
    given = lax.stop_gradient(blocks.real(x))
    found = _elements(given, name, axis, BLOCK_SIZE, "nearest_even", None)
    elements, scale = blocks.on_host(found[:2], "pack")
    elements = np.where(elements == 0, np.float32(0), elements)
    return Packed((scale + SCALE_BIAS).astype(np.uint8), encode(elements, name))


def unpack(packed: Packed, name: str, axis: int = -1) -> NDArray[np.float32]:
    """Numbers that `pack` has written, on the host; a scale of 255 makes NaN.

    Raises:
        TypeError, ValueError: As `decode`; if there are not as many scales as the elements
            have blocks.
    """
    scales = _whole(packed[0], "packed.scales", 256)
    elements = decode(packed[1], name)
    values = elements.astype(float)
    blocks.layout(values.ndim, BLOCK_SIZE, axis, name="packed.elements")
    shape = list(values.shape)
    shape[axis] = -(-shape[axis] // BLOCK_SIZE)
    if scales.shape != tuple(shape):
        raise ValueError(
            f"`packed.scales` {scales.shape} must be {tuple(shape)} for elements "
            f"{values.shape}: one of each block of {BLOCK_SIZE} along axis {axis}."
        )
    scales = np.repeat(scales, BLOCK_SIZE, axis)
    scales = np.take(scales, range(values.shape[axis]), axis)
    values = np.ldexp(values, scales - SCALE_BIAS)
    most = blocks.LARGEST_NUMBER
    values = np.where(np.isinf(elements), values, np.clip(values, -most, most))
    return np.where(scales == 255, np.nan, values).astype(np.float32)


def decode(codes: ArrayLike, name: str) -> NDArray[np.float32]:
    """Numbers of element codes, sign on top: [...] uint8 -> [...] float32, on the host.

    Raises:
        TypeError: If the codes are not whole numbers.
        ValueError: If a code has more bits than the format.
    """
    fmt = element_format(name)
    return _numbers(fmt)[_whole(codes, "codes", 2**fmt.bits)]


def _whole(codes: ArrayLike, name: str, num_codes: int) -> NDArray[np.int64]:
    found = np.asarray(codes)
    if found.size and found.dtype.kind not in "iu":
        raise TypeError(
            f"`{name}` are {found.dtype}; pass whole numbers, as of `pack`."
        )
    if found.size and not 0 <= found.min() <= found.max() < num_codes:
        raise ValueError(
            f"`{name}` must be from 0 to {num_codes - 1}, got {found.min()} to "
            f"{found.max()}; they were packed in another format."
        )
    return found.astype(np.int64)


def encode(values: ArrayLike, name: str) -> NDArray[np.uint8]:
    """Codes of the elements nearest to `values`, on the host: the reverse of `decode`.

    Whole numbers are in two's complement and have no infinity, NaN or negative zero.
    Infinity and NaN keep their code where the format has one; elsewhere infinity is the
    largest number (its negative -127/64 of `mxint8`, as `quantize` has it, though -2 has
    a code), and NaN is 0. Float32 is what is encoded.
    """
    fmt = element_format(name)
    with np.errstate(over="ignore"):
        found = np.asarray(values, np.float32)
    numbers = np.where(np.isnan(found), np.float32(0), found)
    if not fmt.exponent_bits:
        least = np.where(np.isinf(numbers), -127, -128)
        number = np.clip(np.rint(numbers.astype(float) * 64), least, 127)
        return number.astype(np.int8).view(np.uint8)
    magnitudes = _numbers(fmt)[: 2 ** (fmt.bits - 1)]
    rounded = _rounded(jnp.asarray(numbers), fmt, "nearest_even", None)
    rounded = blocks.on_host(rounded, "encode")
    code = np.searchsorted(magnitudes[np.isfinite(magnitudes)], np.abs(rounded))
    if fmt.special < 128:
        payload = (found.view(np.uint32) & _FRACTION) >> (23 - fmt.mantissa_bits)
        payload = np.maximum(payload, 1)  # 0 is infinity's
        code = np.where(np.isnan(found), fmt.special | payload, code)
    if np.isinf(magnitudes).any():
        code = np.where(np.isinf(found), fmt.special, code)
    sign = np.where(np.isnan(found) & (fmt.special == 128), False, np.signbit(found))
    return (code + sign * 2 ** (fmt.bits - 1)).astype(np.uint8)


def _numbers(fmt: ElementFormat) -> NDArray[np.float32]:
    """The number of every code, [2^bits]."""
    if not fmt.exponent_bits:
        return np.arange(256, dtype=np.uint8).view(np.int8) * np.float32(1 / 64)
    code = np.arange(2 ** (fmt.bits - 1))
    field, mantissa = code >> fmt.mantissa_bits, code % 2**fmt.mantissa_bits
    hidden = (field > 0) * 2.0**fmt.mantissa_bits
    exponent = np.maximum(field, 1) - fmt.bias - fmt.mantissa_bits
    magnitude = np.ldexp(mantissa + hidden, exponent).astype(np.float32)
    # Infinity, where the mantissa is 0, and NaNs that say which they are, as IEEE 754's.
    bits = _INFINITY | (mantissa << (23 - fmt.mantissa_bits)).astype(np.uint32)
    is_special = code >= fmt.special
    magnitude = np.where(is_special, bits.view(np.float32), magnitude)
    return np.array([magnitude, -magnitude], np.float32).ravel()
