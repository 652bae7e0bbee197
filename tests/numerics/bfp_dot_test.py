import functools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from codesign.numerics import bfp
from codesign.numerics.bfp import Format
from codesign.numerics.bfp_dot import Accumulator, dot

_NORMAL = 2.0**-126  # what is below may flush to zero
_dot = jax.jit(dot, static_argnames=("fmt", "other", "accumulator"))
_quantize = jax.jit(bfp.quantize, static_argnames=("fmt", "axis"))


@st.composite
def _operands(draw):
    """Arrays [20, K] and [K, 3] whose numbers are up to 2^12 apart, and formats of each."""
    size = draw(st.sampled_from([1, 2, 9, 32]))
    widths = draw(st.integers(1, 23)), draw(st.integers(1, 23))
    if size * (2 ** widths[0] - 1) * (2 ** widths[1] - 1) >= 2**31:
        reject()
    bias, mode = draw(st.sampled_from([(7, "truncate"), (None, "nearest_even")]))
    fmt, other = (Format(size, m, 4, bias, mode) for m in widths)
    length = draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x, y = (
        np.ldexp(rng.uniform(-1, 1, shape), rng.integers(-6, 7, shape)).astype("f4")
        for shape in ((20, length), (length, 3))
    )
    return x, y, fmt, other


def _products(x, y, fmt, other):
    """Exact products of the blocks of quantised arrays, [blocks][row][column]."""
    left, right = (
        [[Fraction(float(v)) for v in row] for row in np.asarray(q)]
        for q in (_quantize(x, fmt), _quantize(y, other, axis=0).T)
    )
    for start in range(0, x.shape[1], fmt.block_size):
        block = slice(start, start + fmt.block_size)
        yield [
            [sum(map(Fraction.__mul__, row[block], column[block])) for column in right]
            for row in left
        ]


@settings(max_examples=4, deadline=None, derandomize=True)
@given(_operands())
def test_equals_exact_arithmetic(operands):
    x, y, fmt, other = operands
    blocks = np.array(list(_products(*operands)), dtype=object)
    value, saturations = _dot(x, y, fmt=fmt, other=other)
    assert (value.shape, value.dtype, int(saturations)) == ((20, 3), np.float32, 0)
    exact = blocks.sum(0)
    error = np.abs(np.vectorize(Fraction)(np.asarray(value, float)) - exact)
    # Float32 rounds each product, when it has more than 24 bits, and each sum.
    widest = fmt.block_size * (2**fmt.mantissa_bits - 1) * (2**other.mantissa_bits - 1)
    num_roundings = len(blocks) if widest >= 2**24 else len(blocks) - 1
    assert np.all(error <= num_roundings * np.abs(blocks).sum(0) * Fraction(2) ** -24)


def test_by_hand():
    # Blocks of 2 in 3 bits. (7 6)/4 x (4 -5)/4 is (28 - 30) / 16; then (4 0) 2 x (6 0)/8
    # is 24 / 4: in all 5.875.
    x, y = jnp.array([1.75, 1.5, 8.0, 0.0]), jnp.array([[1.0], [-1.25], [0.75], [0]])
    fmt = Format(2, 3, 4)
    assert _dot(x, y, fmt=fmt).value.tolist() == [5.875]
    # In whole numbers the first product is cut to 0, in eighths it is -1.
    for lowest, expected in ((0, 6.0), (-3, 5.875), (2, 4.0)):
        register = Accumulator(lowest_exponent=lowest)
        assert _dot(x, y, fmt=fmt, accumulator=register) == (expected, 0)
    # Of 3 bits, -3 to 3: 6 is beyond.
    register = Accumulator(bits=3, lowest_exponent=0)
    assert _dot(x, y, fmt=fmt, accumulator=register) == (3, 1)


def _accumulated(terms, register):
    """The number in the register, and how often an end of it was reached."""
    most = 2 ** (register.bits - 1) - 1
    total, saturations = 0, 0
    for term in terms:
        units = int(term / Fraction(2) ** register.lowest_exponent)  # towards zero
        cut = min(max(units, -most), most)
        reached = min(max(total + cut, -most), most)
        saturations += cut != units or reached != total + cut
        total = reached
    return total, saturations


@settings(max_examples=5, deadline=None, derandomize=True)
@given(_operands(), st.integers(2, 32), st.integers(-45, 12))
def test_accumulator(operands, bits, lowest_exponent):
    x, y, fmt, other = operands
    register = Accumulator(bits=bits, lowest_exponent=lowest_exponent)
    found = _dot(x, y, fmt=fmt, other=other, accumulator=register)
    blocks = np.array(list(_products(*operands)), dtype=object)
    ends = [
        _accumulated(terms, register) for terms in blocks.reshape(len(blocks), -1).T
    ]
    totals, saturations = map(np.array, zip(*ends, strict=True))
    expected = np.ldexp(totals.astype("f4"), lowest_exponent).reshape(20, 3)
    np.testing.assert_array_equal(found.value, expected)
    assert int(found.saturations) == saturations.sum()


def test_wide_enough_accumulators_change_nothing():
    # 2^-22 is the lowest bit of CAMEL's products, and 2^9 is far above these.
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=shape).astype("f4") for shape in ((4, 27), (27, 5)))
    exact = _dot(x, y, fmt=Format()).value
    np.testing.assert_array_equal(
        exact, _dot(x, y, fmt=Format(), accumulator=Accumulator())[0]
    )


