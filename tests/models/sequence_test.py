import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import export

from codesign import models

_SMALL = {
    "transformer": dict(num_layers=1, hidden=8, inner=12, num_heads=2, length=5),
    "gnmt": dict(num_layers=2, hidden=8, length=5, dropout_rate=0.1),
}


def _network(name, **settings):
    return models.create(name, **(_SMALL[name] | settings))


@functools.cache
def _drawn(name):
    """A network, its variables, a source of 4 and a target of 5 vectors."""
    network = _network(name)
    keys = jax.random.split(jax.random.key(1), 2)
    source = jax.random.normal(keys[0], (2, 4, 8))
    target = jax.random.normal(keys[1], (2, 5, 8))
    return network, jax.jit(network.init)(jax.random.key(0)), source, target


@pytest.mark.parametrize("name", models.SEQUENCE_NETWORKS)
def test_later_targets_do_not_change_earlier_outputs(name):
    network, variables, source, target = _drawn(name)
    apply = jax.jit(functools.partial(network.apply, train=False))
    before = apply(variables, source, target)
    assert before.shape == (2, 5, 8)
    plain = network.apply(variables, source, target, train=False)  # without jit
    np.testing.assert_allclose(before, plain, rtol=1e-4, atol=1e-6)
    for t in range(5):
        after = apply(variables, source, target.at[:, t].add(1.0))
        np.testing.assert_allclose(after[:, :t], before[:, :t], rtol=1e-6)
        assert np.all(np.any(after[:, t] != before[:, t], -1))


@pytest.mark.parametrize("name", models.SEQUENCE_NETWORKS)
def test_each_source_vector_reaches_each_output(name):
    network, variables, source, target = _drawn(name)

    def outputs(source):  # [T] one value for each output
        y = network.apply(variables, source, target, train=False)
        return jnp.sum(jnp.sin(y), (0, 2))

    slopes = jax.jit(jax.jacrev(outputs))(source)  # [T, B, S, H]
    assert np.all(np.any(slopes != 0, -1))


@pytest.mark.parametrize("name", models.SEQUENCE_NETWORKS)
def test_gradients_are_finite_and_dropout_acts(name):
    network, variables, source, target = _drawn(name)

    def loss(variables, key):
        y = network.apply(variables, source, target, key, train=True)
        return jnp.sum(jnp.sin(y))

    key = jax.random.key(3, impl="rbg")  # threefry takes seconds to compile
    step = jax.jit(jax.value_and_grad(loss))
    value, grads = step(variables, key)
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        where = jax.tree_util.keystr(path)
        assert np.all(np.isfinite(grad)), where
        # A shift of all keys moves all scores of a query alike: their bias is idle.
        assert np.any(np.abs(grad) > 1e-5) or "['key']['bias']" in where, where
    assert value != step(variables, jax.random.key(4, impl="rbg"))[0]  # another dropout


