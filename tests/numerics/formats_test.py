"""Number formats by name, and what they cost."""

import dataclasses

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codesign.numerics import bfp, formats, mx

_NAMES = ("float32", "bfloat16", "bfp5", "bfp3x16", *mx.FORMATS)


@pytest.mark.parametrize(
    ("name", "block_size", "mantissa_bits"),
    [("bfp5", 9, 5), ("bfp3x16", 16, 3), ("bfp1x1", 1, 1), ("bfp23", 9, 23)],
)
def test_a_name_says_width_and_block(name, block_size, mantissa_bits):
    expected = bfp.Format(
        block_size=block_size, mantissa_bits=mantissa_bits, bias="tensor"
    )
    assert formats.by_name(name) == expected  # 4 bits of exponent, truncated


@pytest.mark.parametrize("name", _NAMES)
def test_a_label_is_the_name(name):
    assert formats.label(formats.by_name(name)) == name


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("bfp0", r"`format` \(='bfp0'\): `mantissa_bits` \(=0\).*1 to 23"),
        ("bfp24", r"`mantissa_bits` \(=24\).*1 to 23"),
        ("bfp5x0", r"`block_size` \(=0\)"),
        ("BFP5", "did you mean `bfp5`"),
        ("bfp5x", "did you mean `bfp5`"),
        ("bfp-5", "did you mean `bfp5`"),
        ("bfp5 ", "did you mean `bfp5`"),
        ("bfp٥", "is none"),  # a digit that is not of ASCII
        ("float16", "did you mean.*`float32`"),
        ("mxfp8", "did you mean.*`mxfp8_e4m3`"),
        ("", "is none; there are `float32`"),
        (None, r"`format` \(=None\) is none"),
        (5, r"`format` \(=5\) is none"),
        (["bfp5"], r"`format` \(=\['bfp5'\]\)"),
        ({"weights": "bfp5"}, "is none"),
    ],
)
def test_what_is_no_name_is_refused_with_what_is_near(name, match):
    with pytest.raises(ValueError, match=match):
        formats.by_name(name)
    with pytest.raises(ValueError, match=match.replace("`format`", "`weights`")):
        formats.checked(name, "weights")


def test_checked_takes_a_format_as_it_is():
    fmt = bfp.Format(mantissa_bits=3)
    assert formats.checked(fmt) is fmt


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("float32", 32),
        ("bfloat16", 16),
        ("bfp5", 58 / 9),  # 9 signs and magnitudes of 5, and an exponent of 4
        ("bfp3x16", (4 + 16 * 4) / 16),
        ("mxint8", 8.25),  # 8 bits of a scale over 32 numbers
        ("mxfp6_e3m2", 6.25),
        ("mxfp4_e2m1", 4.25),
    ],
)
def test_bits_of_a_number(name, bits):
    assert formats.bits_per_number(formats.by_name(name)) == pytest.approx(bits)


def test_chance_is_of_stochastic_rounding_only():
    random = bfp.Format(rounding="stochastic", mantissa_bits=3)
    assert formats.is_random(random)
    nearest = dataclasses.replace(random, rounding="nearest_even")
    assert formats.without_chance(random) == nearest
    for name in _NAMES:
        fmt = formats.by_name(name)
        assert not formats.is_random(fmt)
        assert formats.without_chance(fmt) is fmt
    with pytest.raises(ValueError, match="needs `key`"):
        formats.cast(jnp.ones(3), random)


