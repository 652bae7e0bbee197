"""Reversible networks made of trained functions, against sums by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codesign.models.to_reversible import ReversibleResidual
from tests.models.arrays import normal

_DEPTH = 4


class Shift(nn.Module):
    """Adds a parameter, whatever the input: the sum of all is the same in any order."""

    @nn.compact
    def __call__(self, x):
        shift = self.param("shift", nn.initializers.normal(), x.shape[-1:])
        return jnp.broadcast_to(shift, x.shape)


class Dense(nn.Module):
    """A dense layer with a slope of its own, and statistics that it records."""

    size: float = 0.3

    @nn.compact
    def __call__(self, x, *, train=False):
        h = nn.BatchNorm(use_running_average=not train)(x)
        return self.size * nn.Dense(x.shape[-1])(nn.gelu(h))


def _trained(function, x):
    """Variables of `_DEPTH` functions, and what the residual stack makes of x."""
    keys = jax.random.split(jax.random.key(0), _DEPTH)
    variables = jax.vmap(lambda key: function.init(key, x))(keys)
    y = x
    for i in range(_DEPTH):
        y = y + function.apply(jax.tree.map(lambda leaf, i=i: leaf[i], variables), y)
    return variables, y


@pytest.mark.parametrize("wiring", ["copies", "pairs"])
def test_functions_of_constant_value_add_up_to_the_trained_network(wiring):
    x = normal(5, 3)
    variables, expected = _trained(Shift(), x)
    made = ReversibleResidual(Shift(), _DEPTH, wiring, None)
    found = made.apply(made.from_trained(variables), x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("wiring", ["copies", "pairs", "leapfrog"])
def test_streams_by_hand(wiring):
    x = normal(6, 3)
    variables, _ = _trained(Dense(), x)

    def g(i, x):
        return Dense().apply(jax.tree.map(lambda leaf: leaf[i], variables), x)

    first = second = x
    if wiring == "copies":
        for i in range(_DEPTH):
            second = second + g(i, first)
            first = first + g(i, second)
    else:
        start = 1 if wiring == "leapfrog" else 2
        second = second + start * g(0, first)
        first = first + 2 * g(1, second)
        second = second + 2 * g(2, first)
        first = first + 2 * g(3, second)
    expected = first if wiring == "leapfrog" else (first + second) / 2
    made = ReversibleResidual(Dense(), _DEPTH, wiring, None)
    found = jax.jit(made.apply)(made.from_trained(variables), x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("wiring", ["copies", "pairs", "leapfrog"])
def test_small_functions_change_little(wiring):
    # With G of size e the order of evaluation matters to the second order: 1/4 of the
    # difference at half the size. (Leapfrog's start is off by half of G_0 - G_1 / 2 ...)
    x = normal(6, 8)

    def off(size):
        function = Dense(size)
        variables, expected = _trained(function, x)
        made = ReversibleResidual(function, _DEPTH, wiring, None)
        found = jax.jit(made.apply)(made.from_trained(variables), x)
        return np.linalg.norm(found - expected)

    assert off(0.02) / off(0.01) == pytest.approx(
        2 if wiring == "leapfrog" else 4, rel=0.1
    )


def test_has_the_variables_of_a_new_one_and_learns():
    x = normal(6, 3)
    variables, _ = _trained(Dense(), x)
    made = ReversibleResidual(Dense(), _DEPTH)
    placed = made.from_trained(variables)
    assert jax.tree.map(jnp.shape, placed) == jax.tree.map(
        jnp.shape, made.init(jax.random.key(1), x)
    )

    @jax.jit
    def gradient(params):
        def loss(params):
            y, updates = made.apply(
                {**placed, "params": params}, x, train=True, mutable=["batch_stats"]
            )
            return jnp.mean(y**2), updates

        return jax.grad(loss, has_aux=True)(params)

    slopes, updates = gradient(placed["params"])
    kernels = slopes["stack"]["residual2"]["function"]["Dense_0"]["kernel"]
    assert np.all(np.any(np.asarray(kernels) != 0, axis=(1, 2)))
    # The first function sees x: .01 of its mean beside .99 of the old one, 0.
    statistics = updates["batch_stats"]["stack"]["residual1"]["function"]["BatchNorm_0"]
    np.testing.assert_allclose(
        statistics["mean"][0], 0.01 * x.mean(0), rtol=1e-2, atol=1e-5
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"wiring": "rings"}, r"`wiring` \(='rings'\) must be one of"),
        ({"depth": 0}, r"`depth` \(=0\) must be a positive"),
        ({"depth": 3}, r"`depth` \(=3\) must be even.*'copies'"),
        ({"depth": 5, "wiring": "copies"}, r"\['shift'\] is \(4, 3\).*`depth` \(=5\)"),
    ],
)
def test_refuses(settings, message):
    variables, _ = _trained(Shift(), normal(5, 3))
    made = ReversibleResidual(**({"function": Shift(), "depth": 4} | settings))
    with pytest.raises(ValueError, match=message):
        made.from_trained(variables)
