import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from codesign import models, workload
from codesign.workload.iteration import training_iteration
from tests.workload.comparison import compare


class Net(nn.Module):
    """Flax's own layers: a convolution is XLA's, not unfolded."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), name="stem")(x))
        x = x + nn.Conv(4, (3, 3), name="branch")(x)
        x = nn.Conv(6, (3, 3), strides=2, name="down")(x)
        return nn.Dense(3, name="head")(x.reshape(len(x), -1))


def both(apply, variables, *inputs, unroll_scans=False):
    def loss(variables, *inputs):
        return jnp.sum(jnp.square(apply(variables, *inputs)))

    gradient = workload.trace_gradient(loss, variables, *inputs)
    forward = workload.trace(apply, variables, *inputs, unroll_scans=unroll_scans)
    return {row.name: row for row in compare(training_iteration(forward), gradient)}


def test_flax_layers_agree_to_the_element():
    x = jnp.ones((1, 8, 8, 2))
    net = Net()
    rows = both(net.apply, jax.eval_shape(net.init, jax.random.key(0), x), x)
    assert list(rows) == ["Net/stem", "Net/branch", "Net/down", "Net/head"]
    for row in rows.values():
        assert row.agrees_on_macs, row
        assert row.agrees_on_sizes, row
    # The stem by hand: 64 x 9 x 2 x 4 MACs, once backward, for its kernel of 72.
    stem = rows["Net/stem"]
    assert stem.traced_macs == {"forward": 4608, "backward": 4608}
    assert stem.traced_outputs == (72, 256)
    # The branch makes its map, a kernel of 144 and the gradient of its input.
    assert rows["Net/branch"].traced_outputs == (144, 256, 256)


@pytest.mark.parametrize("name", ["vgg11", "resnet18"])
def test_our_networks_agree_on_macs(name):
    network = models.create(name)
    fn, *args = network.trace_args()
    rows = both(fn, *args)
    assert len(rows) == network.num_sites + 1  # a norm behind each convolution
    assert all(row.agrees_on_macs for row in rows.values())


def test_attention_agrees():
    network = models.create(
        "transformer", length=6, hidden=8, num_layers=1, num_heads=2
    )
    fn, *args = network.trace_args(train=False)
    rows = both(fn, *args)
    assert all(row.agrees_on_macs and row.agrees_on_sizes for row in rows.values())
    assert "Transformer/encoder1/self_attention/scores" in rows


class _Steps(nn.Module):
    """Three runs of one layer, each of which the gradient runs again."""

    @nn.compact
    def __call__(self, x):
        class Step(nn.Module):
            @nn.compact
            def __call__(self, x, _):
                return nn.remat(_Block)(name="block")(x), None

        steps = nn.scan(
            Step, variable_axes={"params": 0}, split_rngs={"params": True}, length=3
        )
        return steps(name="steps")(x, None)[0]


class _Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x + nn.Dense(8)(nn.silu(nn.Dense(16)(x)))


def test_a_difference_shows():
    # A loop computes the gradient of what it starts from, though nobody reads it: in the
    # first of three steps 8 x 16 MACs more than the rule.
    net, x = _Steps(), jnp.ones((1, 8))
    variables = net.init(jax.random.key(0), x)
    rows = both(net.apply, variables, x, unroll_scans=True)
    off = {
        name: row.traced_macs["backward"] - row.rule_macs["backward"]
        for name, row in rows.items()
    }
    assert off == {
        "_Steps/steps/block/Dense_0": 0,
        "_Steps/steps/block/Dense_1": 8 * 16,
    }


class _Twice(nn.Module):
    """Wrapped within a wrapped one, and under one name."""

    @nn.compact
    def __call__(self, x):
        return nn.remat(_Block)(name="same")(nn.remat(_Block)(name="other")(x))


class _Wrapped(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.remat(_Twice)(name="same")(nn.Dense(8)(x))


def test_what_remat_wraps_keeps_its_name():
    net, x = _Wrapped(), jnp.ones((1, 8))
    rows = both(net.apply, net.init(jax.random.key(0), x), x)
    blocks = [f"_Wrapped/same/{block}" for block in ("other", "same")]
    layers = [f"{block}/Dense_{i}" for block in blocks for i in (1, 0)]
    assert [*rows] == ["_Wrapped/Dense_0", *layers]
    assert all(row.agrees_on_macs and row.agrees_on_sizes for row in rows.values())


@pytest.mark.parametrize(
    ("cell", "layer", "gates"),
    [
        (nn.SimpleCell, "SimpleCell_0/h", 1),
        (nn.OptimizedLSTMCell, "OptimizedLSTMCell_0", 4),
    ],
)
def test_steps_of_a_scan_are_gathered(cell, layer, gates):
    class Recurrent(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(3, name="into")(x)
            return nn.Dense(2, name="head")(nn.RNN(cell(4), name="rnn")(x))

    x = jnp.ones((1, 5, 6))
    net = Recurrent()
    variables = jax.eval_shape(net.init, jax.random.key(0), x)
    rows = both(net.apply, variables, x, unroll_scans=True)
    assert not any("@" in name for name in rows)
    # JAX also takes the gradient of the state that the loop starts from, which no one
    # reads: 4 values, by a product with each of `gates` * 4 weights.
    for name, row in rows.items():
        more = 16 * gates if name == f"Recurrent/rnn/{layer}" else 0
        backward = row.traced_macs["backward"] - more
        assert row.rule_macs == row.traced_macs | {"backward": backward}
        assert row.agrees_on_sizes == (not more)
    state = rows[f"Recurrent/rnn/{layer}"]
    assert state.traced_outputs == tuple(sorted((*state.rule_outputs, 4)))


@pytest.mark.parametrize("rows", [8, 5])  # spread evenly over 4 experts, or not
def test_experts_agree(rows):
    def apply(variables, x):
        with jax.named_scope("into"):
            x = jnp.tanh(x[0] @ variables["w"])
        sizes = jnp.bincount(jnp.argmax(x, -1), length=4)
        with jax.named_scope("experts"):
            return jax.lax.ragged_dot(x, variables["experts"], sizes)

    variables = {"w": jnp.ones((6, 4)), "experts": jnp.ones((4, 4, 3))}
    found = both(apply, variables, jnp.ones((1, rows, 6)))
    assert found["experts"].rule_macs == {
        "forward": rows * 12,
        "backward": 2 * rows * 12,
    }
    assert all(row.agrees_on_macs and row.agrees_on_sizes for row in found.values())
