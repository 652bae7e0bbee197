import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import export

from codesign.numerics import rounding

_NUM = 2**16
_bits = jax.jit(rounding.random_bits, static_argnums=1)


def _uniform(seed, num=_NUM):
    return np.asarray(_bits(jax.random.key(seed), (num,)), float) / 2**32


class RoundTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_by_hand(self):
        x = [0.0, 0.49, 0.5, 0.51, 1.0, 1.5, 2.5, 2.51, 2.0**22 + 0.5, 2.0**23 - 1.5]
        x = jnp.array(x + [-each for each in x])
        expected = {
            "truncate": [0, 0, 0, 0, 1, 1, 2, 2, 2**22, 2**23 - 2],
            "nearest_even": [0, 0, 0, 1, 1, 2, 2, 3, 2**22, 2**23 - 2],
            "nearest_away": [0, 0, 1, 1, 1, 2, 3, 3, 2**22 + 1, 2**23 - 1],
        }
        for mode, whole in expected.items():
            q = self.variant(lambda x, mode=mode: rounding.round_to_whole(x, mode))(x)
            np.testing.assert_array_equal(q, whole + [-each for each in whole])

    def test_just_below_a_half(self):
        # x + 0.5, cut, would be 1: the sum is rounded to it.
        x = np.nextafter(np.float32(0.5), np.float32(0))
        for mode in ("nearest_even", "nearest_away"):
            assert rounding.round_to_whole(jnp.float32(x), mode) == 0


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.integers(-8, 22))
def test_stochastic_takes_a_neighbour(seed, exponent):
    rng = np.random.default_rng(seed)
    x = np.float32(np.ldexp(rng.uniform(-1, 1, 500), exponent))
    round_ = jax.jit(lambda x, key: rounding.round_to_whole(x, "stochastic", key))
    q = round_(x, jax.random.key(seed))
    assert np.all((q == np.floor(x)) | (q == np.ceil(x)))
    np.testing.assert_array_equal(round_(-x, jax.random.key(seed)), -q)
    np.testing.assert_array_equal(round_(q, jax.random.key(seed)), q)


def test_stochastic_mean_and_independence():
    # The mean of n draws of a fraction f is off by sqrt(f (1 - f) / n); five of those are
    # passed once in 2 million. Draws at two places agree by chance: the product of their
    # errors has the mean 0, off by f (1 - f) / sqrt(n).
    fraction = np.array([0.5, 1 / 3, 0.125, 0.01, 2.0**-10, 1 - 2.0**-10], np.float32)
    x = jnp.tile(fraction * np.float32([1, -1, 1, -1, 1, 1]), (_NUM, 1))
    q = rounding.round_to_whole(x, "stochastic", jax.random.key(1))
    error = np.asarray(q, float) - np.asarray(x, float)
    variance = fraction * (1 - fraction)
    assert np.all(np.abs(error.mean(0)) <= 5 * np.sqrt(variance / _NUM))
    together = error.T @ error / _NUM
    bound = 5 * np.sqrt(np.outer(variance, variance) / _NUM)
    np.fill_diagonal(together, 0)
    assert np.all(np.abs(together) <= bound + 1e-3 * variance.max() * (bound == 0))


@pytest.mark.parametrize("seed", [0, 2**32 - 1])
def test_each_bit_is_fair(seed):
    bits = np.asarray(_bits(jax.random.key(seed), (_NUM,)))
    ones = (bits[:, None] >> np.arange(32, dtype=np.uint32)) & 1  # [N, 32]
    # 5 standard deviations, each 0.5 / sqrt(n), of the means and of pairs of bits.
    assert np.all(np.abs(ones.mean(0) - 0.5) <= 2.5 / np.sqrt(_NUM))
    signs = 2.0 * ones - 1
    pairs = signs.T @ signs / _NUM - np.eye(32)
    assert np.all(np.abs(pairs) <= 5.5 / np.sqrt(_NUM))
    counts = np.bincount(bits >> 24, minlength=256)
    # Chi-square of 256 cells: 255 with the standard deviation sqrt(510).
    chi_square = np.sum((counts - _NUM / 256) ** 2) / (_NUM / 256)
    assert abs(chi_square - 255) <= 5 * np.sqrt(510)


@pytest.mark.parametrize("lag", [1, 2, 9, 32, 1000, 4096])
def test_neighbours_are_unrelated(lag):
    # The correlation of n pairs is 0, off by 1 / sqrt(n).
    u = _uniform(5)
    assert abs(np.corrcoef(u[lag:], u[:-lag])[0, 1]) <= 5 / np.sqrt(_NUM)


# Of the first thousand keys the last two pairs begin nearest to each other: their
# positions plus the first words of the keys are the same numbers, 4140 and 5502 apart.
@pytest.mark.parametrize("seeds", [(0, 1), (6, 7), (0, 2**31), (717, 519), (678, 809)])
def test_keys_are_unrelated(seeds):
    u, v = (_uniform(seed) for seed in seeds)
    assert abs(np.corrcoef(u, v)[0, 1]) <= 5 / np.sqrt(_NUM)
    assert abs(np.corrcoef(u, v[::-1])[0, 1]) <= 5 / np.sqrt(_NUM)
    # At no shift is one a copy of the other, plus a constant: by the Fourier transform
    # of exp(2 pi i u), whose correlation with a copy is 1, and 1 / sqrt(n) by chance; the
    # largest of n is below 5 of those, as exp(-25) n is 1e-6.
    a, b = (np.fft.fft(np.exp(2j * np.pi * each)) for each in (u, v))
    assert np.max(np.abs(np.fft.ifft(a * np.conj(b)))) / _NUM <= 5 / np.sqrt(_NUM)
    # Nor is it a permutation: few of 2^16 out of 2^32 values meet, 1 by chance.
    assert len(np.intersect1d(u, v)) <= 12