@pytest.mark.parametrize("scale", [2.0**-60, 2.0**60])
def test_far_exponents(scale):
    # Nine products 3 x 5, at 2^120 and 2^-120.
    fmt, x = Format(bias=None), jnp.ones((1, 9))
    value = _dot(3 * scale * x, 5 * scale * x.T, fmt=fmt).value
    np.testing.assert_array_equal(value, [[135 * scale**2]])


def test_ranks_and_float64():
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=shape).astype("f4") for shape in ((2, 3, 20), (20, 4)))
    for register in (None, Accumulator(bits=12, lowest_exponent=-9)):
        product = functools.partial(_dot, fmt=Format(), accumulator=register)
        whole, saturations = product(x, y)
        assert whole.shape == (2, 3, 4)
        np.testing.assert_array_equal(product(x[0, 0], y).value, whole[0, 0])
        each = [product(page, y) for page in x]
        np.testing.assert_array_equal(jnp.stack([page.value for page in each]), whole)
        assert sum(int(page.saturations) for page in each) == int(saturations)
        with jax.enable_x64(True):
            wide = product(jnp.asarray(x, float), jnp.asarray(y, float))
            np.testing.assert_array_equal(wide.value, whole)


@pytest.mark.parametrize("shape", [(2, 0, 3), (0, 9, 3), (2, 9, 0)])
@pytest.mark.parametrize("register", [None, Accumulator()])
def test_empty(shape, register):
    rows, length, columns = shape
    x, y = jnp.ones((rows, length)), jnp.ones((length, columns))
    value, saturations = _dot(x, y, fmt=Format(), accumulator=register)
    np.testing.assert_array_equal(value, np.zeros((rows, columns)))
    assert int(saturations) == 0


def test_accumulators_refused():
    for bits in (1, 33, 16.0, True):
        with pytest.raises(ValueError, match=r"`bits` \(=.*from 2 to 32"):
            Accumulator(bits=bits)
    for lowest in (-127, 127, 0.5, None, np.int8(-128)):
        with pytest.raises(ValueError, match=r"`lowest_exponent` \(=.*-126 to 126"):
            Accumulator(lowest_exponent=lowest)


_X, _Y = jnp.ones((2, 9)), jnp.ones((9, 3))


def test_accumulators_of_numpy():
    register = Accumulator(bits=np.int8(32), lowest_exponent=np.int8(-22))
    assert {type(register.bits), type(register.lowest_exponent)} == {int}
    assert dot(_X, _Y, Format(), accumulator=[register]).value.shape == (1, 2, 3)


@pytest.mark.parametrize(
    ("accumulator", "error", "says"),
    [
        (32, TypeError, r"`accumulator` \(=32\) must be an `Accumulator`.*or None"),
        ("x", TypeError, r"`accumulator` \(='x'\)"),
        ([3], TypeError, r"`accumulator` \(=\[3\]\)"),
        ([], ValueError, r"`accumulator` \(=\[\]\) is empty; pass one or more"),
    ],
)
def test_what_is_no_accumulator_is_refused(accumulator, error, says):
    with pytest.raises(error, match=says):
        dot(_X, _Y, Format(), accumulator=accumulator)


def test_blocks_longer_than_the_arrays():
    # Padding to a block of 2^20 would make arrays of 100 MB.
    fmt = Format(block_size=2**20)
    traced = jax.make_jaxpr(lambda x, y: dot(x, y, fmt).value)(_X, _Y)
    assert max(v.aval.size for eqn in traced.eqns for v in eqn.outvars) <= 100
    np.testing.assert_array_equal(_dot(_X, _Y, fmt=fmt).value, 9 * jnp.ones((2, 3)))


@pytest.mark.parametrize(
    ("x", "y", "formats", "error", "says"),
    [
        (_X, _X, [Format()], ValueError, r"`x` \(2, 9\) and `y` \(2, 9\) must be"),
        (_X, _Y[0], [Format()], ValueError, r"`y` \(3,\) must be"),
        (_X, _Y, [Format(), Format(8)], ValueError, "`fmt` .* 9 and `other` of 8"),
        (_X, _Y, [Format(mantissa_bits=14)], ValueError, "31.2 bits; at most 31"),
        (
            _X,
            _Y,
            [Format(rounding="stochastic")],
            ValueError,
            "`fmt` .*quantise with a key",
        ),
        (
            _X,
            _Y,
            [Format(), Format(rounding="stochastic")],
            ValueError,
            "`other` must not",
        ),
        (_X.astype(int), _Y, [Format()], TypeError, "`x` is int32"),
        (_X, _Y.astype(int), [Format()], TypeError, "`y` is int32"),
        (_X, _Y, ["bfp9"], TypeError, r"`fmt` \(='bfp9'\) must be a `Format`"),
        (
            _X,
            _Y,
            [Format(), "bfp9"],
            TypeError,
            r"`other` \(='bfp9'\) must be a `Format`",
        ),
    ],
)
def test_refused(x, y, formats, error, says):
    with pytest.raises(error, match=says):
        dot(x, y, *formats)


def test_the_widest_products_fit():
    # 2 (2^15 - 1)^2 is below 2^31, though the sum of bits is 31.
    fmt = Format(2, 15, 4)
    x = jnp.full((1, 2), 2 - 2.0**-14)
    value = _dot(x, x.T, fmt=fmt).value
    np.testing.assert_array_equal(value, np.float32(2 * (2**15 - 1) ** 2 / 2**28))
    assert math.log2(2 * (2**15 - 1) ** 2) < 31
