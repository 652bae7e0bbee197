"""Residual stacks against the same functions one by one."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from codesign.models.norm import MaskedBatchNorm
from codesign.models.residual import ResidualStack
from codesign.models.reversible import ReversibleStack
from codesign.numerics.read_errors import ReadErrors, read
from tests.models.arrays import assert_same, normal

_DEPTH = 3


class F(nn.Module):
    """A dense layer with a norm."""

    @nn.compact
    def __call__(self, x, bn_mask, *, train):
        y = nn.Dense(x.shape[-1])(x)
        return nn.relu(MaskedBatchNorm(0)(y, bn_mask, train=train))


def _made():
    stack, x = ResidualStack(F(), F(), _DEPTH), normal(5, 4)
    masks = jnp.array([[0.0], [1.0], [0.5]])
    return stack, x, masks, stack.init(jax.random.key(0), x, masks, train=True)


def _by_hand(variables, x, masks):
    """Blocks one by one, in evaluation."""
    for i in range(_DEPTH):
        for place in ("residual1", "residual2"):
            of = {
                name: jax.tree.map(lambda leaf, i=i: leaf[i], found[place])
                for name, found in variables.items()
            }
            x = x + F().apply(of, x, masks[i], train=False)
    return x


def test_a_stack_is_its_blocks_one_by_one():
    stack, x, masks, variables = _made()
    found = stack.apply(variables, x, masks, train=False)
    np.testing.assert_allclose(found, _by_hand(variables, x, masks), rtol=1e-6)


def test_a_reversible_stack_has_the_same_variables():
    _, x, masks, variables = _made()
    other = ReversibleStack(F(), F(), _DEPTH)
    drawn = other.init(jax.random.key(0), x, x, masks, train=True)
    assert_same(drawn, variables)


def test_statistics_are_recorded_in_training():
    stack, x, masks, variables = _made()
    _, updates = stack.apply(variables, x, masks, train=True, mutable=["batch_stats"])
    means = updates["batch_stats"]["residual1"]["MaskedBatchNorm_0"]["mean"]
    first = jax.tree.map(lambda leaf: leaf[0], variables["params"]["residual1"])
    dense = x @ first["Dense_0"]["kernel"] + first["Dense_0"]["bias"][None]
    np.testing.assert_allclose(means[0], 0.1 * dense.mean(0), rtol=1e-5)


class G(nn.Module):
    """x times a scale."""

    @nn.compact
    def __call__(self, x):
        return self.param("scale", nn.initializers.ones, ()) * x


def test_kept_activations_are_wrong_in_the_gradient_alone():
    # One block of scales a and b: y = x + a x + b (1 + a) x.
    stack, x = ResidualStack(G(), G(), 1), normal(6, 4)
    variables = stack.init(jax.random.key(0), x)
    errors = ReadErrors(0.0, kept_rate=1.0)

    def loss(variables):
        rngs = {"errors": jax.random.key(3)}
        return jnp.sum(stack.apply(variables, x, read_errors=errors, rngs=rngs))

    value, gradients = jax.value_and_grad(loss)(variables)
    np.testing.assert_allclose(value, jnp.sum(4 * x), rtol=1e-5)
    of_second = gradients["params"]["residual2"]["scale"][0]
    assert abs(of_second - jnp.sum(2 * x)) > 0.1  # of what was read, not of 2 x
    # Noise in its place lies within the largest magnitude of what was kept.
    assert abs(of_second) < x.size * jnp.max(jnp.abs(2 * x))


def test_no_error_changes_nothing():
    stack, x = ResidualStack(G(), G(), 2), normal(6, 4)
    variables = stack.init(jax.random.key(0), x)
    rngs = {"errors": jax.random.key(3)}

    def loss(variables, errors):
        return jnp.sum(stack.apply(variables, x, read_errors=errors, rngs=rngs) ** 2)

    plain = jax.grad(loss)(variables, None)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5),
        jax.grad(loss)(variables, ReadErrors(0.0)),
        plain,
    )
    assert np.any(read(x, 0.5, jax.random.key(3)) != x)  # which would show
