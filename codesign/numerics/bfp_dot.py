"""The product of two arrays of blocks, as hardware makes it: whole numbers and shifts."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from codesign.numerics import blocks
from codesign.numerics.bfp import encode
from codesign.numerics.bfp_format import Format, check_format
from codesign.types import Array, is_whole

_INT32 = 2**31 - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Accumulator:
    """A fixed-point register that the products of blocks are shifted into.

    CAMEL shifts the sum of mantissa products to the left by the sum of exponents (V-B),
    and adds up partial sums in a fixed-point unit (V-A).

    Attributes:
        bits: With the sign; it saturates at 2^(bits - 1) - 1 and at the negative of that,
            which are also the ends for a product that is shifted in. The paper gives no
            width: 32 is assumed, range 16 to 32.
        lowest_exponent: Of its lowest bit, 2^lowest_exponent; below it a product is cut
            towards zero. The product of two of CAMEL's blocks ends at 2^-22.
    """

    bits: int = 32
    lowest_exponent: int = -22

    def __post_init__(self):
        if not is_whole(self.bits) or not 2 <= self.bits <= 32:
            raise ValueError(
                f"`bits` (={self.bits!r}) must be a whole number from 2 to 32."
            )
        if (
            not is_whole(self.lowest_exponent)
            or not -126 <= self.lowest_exponent <= 126
        ):
            raise ValueError(
                f"`lowest_exponent` (={self.lowest_exponent!r}) must be a whole number "
                "from -126 to 126."
            )
        for name in ("bits", "lowest_exponent"):  # of NumPy's they might overflow
            object.__setattr__(self, name, int(getattr(self, name)))


class Dot(NamedTuple):
    """A product of two arrays of blocks."""

    value: Array  # [..., N] float32
    saturations: Array  # [] int32 additions that reached an end of the accumulator


def dot(
    x: Array,
    y: Array,
    fmt: Format,
    other: Format | None = None,
    *,
    accumulator: Accumulator | Sequence[Accumulator] | None = None,
) -> Dot:
    """Product [..., K] x [K, N] -> [..., N] as hardware does it, blocks along K.

    Of two blocks the mantissas are multiplied and added as whole numbers, and one sum of
    exponents says where the result stands:

        sum over blocks of (sum of Mx My) 2^(Ex + Ey - (mx - 1) - (my - 1))

    Without an accumulator the products of blocks are added in float32. It is the
    reference for products of quantised arrays, many times slower than those.

    Args:
        x, y: Quantised here, which changes nothing in what is quantised already.
        fmt, other: Of x and of y; `other` is `fmt` if None. With `nan_block`, too,
            infinity is the largest code and NaN is 0.
        accumulator: Where the products of blocks are added, first to last. Of several
            the value is [A, ..., N], and the saturations are [A].

    Raises:
        TypeError: If `x` or `y` is of whole numbers, or a format or an accumulator is
            none.
        ValueError: If the shapes do not fit, the blocks differ in length, the rounding
            is stochastic, a product of blocks may not fit 31 bits, or there are several
            accumulators, but none of them.
    """
    other = fmt if other is None else other
    check_format(fmt)
    check_format(other, "other")
    if "stochastic" in (fmt.rounding, other.rounding):
        raise ValueError(
            "`fmt` and `other` must not round stochastically here; quantise with a key "
            "first, and pass formats of another rounding: it changes nothing then."
        )
    registers = _checked_registers(accumulator)
    x, y = blocks.real(x, "x"), blocks.real(y, "y")
    if y.ndim != 2 or x.ndim < 1 or x.shape[-1] != y.shape[0]:
        raise ValueError(
            f"`x` {x.shape} and `y` {y.shape} must be [..., K] and [K, N]."
        )
    if fmt.block_size != other.block_size:
        raise ValueError(
            f"`fmt` has blocks of {fmt.block_size} and `other` of {other.block_size}; "
            "they must be equal."
        )
    widest = math.log2(fmt.block_size) + fmt.mantissa_bits + other.mantissa_bits
    if widest > 31:
        raise ValueError(
            f"`fmt` and `other` make products of blocks of {widest:.1f} bits; at most 31 "
            "fit an int32."
        )
    size = min(fmt.block_size, max(1, y.shape[0]))
    left, right = encode(x, fmt), encode(y, other, axis=0)
    pads = [(0, 0)] * (x.ndim - 1) + [(0, -x.shape[-1] % size)]
    a = jnp.pad(left.mantissas, pads).astype(jnp.int32)
    num_blocks = -(-y.shape[0] // size)
    a = a.reshape(*x.shape[:-1], num_blocks, size)
    b = jnp.pad(right.mantissas, ((0, -y.shape[0] % size), (0, 0))).astype(jnp.int32)
    b = b.reshape(num_blocks, size, y.shape[1])
    products = jnp.einsum(
        "...kb,kbn->k...n", a, b, preferred_element_type=jnp.int32
    )  # [blocks, ..., N]
    exponents = jnp.moveaxis(left.exponents, -1, 0)[..., None]
    ends = right.exponents.reshape(num_blocks, *(1,) * (x.ndim - 1), y.shape[1])
    exponents = exponents + ends - (fmt.mantissa_bits + other.mantissa_bits - 2)
    if accumulator is None:
        terms = jnp.ldexp(products.astype(jnp.float32), exponents)
        return Dot(jnp.sum(terms, 0), jnp.int32(0))
    value, saturations = _accumulated(products, exponents, registers)
    if isinstance(accumulator, Accumulator):
        return Dot(value[0], saturations[0])
    return Dot(value, saturations)


def _checked_registers(accumulator: Any) -> Sequence[Accumulator]:
    if accumulator is None:
        return ()
    found = [accumulator] if isinstance(accumulator, Accumulator) else accumulator
    if not isinstance(found, Sequence) or not all(
        isinstance(each, Accumulator) for each in found
    ):
        raise TypeError(
            f"`accumulator` (={accumulator!r}) must be an `Accumulator`, such as "
            "`Accumulator(bits=32)`, several of them, or None."
        )
    if not found:
        raise ValueError(
            f"`accumulator` (={accumulator!r}) is empty; pass one or more, or None for "
            "sums in float32."
        )
    return found


def _accumulated(
    products: Array, exponents: Array, registers: Sequence[Accumulator]
) -> Dot:
    ones = (1,) * (products.ndim - 1)
    most = jnp.array([_INT32 >> (32 - each.bits) for each in registers], jnp.int32)
    most = most.reshape(-1, *ones)
    lowest = jnp.array([each.lowest_exponent for each in registers], jnp.int32)
    lowest = lowest.reshape(-1, *ones)

    def add(carry, term):
        total, saturations = carry
        product, shift = term
        shift = shift - lowest
        left, right = jnp.clip(shift, 0, 31), jnp.clip(-shift, 0, 31)
        magnitude = jnp.abs(product) >> right
        too_large = magnitude > most >> left
        term = jnp.sign(product) * jnp.where(too_large, most, magnitude << left)
        is_high = (total > 0) & (term > most - jnp.maximum(total, 0))
        is_low = (total < 0) & (term < -most - jnp.minimum(total, 0))
        is_over = is_high | is_low
        total = jnp.where(is_over, jnp.sign(term) * most, total + term)
        inner = tuple(range(1, total.ndim))
        reached = jnp.sum(is_over | too_large, inner, dtype=jnp.int32)
        return (total, saturations + reached), None

    num = len(registers)
    start = jnp.zeros((num, *products.shape[1:]), jnp.int32), jnp.zeros(num, jnp.int32)
    exponents = jnp.broadcast_to(exponents, products.shape)
    terms = products[:, None], exponents[:, None]
    (total, saturations), _ = lax.scan(add, start, terms)
    value = jnp.ldexp(total.astype(jnp.float32), lowest)
    return Dot(value, saturations)
