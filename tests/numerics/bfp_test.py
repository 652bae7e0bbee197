import functools

import chex
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax import export

from codesign.numerics import bfp
from codesign.numerics.bfp import Format

_LARGEST = float(np.finfo(np.float32).max)
_NORMAL = 2.0**-126  # what is below may flush to zero
_TILES = {1: (1, 1), 2: (1, 2), 9: (3, 3), 16: (8, 2), 32: (4, 8), 100: (5, 20)}
_KEY = jax.random.key(0)
_quantize = jax.jit(bfp.quantize, static_argnames=("fmt", "axis", "tile"))
_SHAPES = st.one_of(
    hnp.array_shapes(max_dims=1, max_side=130),
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=25),
    hnp.array_shapes(max_dims=5, max_side=4),
)
_SCALES = {  # exponents of the numbers of an array, lowest and highest
    "of one size": (-2, 2),
    "far apart": (-126, 127),
    "tiny": (-126, -110),
    "huge": (118, 127),
}


def _properties(num_examples):
    return settings(max_examples=num_examples, deadline=None, derandomize=True)


@st.composite
def _formats(draw, **fixed):
    drawn = {
        "block_size": st.sampled_from(sorted(_TILES)),
        "mantissa_bits": st.integers(1, 23),
        "exponent_bits": st.sampled_from([1, 2, 4, 8, 16]),
        "bias": st.sampled_from([7, 3, 15, None, "tensor", -2, 127]),
        "rounding": st.sampled_from(["truncate", "nearest_even", "nearest_away"]),
        "carry": st.sampled_from(["saturate", "renorm"]),
        "nonfinite": st.sampled_from(["saturate", "nan_block"]),
    }
    try:
        return Format(
            **{k: draw(s) for k, s in drawn.items() if k not in fixed} | fixed
        )
    except ValueError:  # without 1.0
        reject()


@st.composite
def _arrays(draw, shapes=_SHAPES, finite=False):
    """Zeros, ties, neighbours of powers of two, and what is not finite."""
    shape = draw(shapes)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    low, high = _SCALES[draw(st.sampled_from(sorted(_SCALES)))]
    significands = np.stack(
        [
            1 + rng.random(shape),
            rng.integers(32, 64, shape) / 32,
            np.full(shape, 2 - 2.0**-23),
            np.zeros(shape),
        ]
    )
    chosen = np.choose(rng.choice(4, shape, p=[0.4, 0.3, 0.2, 0.1]), significands)
    exponents = rng.integers(low, high, shape, endpoint=True)
    x = np.ldexp(chosen, exponents) * rng.choice([-1, 1], shape)
    if not finite and draw(st.booleans()):
        odd = rng.choice([np.inf, -np.inf, np.nan], shape)
        x = np.where(rng.random(shape) < 0.05, odd, x)
    return np.clip(x, -_LARGEST, _LARGEST, where=np.isfinite(x), out=x).astype("f4")


def _blocks(shape, fmt, axis=-1, tile=None):
    """Positions of the numbers of each block in an array of `shape`, flattened."""
    pages = np.arange(np.prod(shape)).reshape(shape)
    if tile is None:
        pages, tile = np.moveaxis(pages, axis, -1)[..., None, :], (1, fmt.block_size)
    for page in pages.reshape(-1, *pages.shape[-2:]):
        for i in range(0, page.shape[0], tile[0]):
            for j in range(0, page.shape[1], tile[1]):
                yield page[i : i + tile[0], j : j + tile[1]].ravel()


def _round(x, rounding):
    whole = np.floor(x)
    if rounding == "nearest_even":
        return np.rint(x)
    return whole + (x - whole >= 0.5) if rounding == "nearest_away" else whole


def _limits(fmt):
    """Lowest and highest E that any array's block may have."""
    if fmt.bias is None:
        return -126, 128
    if fmt.bias == "tensor":
        return max(-126, fmt.mantissa_bits - 127), 128
    return -fmt.bias, min(2**fmt.exponent_bits - 1 - fmt.bias, 128)


def _exponents(blocks, fmt):
    """E of each block, by `np.frexp`, and rounded magnitudes; NaN are 0 already."""
    low, high = _limits(fmt)
    tops = [np.max(np.abs(block)) for block in blocks]
    found = [128 if np.isinf(t) else np.frexp(t)[1] - 1 if t else low for t in tops]
    found = _in_window(np.clip(np.array(found, int), low, high), fmt)
    if fmt.carry == "renorm":
        pairs = zip(blocks, found, strict=True)
        over = [np.any(_whole(*pair, fmt) >= 2**fmt.mantissa_bits) for pair in pairs]
        found = _in_window(np.minimum(found + over, high), fmt)
    return found


