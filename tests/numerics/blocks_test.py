import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from codesign.numerics import blocks

_LAYOUTS = [
    ((3, 20), ((-1, 9),)),
    ((20, 3), ((-2, 9),)),
    ((2, 40, 3), ((-2, 34),)),  # two windows of 2 and 17
    ((70, 2, 3), ((-3, 32),)),
    ((2, 7, 8), ((-2, 3), (-1, 3))),
    ((5, 4), ((-2, 1), (-1, 9))),
    ((2, 3), ((-1, 1),)),
    ((3,), ((-1, 100),)),
    ((7, 3), ((-2, 100),)),
]


def _number_of_block(shape, lies):
    """For each number where its block stands, one array an axis: as `np.ix_` has it."""
    sizes = dict(lies)
    rank = len(shape)
    return np.ix_(
        *(np.arange(n) // sizes.get(i - rank, 1) for i, n in enumerate(shape))
    )


@pytest.mark.parametrize(("shape", "lies"), _LAYOUTS)
def test_largest_and_spread(shape, lies):
    x = np.random.default_rng(0).normal(size=shape).astype("f4")
    x.flat[:2] = np.nan, -np.inf
    at = _number_of_block(shape, lies)
    expected = np.zeros([1 + int(each.max()) for each in at])
    np.maximum.at(expected, at, np.nan_to_num(np.abs(x), nan=0, posinf=np.inf))
    found = jax.jit(blocks.largest, static_argnums=1)(x, lies)
    np.testing.assert_array_equal(found, expected)
    spread = jax.jit(blocks.spread, static_argnums=(1, 2))(found, lies, shape)
    np.testing.assert_array_equal(spread, expected[at])


@pytest.mark.parametrize(("shape", "lies"), _LAYOUTS)
def test_gathered_and_scattered(shape, lies):
    x = np.arange(1, 1 + np.prod(shape)).reshape(shape)
    found = blocks.gathered(x, lies)
    at = _number_of_block(shape, lies)
    for place in np.ndindex(found.shape[:-1]):
        inside = x[np.all([a == i for a, i in zip(np.broadcast_arrays(*at), place)], 0)]  # noqa: B905
        assert sorted(found[place][found[place] > 0]) == sorted(inside)
    np.testing.assert_array_equal(blocks.scattered(found, lies, shape), x)
    whole = blocks.scattered(found, lies, None)
    assert whole.size == found.size
    np.testing.assert_array_equal(whole[tuple(map(slice, shape))], x)


@pytest.mark.parametrize("lies", [((-1, 2**20),), ((-2, 2**10), (-1, 2**10))])
def test_a_long_block_takes_no_more_memory_than_its_numbers(lies):
    def made(x):
        return blocks.spread(blocks.largest(x, lies), lies, x.shape)

    traced = jax.make_jaxpr(made)(jax.ShapeDtypeStruct((1000, 3), jnp.float32))
    assert max(v.aval.size for eqn in traced.eqns for v in eqn.outvars) <= 3000
    windows = [eqn.params["window_dimensions"] for eqn in traced.eqns
               if eqn.primitive.name == "reduce_window"]  # fmt: skip
    assert windows
    assert all(np.prod(window) <= 1000 for window in windows)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(hnp.arrays(np.float32, 50, elements=st.floats(width=32, allow_nan=False)))
def test_exponents(x):
    _, expected = np.frexp(x)
    expected = np.where(
        np.isinf(x), 128, np.where(np.abs(x) < 2.0**-126, -127, expected - 1)
    )
    np.testing.assert_array_equal(blocks.exponents(jnp.asarray(x)), expected)


def test_powers_of_two():
    exponents = np.arange(-126, 128)
    np.testing.assert_array_equal(
        blocks.power_of_two(jnp.asarray(exponents, jnp.int32)), np.ldexp(1.0, exponents)
    )
    # 2^-252 x 2^126 is 2^-126: no factor is below the normal numbers, nor infinite.
    wide = np.arange(-252, 255)
    factors = blocks.scale_of(jnp.asarray(wide, jnp.int32), (-252, 254))
    assert len(factors) == 2
    assert all(
        np.all((f >= 2.0**-126) & np.isfinite(f)) for f in map(np.asarray, factors)
    )
    product = np.prod([np.asarray(f, float) for f in factors], 0)
    np.testing.assert_array_equal(product, np.ldexp(1.0, wide))
    assert len(blocks.scale_of(jnp.arange(-126, 128), (-126, 127))) == 1


def test_cast_keeps_what_is_finite():
    q = jnp.array([1e38, -3e38, jnp.nan, 1.5, jnp.inf])
    half = np.asarray(blocks.cast(q, jnp.dtype(jnp.float16)), float)
    np.testing.assert_array_equal(half, [65504, -65504, np.nan, 1.5, np.inf])
    np.testing.assert_array_equal(blocks.cast(q, jnp.dtype(jnp.float32)), q)


@pytest.mark.parametrize(
    ("rank", "axis", "lies"), [(1, -1, -1), (3, 0, -3), (3, 2, -1), (3, -3, -3)]
)
def test_layouts_along_an_axis(rank, axis, lies):
    assert blocks.layout(rank, 9, axis) == ((lies, 9),)
    assert blocks.layout(rank, 9, np.int64(axis)) == ((lies, 9),)


def test_layouts_of_tiles():
    assert blocks.layout(2, 6, tile=[2, 3]) == ((-2, 2), (-1, 3))


@pytest.mark.parametrize("axis", [2, -3, 0.0, None, True, (0, 1), "last"])
def test_axes_refused(axis):
    with pytest.raises(
        ValueError, match=r"`axis` \(=.*\) must be .* from -2 to 1: .* 2"
    ):
        blocks.layout(2, 9, axis)


def test_shapes_refused():
    x = np.zeros((2, 3, 9))  # words [2, 3] of blocks of 9: [2, 19] to [2, 27]
    lies = ((-1, 9),)
    assert blocks.scattered(x, lies, (2, 19)).shape == (2, 19)
    for shape in ((2, 18), (2, 28), (1, 27), (27,), (2, 27, 1)):
        with pytest.raises(ValueError, match=r"`shape` \(=\(.*most \(2, 27\)"):
            blocks.scattered(x, lies, shape)
