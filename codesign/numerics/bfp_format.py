"""What a block-floating-point format is: its widths, and how it rounds and saturates."""

import dataclasses
from typing import Any

from codesign.numerics import blocks, rounding
from codesign.records.named import nearest
from codesign.types import is_whole

MAX_MANTISSA_BITS = 23  # a whole number of more has no fraction in float32 to round by
MAX_EXPONENT_BITS = 16
_ALL_EXPONENTS = (
    blocks.SMALLEST_EXPONENT,
    blocks.LARGEST_EXPONENT + 1,
)  # 128: of infinity


@dataclasses.dataclass(frozen=True)
class Format:
    """A block-floating-point format; the defaults are CAMEL's 58-bit word.

    Attributes:
        block_size: Numbers that share an exponent.
        mantissa_bits: m, of a magnitude; the sign has a bit of its own.
        exponent_bits: Width of the exponent's field, whose values are 0 and up.
        bias: E = field - bias. The paper does not say it: 7 is assumed, range 3 to 15,
            and gradients want more. `tensor` takes each array's own, with which its
            largest block, as it is after rounding, has the largest exponent; None is for
            an exponent without bounds.
        rounding: `truncate` (the paper's), `nearest_even`, `nearest_away` or
            `stochastic`.
        carry: What a magnitude that rounds to 2^m becomes. With `renorm` the block's
            exponent grows by one, where the format has such an exponent, and the block
            is rounded anew; stochastic rounding is then without bias. With `saturate`
            it is 2^m - 1: stochastic rounding then loses on average between 2^m - 1 and
            2^m, and a weight kept in such a format cannot grow past a power of two. For
            example, with m = 5 the weight 1.9375 is 31 sixteenths; a small update makes
            it 31.1, and both 31 and 32 become 31.
        nonfinite: With `saturate` NaN is 0. Infinity is 2^m - 1 at the exponent that its
            bits say, 128, or at the format's largest one, if that is smaller: the largest
            code, but of a format that reaches beyond float32; `quantize` then gives the
            largest float32. With `bias="tensor"` one infinity thus sets the range of the
            array: with 4 bits of exponent and m = 5 all below 2^109 becomes 0. With
            `nan_block` what is not finite makes its block NaN, and sets the range no
            less.

    Raises:
        ValueError: For a width or size below 1, a name that is none, or a format without
            1.0 among its numbers.
    """

    block_size: int = 9
    mantissa_bits: int = 5
    exponent_bits: int = 4
    bias: int | str | None = 7
    rounding: str = "truncate"
    carry: str = "saturate"
    nonfinite: str = "saturate"

    def __post_init__(self):
        for name, most in (
            ("block_size", 2**20),
            ("mantissa_bits", MAX_MANTISSA_BITS),
            ("exponent_bits", MAX_EXPONENT_BITS),
        ):
            value = getattr(self, name)
            if not is_whole(value) or not 1 <= value <= most:
                raise ValueError(
                    f"`{name}` (={value!r}) must be a whole number from 1 to {most}."
                )
            object.__setattr__(self, name, int(value))  # of NumPy's it would overflow
        rounding.check_mode(self.rounding, needs_key=False)
        for name, known in (
            ("carry", ("saturate", "renorm")),
            ("nonfinite", ("saturate", "nan_block")),
        ):
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"`{name}` (={value!r}): {nearest(value, known)}")
        if self.bias is None or self.bias == "tensor":
            return
        if not is_whole(self.bias):
            raise ValueError(
                f"`bias` (={self.bias!r}) must be a whole number, `tensor` for each "
                "array's own, or None for an exponent without bounds."
            )
        object.__setattr__(self, "bias", int(self.bias))
        low, high = self._ends()
        if low > self.mantissa_bits - 1 or high < 0:
            raise ValueError(
                f"`bias` (={self.bias}) gives exponents {low} to {high}, with which no "
                f"mantissa of {self.mantissa_bits} bits is 1.0; take a bias from "
                f"{1 - self.mantissa_bits} to {2**self.exponent_bits - 1}."
            )

    @property
    def exponent_limits(self) -> tuple[int, int]:
        """Smallest and largest E of any array, within what float32 can tell apart.

        With each array's own bias the last place of a number, too, is at least 2^-126.
        """
        if self.bias == "tensor":
            return max(_ALL_EXPONENTS[0], self.mantissa_bits - 127), _ALL_EXPONENTS[1]
        if self.bias is None:
            return _ALL_EXPONENTS
        low, high = self._ends()
        return max(low, _ALL_EXPONENTS[0]), min(high, _ALL_EXPONENTS[1])

    def _ends(self) -> tuple[int, int]:
        bias = int(self.bias or 0)
        return -bias, 2**self.exponent_bits - 1 - bias

    @property
    def word_bits(self) -> int:
        """Bits of a whole block."""
        return self.exponent_bits + self.block_size * (self.mantissa_bits + 1)

    @property
    def bits_per_number(self) -> float:
        """Of storage, the exponent shared out; 6.4 by default."""
        return self.word_bits / self.block_size


def check_format(fmt: Any, name: str = "fmt") -> None:
    """Refuses what is no format, an argument of `name`.

    Raises:
        TypeError: If `fmt` is not a `Format`.
    """
    if not isinstance(fmt, Format):
        raise TypeError(
            f"`{name}` (={fmt!r}) must be a `Format`, such as `bfp.Format()`, or "
            '`formats.by_name("bfp5")` of a name.'
        )