def _in_window(found, fmt):
    """With a bias of the array's own no more than 2^bits exponents, up to the largest."""
    if fmt.bias == "tensor" and len(found):
        return np.maximum(found, max(found) - 2**fmt.exponent_bits + 1)
    return found


def _whole(block, exponent, fmt):
    magnitudes = np.minimum(np.abs(block), 2.0**200)  # as far beyond as infinity
    return _round(np.ldexp(magnitudes, fmt.mantissa_bits - 1 - exponent), fmt.rounding)


def _reference(x, fmt, axis, tile):
    """Quantises block by block in float64, as the spec says it."""
    m, found = fmt.mantissa_bits, np.zeros(x.size)
    places = list(_blocks(x.shape, fmt, axis, tile))
    given = [x.ravel()[at].astype(float) for at in places]
    blocks = [np.where(np.isnan(block), 0, block) for block in given]
    exponents = _exponents(blocks, fmt)
    for at, was, block, exponent in zip(places, given, blocks, exponents, strict=True):
        numbers = np.minimum(_whole(block, exponent, fmt), 2**m - 1)
        numbers = np.minimum(np.ldexp(numbers, exponent - m + 1), _LARGEST)
        found[at] = np.copysign(numbers, block)
        if fmt.nonfinite == "nan_block" and not np.all(np.isfinite(was)):
            found[at] = np.nan
    return found.reshape(x.shape)


def _assert_same(found, expected):
    """The same numbers, but for those that flush."""
    found, expected = np.asarray(found, float), np.asarray(expected, float)
    np.testing.assert_array_equal(
        np.where(np.abs(found) < _NORMAL, 0, found),
        np.where(np.abs(expected) < _NORMAL, 0, expected),
    )


_with_carries_at_the_top = pytest.mark.parametrize(
    "fixed", [{}, {"bias": "tensor", "carry": "renorm", "rounding": "nearest_even"}]
)


@_with_carries_at_the_top
@_properties(14)
@given(_arrays(), st.data())
def test_reference_twice_and_signs(fixed, x, data):
    fmt = data.draw(_formats(**fixed))
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    tiled = x.ndim > 1 and data.draw(st.booleans())
    quantize = functools.partial(
        _quantize, fmt=fmt, axis=axis, tile=_TILES[fmt.block_size] if tiled else None
    )
    q = quantize(x)
    _assert_same(q, _reference(x, **quantize.keywords))
    _assert_same(quantize(-x), -q)
    # The largest float32 stands for codes beyond it, so it is not one of its own.
    if not np.any(np.abs(q) == np.float32(_LARGEST)):
        np.testing.assert_array_equal(quantize(q), q)


@_with_carries_at_the_top
@_properties(8)
@given(_arrays(finite=True), st.data())
def test_error_bound_and_order_in_a_block(fixed, x, data):
    fmt = data.draw(_formats(**fixed))
    q = np.asarray(_quantize(x, fmt), float)
    places = list(_blocks(x.shape, fmt))
    blocks = [x.ravel()[at].astype(float) for at in places]
    for at, block, exponent in zip(
        places, blocks, _exponents(blocks, fmt), strict=True
    ):
        found = np.abs(q.ravel()[at])
        unit = 2.0 ** (exponent - fmt.mantissa_bits + 1)
        largest = min((2**fmt.mantissa_bits - 1) * unit, _LARGEST)
        error = np.abs(np.abs(block) - found)
        is_cut = np.abs(block) > largest
        assert np.all(found[is_cut] == largest)
        bound = 0.5 * unit
        if fmt.rounding == "truncate":
            assert np.all(found <= np.abs(block))
            bound = np.nextafter(unit, 0)
        assert np.all(error[~is_cut] <= max(bound, _NORMAL))
        assert np.all(np.diff(found[np.argsort(np.abs(block))]) >= 0)


@_properties(4)
@given(_arrays(hnp.array_shapes(min_dims=2, max_dims=3, max_side=12)), _formats())
def test_transposed_tiles(x, fmt):
    rows, columns = _TILES[fmt.block_size]
    q = _quantize(x, fmt, tile=(rows, columns))
    turned = _quantize(np.swapaxes(x, -1, -2), fmt, tile=(columns, rows))
    np.testing.assert_array_equal(np.swapaxes(turned, -1, -2), q)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (2, 0, 5)])
def test_empty(shape):
    x = jnp.zeros(shape)
    for tile in [None, (3, 3)][: len(shape)]:
        assert _quantize(x, Format(), tile=tile).shape == shape
        words = bfp.pack(x, Format(), tile=tile)
        assert bfp.unpack(words, Format(), tile=tile, shape=shape).shape == shape


