"""Packed words of block floating point, and what its functions refuse."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.numerics import bfp
from codesign.numerics.bfp import Format

_X = jnp.arange(9.0) / 3


def _parts(word, fmt):
    """A word's field, and the sign and magnitude of each number: digits in base 2."""
    digits, width = f"{word:0{fmt.word_bits}b}", fmt.mantissa_bits + 1
    starts = range(fmt.exponent_bits, fmt.word_bits, width)
    codes = [(digits[i], digits[i + 1 : i + width]) for i in starts]
    return digits[: fmt.exponent_bits], codes


def _decoded(word, fmt):
    field, codes = _parts(word, fmt)
    unit = Fraction(2) ** (int(field, 2) - fmt.bias - (fmt.mantissa_bits - 1))
    return [(-1) ** int(sign) * int(magnitude, 2) * unit for sign, magnitude in codes]


def _is_canonical(word, fmt):
    """Whether it is the word of its numbers: the first bit of the largest is used."""
    field, codes = _parts(word, fmt)
    uses_first_bit = any(magnitude[0] == "1" for _, magnitude in codes)
    has_negative_zero = ("1", "0" * fmt.mantissa_bits) in codes
    return not has_negative_zero and (uses_first_bit or int(field, 2) == 0)


@pytest.mark.parametrize(
    ("x", "word"),
    [
        # E = 0 is the field 7; 1 is 16 sixteenths, -0.5 is 8, and what is below is 0.
        ([1, -0.5, 1 / 17, -1 / 17], "0111 010000 101000 000000 000000" + " 000000" * 5),
        # Beyond E = 8, the field 15, in steps of 16: 31 at most; -20 is cut to one step.
        ([1000, -20, 15, 511], "1111 011111 100001 000000 011111" + " 000000" * 5),
        # Below E = -7, the field 0, in steps of 2^-11: 2^-9 is 4 of them, and -2^-12 none.
        ([2**-9, -(2**-12), 0, -(2**-11)], "0000 000100" + " 000000" * 2 + " 100001"
         + " 000000" * 5),
        # A block of zeros is all zero bits.
        ([0, -0.0, 1e-30, -1e-30], "0000" + " 000000" * 9),
    ],
    ids=["of one size", "saturated", "flushed", "zeros"],
)  # fmt: skip
def test_words_by_hand(x, word):
    words = bfp.pack(jnp.array(x, jnp.float32), Format())
    assert [f"{each:058b}" for each in words] == [word.replace(" ", "")]
    assert words.dtype == np.uint64


def test_words_of_tiles():
    # Two tiles of 2 x 2 in a row, read row by row; the second one is padded below 3 x 4.
    fmt = Format(block_size=4, mantissa_bits=3, exponent_bits=3, bias=3)
    x = jnp.array([[4.0, 5, 1, 1.5], [-6, 7, 1.75, -1]])
    words = bfp.pack(x, fmt, tile=(2, 2))
    assert [[f"{each:019b}" for each in row] for row in words] == [
        ["101" "0100" "0101" "1110" "0111", "011" "0100" "0110" "0111" "1100"]
    ]  # fmt: skip
    np.testing.assert_array_equal(bfp.unpack(words, fmt, tile=(2, 2)), x)
    for axis, shape in ((0, (1, 4)), (1, (2, 1)), (-2, (1, 4))):
        words = bfp.pack(x, fmt, axis)
        assert words.shape == shape
        np.testing.assert_array_equal(bfp.unpack(words, fmt, axis, shape=(2, 4)),
                                      bfp.quantize(x, fmt, axis))  # fmt: skip


