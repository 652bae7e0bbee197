"""Small graphs that tests of the training iteration and of the memory share."""

import jax
import jax.numpy as jnp
from hypothesis import strategies as st

from codesign.workload.graph import Op, Workload, build


def shape(*dims, dtype=jnp.float32):
    """An argument that is traced and not computed."""
    return jax.ShapeDtypeStruct(dims, dtype)


def dense(name, operand, fan_in, fan_out, parameter=None):
    """A dense op; its weight has the op's name unless another is given."""
    return Op(
        name=name,
        kind="dense",
        operands=(operand,),
        input_shape=(fan_in,),
        output_shape=(fan_out,),
        weight_shape=(fan_in, fan_out),
        parameters=(parameter or name,),
        macs=fan_in * fan_out,
    )


def point(name, kind, operands, size, variant=""):
    """An op that gives `size` values."""
    return Op(
        name=name,
        kind=kind,
        variant=variant,
        operands=operands,
        input_shape=(size,),
        output_shape=(size,),
    )


def chain() -> Workload:
    """8 values -> dense a (8) -> relu r -> dense b (4)."""
    ops = [
        dense("a", -1, 8, 8),
        point("r", "activation", (0,), 8, "relu"),
        dense("b", 1, 8, 4),
    ]
    return build(ops, inputs=[(8,)], parameters={"a": 64, "b": 32})


@st.composite
def workloads(draw) -> Workload:
    """Random graphs with forks, joins, shared weights and several outputs."""
    inputs = [(draw(st.integers(1, 12)),) for _ in range(draw(st.integers(1, 2)))]
    sizes = {-1 - i: shape[0] for i, shape in enumerate(inputs)}
    parameters: dict[str, int] = {}
    ops: list[Op] = []
    for i in range(draw(st.integers(1, 12))):
        # Every input is read early, so that all of them take part.
        source = -1 - i if i < len(inputs) else draw(st.sampled_from(sorted(sizes)))
        size = sizes[source]
        kind = "dense" if i == 0 else draw(
            st.sampled_from(["dense", "dense", "norm", "relu", "gelu", "join", "concat"])
        )  # fmt: skip
        name = f"op{i}"
        if kind == "dense":
            fan_out = draw(st.integers(1, 12))
            shared = [n for n, count in parameters.items() if count == size * fan_out]
            parameter = draw(st.sampled_from([name, *shared]))
            parameters[parameter] = size * fan_out
            op = dense(name, source, size, fan_out, parameter)
        elif kind == "norm":
            parameters[name] = 4
            op = point(name, "norm", (source,), size)
            op = Op(**{**op.__dict__, "parameters": (name,)})
        elif kind == "join":
            others = sorted(value for value in sizes if sizes[value] == size)
            operands = (source, draw(st.sampled_from(others)))
            op = point(name, draw(st.sampled_from(["add", "mul"])), operands, size)
        elif kind == "concat":
            other = draw(st.sampled_from(sorted(sizes)))
            op = point(name, "concat", (source, other), size + sizes[other])
        else:
            op = point(name, "activation", (source,), size, kind)
        sizes[i] = op.elements
        ops.append(op)
    return build(ops, inputs=inputs, parameters=parameters)
