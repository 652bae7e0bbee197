"""The operators of ONNX that can be imported, and what each one's ops are."""

import math
from collections.abc import Callable

from codesign.workload.importing.onnx_network import Network, Node
from codesign.workload.importing.recorder import Value
from codesign.workload.op import Shape


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
    """An op of all data, with all constants of more than one value as its weights."""
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
    return net.recorder.op(
        node.name,
        kind,
        operands,
        shape,
        variant=variant,
        weights=net.weights(node, names) if names else (),
    )


def _kernel(net: Network, node: Node) -> Shape:
    kernel = net.constants.get(node.inputs[1])
    if kernel is None or node.inputs[0] not in net.values:
        raise ValueError("its weights must be constants and its input data.")
    return kernel.shape


def _matrix_weights(net: Network, node: Node, first: int = 1) -> tuple[str, ...]:
    bias = net.biases.get(node.outputs[0], ("", ""))[0]
    return net.weights(node, [*node.inputs[first:], bias])


def _conv(net: Network, node: Node) -> Value:
    filters, channels, *window = _kernel(net, node)
    return net.recorder.conv(
        node.name,
        net.values[node.inputs[0]],
        net.shape(node.outputs[0]),
        (*window, channels, filters),
        _matrix_weights(net, node),
    )


def _conv_transpose(net: Network, node: Node) -> Value:
    channels, filters, *window = _kernel(net, node)
    groups = node.attributes.get("group", 1)
    return net.recorder.conv(
        node.name,
        net.values[node.inputs[0]],
        net.shape(node.outputs[0]),
        (*window, channels // groups, filters * groups),
        _matrix_weights(net, node),
        transposed=True,
    )


def _gemm(net: Network, node: Node) -> Value:
    if node.inputs[1] in net.values and not any(node.inputs[2:]):
        terms = net.shapes[node.inputs[0]][0 if node.attributes.get("transA") else 1]
        shape = net.shape(node.outputs[0])
        return net.recorder.matmul(node.name, net.data(node), shape, terms)
    kernel = _kernel(net, node)
    if any(name in net.values for name in node.inputs[1:]):
        raise ValueError("its bias must be a constant.")
    if node.attributes.get("transA", 0):
        raise ValueError("it transposes its data; transpose it before.")
    fan_in, fan_out = reversed(kernel) if node.attributes.get("transB", 0) else kernel
    return net.recorder.dense(
        node.name,
        net.values[node.inputs[0]],
        net.shape(node.outputs[0]),
        (fan_in, fan_out),
        _matrix_weights(net, node),
    )


def _matmul(net: Network, node: Node) -> Value:
    left, right = node.inputs
    shape, num_terms = net.shape(node.outputs[0]), net.shapes[left][-1]
    if left in net.values and right in net.values:
        operands = [net.values[left], net.values[right]]
        return net.recorder.matmul(node.name, operands, shape, num_terms)
    if right in net.constants and len(net.constants[right].shape) == 2:
        return net.recorder.dense(
            node.name,
            net.values[left],
            shape,
            net.constants[right].shape,
            _matrix_weights(net, node),
        )
    # Weights from the left, or one matrix for each head.
    weights = net.weights(node, node.inputs)
    return net.recorder.matmul(node.name, net.data(node), shape, num_terms, weights)


def _norm(net: Network, node: Node, variant: str) -> Value:
    return net.recorder.op(
        node.name,
        "norm",
        net.data(node),
        net.shape(node.outputs[0]),
        variant=variant,
        weights=net.weights(node, node.inputs[1:]),
    )


def _activation(net: Network, node: Node, function: str) -> Value:
    weights = net.weights(node, node.inputs[1:]) if node.op == "PRelu" else ()
    return net.recorder.activation(node.name, net.data(node)[0], function, weights)


def _clip(net: Network, node: Node) -> Value:
    bounds = [
        net.constants[name].number if name in net.constants else None
        for name in node.inputs[1:]
    ]
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
        weights=net.weights(node, node.inputs[:1]),
    )


def _view(net: Network, node: Node) -> Value:
    return net.recorder.view(net.data(node)[0], net.shape(node.outputs[0]))


def _pad(net: Network, node: Node) -> Made:
    x, shape = net.data(node)[0], net.shape(node.outputs[0])
    if math.prod(shape) < math.prod(x.shape):
        return _slices(net, node)
    return net.recorder.pad(x, shape)


def _dropout(net: Network, node: Node) -> Value:
    ratio = node.attributes.get("ratio", 0.5)
    if len(node.inputs) > 1 and node.inputs[1] in net.constants:
        ratio = net.constants[node.inputs[1]].number
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
    ("Conv", _conv),
    ("ConvTranspose", _conv_transpose),
    ("Gemm", _gemm),
    ("MatMul", _matmul),
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