def test_bfloat16_keeps_seven_bits_behind_the_point():
    # 1 + 2^-8 is a tie between 1 and 1 + 2^-7: the even one is 1. Above it is 1 + 2^-7.
    x = jnp.array([1 + 2.0**-8, 1 + 2.0**-8 + 2.0**-20, -3.0, 0.0])
    q = jax.jit(lambda x: formats.cast(x, "bfloat16"))(x)
    np.testing.assert_array_equal(q, [1.0, 1 + 2.0**-7, -3.0, 0.0])


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_plain_formats_keep_the_type_of_an_array(name):
    # 65504 has 11 bits and is beyond 65280, the last number of bfloat16 below 2^16.
    x = jnp.array([65504, -65504, jnp.inf, jnp.nan, 1 + 2.0**-10], jnp.float16)
    last = 1 if name == "bfloat16" else 1 + 2.0**-10
    q = formats.cast(x, name)
    assert q.dtype == jnp.float16
    np.testing.assert_array_equal(q, [65504, -65504, np.inf, np.nan, last])
    slope = jax.grad(lambda x: jnp.sum(formats.cast(x, name)))(x)
    np.testing.assert_array_equal(slope, np.ones(5))
    with jax.enable_x64(True):
        q = formats.cast(jnp.array([1 + 2.0**-40, 2.0]), name)
        assert q.dtype == jnp.float64
        np.testing.assert_array_equal(q, [1, 2])


@pytest.mark.parametrize("fmt", ["bfp5", "mxint8", "bfloat16", "float32"])
def test_names_and_lists_are_taken(fmt):
    values = [1.5, -0.3, 1000.0]
    expected = formats.cast(jnp.array(values), formats.by_name(fmt))
    np.testing.assert_array_equal(formats.cast(values, fmt), expected)
    assert formats.has_width(fmt) == (fmt == "bfp5")
    named = formats.bits_per_number(formats.by_name(fmt))
    assert formats.bits_per_number(fmt) == named


@pytest.mark.parametrize("take", [formats.cast, formats.statistics])
@pytest.mark.parametrize(
    ("x", "fmt", "settings", "error", "says"),
    [
        (jnp.ones(3), "bfp5 ", {}, ValueError, r"`fmt` \(='bfp5 '\) is none; did you"),
        (jnp.ones(3), None, {}, ValueError, r"`fmt` \(=None\) is none"),
        (jnp.ones((3, 3)), "float32", {"tile": (3, 3)}, ValueError,
         r"`tile` \(=\(3, 3\)\) has no meaning in float32; leave it out"),
        (jnp.ones((3, 3)), "mxint8", {"tile": (3, 3)}, ValueError, "`tile` .*in mxint8"),
        (jnp.ones(3), "float32", {"axis": 1}, ValueError, r"`axis` \(=1\) .*from -1 to 0"),
        (jnp.ones(3), "bfloat16", {"axis": "rows"}, ValueError, r"`axis` \(='rows'\)"),
        (jnp.arange(3), "float32", {}, TypeError, "`x` is int32; pass floating"),
        (1j * jnp.ones(3), "float32", {}, TypeError, "`x` is complex64"),
        (jnp.ones(3) > 0, "bfloat16", {}, TypeError, "`x` is bool"),
    ],
)  # fmt: skip
def test_arguments_refused(take, x, fmt, settings, error, says):
    with pytest.raises(error, match=says):
        take(x, fmt, **settings)


@pytest.mark.parametrize("fmt", ["float32", "bfloat16", "mxfp4_e2m1"])
def test_a_width_needs_block_floating_point(fmt):
    says = rf"`mantissa_bits` \(=4\.0\) has no meaning in {fmt}"
    with pytest.raises(ValueError, match=says):
        formats.cast(jnp.ones(3), fmt, mantissa_bits=4.0)


@pytest.mark.parametrize("x", ["1.5", None, ["one"], [[1.0], [1.0, 2.0]]])
def test_what_is_no_array_is_refused(x):
    for name in ("float32", "bfp5", "mxint8"):
        with pytest.raises(TypeError, match=r"`x` \(=.* must be an array of numbers"):
            formats.cast(x, name)


@pytest.mark.parametrize("name", _NAMES)
def test_a_cast_keeps_its_numbers_and_has_slope_1(name):
    fmt, x = formats.by_name(name), jax.random.normal(jax.random.key(0), (5, 40))
    q = formats.cast(x, fmt, 0)
    np.testing.assert_array_equal(formats.cast(q, fmt, 0), q)
    slope = jax.grad(lambda x: jnp.sum(2 * formats.cast(x, fmt, 0)))(x)
    np.testing.assert_array_equal(slope, jnp.full_like(x, 2))


