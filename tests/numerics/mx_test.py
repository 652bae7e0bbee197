import functools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax import export

from codesign.numerics import mx

_LARGEST = float(np.finfo(np.float32).max)
_NORMAL = 2.0**-126  # what is below may flush to zero
_ORACLES = {
    "mxfp8_e4m3": ml_dtypes.float8_e4m3fn,
    "mxfp8_e5m2": ml_dtypes.float8_e5m2,
    "mxfp6_e3m2": ml_dtypes.float6_e3m2fn,
    "mxfp6_e2m3": ml_dtypes.float6_e2m3fn,
    "mxfp4_e2m1": ml_dtypes.float4_e2m1fn,
}
_LARGEST_EXPONENTS = dict(zip(_ORACLES, (8, 15, 4, 2, 2), strict=True), mxint8=0)
_quantize = jax.jit(mx.quantize, static_argnums=(1, 2), static_argnames="mode")
_every_format = pytest.mark.parametrize("name", mx.FORMATS)


def _numbers(name):
    """The number of every code, by `ml_dtypes`; sixty-fourths of signed bytes."""
    if name == "mxint8":
        return np.arange(256).astype(np.int8) / 64
    codes = np.arange(2 ** mx.FORMATS[name].bits, dtype=np.uint8)
    return codes.view(_ORACLES[name]).astype(float)


def _largest(name):
    numbers = _numbers(name)
    return np.max(numbers[np.isfinite(numbers)])


def _element(y, name):
    """Nearest element of each number, of a tie the even one; beyond them the last one."""
    y = np.clip(y, -_largest(name), _largest(name))
    if name == "mxint8":
        return np.rint(y * 64) / 64
    return y.astype(np.float32).astype(_ORACLES[name]).astype(float)


def _reference(x, name):
    """Quantises [..., K] along its last axis, block by block, in float64."""
    found, scales = np.zeros(x.shape), []
    for start in range(0, x.shape[-1], 32):
        block = np.nan_to_num(x[..., start : start + 32].astype(float), posinf=np.inf)
        top = np.max(np.abs(block), -1, keepdims=True)
        exponent = np.where(np.isinf(top), 128, np.frexp(top)[1] - 1)
        scale = np.clip(exponent - _LARGEST_EXPONENTS[name], -127, 127)
        scale = np.where(top == 0, -127, scale)
        block = np.where(np.isinf(block), np.copysign(2.0**200, block), block)
        q = np.ldexp(_element(np.ldexp(block, -scale), name), scale)
        found[..., start : start + 32] = np.clip(q, -_LARGEST, _LARGEST)
        scales.append(scale)
    return found, np.concatenate(scales, -1)


def _assert_same(found, expected):
    found, expected = np.asarray(found, float), np.asarray(expected, float)
    np.testing.assert_array_equal(
        np.where(np.abs(found) < _NORMAL, 0, found),
        np.where(np.abs(expected) < _NORMAL, 0, expected),
    )


def _arrays():
    """Blocks of one size, far apart, and at both ends of float32."""
    rng = np.random.default_rng(0)
    for low, high in ((-3, 3), (-30, 30), (-126, 127), (-126, -110), (118, 127)):
        significands = np.choose(
            rng.choice(4, (12, 70), p=[0.5, 0.2, 0.2, 0.1]),
            [
                1 + rng.random((12, 70)),
                rng.integers(16, 32, (12, 70)) / 16,
                2 - 2.0**-23,
                0.0,
            ],
        )
        x = np.ldexp(significands, rng.integers(low, high, (12, 70), endpoint=True))
        x = (x * rng.choice([-1, 1], x.shape)).astype("f4")
        x[0, :32] = 0
        yield x


@_every_format
def test_every_code(name):
    codes = np.arange(2 ** mx.FORMATS[name].bits)
    numbers = mx.decode(codes, name)
    np.testing.assert_array_equal(numbers, _numbers(name))
    np.testing.assert_array_equal(mx.encode(numbers, name), codes)
    np.testing.assert_array_equal(
        np.signbit(numbers[numbers == 0]), [False, True][: np.sum(numbers == 0)]
    )
    finite = numbers[np.isfinite(numbers)]
    assert mx.FORMATS[name].largest == np.max(finite)
    assert 2.0 ** mx.FORMATS[name].largest_exponent <= np.max(finite)
    assert mx.FORMATS[name].largest_exponent == _LARGEST_EXPONENTS[name]


