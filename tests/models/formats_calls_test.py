"""How networks in number formats are called: parts, names, keys, and what is refused."""

import pathlib
import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codesign.kernels.cast_product import TAP_SHAPE
from codesign.models.formats import Formats, InFormats, casting
from codesign.numerics import bfp, formats
from tests.models.arrays import normal

_BFP3 = Formats.of("bfp3")
_RANDOM = Formats.of(bfp.Format(mantissa_bits=3, bias=None, rounding="stochastic"))


class _Sharing(nn.Module):
    """One layer, plain and in formats."""

    def setup(self):
        self.layer = nn.Dense(4)
        self.cast = InFormats(self.layer, _BFP3)

    def __call__(self, x):
        return self.layer(x), self.cast(x)


class _Inline(nn.Module):
    @nn.compact
    def __call__(self, x):
        layer = nn.Dense(4)
        return layer(x), InFormats(layer, _BFP3)(x)


@pytest.mark.parametrize(
    "module", [_Sharing(), _Inline(), nn.remat(_Sharing)(), nn.jit(_Inline)()]
)
def test_a_module_that_another_holds_has_one_set_of_parameters(module):
    x = normal(2, 9)
    variables = jax.jit(module.init)(jax.random.key(0), x)
    (layer,) = variables["params"].values()
    layer = {"kernel": layer["kernel"], "bias": layer["bias"] + 1}
    variables = {"params": dict.fromkeys(variables["params"], layer)}
    plain, cast = jax.jit(module.apply)(variables, x)
    alone = jax.jit(InFormats(nn.Dense(4), _BFP3).apply)({"params": layer}, x)
    np.testing.assert_array_equal(cast, alone)
    np.testing.assert_allclose(plain, x @ layer["kernel"] + 1, rtol=1e-5)


