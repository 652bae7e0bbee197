"""Small ONNX models for the tests; their weights are all zero."""

import numpy as np
import onnx
from onnx import helper


def weight(name, *shape):
    return onnx.numpy_helper.from_array(np.zeros(shape, np.float32), name)


def ints(name, *values):
    return onnx.numpy_helper.from_array(np.array(values, np.int64), name)


def build(nodes, weights=(), inputs=(("x", ("N", 3, 8, 8)),), outputs=("y",), opset=20):
    """A model whose outputs have no shape yet."""
    floats = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, floats, shape) for name, shape in inputs],
        [helper.make_tensor_value_info(name, floats, ()) for name in outputs],
        list(weights),
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10
    )


def node(op, inputs, output, name="", **attributes):
    return helper.make_node(op, inputs.split(), output.split(), name=name, **attributes)


def small_cnn():
    """Convolution, norm, relu, depthwise, a sum, pooling, dense; see the counts below."""
    pads = dict(kernel_shape=(3, 3), pads=(1, 1, 1, 1))
    nodes = [
        node("Conv", "x k1", "a", "stem", **pads),
        node("BatchNormalization", "a s b m v", "n", "norm"),
        node("Relu", "n", "r", "relu"),
        node("Conv", "r k2 b2", "d", "depthwise", group=4, **pads),
        node("Add", "d r", "t", "sum"),
        node("GlobalAveragePool", "t", "g", "pool"),
        node("Flatten", "g", "f"),
        node("Gemm", "f w bias", "z", "head", transB=1),
        node("Softmax", "z", "y", "softmax", axis=1),
    ]
    weights = [
        weight("k1", 4, 3, 3, 3),
        *(weight(name, 4) for name in ("s", "b", "m", "v", "b2")),
        weight("k2", 4, 1, 3, 3),
        weight("w", 5, 4),
        weight("bias", 5),
    ]
    return build(nodes, weights)


def computed_shapes():
    """Channel shuffle as exported by tracing: sizes are products and quotients of x's."""
    nodes = [
        node("Shape", "x", "shape"),
        node("Gather", "shape one", "channels"),
        node("Div", "channels two", "half"),
        node("Cast", "half", "whole", to=onnx.TensorProto.INT64),
        node("Concat", "one two whole side", "split", axis=0),
        node("Reshape", "x split", "r"),
        node("Transpose", "r", "t", perm=(0, 2, 1, 3)),
        node("Reshape", "t joined", "m"),
        node("Conv", "m k", "y", "conv"),
    ]
    weights = [
        ints("one", 1),
        ints("two", 2),
        ints("side", 64),
        ints("joined", 1, -1, 8, 8),
        weight("k", 6, 4, 1, 1),
    ]
    return build(nodes, weights, [("x", ("N", 4, 8, 8))])


def functions(depth=3):
    """Function 0 is a Relu, and each next one is the one before, twice."""
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    made = [
        helper.make_function(
            "own", "F0", ["a"], ["c"], [node("Relu", "a", "c")], opsets
        )
    ]
    for i in range(1, depth):
        twice = [
            node(f"F{i - 1}", "a", "b", domain="own"),
            node(f"F{i - 1}", "b", "c", domain="own"),
        ]
        made.append(helper.make_function("own", f"F{i}", ["a"], ["c"], twice, opsets))
    model = build([node(f"F{depth - 1}", "x", "y", domain="own")])
    model.opset_import.append(opsets[1])
    model.functions.extend(made)
    return model