def test_just_below_powers_of_two():
    # 2^k (1 - 2^-24) has the exponent k - 1, and all five bits of its mantissa are one;
    # log2 in float32 makes it k, and then 16 - 2^-20 is cut to 15, half a step too low.
    k = np.arange(-125, 129)
    x = np.ldexp(1 - 2.0**-24, k).astype("f4")
    for rounding in ("truncate", "nearest_even"):
        q = _quantize(x[:, None], Format(bias=None, rounding=rounding))[:, 0]
        np.testing.assert_array_equal(q, np.ldexp(31.0, k - 5).astype("f4"))


def test_not_finite():
    x = jnp.array([jnp.inf, 3.0, -jnp.inf, jnp.nan, 3.0, 1.0])
    fmt = Format(block_size=3)
    # E = 8, in steps of 16, in the first block; 1 in the second, and NaN is 0.
    np.testing.assert_array_equal(_quantize(x, fmt), [496, 0, -496, 0, 3, 1])
    found = _quantize(x, Format(block_size=3, nonfinite="nan_block"))
    assert np.all(np.isnan(found))
    found = _quantize(x, Format(block_size=3, bias=None))
    np.testing.assert_array_equal(found[:3], np.float32([_LARGEST, 0, -_LARGEST]))
    assert list(bfp.encode(x, fmt).is_saturated) == [True, False, True, *3 * [False]]
    # With the array's own bias 128 - 15 is the lowest exponent, in steps of 2^109.
    x = jnp.array([jnp.inf, 2.0**109, 2.0**109 - 2.0**90, 1.0])
    found = _quantize(x, Format(1, bias="tensor"))
    np.testing.assert_array_equal(found, np.float32([_LARGEST, 2.0**109, 0, 0]))


@pytest.mark.parametrize("kind", [jnp.bfloat16, jnp.float16])
def test_narrow_types(kind):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 20)), kind)
    q = _quantize(x, Format())
    assert q.dtype == kind
    np.testing.assert_array_equal(q, _quantize(x.astype(jnp.float32), Format()))
    # What is finite stays so: the largest number carries to a power of two beyond it.
    fmt = Format(bias=None, rounding="nearest_even", carry="renorm")
    most = ml_dtypes.finfo(kind).max
    found = _quantize(jnp.array([most, -most], kind), fmt)
    np.testing.assert_array_equal(found, np.array([most, -most], kind))
    slopes = jax.grad(lambda x: bfp.quantize(x, fmt).sum())(jnp.array([most, 1], kind))
    np.testing.assert_array_equal(slopes, np.ones(2, kind))


def test_float64():
    with jax.enable_x64(True):
        x = jnp.linspace(-3.0, 3.0, 20).at[5].set(jnp.inf)
        for fmt in (
            Format(),
            Format(mantissa_bits=np.int64(5), bias=np.int8(7)),
            Format(3, bias="tensor", carry="renorm", nonfinite="nan_block"),
        ):
            q = _quantize(x, fmt)
            chex.assert_type([x, q], jnp.float64)
            expected = _reference(np.float32(x), fmt, -1, None)
            np.testing.assert_array_equal(q, expected)
        slopes = jax.grad(lambda x: bfp.quantize(x, Format(), mantissa_bits=5.5).sum())(
            x
        )
        np.testing.assert_array_equal(slopes, np.ones(20))


def test_widths_of_numpy():
    # Of np.int8 two to the power of 8 is 0.
    fmt = Format(exponent_bits=np.int8(8), mantissa_bits=np.int8(8), bias=np.int16(127))
    assert fmt == Format(exponent_bits=8, mantissa_bits=8, bias=127)
    assert fmt.exponent_limits == (-126, 128)


class DerivativeTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_straight_through(self):
        # Of saturated numbers, infinities and NaN, too; and inside loops and checkpoints.
        x = jnp.array([1.3, 1e9, -jnp.inf, jnp.nan, 0.0, -1e-9, 3.0, 1.0, 2.0, 5.0])
        weights = jnp.arange(10.0)

        def loss(x):
            q = bfp.quantize(x, Format(carry="renorm", rounding="nearest_even"))
            q, _ = jax.lax.scan(
                lambda y, _: (
                    jax.checkpoint(bfp.quantize, static_argnums=1)(y, Format()),
                    0,
                ),
                q,
                length=2,
            )
            return jnp.sum(weights * q)

        np.testing.assert_array_equal(self.variant(jax.grad(loss))(x), weights)
        _, tangents = jax.jvp(lambda x: bfp.quantize(x, Format()), (x,), (weights,))
        np.testing.assert_array_equal(tangents, weights)

    @chex.variants(with_jit=True, without_jit=True)
    def test_width_between_two(self):
        # In quarters 1.3 is 5, in eighths 10; 0.9 is 3, then 7; 1.99 is 7, then 15. A
        # quarter of the way from 3 bits to 4, 0.9 is 0.75 + 0.125 / 4.
        x, fmt = jnp.array([1.3, 0.9, 1.99]), Format()
        low, high = np.array([1.25, 0.75, 1.75]), np.array([1.25, 0.875, 1.875])

        def total(bits):
            q = bfp.quantize(x, fmt, mantissa_bits=bits)
            return jnp.sum(jnp.array([1.0, 10.0, 100.0]) * q), q

        found = self.variant(jax.value_and_grad(total, has_aux=True))
        for bits, expected in ((3.0, low), (3.25, low + (high - low) / 4)):
            (_, q), slope = found(bits)
            np.testing.assert_array_equal(q, np.float32(expected))
            assert float(slope) == 10 * 0.125 + 100 * 0.125

    def test_whole_widths_are_exact(self):
        # All ones: 2^m - 1 steps, where the power of two of a float32 library is inexact.
        widths = jnp.arange(1.0, 24.0)
        x = jnp.full((1,), 2 - 2.0**-23)
        fmt = Format(rounding="nearest_even")
        q = jax.jit(jax.vmap(lambda m: bfp.quantize(x, fmt, mantissa_bits=m)))(widths)[
            :, 0
        ]
        np.testing.assert_array_equal(q, 2 - 2.0 ** (1 - np.arange(1, 24)))

    def test_widths_out_of_range(self):
        x = jnp.ones(9)
        traced = jax.jit(lambda bits: bfp.quantize(x, Format(), mantissa_bits=bits))
        for bits in (jnp.nan, jnp.inf, 0.99, 23.01, -1.0):
            with pytest.raises(ValueError, match=r"`mantissa_bits` \(=.*from 1 to 23"):
                bfp.quantize(x, Format(), mantissa_bits=bits)
            assert np.all(np.isnan(traced(bits)))
        for bits in ("5", 5j, True, [5], jnp.ones(2), jnp.ones((1,))):
            with pytest.raises(ValueError, match=r"`mantissa_bits` \(=.*one number"):
                bfp.quantize(x, Format(), mantissa_bits=bits)
        with pytest.raises(ValueError, match="`mantissa_bits` .*one number"):
            traced(jnp.ones(2))


def test_mapped_and_compiled():
    x = jnp.asarray(np.random.default_rng(1).normal(size=(3, 4, 20)), jnp.float32)
    fmt, keys = Format(rounding="stochastic"), jax.random.split(_KEY, 3)
    one = functools.partial(bfp.quantize, fmt=fmt, tile=(3, 3))

    def mapped(x, keys):
        return jax.vmap(lambda x, key: one(x, key=key))(x, keys)

    each = [
        _quantize(x, fmt, key=key, tile=(3, 3)) for x, key in zip(x, keys, strict=True)
    ]
    np.testing.assert_array_equal(jax.jit(mapped)(x, keys), jnp.stack(each))


@pytest.mark.parametrize("tile", [None, (3, 3)])
def test_lowers_for_accelerators(tile):
    fmt = Format(
        rounding="stochastic", carry="renorm", bias=None, nonfinite="nan_block"
    )

    def step(x, bits, key):
        quantize = functools.partial(bfp.quantize, fmt=fmt, key=key, tile=tile)
        slopes = jax.grad(lambda bits: quantize(x, mantissa_bits=bits).sum())(bits)
        return jax.vmap(quantize)(x), slopes

    shapes = jax.ShapeDtypeStruct((2, 10, 20), jnp.bfloat16), jnp.float32(5.5), _KEY
    exported = export.export(jax.jit(step), platforms=("tpu", "cuda"))(*shapes)
    assert exported.out_avals[0].shape == (2, 10, 20)


def test_stochastic_neighbours_and_mean():
    # 0.7 is 11.2 sixteenths: 12 in a fifth of all cases. Of n draws the mean is off by
    # sqrt(0.2 x 0.8 / n) sixteenths; five of those are passed once in 2 million.
    x = jnp.array([1.0, 0.7, -0.7, 0.5, 0.01, 0, 0, 0, 0])
    keys = jax.random.split(_KEY, 4000)
    fmt = Format(rounding="stochastic")
    q = jax.jit(jax.vmap(lambda key: bfp.quantize(x, fmt, key=key)))(keys) * 16
    assert [sorted(set(each)) for each in np.asarray(q[:, :5].T)] == [
        [16], [11, 12], [-12, -11], [8], [0, 1]
    ]  # fmt: skip
    exact = np.asarray(x, float) * 16
    fraction = np.abs(exact) % 1
    deviation = np.sqrt(fraction * (1 - fraction) / len(keys))
    assert np.all(np.abs(np.mean(q, 0) - exact) <= 5 * deviation + 1e-6)
    again = _quantize(x, fmt, key=keys[7]) * 16
    np.testing.assert_array_equal(again, q[7])