class _Nested(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(4, use_bias=False, name="b")(x)


class _Ambiguous(nn.Module):
    """Layers at a/b, and of the names `a/b` and `c#2`; and c, twice."""

    @nn.compact
    def __call__(self, x, *, train=False):
        c = nn.Dense(4, use_bias=False, name="c")
        return (
            *(_Nested(name="a")(x), nn.Dense(4, use_bias=False, name="a/b")(x)),
            *(c(x), c(x), nn.Dense(4, use_bias=False, name="c#2")(x)),
        )


def test_no_two_products_share_a_name_or_random_bits():
    names = ("a/b", "a%2Fb", "c", "c#2", "c%232")
    kernel = {"kernel": normal(9, 4)}
    layers = {"a": {"b": kernel}, "a/b": kernel, "c": kernel, "c#2": kernel}
    module, x = InFormats(_Ambiguous(), _RANDOM), normal(16, 9)

    @jax.jit
    @jax.grad
    def rows(taps):
        return sum(map(jnp.sum, module.apply({"params": layers}, x, taps=taps)))

    for found in rows({name: jnp.zeros(TAP_SHAPE) for name in names}).values():
        np.testing.assert_array_equal(found[:, -1], 1)
    rngs = {"rounding": jax.random.key(0)}
    found = jax.jit(
        lambda: module.apply({"params": layers}, x, train=True, rngs=rngs)
    )()
    assert len({np.asarray(y).tobytes() for y in found}) == len(names)


def test_no_two_kernels_share_random_bits():
    fmt = bfp.Format(block_size=2, mantissa_bits=2, bias=None, rounding="stochastic")
    kernel = {"kernel": jnp.full((2, 64), 1.25)}
    module = InFormats(nn.Dense(64), Formats(master=fmt))
    kept = module.stored({"a": {"b": kernel}, "a/b": kernel}, jax.random.key(0))
    assert np.mean(kept["a"]["b"]["kernel"] == kept["a/b"]["kernel"]) < 0.7


class _Training(nn.Module):
    @nn.compact
    def __call__(self, x, train, scale=1.0):
        return nn.Dense(3)(x) * scale


class _TrainingByDefault(nn.Module):
    @nn.compact
    def __call__(self, x, *, train=True):
        return nn.Dense(3)(x)


@pytest.mark.parametrize(
    ("module", "args", "kwargs", "is_training"),
    [
        (_Training(), (True,), {}, True),
        (_Training(), (), {"train": True}, True),
        (_Training(), (False,), {}, False),
        (_Training(), (False,), {"scale": 2.0}, False),
        (_TrainingByDefault(), (), {}, True),
        (_TrainingByDefault(), (), {"train": False}, False),
        (InFormats(_Training(), _RANDOM), (True,), {}, True),
    ],
)
def test_training_at_random_asks_for_a_key(module, args, kwargs, is_training):
    x, params = normal(2, 9), {"Dense_0": {"kernel": normal(9, 3), "bias": jnp.ones(3)}}

    def run(**settings):
        cast = InFormats(module, _RANDOM)
        return jax.eval_shape(
            lambda: cast.apply({"params": params}, x, *args, **kwargs, **settings)
        )

    if is_training:
        with pytest.raises(ValueError, match="`key` is None.*in training"):
            run()
    else:
        run()
    run(rngs={"rounding": jax.random.key(0)})


def test_a_traced_train_is_refused_where_a_key_may_be_missing():
    x = normal(2, 9)
    params = {"Dense_0": {"kernel": normal(9, 3), "bias": jnp.ones(3)}}

    def shape(chosen, rngs=None):
        def run(train):
            return InFormats(_Training(), chosen).apply(
                {"params": params}, x, train, rngs=rngs
            )

        return jax.eval_shape(run, True).shape

    with pytest.raises(TypeError, match="`train` must be True or False.*pass a key"):
        shape(_RANDOM)
    assert shape(_RANDOM, jax.random.key(0)) == shape(_BFP3) == (2, 3)


def test_what_does_not_fit_the_module_it_says_itself():
    with pytest.raises(TypeError, match="unexpected keyword argument 'bogus'"):
        InFormats(_Training(), _RANDOM).apply({}, normal(2, 9), bogus=1)


_LAYER = {"params": {"kernel": normal(9, 4), "bias": normal(4)}}


def _called(**settings):
    return InFormats(nn.Dense(4), _BFP3).apply(_LAYER, normal(2, 9), **settings)


@pytest.mark.parametrize("bits", ["5", True, [True, False], [[4.0], 5.0], None, 3j])
def test_widths_that_are_no_numbers_are_refused(bits):
    bits = [None] if bits is None else bits
    with pytest.raises(ValueError, match="`mantissa_bits`.*must be one number"):
        _called(mantissa_bits=bits)


def test_widths_may_be_whole_or_a_list_that_jax_traces():
    np.testing.assert_array_equal(_called(mantissa_bits=3), _called())
    y = jax.jit(lambda bits: _called(mantissa_bits=[bits, 3.0]))(3.0)
    np.testing.assert_allclose(y, _called(), rtol=1e-6)


@pytest.mark.parametrize(
    ("taps", "match"),
    [
        (True, r"`taps` \(=True\) must be arrays \(3, 7\)"),
        ([""], "must be arrays"),
        ({"": jnp.zeros(7)}, r"`taps\[''\]` has shape \(7,\).*must be \(3, 7\)"),
        ({"": None}, r"has shape \(\)"),
        ({"Dense_1": jnp.zeros((3, 7))}, "names 'Dense_1', no product; there are ``"),
    ],
)
def test_taps_that_fit_no_product_are_refused(taps, match):
    with pytest.raises(ValueError, match=match):
        _called(taps=taps)


def test_taps_of_a_module_without_products_are_refused():
    module = InFormats(nn.Dropout(0.5, deterministic=True), _BFP3)
    with pytest.raises(ValueError, match="'a', no product; it has none"):
        module.apply({}, normal(2, 9), taps={"a": jnp.zeros(TAP_SHAPE)})


class _WithTaps(nn.Module):
    @nn.compact
    def __call__(self, x, taps=None):
        return nn.Dense(3)(x)


class _WithBits(nn.Module):
    @nn.compact
    def __call__(self, x, *, mantissa_bits=5):
        return nn.Dense(3)(x)


@pytest.mark.parametrize(
    ("module", "match"),
    [
        (_WithTaps(), "`taps` is an argument of _WithTaps, but `InFormats` takes"),
        (_WithBits(), "`mantissa_bits` is an argument of _WithBits"),
        (nn.Dense, r"`module` \(=.*Dense.*\) must be an instance"),
        (lambda x: x, r"`module` \(=.*\) must be an instance"),
    ],
)
def test_modules_that_cannot_be_called_so_are_refused(module, match):
    with pytest.raises(TypeError, match=match):
        InFormats(module, _BFP3).init(jax.random.key(0), normal(2, 9))


def test_what_is_no_key_is_refused():
    params = {"kernel": normal(9, 4)}
    for key in ("a", 3):
        with (
            pytest.raises(TypeError, match=f"`key` .={key!r}. must be a key"),
            casting(_BFP3, key=key),
        ):
            pass
    with pytest.raises(TypeError, match=r"`key` \(=None\) must be a key, such as"):
        InFormats(nn.Dense(4), _BFP3).stored(params, None)


def test_casting_takes_formats_only():
    with (
        pytest.raises(TypeError, match=r"`formats` \(='bfp5'\) must be `Formats`"),
        casting("bfp5"),
    ):
        pass


class _Coder(nn.Module):
    def setup(self):
        self.encoder = nn.Dense(4, use_bias=False)

    def encode(self, x):
        return self.encoder(x)


def test_another_method_is_cast_by_casting():
    x, kernel = normal(2, 9), normal(9, 4)
    variables = {"params": {"encoder": {"kernel": kernel}}}
    with casting(_BFP3):
        found = _Coder().apply(variables, x, method="encode")
    fmt = _BFP3.weights
    expected = formats.cast(x, fmt) @ formats.cast(kernel, fmt, 0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_forward_derivatives_are_refused():
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(lambda bits: _called(mantissa_bits=bits), (3.5,), (1.0,))


class _Recurrent(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.RNN(nn.OptimizedLSTMCell(3))(x)  # here


def test_a_warning_points_at_the_line_that_calls_the_layer():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        InFormats(_Recurrent(), _BFP3).init(jax.random.key(0), normal(2, 3, 4))
    assert {each.filename for each in caught} == {__file__}
    lines = pathlib.Path(__file__).read_text().splitlines()
    assert all(lines[each.lineno - 1].endswith("# here") for each in caught)


def test_truncation_turns_small_updates_towards_zero_into_whole_steps():
    # Two bits below the largest of 1.5: steps of 1/2. 1 less 1/16 is cut to 1/2; with
    # chance 7 of 8 stay, 896 of 1024, of a deviation of 10.6. The largest, 1.875,
    # is 3/4 of a step above 1.5: it becomes 2 where a carry may, and 1.5 where not.
    rows = [jnp.full((1, 1024), value) for value in (1.5, 1 - 1 / 16)]
    low = {"kernel": jnp.concatenate(rows)}
    high = {"kernel": jnp.full((2, 1024), 1.875)}
    ends = {}
    for rounding, carry in (
        *(("truncate", "saturate"), ("stochastic", "saturate")),
        ("stochastic", "renorm"),
    ):
        fmt = bfp.Format(
            block_size=2, mantissa_bits=2, bias=None, rounding=rounding, carry=carry
        )
        module = InFormats(nn.Dense(1024), Formats(master=fmt))
        kept = [
            module.stored(params, jax.random.key(0))["kernel"] for params in (low, high)
        ]
        ends[rounding, carry] = np.mean(kept[0][1]), np.mean(kept[1])
    assert ends["truncate", "saturate"] == (0.5, 1.5)
    np.testing.assert_allclose(
        ends["stochastic", "saturate"], (15 / 16, 1.5), atol=0.03
    )
    np.testing.assert_allclose(
        ends["stochastic", "renorm"], (15 / 16, 1.875), atol=0.03
    )
