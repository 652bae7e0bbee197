"""The operators of ONNX that can be imported, and what each one's ops are."""

import math
from collections.abc import Callable

from codesign.workload.importing.onnx_network import Network, Node
from codesign.workload.importing.onnx_products import (
    conv,
    conv_transpose,
    gemm,
    matmul,
)
from codesign.workload.importing.recorder import Value


def refusal(name: str, op: str, domain: str) -> ValueError:
    """The error for a node that cannot be imported."""
    what = f"{domain}.{op}" if domain else op
    way_out = (
        "Write its loop in JAX and count it with workload.trace"
        if op in ("LSTM", "GRU", "RNN", "If", "Loop", "Scan")
        else "Export the model without it, write it in JAX and call workload.trace"
    )
    return ValueError(
        f"Cannot import the node {name!r} ({what}): it is no operator that the importer "
        f"knows. {way_out}, or list the ops for codesign.workload.graph.build."
    )


Made = Value | list[Value]  # of an operator with one output, or with several


def _op(net: Network, node: Node, kind: str, variant: str = "") -> Value:
    """An op of all data, with all constants of more than one value as its weights.

    Where no map has the result's size, as where one_hot is `Equal` of [5, 1] and [7],
    maps spread over it as those of `mul` do.
    """
    shape, operands = net.shape(node.outputs[0]), net.data(node)
    names = [
        name
        for name in node.inputs
        if name in net.constants
        and net.constants[name].is_float
        and net.constants[name].size > 1
    ]
    if kind in ("add", "mul") and len(operands) == 1 and not names:
        kind, variant = "elementwise", variant or kind
    if kind == "elementwise":  # a map of full size first, then what spreads over it
        operands.sort(key=lambda x: math.prod(x.shape) != math.prod(shape))
        if math.prod(operands[0].shape) != math.prod(shape):
            kind = "mul"
    return net.recorder.op(
        node.name,
        kind,
        operands,
        shape,
        variant=variant,
        weights=net.weights(names),
    )


def _norm(net: Network, node: Node, variant: str) -> Value:
    return net.recorder.op(
        node.name,
        "norm",
        net.data(node),
        net.shape(node.outputs[0]),
        variant=variant,
        weights=net.weights(node.inputs[1:]),
    )


def _activation(net: Network, node: Node, function: str) -> Value:
    weights = net.weights(node.inputs[1:]) if node.op == "PRelu" else ()
    return net.recorder.activation(node.name, net.data(node)[0], function, weights)


def _clip(net: Network, node: Node) -> Value:
    bounds = [net.number(name) for name in node.inputs[1:]]
    bounds = bounds or [node.attributes.get(key) for key in ("min", "max")]
    functions = {(0.0, 6.0): "relu6", (0.0,): "relu", (0.0, None): "relu"}
    function = functions.get(tuple(bounds), "clip")
    return net.recorder.activation(node.name, net.data(node)[0], function)


def _pool(net: Network, node: Node, variant: str) -> Value:
    window = math.prod(node.attributes["kernel_shape"])
    shape = net.shape(node.outputs[0])
    return net.recorder.pool(node.name, net.data(node)[0], shape, variant, window)


def _global_pool(net: Network, node: Node, variant: str) -> Value:
    x = net.data(node)[0]
    shape, window = net.shape(node.outputs[0]), math.prod(x.shape[:-1])
    return net.recorder.pool(node.name, x, shape, variant, window)


def _reduce(net: Network, node: Node, variant: str) -> Value:
    """Over the positions of images it is a pool."""
    x = net.data(node)[0]
    count, channels = math.prod(net.shape(node.outputs[0])), x.shape[-1:]
    is_pool = node.inputs[0] in net.images and (count,) == channels
    if is_pool and variant in ("mean", "max"):
        named = "global_average" if variant == "mean" else "max"
        return _global_pool(net, node, named)
    shape = net.shape(node.outputs[0])
    return net.recorder.op(node.name, "reduce", [x], shape, variant=variant)


def _slices(net: Network, node: Node) -> Made:
    return [
        net.recorder.op(
            node.name,
            "slice",
            net.data(node),
            net.shape(name),
            reads_past_padding=True,
        )
        for name in node.outputs
    ]


def _gather(net: Network, node: Node) -> Made:
    if node.inputs[0] in net.values:
        return _slices(net, node)
    return net.recorder.op(
        node.name,
        "embedding",
        net.data(node),
        net.shape(node.outputs[0]),
        weights=net.weights(node.inputs[:1]),
    )


def _view(net: Network, node: Node) -> Value:
    return net.recorder.view(net.data(node)[0], net.shape(node.outputs[0]))


def _pad(net: Network, node: Node) -> Made:
    """Only zeros are free: not what is reflected, repeated or of another value."""
    x, shape = net.data(node)[0], net.shape(node.outputs[0])
    given = net.recorder.shape(x)
    if math.prod(shape) < math.prod(given):
        return _slices(net, node)
    number = node.attributes.get("value", 0.0)
    if len(node.inputs) > 2 and node.inputs[2]:
        number = net.number(node.inputs[2])
    is_zero = node.attributes.get("mode", b"constant") == b"constant" and number == 0
    if is_zero or shape == given:
        return net.recorder.pad(x, shape)
    return net.recorder.op(node.name, "resize", [x], shape, variant="pad")