@pytest.mark.parametrize("bias", [3, 0, 7, -1])
@pytest.mark.parametrize("carry", ["saturate", "renorm"])
def test_every_code_of_a_small_format(bias, carry):
    fmt = Format(2, 2, 3, bias, "nearest_even", carry)
    codes = np.arange(2**fmt.word_bits)
    numbers = bfp.unpack(codes, fmt)
    expected = [number for code in codes for number in _decoded(code, fmt)]
    np.testing.assert_array_equal(numbers, np.array(expected, float))
    assert not np.any(np.signbit(numbers[numbers == 0]))
    blocks = numbers.reshape(-1, 2)
    np.testing.assert_array_equal(bfp.quantize(blocks, fmt), blocks)
    words = bfp.pack(blocks, fmt)[:, 0]
    np.testing.assert_array_equal(bfp.unpack(words, fmt), numbers)
    canonical = [code for code in codes if _is_canonical(code, fmt)]
    # Of 7 x 7 pairs 3 x 3 leave the first bit unused, as none but the field 0 may.
    assert len(canonical) == 7 * (49 - 9) + 49
    np.testing.assert_array_equal(words[canonical], canonical)
    assert {*words.tolist()} == {*canonical}


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 2**58 - 1), min_size=40, max_size=40))
def test_random_words_of_58_bits(codes):
    fmt = Format()
    numbers = bfp.unpack(codes, fmt)
    expected = [float(number) for code in codes for number in _decoded(code, fmt)]
    np.testing.assert_array_equal(numbers, np.float32(expected))
    words = bfp.pack(numbers, fmt)
    np.testing.assert_array_equal(bfp.unpack(words, fmt), numbers)
    for code, word in zip(codes, words.tolist(), strict=True):
        assert word == code or not _is_canonical(code, fmt)


def test_words_of_64_bits():
    fmt = Format(block_size=4, mantissa_bits=14, exponent_bits=4)
    assert fmt.word_bits == 64
    numbers = bfp.unpack(np.array([2**64 - 1], np.uint64), fmt)
    np.testing.assert_array_equal(numbers, np.float32(4 * [-(2**14 - 1) / 2**5]))
    assert bfp.pack(numbers, fmt).tolist() == [2**64 - 1]


@pytest.mark.parametrize(
    ("carry", "bias", "expected"),
    [
        # The largest exponent, -20, has the field 15; -35 is the lowest, in steps of
        # 2^-39, of which 2^-36 is 8 and 2^-39.5 is 0.7.
        ("saturate", 15 + 20, [0b1111_0_11111, 0, 0b0101_0_11111, 0b0000_0_01000,
                               0b0000_1_00001]),
        # 1.99 is 2, whose exponent, -19, has the field 15; so the lowest is -34, in
        # steps of 2^-38, of which 2^-36 is 4 and 2^-39.5 is 0.35.
        ("renorm", 15 + 19, [0b1111_0_10000, 0, 0b0101_0_10000, 0b0000_0_00100, 0]),
    ],
)  # fmt: skip
def test_a_bias_of_the_array_itself(carry, bias, expected):
    x = jnp.array([1.99, jnp.nan, 2.0**-10 * 1.99, 2.0**-16, -(2.0**-19.5)]) * 2.0**-20
    fmt = Format(1, bias="tensor", rounding="nearest_even", carry=carry)
    assert bfp.tensor_bias(x, fmt) == bias
    words = bfp.pack(x, fmt)
    numbers = bfp.unpack(words, fmt, bias=bias)
    np.testing.assert_array_equal(numbers, bfp.quantize(x, fmt))
    assert words.tolist() == expected


def test_a_bias_of_tiny_arrays():
    # With m = 5 no E is below -122, whose last place is 2^-126: so 2^-124 is 4 of those,
    # at the field 15.
    fmt = Format(block_size=10, bias="tensor")
    assert fmt.word_bits == 64
    x = jnp.full(3, 2.0**-124)
    assert bfp.tensor_bias(x, fmt) == 15 + 122
    words = bfp.pack(x, fmt)
    assert words.tolist() == [int("1111" + 3 * "000100" + 7 * "000000", 2)]
    np.testing.assert_array_equal(bfp.unpack(words, fmt, shape=(3,), bias=15 + 122), x)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    st.integers(0, 1000),
    st.integers(-125, 120),
    st.sampled_from(["saturate", "renorm"]),
    st.sampled_from(["stochastic", "nearest_even"]),
    st.sampled_from([{"axis": 0}, {"axis": -1}, {"tile": (2, 2)}]),
)
def test_words_with_a_bias_of_the_array_itself(seed, exponent, carry, rounding, lies):
    rng = np.random.default_rng(seed)
    x = np.ldexp(rng.uniform(-2, 2, (5, 6)), exponent + rng.integers(-9, 8, (5, 6)))
    x = np.where(np.abs(x) < 2.0**-126, 0, x).astype("f4")
    fmt = Format(4, 5, 2, "tensor", rounding, carry)
    lies = lies | {"key": jax.random.key(seed)}
    words, bias = bfp.pack(x, fmt, **lies), bfp.tensor_bias(x, fmt, **lies)
    assert np.all(words >> np.uint64(fmt.word_bits) == 0)
    expected = bfp.quantize(x, fmt, **lies)
    lies.pop("key")
    found = bfp.unpack(words, fmt, shape=x.shape, bias=bias, **lies)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("take", [bfp.pack, bfp.tensor_bias])