@pytest.mark.parametrize("name", _NAMES)
def test_second_derivatives_are_straight_through_too(name):
    # Of q(x)^3 the slope is 3 x^2, and that of its square, 9 x^4, is 36 x^3: 288 at 2.
    fmt = formats.by_name(name)

    def slope(x):
        return jax.grad(lambda x: formats.cast(x, fmt)[0] ** 3)(x)[0]

    found = jax.jit(jax.grad(lambda x: slope(x) ** 2))(jnp.array([2.0]))
    np.testing.assert_allclose(found, [288], rtol=1e-6)


def test_statistics_by_hand():
    # One bit, exponents 4 down to -11 (the largest number's and 15 below) in blocks of 2:
    # [16, 31]: 16 and 16. [1, 0.75]: 1 and 0, flushed. [0, 0]: a block of zeros.
    # [2^-12, 0]: below the smallest exponent, so flushed: another block of zeros.
    fmt = bfp.Format(block_size=2, mantissa_bits=1, bias="tensor")
    x = jnp.array([16, 31, 1, 0.75, 0, 0, 2.0**-12, 0])
    found = formats.statistics(x, fmt)
    error = np.sqrt((15**2 + 0.75**2 + 2.0**-24) / np.sum(np.square(x)))
    expected = (3 / 8, 5 / 8, 2 / 4, 0, 2 / 8, error)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_statistics_count_what_the_range_cuts():
    # Exponents -7 to 8 of 2 bits: the largest is 3 * 2^7 = 384; 1000 is cut.
    fmt = bfp.Format(block_size=2, mantissa_bits=2, bias=7)
    found = formats.statistics(jnp.array([1000.0, 1.0, 384.0, 0.0]), fmt)
    assert found.saturated == 1 / 4
    # E4M3: 2^8 times the element 1.875 is above 448, the largest, which is 1.75 * 2^8.
    found = formats.statistics(jnp.array([1.875, 1.75, 1.0, 0.0]), "mxfp8_e4m3")
    assert found.saturated == 1 / 4


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_without_blocks_a_value_is_its_own(name):
    found = formats.statistics(jnp.array([0.0, 1.0, 2.0, 0.0]), name)
    np.testing.assert_array_equal(found, (0.5, 0.5, 0.5, 0, 0, 0))


@pytest.mark.parametrize("kind", [jnp.bfloat16, jnp.float16, jnp.float8_e5m2, list])
def test_statistics_of_narrow_types_and_lists(kind):
    # Powers of two, which all these hold: 2^-5 is below a sixteenth, and flushes.
    values = [1.0, 0.5, 2.0**-5, 0.0]
    fmt = bfp.Format(block_size=2)
    x = values if kind is list else jnp.array(values, kind)
    expected = formats.statistics(jnp.array(values), fmt)
    np.testing.assert_array_equal(formats.statistics(x, fmt), expected)
    for name in ("float32", "mxfp6_e2m3"):
        assert formats.statistics(x, name).error == 0


def test_statistics_of_zeros_have_no_error():
    for name in _NAMES:
        found = formats.statistics(jnp.zeros((3, 4)), formats.by_name(name))
        np.testing.assert_array_equal(found, (1, 1, 1, 0, 0, 0))


@hypothesis.given(
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=24),
    st.sampled_from(_NAMES),
)
@hypothesis.settings(max_examples=40, deadline=None)
def test_statistics_are_fractions_that_agree(values, name):
    padded = jnp.array((values + [0.0] * 24)[:24], jnp.float32).reshape(4, 6)
    x = jnp.where(jnp.abs(padded) < 1e-30, 0, padded)  # no subnormal numbers
    found = formats.statistics(x, formats.by_name(name))
    assert all(0 <= float(part) <= 1 for part in found[:-1])
    assert found.zero_mantissa == pytest.approx(found.zero + found.flushed)
    assert found.zero_block <= found.zero_mantissa + 1e-6 or name.endswith("x16")
    assert 0 <= found.error <= 1