@_every_format
def test_encoding_rounds(name):
    # Every number, every tie between two, and their neighbours in float32.
    numbers = np.unique(_numbers(name)[np.isfinite(_numbers(name))])
    if name == "mxint8":
        numbers = numbers[1:]  # -2 is a code that only `encode` knows
    ties = (numbers[1:] + numbers[:-1]) / 2
    x = np.concatenate([numbers, ties, [1e-45, 1e-30, 1e30]]).astype("f4")
    x = np.concatenate([np.nextafter(x, np.float32(s * np.inf)) for s in (-1, 1)] + [x])
    x = x[np.isfinite(x) & (np.abs(x) >= _NORMAL)]
    x = np.concatenate([x, -x])
    if name == "mxint8":
        x = x[np.abs(x) <= 127 / 64]
    np.testing.assert_array_equal(
        mx.decode(mx.encode(x, name), name), _element(x, name)
    )


@_every_format
def test_reference_and_packing(name):
    for x in _arrays():
        q = _quantize(x, name)
        expected, scales = _reference(x, name)
        _assert_same(q, expected)
        np.testing.assert_array_equal(_quantize(q, name), q)
        _assert_same(_quantize(-x, name), -q)
        np.testing.assert_array_equal(_quantize(x.T, name, 0), q.T)
        packed = mx.pack(x, name)
        assert {packed.scales.dtype, packed.elements.dtype} == {np.dtype(np.uint8)}
        np.testing.assert_array_equal(packed.scales.astype(int) - 127, scales)
        _assert_same(mx.unpack(packed, name), q)
        half = 2 ** (mx.FORMATS[name].bits - 1)
        if name != "mxint8":
            assert not np.any(packed.elements == half)  # zero has one sign


def test_by_hand():
    # 7 = 1.75 x 2^2: of E2M1 the scale is 2^0, and 7 is beyond 6; 2.5 lies between 2 and
    # 3, of which 2 is even; 0.25 between 0 and 0.5, 0.3 nearer to 0.5; -1.75 is -2.
    x = jnp.array([7.0, 2.5, 0.25, 0.3, -1.75, -0.2])
    np.testing.assert_array_equal(_quantize(x, "mxfp4_e2m1"), [6, 2, 0, 0.5, -2, 0])
    packed = mx.pack(x, "mxfp4_e2m1")
    assert packed.scales.tolist() == [127]
    assert packed.elements.tolist() == [0b0111, 0b0100, 0, 0b0001, 0b1100, 0]
    # Sixty-fourths of 4: 7 is 112, 2.5 is 40, 0.3 is 4.8, -1.75 is -28, -0.2 is -3.2.
    np.testing.assert_array_equal(
        _quantize(x, "mxint8"), np.array([112, 40, 4, 5, -28, -3]) / 16
    )
    assert mx.pack(x, "mxint8").elements.tolist() == [112, 40, 4, 5, 256 - 28, 256 - 3]
    turned = mx.pack(x[:, None], "mxint8", 0)
    assert (turned.scales.shape, turned.elements.shape) == ((1, 1), (6, 1))
    np.testing.assert_array_equal(
        mx.unpack(turned, "mxint8", 0)[:, 0], _quantize(x, "mxint8")
    )
    # 448 = 1.75 x 2^8 is the last number of E4M3: 480 is there, not 512.
    np.testing.assert_array_equal(_quantize(jnp.array([511.0]), "mxfp8_e4m3"), [448])


