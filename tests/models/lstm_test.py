import chex
import jax
import jax.numpy as jnp
import numpy as np

from codesign.models.lstm import LSTMCell, zero_state


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _reference(params, cell, output, x):
    joined = np.concatenate([x, output], -1)

    def dense(name):
        kernel, bias = (np.asarray(params[name][p]) for p in ("kernel", "bias"))
        return joined @ kernel + bias

    gates = {g: _sigmoid(dense(f"{g}_gate")) for g in ("input", "forget", "output")}
    cell = gates["forget"] * cell + gates["input"] * np.tanh(dense("candidate"))
    return cell, gates["output"] * np.tanh(cell)


def test_three_steps_equal_numpy():
    layer = LSTMCell(hidden=4, initialisation="pytorch")  # biases are not 0
    xs = jax.random.normal(jax.random.key(1), (3, 2, 5))
    state = zero_state(2, 4)
    variables = layer.init(jax.random.key(0), state, xs[0])
    chex.assert_tree_shape_suffix(
        {k: v["kernel"] for k, v in variables["params"].items()}, (9, 4)
    )
    assert len(variables["params"]) == 4
    cell, output = np.zeros((2, 4)), np.zeros((2, 4))
    for x in xs:
        state, y = layer.apply(variables, state, x)
        cell, output = _reference(variables["params"], cell, output, np.asarray(x))
        np.testing.assert_allclose(y, output, rtol=1e-5, atol=1e-6)
        chex.assert_trees_all_close(state, (cell, output), rtol=1e-5, atol=1e-6)


def test_a_cell_keeps_its_value_where_the_forget_gate_is_open():
    layer = LSTMCell(hidden=1)
    x = jnp.zeros((1, 1))
    variables = layer.init(jax.random.key(0), zero_state(1, 1), x)
    params = jax.tree.map(jnp.zeros_like, variables["params"])
    params["forget_gate"]["bias"] += 40.0
    params["input_gate"]["bias"] -= 40.0
    state = (jnp.full((1, 1), 3.0), jnp.zeros((1, 1)))
    (cell, _), output = layer.apply({"params": params}, state, x)
    np.testing.assert_allclose(cell, 3.0)
    np.testing.assert_allclose(output, 0.5 * np.tanh(3.0), rtol=1e-6)
