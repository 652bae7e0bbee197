"""The layers and operations of Keras that can be imported, by the name of their class."""

import dataclasses
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

from codesign.workload.importing.recorder import Recorder, Value
from codesign.workload.op import Shape

TRACED = (  # the way out of a refusal: holds for any layer with products to count
    "count the model with `workload.trace(model.stateless_call, weights, state, x, "
    "inputs=(2,))`, given the arrays of its trainable and of its other variables."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
    """One call of a layer.

    Attributes:
        name: The layer's name, after those of the models around it.
        layer: The Keras layer or operation.
        arguments: What it was called with.
        inputs: Its tensors among them, in order.
        by_tensor: The same by the id of the symbolic tensor.
        output_shapes: Without the batch.
        recorder: Takes the ops.
        shared: Weights of the layers met so far.
    """

    name: str
    layer: Any
    arguments: Any
    inputs: tuple[Value, ...]
    by_tensor: dict[int, Value]
    output_shapes: tuple[Shape, ...]
    recorder: Recorder
    shared: dict[tuple[int, str], tuple[str, ...]]

    @property
    def x(self) -> Value:
        """The first input."""
        return self.inputs[0]

    @property
    def shape(self) -> Shape:
        """Shape of the first output."""
        return self.output_shapes[0]

    def weights(
        self, part: str = "", variables: Sequence[Any] | None = None
    ) -> tuple[str, ...]:
        """The tensor of all the layer's weights, or of those of one part; may be none."""
        key = id(self.layer), part
        if key not in self.shared:
            of_layer = getattr(self.layer, "weights", ())
            counted = of_layer if variables is None else variables
            size = sum(math.prod(v.shape) for v in counted)
            name = f"{self.name}/{part}" if part else self.name
            trained = any(variable.trainable for variable in counted)
            made = (
                [self.recorder.weight(name, size, is_trained=trained)] if size else []
            )
            self.shared[key] = tuple(made)
        return self.shared[key]

    def op(self, kind: str, variant: str = "", **fields) -> Value:
        """An op of all inputs and weights that is named like the layer."""
        return self.recorder.op(
            self.name,
            kind,
            self.inputs,
            self.shape,
            variant=variant,
            weights=self.weights(),
            **fields,
        )

    def activated(self, value: Value) -> Value:
        """The activation that is fused into the layer, as an op of its own."""
        name = _function_name(getattr(self.layer, "activation", None))
        return self.recorder.activation(f"{self.name}/{name}", value, name)


Made = Value | list[Value]  # of a layer with one output, or with several


def _function_name(function: Any) -> str:
    if function is None:
        return "linear"
    name = getattr(function, "__name__", type(function).__name__)
    if name == "glu" or name.startswith("<"):
        raise ValueError(
            f"its activation {name} is not one of keras.activations; {TRACED}"
        )
    return name


def _conv(call: Call, transposed: bool = False) -> Value:
    *window, second, last = call.layer.kernel.shape
    kernel = (*window, last, second) if transposed else (*window, second, last)
    return call.activated(
        call.recorder.conv(
            call.name,
            call.x,
            call.shape,
            kernel,
            call.weights(),
            transposed=transposed,
        )
    )


def _depthwise(call: Call) -> Value:
    *window, channels, multiplier = call.layer.kernel.shape
    kernel = (*window, 1, channels * multiplier)
    value = call.recorder.conv(call.name, call.x, call.shape, kernel, call.weights())
    return call.activated(value)


def _separable(call: Call) -> Value:
    layer = call.layer
    first, second = layer.depthwise_kernel, layer.pointwise_kernel
    *window, channels, multiplier = first.shape
    width = channels * multiplier
    value = call.recorder.conv(
        f"{call.name}/depthwise",
        call.x,
        (*call.shape[:-1], width),
        (*window, 1, width),
        call.weights("depthwise", [first]),
    )
    rest = [second, *([layer.bias] if layer.use_bias else [])]
    value = call.recorder.conv(
        f"{call.name}/pointwise",
        value,
        call.shape,
        tuple(second.shape),
        call.weights("pointwise", rest),
    )
    return call.activated(value)


def _dense(call: Call) -> Value:
    value = call.recorder.dense(
        call.name, call.x, call.shape, tuple(call.layer.kernel.shape), call.weights()
    )
    return call.activated(value)


def _einsum_dense(call: Call) -> Value:
    terms, _, output = call.layer.equation.replace(" ", "").partition("->")
    left, kernel = terms.split(",")
    summed = [letter not in output for letter in kernel]
    if set(left) & set(kernel) & set(output):
        raise ValueError(
            f"its equation {call.layer.equation!r} is no dense layer; {TRACED}"
        )
    sizes = call.layer.kernel.shape
    fan_in = math.prod(s for s, gone in zip(sizes, summed, strict=True) if gone)
    fan_out = math.prod(sizes) // fan_in
    value = call.recorder.dense(
        call.name, call.x, call.shape, (fan_in, fan_out), call.weights()
    )
    return call.activated(value)


def _attention(call: Call) -> Value:
    layer, recorder = call.layer, call.recorder
    given = inspect.signature(layer.call).bind(
        *call.arguments.args, **call.arguments.kwargs
    )
    tensors = {
        name: call.by_tensor[id(x)]
        for name, x in given.arguments.items()
        if id(x) in call.by_tensor
    }
    q, v = tensors["query"], tensors["value"]
    k = tensors.get("key", v)
    is_plain = {len(x.shape) for x in (q, k, v)} == {2} and len(call.shape) == 2
    if len(call.output_shapes) > 1 or not is_plain or getattr(layer, "use_gate", False):
        raise ValueError(
            "only attention over one axis, without a gate or returned scores, is known; "
            f"{TRACED}"
        )
    heads, key_dim = layer.num_heads, layer.key_dim
    value_dim = layer.value_dim or key_dim

    def dense(part, sublayer, x, width):
        kernel = (x.shape[-1], width)
        weights = call.weights(part, sublayer.weights)
        shape = (x.shape[0], width)
        return recorder.dense(f"{call.name}/{part}", x, shape, kernel, weights)

    length, num_keys = q.shape[0], k.shape[0]
    q = dense("query", layer.query_dense, q, heads * key_dim)
    k = dense("key", layer.key_dense, k, heads * key_dim)
    v = dense("value", layer.value_dense, v, heads * value_dim)
    shape = (heads, length, num_keys)
    scores = recorder.matmul(f"{call.name}/scores", [q, k], shape, key_dim)
    masks = [tensors[name] for name in tensors if name.endswith("mask")]
    scores = recorder.op(f"{call.name}/softmax", "softmax", [scores, *masks], shape)
    if layer.dropout:
        scores = recorder.op(f"{call.name}/dropout", "dropout", [scores], shape)
    shape = (length, heads * value_dim)
    mixed = recorder.matmul(f"{call.name}/context", [scores, v], shape, num_keys)
    return dense("attention_output", layer.output_dense, mixed, call.shape[-1])


def _pool(call: Call, variant: str) -> Value:
    window = math.prod(call.layer.pool_size)
    return call.recorder.pool(call.name, call.x, call.shape, variant, window)


def _global_pool(call: Call, variant: str) -> Value:
    window = math.prod(call.x.shape[:-1])
    return call.recorder.pool(call.name, call.x, call.shape, variant, window)


def _slices(call: Call) -> Made:
    return [
        call.recorder.op(
            call.name, "slice", call.inputs, shape, reads_past_padding=True
        )
        for shape in call.output_shapes
    ]


def _upsampling(call: Call) -> Value:
    return call.op("resize", call.layer.interpolation)


def _reduce(call: Call, variant: str) -> Value:
    """Over the positions of images it is a pool."""
    given, made = call.x.shape, call.shape
    if variant == "mean" and len(given) > 2 and made in (given[-1:], _ones(given)):
        return _global_pool(call, "global_average")
    return call.op("reduce", variant)


def _ones(shape: Shape) -> Shape:
    return (*(1 for _ in shape[:-1]), shape[-1])


def _activation(call: Call, function: str = "") -> Value:
    if not function:
        function = _function_name(call.layer.activation)
    return call.recorder.activation(call.name, call.x, function, call.weights())


def _relu(call: Call) -> Value:
    layer = call.layer
    slope = float(getattr(layer, "negative_slope", 0) or 0)
    name = "leaky_relu" if slope else "relu6" if layer.max_value == 6 else "relu"
    return call.recorder.activation(call.name, call.x, name)


def _dropout(call: Call, attribute: str = "rate") -> Value:
    return call.op("dropout") if getattr(call.layer, attribute) else call.x


def _view(call: Call) -> Value:
    return call.recorder.view(call.x, call.shape)


def _pad(call: Call) -> Value:
    return call.recorder.pad(call.x, call.shape)


def _scaled_sum(call: Call) -> Value:
    """Inception-ResNet's sum of a map and a scaled one."""
    first, second = call.inputs
    scaled = call.recorder.op(
        f"{call.name}/scale", "elementwise", [second], second.shape, variant="mul"
    )
    return call.recorder.op(call.name, "add", [first, scaled], call.shape)


def _recurrent(call: Call) -> Value:
    raise ValueError(f"loops over time are not expanded; {TRACED}")


def _arithmetic(call: Call, kind: str, variant: str = "") -> Value:
    """Of two maps, or of a map and a number."""
    given = (*call.arguments.args, *call.arguments.kwargs.values())
    if any(hasattr(value, "assign") for value in given):
        raise ValueError("it reads a variable; make the variable a layer's weight.")
    if len(call.inputs) > 1:
        return call.op(kind, variant)
    return call.op("elementwise", variant or kind)


def _matmul(call: Call) -> Value:
    if len(call.inputs) != 2:
        raise ValueError("both of its factors must be maps; use a Dense layer.")
    num_terms = call.x.shape[-1]
    return call.recorder.matmul(call.name, call.inputs, call.shape, num_terms)


_Make = Callable[[Call], Made]


def _table(*rows: tuple) -> dict[str, _Make]:
    """Rows of class names, what makes their ops, and its arguments; * is 1D, 2D, 3D."""
    table: dict[str, _Make] = {}
    for names, make, *arguments in rows:
        for name in names.split():
            dims = ("1D", "2D", "3D") if "*" in name else ("",)
            for n in dims:
                table[name.replace("*", n)] = lambda call, m=make, a=arguments: m(
                    call, *a
                )
    return table


_POINTWISE = (  # operations without a layer, by the name of their class
    *("Absolute", "Abs", "Clip", "Cos", "Erf", "Exp", "Log", "Negative"),
    *("Reciprocal", "Rsqrt", "Sign", "Sin", "Sqrt", "Square"),
)

_ACTIVATIONS = {  # operations that are an activation each
    **{name: name.lower() for name in ("Relu", "Relu6", "Sigmoid", "Tanh", "Silu")},
    **{name: name.lower() for name in ("Gelu", "Elu", "Selu", "LeakyRelu", "Softplus")},
    **{"HardSigmoid": "hard_sigmoid", "HardSilu": "hard_silu"},
    **{"Softmax": "softmax", "LogSoftmax": "log_softmax"},
}

LAYERS: dict[str, _Make] = _table(
    ("Conv*", _conv),
    ("Conv*Transpose", _conv, True),
    ("DepthwiseConv*", _depthwise),
    ("SeparableConv*", _separable),
    ("Dense", _dense),
    ("EinsumDense", _einsum_dense),
    ("MultiHeadAttention", _attention),
    ("Embedding", Call.op, "embedding"),
    ("BatchNormalization", Call.op, "norm", "batch"),
    ("LayerNormalization", Call.op, "norm", "layer"),
    ("GroupNormalization", Call.op, "norm", "group"),
    ("RMSNormalization", Call.op, "norm", "rms"),
    ("UnitNormalization", Call.op, "norm", "unit"),
    ("Rescaling", Call.op, "elementwise", "rescaling"),
    ("Normalization", Call.op, "elementwise", "normalization"),
    ("Add", Call.op, "add"),
    ("Subtract", Call.op, "add", "sub"),
    ("Multiply", Call.op, "mul"),
    ("Average", Call.op, "add", "average"),
    ("Maximum", Call.op, "elementwise", "maximum"),
    ("Minimum", Call.op, "elementwise", "minimum"),
    ("Concatenate", Call.op, "concat"),
    ("LayerScale", Call.op, "mul"),  # ConvNeXt's
    ("CustomScaleLayer", _scaled_sum),  # Inception-ResNet's
    ("Activation", _activation),
    ("ReLU", _relu),
    ("LeakyReLU", _activation, "leaky_relu"),
    ("PReLU", _activation, "prelu"),
    ("ELU", _activation, "elu"),
    ("Softmax", _activation, "softmax"),
    ("Dropout SpatialDropout* AlphaDropout GaussianDropout", _dropout),
    ("GaussianNoise", _dropout, "stddev"),
    ("StochasticDepth", _dropout, "drop_path_rate"),
    ("MaxPooling*", _pool, "max"),
    ("AveragePooling*", _pool, "average"),
    ("GlobalMaxPooling*", _global_pool, "max"),
    ("GlobalAveragePooling*", _global_pool, "global_average"),
    ("UpSampling1D UpSampling3D", Call.op, "resize", "nearest"),
    ("UpSampling2D", _upsampling),
    ("RepeatVector", Call.op, "resize", "repeat"),
    ("Cropping*", _slices),
    ("ZeroPadding*", _pad),
    ("Flatten Reshape Permute Identity ActivityRegularization", _view),
    ("SimpleRNN LSTM GRU RNN ConvLSTM* Bidirectional TimeDistributed", _recurrent),
    ("SimpleRNNCell LSTMCell GRUCell StackedRNNCells", _recurrent),
)

OPERATIONS: dict[str, _Make] = _table(
    ("Add", _arithmetic, "add"),
    ("Subtract", _arithmetic, "add", "sub"),
    ("Multiply", _arithmetic, "mul"),
    ("Divide TrueDivide", _arithmetic, "mul", "div"),
    ("Maximum", _arithmetic, "elementwise", "maximum"),
    ("Minimum", _arithmetic, "elementwise", "minimum"),
    ("Power", _arithmetic, "elementwise", "power"),
    ("Matmul", _matmul),
    ("Concatenate", Call.op, "concat"),
    ("GetItem Split", _slices),
    ("Mean", _reduce, "mean"),
    ("Sum", _reduce, "sum"),
    ("Max", _reduce, "max"),
    ("Min", _reduce, "min"),
    ("Reshape Transpose Flatten ExpandDims Squeeze Cast Ravel", _view),
    *((n, _activation, v) for n, v in _ACTIVATIONS.items()),
    *((n, Call.op, "elementwise", n.lower()) for n in _POINTWISE),
)