def test_gnmt_equals_loops_in_python():
    network, variables, source, target = _drawn("gnmt")
    params = variables["params"]

    def dense(params, x):
        return x @ params["kernel"] + params["bias"].reshape(1, -1)

    def lstm(params, state, x):
        cell, output = state
        joined = jnp.concatenate([x, output], -1)
        i, f, o = (
            jax.nn.sigmoid(dense(params[f"{g}_gate"], joined))
            for g in ("input", "forget", "output")
        )
        cell = f * cell + i * jnp.tanh(dense(params["candidate"], joined))
        output = o * jnp.tanh(cell)
        return (cell, output)

    def stack(params, states, x, memory=None):
        for number in (1, 2):
            states[number] = lstm(params[f"lstm{number}"], states[number], x)
            x = states[number][1] + (x if number > 1 else 0)
            if memory is not None and number == 1:
                weights = jax.nn.softmax(
                    jnp.stack([jnp.sum(m * x, -1) for m in memory], -1) / np.sqrt(8)
                )
                context = sum(weights[:, [s]] * m for s, m in enumerate(memory))
                joined = jnp.concatenate([x, context], -1)
                x = jnp.tanh(dense(params["attention"]["join"], joined))
        return x

    def start():
        return {number: (jnp.zeros((2, 8)),) * 2 for number in (1, 2)}

    states = start()
    memory = [stack(params["encoder"], states, source[:, s]) for s in range(4)]
    states = start()
    outputs = [stack(params["decoder"], states, target[:, t], memory) for t in range(5)]
    expected = jnp.stack([dense(params["output"], x) for x in outputs], 1)
    y = network.apply(variables, source, target, train=False)
    chex.assert_trees_all_close(y, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", models.SEQUENCE_NETWORKS)
def test_learns_to_reverse_a_sequence(name):
    # 4 letters and a start sign as one-hot vectors, beside 4 positions: width 9 -> 16.
    num_letters, length, hidden = 4, 4, 16
    network = _network(name, hidden=hidden, length=length, dropout_rate=0.0)
    variables = jax.jit(network.init)(jax.random.key(0))
    optimizer = optax.adam(1e-2)

    def embed(letters):
        marks = jax.nn.one_hot(letters, num_letters + 1)
        places = jnp.broadcast_to(jnp.eye(length), (*letters.shape, length))
        x = jnp.concatenate([marks, places], -1)
        return jnp.pad(x, ((0, 0), (0, 0), (0, hidden - x.shape[-1])))

    @jax.jit
    def train(variables, key):
        def loss(variables, key):
            letters = jax.random.randint(key, (32, length), 0, num_letters)
            labels = letters[:, ::-1]
            start = jnp.full((32, 1), num_letters)
            shifted = jnp.concatenate([start, labels[:, :-1]], 1)
            y = network.apply(
                variables, embed(letters), embed(shifted), key, train=True
            )
            return optax.losses.softmax_cross_entropy_with_integer_labels(
                y[..., :num_letters], labels
            ).mean()

        def step(carry, key):
            variables, state = carry
            value, grads = jax.value_and_grad(loss)(variables, key)
            updates, state = optimizer.update(grads, state, variables)
            return (optax.apply_updates(variables, updates), state), value

        carry = (variables, optimizer.init(variables))
        return jax.lax.scan(step, carry, jax.random.split(key, 300))[1]

    losses = train(variables, jax.random.key(1))
    assert losses[0] > 1.2  # log(4) = 1.39 for a guess
    assert np.mean(losses[-10:]) < 0.3


@pytest.mark.parametrize(
    ("name", "shape"),
    [("transformer", (1024, 1024)), ("gnmt", (2048, 1024))],
)
def test_default_is_the_setting_of_the_memory_paper(name, shape):
    network = models.create(name)
    fn, variables, *inputs = network.trace_args()
    source, target, key = inputs
    assert source.shape == target.shape == (1, 50, 1024)
    assert jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    assert jax.eval_shape(fn, variables, *inputs).shape == (1, 50, 1024)
    shapes = [
        leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"])
        if "kernel" in str(path) and path[0].key != "output"
    ]
    # 6 x (4 + 2) and 6 x (8 + 2) dense layers; 8 cells of 4 and the attention's.
    assert shapes == [shape] * {"transformer": 96, "gnmt": 33}[name]


@pytest.mark.parametrize("name", models.SEQUENCE_NETWORKS)
def test_the_training_step_lowers_for_tpu_and_cuda(name):
    network = _network(name)
    fn, *shapes = network.trace_args()

    def step(variables, *inputs):
        return jax.grad(lambda v: fn(v, *inputs).sum())(variables)

    exported = export.export(jax.jit(step), platforms=["tpu", "cuda"])(*shapes)
    assert exported.platforms == ("tpu", "cuda")


@pytest.mark.parametrize(
    ("name", "settings", "match"),
    [
        (
            "gnmt",
            {"hidden": 0},
            "`hidden` must be at least 1 and a whole number, got 0",
        ),
        ("gnmt", {"length": 0}, "`length` must be at least 1"),
        ("transformer", {"num_heads": 3}, r"`hidden` \(=8\).*`num_heads` \(=3\)"),
        ("transformer", {"dropout_rate": 1.0}, r"`dropout_rate`.*\[0, 1\), got 1.0"),
        ("transformer", {"initialisation": "he"}, "`initialisation`.*'he'"),
        (
            "transformer",
            {"image_shape": (32, 32, 1)},
            "'transformer' has no `image_shape`.*num_heads.*batch-norm sites.*'vgg11'",
        ),
    ],
)
def test_refuses(name, settings, match):
    with pytest.raises(ValueError, match=match):
        _network(name, **settings)


def test_apply_refuses_a_missing_key_and_other_shapes():
    network, variables, source, target = _drawn("gnmt")
    with pytest.raises(ValueError, match="`key` is None"):
        network.apply(variables, source, target, train=True)
    with pytest.raises(ValueError, match=r"`target` \(2, 5, 7\).*H = 8"):
        network.apply(variables, source, target[..., :7], train=False)
    with pytest.raises(ValueError, match=r"one batch B"):
        network.apply(variables, source[:1], target, train=False)