def test_bits_by_key_and_position():
    key = jax.random.key(3)
    bits = _bits(key, (6, 35))
    np.testing.assert_array_equal(bits, rounding.random_bits(key, (6, 35)))
    np.testing.assert_array_equal(bits.reshape(-1), _bits(key, (210,)))  # row-major
    np.testing.assert_array_equal(bits[:2].reshape(-1), _bits(key, (70,)))
    assert len(np.unique(bits)) == 210
    assert _bits(key, ()).shape == ()
    assert _bits(key, (3, 0)).shape == (3, 0)
    keys = jax.random.split(key, 3)
    mapped = jax.vmap(lambda key: rounding.random_bits(key, (50,)))(keys)
    np.testing.assert_array_equal(mapped, [_bits(each, (50,)) for each in keys])


def test_every_kind_of_key():
    kinds = (7, np.uint32(7), jnp.uint32(7), jnp.int32(7))
    for key in kinds:
        np.testing.assert_array_equal(_bits(key, (9,)), rounding.random_bits(7, (9,)))
    raw = jax.random.key_data(jax.random.key(7))
    np.testing.assert_array_equal(_bits(raw, (9,)), _bits(jax.random.key(7), (9,)))
    # From 2^31 on JAX takes a whole number for one of 64 bits.
    for key in (2**31, 2**32 - 1):
        expected = _bits(jnp.uint32(key), (9,))
        np.testing.assert_array_equal(rounding.random_bits(key, (9,)), expected)
    longer = jax.random.key(7, impl="rbg")  # of four words
    assert not np.any(np.asarray(_bits(longer, (9,))) == _bits(raw, (9,)))


def test_uniform_is_below_one():
    # The 24 highest bits, so that not even 2^32 - 1 is rounded to 1.
    u = np.asarray(rounding.uniform(jax.random.key(0), (_NUM,)))
    bits = np.asarray(_bits(jax.random.key(0), (_NUM,)))
    np.testing.assert_array_equal(u, (bits >> 8) / 2**24)
    assert u.dtype == np.float32
    assert u.max() < 1


def test_straight_through():
    def rounded(x, width):
        q = rounding.straight_through(x, jnp.round(jax.lax.stop_gradient(x)) * width)
        return jnp.sum(q**2)

    # d q^2 = 2 q dq, where dq / dx is 1 and dq / dwidth is round(x): q is 4 and -6.
    slopes = jax.jit(jax.grad(rounded, (0, 1)))(jnp.array([2.2, -2.9]), 2.0)
    np.testing.assert_array_equal(slopes[0], [8, -12])
    assert float(slopes[1]) == 2 * (4 * 2 + 6 * 3)


def test_lowers_for_accelerators():
    def step(x, key):
        return rounding.round_to_whole(x, "stochastic", key)

    shapes = jax.ShapeDtypeStruct((3, 5), jnp.float32), jax.random.key(0)
    exported = export.export(jax.jit(step), platforms=("tpu", "cuda"))(*shapes)
    assert exported.out_avals[0].shape == (3, 5)


@pytest.mark.parametrize(
    ("mode", "key", "error", "says"),
    [
        ("nearest", None, ValueError, r"`mode` \(='nearest'\): .*`nearest_even`"),
        (None, None, ValueError, r"`mode` \(=None\): there are `truncate`"),
        ("stochastic", None, ValueError, r'`mode="stochastic"` needs `key`, such as'),
        ("stochastic", 0.5, TypeError, r"`key` \(=0\.5\) .*`jax\.random\.key\(0\)`"),
        ("stochastic", "seed", TypeError, r"`key` \(='seed'\)"),
        ("stochastic", True, TypeError, r"`key` \(=True\)"),
        ("stochastic", jnp.ones(2), TypeError, r"`key` \(=Array"),
        ("stochastic", jax.random.split(jax.random.key(0)), ValueError,
         r"`key` is of the shape \(2,\), .*`jax\.vmap`"),
        ("stochastic", jax.random.key_data(jax.random.split(jax.random.key(0), 3)),
         ValueError, r"`key` is of the shape \(3, 2\), .*`jax\.vmap`"),
        ("stochastic", np.zeros(0, np.uint32), ValueError, r"the shape \(0,\), "),
        ("stochastic", 2**40, ValueError, r"`key` \(=1099511627776\) .* to 2\^32 - 1; "),
        ("stochastic", np.int64(2**40), ValueError, r"`key` \(=1099511627776\)"),
        ("stochastic", -1, ValueError, r"`key` \(=-1\) must be from 0"),
        ("stochastic", np.array([2**40, 1]), TypeError, "`key` .*words of 32 bits"),
        ("stochastic", [1, 2], TypeError, r"`key` \(=\[1, 2\]\) must be a key"),
    ],
)  # fmt: skip
def test_refused(mode, key, error, says):
    with pytest.raises(error, match=says):
        rounding.round_to_whole(jnp.ones(3), mode, key)


def test_too_many_values_refused():
    with pytest.raises(ValueError, match=r"`shape` \(=\(65536, 65536\)\)"):
        jax.eval_shape(lambda: rounding.random_bits(0, (2**16, 2**16)))