@_every_format
def test_limits_and_not_finite(name):
    largest, e = _largest(name), _LARGEST_EXPONENTS[name]
    x = np.array([[np.inf, 1.0, -np.inf, np.nan], [np.nan, 3.0, -1.0, 0.0]], np.float32)
    x = np.concatenate([x, np.zeros((1, 4), "f4"), np.full((1, 4), np.nan, "f4")])
    q = np.asarray(_quantize(x, name), float)
    # Infinity has the exponent 128, and no scale is above 127.
    top = min(largest * 2.0 ** min(128 - e, 127), _LARGEST)
    np.testing.assert_array_equal(
        q, [[top, 0, -top, 0], [0, 3, -1, 0], [0] * 4, [0] * 4]
    )
    packed = mx.pack(x, name)
    assert packed.scales[:, 0].tolist() == [127 + min(128 - e, 127), 128 - e, 0, 0]
    np.testing.assert_array_equal(mx.unpack(packed, name), q)
    # 2^-126 would have the scale 2^(-126 - e), below 2^-127 but for whole numbers. It is
    # a normal number and not flushed.
    tiny = np.zeros((4, 4), "f4")
    tiny[:, 1] = -(2.0**-126)
    np.testing.assert_array_equal(_quantize(tiny, name), tiny)
    assert mx.pack(tiny, name).scales[0, 0] == max(1 - e, 0)


def test_words_of_others():
    # A scale of 255 is NaN; E5M2 has an infinity, which no scale makes finite.
    scales = np.array([255, 127], np.uint8)
    elements = np.full(33, 0x3C, np.uint8)
    elements[32] = 0x7C
    values = mx.unpack(mx.Packed(scales, elements), "mxfp8_e5m2")
    assert np.all(np.isnan(values[:32]))
    assert values[32] == np.inf
    # What is not finite keeps its code, or is the last number, or 0; a signalling NaN,
    # whose first bits are 0, is no infinity.
    signalling = np.array([0x7F800001], np.uint32).view(np.float32)
    odd = np.concatenate([np.float32([np.inf, -np.inf, np.nan]), signalling])
    assert mx.encode(odd, "mxfp8_e5m2").tolist() == [0x7C, 0xFC, 0x7E, 0x7D]
    assert mx.encode(odd, "mxfp8_e4m3").tolist() == [0x7E, 0xFE, 0x7F, 0x7F]
    assert mx.encode(odd, "mxfp4_e2m1").tolist() == [7, 15, 0, 0]
    # -2 is a code of whole numbers, but infinity of either sign is 127 sixty-fourths.
    assert mx.encode(odd, "mxint8").tolist() == [127, 256 - 127, 0, 0]
    assert mx.encode([-2.0, -3.0], "mxint8").tolist() == [128, 128]


@pytest.mark.parametrize("name", ["mxint8", "mxfp8_e4m3"])
def test_types(name):
    x = np.random.default_rng(0).normal(size=40)
    expected = _quantize(np.float32(x), name)
    for kind in (jnp.bfloat16, jnp.float16):
        narrow = jnp.asarray(x, kind)
        q = _quantize(narrow, name)
        assert q.dtype == kind
        np.testing.assert_array_equal(
            q, _quantize(narrow.astype(jnp.float32), name).astype(kind)
        )
        assert np.isfinite(_quantize(jnp.array([jnp.inf], kind), name))[0]
    with jax.enable_x64(True):
        q = _quantize(jnp.asarray(x), name)
        assert q.dtype == jnp.float64
        np.testing.assert_array_equal(q, expected)


def test_transforms():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 40)), jnp.float32)
    keys = jax.random.split(jax.random.key(0), 3)
    one = functools.partial(mx.quantize, name="mxfp6_e3m2", mode="stochastic")

    def mapped(x, keys):
        return jax.vmap(lambda x, key: one(x, key=key))(x, keys)

    compiled = jax.jit(one)
    expected = [compiled(x, key=key) for x, key in zip(x, keys, strict=True)]
    np.testing.assert_array_equal(jax.jit(mapped)(x, keys), jnp.stack(expected))
    slopes = jax.jit(jax.grad(lambda x: (x * mapped(x, keys)).sum()))(x)
    np.testing.assert_allclose(slopes, x + jnp.stack(expected), rtol=1e-6)
    for name in ("mxint8", "mxfp8_e4m3"):
        step = jax.jit(functools.partial(mx.quantize, name=name))
        shape = jax.ShapeDtypeStruct((3, 40), jnp.float32)
        exported = export.export(step, platforms=("tpu", "cuda"))(shape)
        assert exported.out_avals[0].shape == (3, 40)