def test_words_are_of_the_host(take):
    fmt = Format(bias="tensor")
    says = rf"`{take.__name__}` works on the host, not under `jax\.jit`"
    for x in (_X, jnp.array([jnp.nan])):
        with pytest.raises(TypeError, match=says):
            jax.jit(lambda x: take(x, fmt))(x)
        with pytest.raises(TypeError, match=says):
            jax.jit(lambda _, x=x: take(x, fmt))(0)


def test_sizes():
    assert (Format().word_bits, Format().bits_per_number) == (58, 58 / 9)


@pytest.mark.parametrize(
    ("settings_", "says"),
    [
        ({"block_size": 0}, r"`block_size` \(=0\) must be a whole number from 1"),
        ({"block_size": 2.0}, r"`block_size` \(=2\.0\)"),
        ({"block_size": True}, r"`block_size` \(=True\)"),
        ({"mantissa_bits": 0}, r"`mantissa_bits` \(=0\) .* from 1 to 23"),
        ({"mantissa_bits": 24}, r"`mantissa_bits` \(=24\) .* from 1 to 23"),
        ({"exponent_bits": 17}, r"`exponent_bits` \(=17\) .* from 1 to 16"),
        ({"bias": 7.5}, r"`bias` \(=7\.5\) .*or None"),
        ({"bias": 16}, r"`bias` \(=16\) gives exponents -16 to -1.* from -4 to 15"),
        ({"bias": -5}, r"`bias` \(=-5\) gives exponents 5 to 20.* from -4 to 15"),
        ({"rounding": "nearest"}, r"`rounding` \(='nearest'\): .*`nearest_even`"),
        ({"rounding": None}, r"`rounding` \(=None\): there are `truncate`"),
        ({"carry": "renormalise"}, r"`carry` \(='renormalise'\): .*`renorm`"),
        ({"nonfinite": "nan"}, r"`nonfinite` \(='nan'\): .*`nan_block`"),
    ],
)
def test_formats_refused(settings_, says):
    with pytest.raises(ValueError, match=says):
        Format(**settings_)


@pytest.mark.parametrize("bias", [-4, 15])
def test_one_is_a_number_of_extreme_formats(bias):
    assert bfp.quantize(jnp.ones(1), Format(bias=bias))[0] == 1


@pytest.mark.parametrize("take", [bfp.quantize, bfp.encode, bfp.pack])
@pytest.mark.parametrize(
    ("x", "fmt", "settings_", "error", "says"),
    [
        (_X, Format(), {"axis": 1}, ValueError, r"`axis` \(=1\) .*from -1 to 0.*1 axes"),
        (_X, Format(), {"axis": -2}, ValueError, r"`axis` \(=-2\)"),
        (_X, Format(), {"axis": 0.0}, ValueError, r"`axis` \(=0\.0\) .*whole number"),
        (_X, Format(), {"tile": (3, 3)}, ValueError, r"`tile` \(=.*needs two axes.*has 1"),
        (_X[None], Format(), {"tile": (2, 3)}, ValueError, "holds 6 .*`block_size` is 9"),
        (_X[None], Format(), {"tile": (9,)}, ValueError, r"`tile` \(=\(9,\)\) .*\(3, 3\)"),
        (_X[None], Format(), {"tile": 9}, ValueError, r"`tile` \(=9\) must be \(rows"),
        (_X[None], Format(), {"tile": (-3, -3)}, ValueError, r"`tile` \(=\(-3, -3\)\)"),
        (jnp.float32(1), Format(), {}, ValueError, "`x` is a single number"),
        (jnp.arange(9), Format(), {}, TypeError, r"`x` is int32; .*`jnp\.float32\(x\)`"),
        (1j * _X, Format(), {}, TypeError, "`x` is complex64; "),
        (_X > 0, Format(), {}, TypeError, "`x` is bool; "),
        (_X, "bfp9", {}, TypeError, r"`fmt` \(='bfp9'\) must be a `Format`.*"
         r'`formats\.by_name\("bfp5"\)`'),
        (_X, None, {}, TypeError, r"`fmt` \(=None\) must be a `Format`"),
        (_X, Format(rounding="stochastic"), {}, ValueError, r"needs `key`.*jax\.random"),
        (_X, Format(rounding="stochastic"), {"key": 0.5}, TypeError, r"`key` \(=0\.5\)"),
    ],
)  # fmt: skip
def test_arguments_refused(take, x, fmt, settings_, error, says):
    with pytest.raises(error, match=says):
        take(x, fmt, **settings_)
    if take is bfp.quantize:
        with pytest.raises(error, match=says):
            jax.jit(lambda x: take(x, fmt, **settings_))(x)


