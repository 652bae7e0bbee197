"""Where ops get their names, which arguments are inputs, and what is refused."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax import lax
from jax.experimental import pallas as pl

from codesign import workload
from tests.workload.graphs import shape


class Encoder(nnx.Module):
    def __init__(self, rngs):
        self.attention = nnx.MultiHeadAttention(2, 8, rngs=rngs, decode=False)
        self.norm = nnx.LayerNorm(8, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.head = nnx.Linear(8, 4, rngs=rngs)

    def __call__(self, x):
        x = self.attention(x)
        x = self.dropout(nnx.relu(self.norm(x)))
        return self.head(x)


FIRST_LINE = Encoder.__call__.__code__.co_firstlineno + 1


def test_nnx_names_are_file_and_line():
    definition, state = nnx.split(Encoder(nnx.Rngs(0)))
    ops = workload.trace(
        lambda state, x: nnx.merge(definition, state)(x), state, shape(1, 5, 8)
    )
    where = [f"trace_names_test.py:{FIRST_LINE + i}" for i in range(3)]
    assert ops.names == (
        *(f"{where[0]}/{name}" for name in ("dense", "dense_2", "dense_3")),
        *(
            f"{where[0]}/{name}"
            for name in ("matmul", "softmax", "matmul_2", "dense_4")
        ),
        *(f"{where[1]}/{name}" for name in ("norm", "activation", "dropout")),
        f"{where[2]}/dense",
    )
    assert dict(ops.graph.parameters) == {
        **{f"attention/{name}": 72 for name in ("query", "key", "value", "out")},
        "norm": 16,
        "head": 36,
    }


def test_an_nnx_model_that_is_closed_over():
    model = Encoder(nnx.Rngs(0))
    model.eval()
    ops = workload.trace(lambda x: model(x), shape(1, 5, 8), train_constants=True)
    assert "dropout" not in ops.kinds
    assert sum(size for _, size in ops.graph.parameters) == 4 * 72 + 16 + 36


CELL = "import jax\ndef net(x, w):\n  y = x @ w\n  return jax.nn.relu(y)\n"


@pytest.mark.parametrize(
    "file", ["/tmp/ipykernel_123/456.py", "<ipython-input-3-0a1b2c>"]
)
def test_names_in_a_notebook(file):
    space = {}
    exec(compile(CELL, file, "exec"), space)
    ops = workload.trace(space["net"], shape(1, 3), shape(3, 3))
    assert ops.names == ("cell:3/dense", "cell:4/activation")


def test_scopes_name_plain_functions():
    def net(x, w):
        with jax.named_scope("block"), jax.named_scope("mlp"):
            x = jnp.tanh(x @ w) @ w
        with jax.named_scope("block"):
            return jnp.einsum("bi,io->bo", x, w)

    ops = workload.trace(net, shape(1, 3), shape(3, 3))
    expected = ("block/mlp", "block/mlp/activation", "block/mlp_2", "block")
    assert ops.names == expected


class Shared(nn.Module):
    @nn.compact
    def __call__(self, x):
        fc = nn.Dense(6, name="fc")
        x = fc(nn.relu(fc(x)))
        return nn.Dense(3, name="fc_2")(x)


def test_a_second_call_and_a_module_do_not_share_a_name():
    x = shape(1, 6)
    variables = jax.eval_shape(Shared().init, jax.random.key(0), x)
    ops = workload.trace(Shared().apply, variables, x)
    expected = ("Shared/fc", "Shared/activation", "Shared/fc_3", "Shared/fc_2")
    assert ops.names == expected
    assert ops.graph.parameters == (("Shared/fc", 42), ("Shared/fc_2", 21))


def test_no_op_is_called_as_an_input():
    def net(x, w):
        with jax.named_scope("input_0"):
            return x @ w

    assert workload.trace(net, shape(1, 3), shape(3, 3)).names == ("input_0_2",)


def test_inputs_are_the_arguments_with_a_batch_of_one():
    def net(params, batch, scale, key):
        ids, x = batch["ids"], batch["x"]
        x = x + params["table"][ids] * jax.random.uniform(key)
        return (x @ params["w"]) * scale.reshape(1, -1)

    params = {"w": shape(3, 4), "table": shape(9, 3)}
    batch = {"ids": shape(1, dtype=jnp.int32), "x": shape(1, 3)}
    ops = workload.trace(net, params, batch, shape(4), jax.random.key(0))
    assert ops.graph.inputs == ((1,), (3,))
    assert ops.kinds == ("embedding", "mul", "add", "dense", "mul")
    assert ops.ops[0].operands == (-1,)
    assert ops.ops[2].operands == (-2, 1)


def test_inputs_can_be_named():
    def net(w, x):
        return w @ x.T

    ops = workload.trace(net, shape(1, 3), shape(1, 3), inputs=(1,))
    assert ops.kinds == ("dense",)
    assert ops.graph.parameters == (("w", 3),)
    with pytest.raises(ValueError, match=r"`w` has a batch of 2.*batches of 1"):
        workload.trace(net, shape(2, 3), shape(1, 3), inputs=(0,))
    with pytest.raises(ValueError, match=r"`inputs` \(=\(2,\)\).*0 to 1"):
        workload.trace(net, shape(1, 3), shape(1, 3), inputs=(2,))
    for inputs in (1, (True,), ("x",), (0, 0), (1.0,)):
        with pytest.raises(ValueError, match="`inputs` .* each once, from 0 to 1"):
            workload.trace(net, shape(1, 3), shape(1, 3), inputs=inputs)
    with pytest.raises(ValueError, match="no argument with a leading batch"):
        workload.trace(lambda p: p["w"] @ p["w"], {"w": shape(3, 3)})


def test_outputs_are_the_ops_that_leave():
    def net(x, w):
        y = x @ w
        return {"logits": y, "features": jnp.tanh(y), "w": w, "x": x}

    ops = workload.trace(net, shape(1, 3), shape(3, 3))
    assert sorted(ops.graph.outputs) == [0, 1]


def _kernel(x, w):
    out = shape(1, 3)
    return pl.pallas_call(lambda a, b: None, out_shape=out)(x) @ w


@pytest.mark.parametrize(
    ("fn", "name"),
    [
        (
            lambda x, w: jax.pure_callback(lambda x: x, shape(1, 3), x) @ w,
            "pure_callback",
        ),
        (_kernel, "pallas_call"),
        (lambda x, w: jnp.fft.fft(x @ w), "fft"),
        (lambda x, w: jnp.linalg.cholesky(x.T @ x) @ w, "cholesky"),
    ],
)
def test_refuses_what_it_cannot_count(fn, name):
    where = r"trace_names_test.py:\d+"
    with pytest.raises(ValueError, match=f"`{name}` at '{where}'.*named_op"):
        workload.trace(fn, shape(1, 3), shape(3, 3))


def test_debugging_is_no_op():
    def net(x, w):
        jax.debug.print("{}", x.sum())
        return x @ w

    assert workload.trace(net, shape(1, 3), shape(3, 3)).kinds == ("dense",)


def test_an_update_of_a_buffer():
    def net(x, w, cache):
        return lax.dynamic_update_slice(cache, x @ w, (2, 0))

    ops = workload.trace(net, shape(1, 3), shape(3, 3), shape(6, 3))
    assert ops.kinds == ("dense", "resize")
    assert ops.output_shapes[1] == (6, 3)