@_every_format
def test_stochastic(name):
    # 3000 draws of two numbers: five standard deviations of their mean.
    x = jnp.array([1.9, 0.3, -0.7, 0.011])
    draw = jax.vmap(lambda k: mx.quantize(x, name, mode="stochastic", key=k))
    q = np.asarray(jax.jit(draw)(jax.random.split(jax.random.key(0), 3000)), float)
    for exact, found in zip(np.asarray(x, float)[1:], q.T[1:], strict=True):
        below, above = np.min(found), np.max(found)
        assert set(found) == {below, above}
        assert below < exact < above
        deviation = np.sqrt((exact - below) * (above - exact) / len(found))
        assert abs(np.mean(found) - exact) <= 5 * deviation


@pytest.mark.parametrize("shape", [(0,), (3, 0), (2, 1, 3, 1, 2)])
def test_odd_shapes(shape):
    x = jnp.ones(shape)
    np.testing.assert_array_equal(_quantize(x, "mxfp8_e4m3"), x)
    np.testing.assert_array_equal(mx.unpack(mx.pack(x, "mxint8"), "mxint8"), x)


_X = jnp.ones(9)


@pytest.mark.parametrize(
    ("take", "error", "says"),
    [
        (lambda: mx.quantize(_X, "mxfp8"), ValueError, r"`name` \(='mxfp8'\).*mean `mx"),
        (lambda: mx.quantize(_X, "int4"), ValueError, r"`name` \(='int4'\) .*`mxint8`"),
        (lambda: mx.quantize(_X, None), ValueError, r"`name` \(=None\) .*`mxfp4_e2m1`"),
        (lambda: mx.quantize(_X, "mxint8", 1), ValueError, r"`axis` \(=1\) .*from -1 to 0"),
        (lambda: mx.quantize(_X[0], "mxint8"), ValueError, "`x` is a single number"),
        (lambda: mx.quantize(_X > 0, "mxint8"), TypeError, "`x` is bool; pass floating"),
        (lambda: mx.quantize(_X, "mxint8", block_size=0), ValueError, r"`block_size` \("),
        (lambda: mx.quantize(_X, "mxint8", mode="up"), ValueError, r"`mode` \(='up'\): "),
        (lambda: mx.quantize(_X, "mxint8", mode="stochastic"), ValueError, "needs `key`"),
        (lambda: mx.pack(_X, "mxint"), ValueError, r"`name` \(='mxint'\).*mean `mxint8`"),
        (lambda: mx.decode([64], "mxfp6_e2m3"), ValueError, "`codes` must be from 0 to 63"),
        (lambda: mx.decode([-1], "mxint8"), ValueError, "`codes` must be from 0 to 255"),
        (lambda: mx.decode([0.5], "mxint8"), TypeError, "`codes` are float64; pass whole"),
        (lambda: mx.encode([0.5], "mxint"), ValueError, r"`name` \(='mxint'\)"),
        (lambda: mx.unpack(mx.Packed([1, 1], [0] * 32), "mxint8"), ValueError,
         r"`packed\.scales` \(2,\) must be \(1,\) for elements \(32,\)"),
        (lambda: mx.unpack(mx.Packed([1], [0]), "mxint8", 1), ValueError,
         r"`axis` \(=1\) .*`packed\.elements` has 1 axes"),
        (lambda: jax.jit(lambda x: mx.pack(x, "mxint8"))(_X), TypeError,
         "`pack` works on the host"),
        (lambda: mx.unpack(mx.Packed([256], [0]), "mxint8"), ValueError,
         r"`packed\.scales` must be from 0 to 255, got 256"),
    ],
)  # fmt: skip
def test_refused(take, error, says):
    with pytest.raises(error, match=says):
        take()