@pytest.mark.parametrize(
    ("take", "error", "says"),
    [
        (lambda: bfp.pack(_X, Format(bias=None)), ValueError, r"`fmt\.bias` \(=None.*as 7"),
        (lambda: bfp.unpack([0], Format(bias="tensor")), ValueError,
         r"`bias` \(=None\) must .*`tensor_bias\(x, fmt\)`"),
        (lambda: bfp.unpack([0], Format(bias=None)), ValueError, r"`fmt\.bias` \(=None"),
        (lambda: bfp.pack(_X, Format(9, 6, 2, 0)), ValueError,
         r"`fmt` has words of 65 bits: 2 \+ 9 x 7; at most 64"),
        (lambda: bfp.unpack([2**58], Format()), ValueError, "`words` .*58 bits"),
        (lambda: bfp.unpack([0.5], Format()), TypeError, "`words` are float64"),
        (lambda: bfp.unpack([0], None), TypeError, r"`fmt` \(=None\)"),
        (lambda: bfp.unpack([0], Format(), shape=(10,)), ValueError, r"`shape` \(=\(10,"),
        (lambda: bfp.unpack([0, 0], Format(), shape=(9,)), ValueError, r"`shape` \(=\(9,"),
        (lambda: bfp.unpack([0], Format(), shape=(1, 9)), ValueError, r"`shape` \(=\(1, "),
        (lambda: bfp.unpack([0], Format(), shape=5), ValueError, r"`shape` \(=5\) must be"),
        (lambda: bfp.unpack([0], Format(), shape="9"), ValueError, r"`shape` \(='9'\)"),
        (lambda: bfp.unpack([0], Format(), shape=(8.5,)), ValueError, r"`shape` \(=\(8\.5"),
        (lambda: bfp.unpack(0, Format()), ValueError, "`words` is a single number"),
        (lambda: bfp.unpack([0], Format(), 1), ValueError, r"`axis` .*`words` has 1 axes"),
        (lambda: bfp.unpack([0], Format(), tile=(3, 3)), ValueError, "`words` has 1"),
        (lambda: bfp.unpack([-1], Format(4, 14)), ValueError, "`words` holds -1; .* 0 or"),
        (lambda: bfp.unpack([0], Format(), bias=7), ValueError,
         r"`bias` \(=7\) is given, but .*`fmt\.bias` \(=7\)"),
        (lambda: bfp.unpack([0], Format(bias="tensor"), bias=10**30), ValueError,
         r"`bias` \(=10+\) must be .* from -113 to 137"),
        (lambda: bfp.unpack([0], Format(bias="tensor"), bias=-114), ValueError,
         r"`bias` \(=-114\)"),
        (lambda: bfp.unpack([0], Format(bias="tensor"), bias=7.0), ValueError,
         r"`bias` \(=7\.0\)"),
        (lambda: bfp.tensor_bias(_X, "bfp5"), TypeError, r"`fmt` \(='bfp5'\) .*by_name"),
        (lambda: bfp.tensor_bias(_X, Format()), ValueError, r"`fmt\.bias` \(=7\) is the"),
        (lambda: bfp.tensor_bias(_X, Format(bias=None)), ValueError, r"\(=None\) is the"),
    ],
)  # fmt: skip
def test_words_refused(take, error, says):
    with pytest.raises(error, match=says):
        take()