def _dropout(net: Network, node: Node) -> Value:
    ratio = node.attributes.get("ratio", 0.5)
    if len(node.inputs) > 1 and node.inputs[1] in net.constants:
        ratio = net.number(node.inputs[1])
    return net.data(node)[0] if ratio == 0 else _op(net, node, "dropout")


def _resize(net: Network, node: Node) -> Value:
    mode = node.attributes.get("mode", b"nearest").decode()
    mode = "bilinear" if mode == "linear" else mode
    shape = net.shape(node.outputs[0])
    operands = net.data(node)[:1]
    return net.recorder.op(node.name, "resize", operands, shape, variant=mode)


_Make = Callable[[Network, Node], Made]


def _table(*rows: tuple) -> dict[str, _Make]:
    """Rows of operators, what makes their ops, and its arguments; {} is its own name."""
    table: dict[str, _Make] = {}
    for names, make, *arguments in rows:
        for name in names.split():
            given = [argument.format(name.lower()) for argument in arguments]
            table[name] = lambda net, node, m=make, a=given: m(net, node, *a)
    return table


_POINTWISE = (
    "Abs Acos Acosh And Asin Asinh Atan Atanh BitwiseAnd BitwiseNot BitwiseOr Ceil Cos "
    "Cosh CumSum DequantizeLinear Equal Erf Exp Floor Greater GreaterOrEqual IsInf IsNaN "
    "Less LessOrEqual Log Max Min Mod Neg Not Or Pow QuantizeLinear Reciprocal Round "
    "Sign Sin Sinh Sqrt Tan Where Xor"
)

OPS: dict[str, _Make] = _table(
    ("Conv", conv),
    ("ConvTranspose", conv_transpose),
    ("Gemm", gemm),
    ("MatMul", matmul),
    ("BatchNormalization", _norm, "batch"),
    ("LayerNormalization", _norm, "layer"),
    ("GroupNormalization", _norm, "group"),
    ("InstanceNormalization", _norm, "instance"),
    ("RMSNormalization", _norm, "rms"),
    ("LpNormalization MeanVarianceNormalization LRN", _norm, "{}"),
    ("Relu Sigmoid Tanh LeakyRelu HardSigmoid HardSwish", _activation, "{}"),
    ("Elu Selu Celu Gelu Softplus Softsign Mish Swish", _activation, "{}"),
    ("PRelu ThresholdedRelu Softmax", _activation, "{}"),
    ("LogSoftmax", _activation, "log_softmax"),
    ("Clip", _clip),
    ("MaxPool", _pool, "max"),
    ("AveragePool", _pool, "average"),
    ("LpPool", _pool, "lp"),
    ("GlobalMaxPool", _global_pool, "max"),
    ("GlobalAveragePool", _global_pool, "global_average"),
    ("ReduceMean", _reduce, "mean"),
    ("ReduceSum", _reduce, "sum"),
    ("ReduceMax", _reduce, "max"),
    ("ReduceMin", _reduce, "min"),
    ("ReduceProd ReduceL1 ReduceL2 ReduceSumSquare", _reduce, "{}"),
    ("ReduceLogSum ReduceLogSumExp ArgMax ArgMin", _reduce, "{}"),
    ("Add Sum", _op, "add"),
    ("Sub", _op, "add", "sub"),
    ("Mean", _op, "add", "average"),
    ("Mul", _op, "mul"),
    ("Div", _op, "mul", "div"),
    ("Concat", _op, "concat"),
    ("Slice Split", _slices),
    ("Gather", _gather),
    ("Reshape Flatten Transpose Squeeze Unsqueeze Identity", _view),
    ("Cast CastLike DepthToSpace SpaceToDepth", _view),
    ("Pad", _pad),
    ("Dropout", _dropout),
    ("Resize Upsample", _resize),
    ("Expand Tile", _op, "resize", "repeat"),
    (_POINTWISE, _op, "elementwise", "{}"),
)

# Operators that read an image with its channels first, as their first input.
IMAGE_OPS = frozenset(
    name
    for name in OPS
    if name.endswith(("Conv", "Pool", "BatchNormalization", "ConvTranspose", "LRN"))
    or name in ("InstanceNormalization", "GroupNormalization", "Upsample")
    or name in ("DepthToSpace", "SpaceToDepth")
)
# Operators whose inputs and outputs have their axes in the same order.
KEEPS_LAYOUT = (
    frozenset(OPS)
    - IMAGE_OPS
    - {"Gemm", "MatMul", "Gather", "Reshape", "Flatten", "Transpose"}
    - {"Squeeze", "Unsqueeze"}
)


def record(net: Network, node: Node) -> None:
    """Records one node that is not constant.

    Raises:
        ValueError: Naming the node, if it cannot be imported.
    """
    if node.outputs[0] in net.values:
        return  # a bias, which its matrix product has added
    try:
        for name in node.inputs:
            if name and name not in net.values and name not in net.constants:
                net.shape(name)  # raises: it is a constant whose shape is open
        made = OPS[node.op](net, node)
        results = made if isinstance(made, list) else [made]
        missing = [n for n in node.outputs[len(results) :] if n in net.read]
        if missing:
            raise ValueError(f"its outputs {missing} are not known.")
    except ValueError as error:
        raise ValueError(
            f"Cannot import the node {node.name!r} ({node.op}): {error}"
        ) from error
    net.values.update(zip(node.outputs, results, strict=False))
    if node.outputs[0] in net.biases:
        net.values[net.biases[node.outputs[0]][1]] = results[0]
