"""Imports the architectures of Darknet .cfg files."""

import dataclasses
import math
import os
import pathlib
from collections.abc import Callable

from codesign.workload.graph import Workload
from codesign.workload.importing.darknet_cfg import MOST, Section, sections
from codesign.workload.importing.file import read_bytes
from codesign.workload.importing.recorder import Recorder, SizeError, Value
from codesign.workload.op import Shape

__all__ = ["from_cfg"]

_MOST_BYTES = 1 << 20  # of a file

_ACTIVATIONS = (
    *("linear", "leaky", "relu", "relu6", "mish", "swish", "logistic", "tanh", "elu"),
    *("selu", "gelu", "hard_mish"),
)


def from_cfg(path: str | os.PathLike) -> Workload:
    """Counts the network of a Darknet .cfg file for one example.

    A convolution with batch norm has the kernel as its weights and the norm all four
    vectors; one without has kernel and bias. Ops are named by kind and section, `conv_0`
    being the first after [net]. YOLO, region and detection sections are no ops: the
    convolutions before them are the heads. `reorg` is a view. A shortcut of unequal maps
    adds what they have in common, and keeps the last one's shape.

    Raises:
        ValueError: Naming the line, for a section, setting or number that is not known,
            or a size that is too large to count; or if the file is no regular one.
        OSError: If the file cannot be read.
    """
    path = pathlib.Path(path)
    try:
        text = read_bytes(path, _MOST_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"`path` (={path}) is no text: {error}.") from None
    return _import(sections(text, path.name))


@dataclasses.dataclass(frozen=True)
class _Weights:
    """Tensors of a convolution, which later ones may share."""

    kernel: Shape
    conv: str
    norm: str  # empty without batch norm


@dataclasses.dataclass(eq=False)
class _State:
    """The network up to a section."""

    recorder: Recorder
    outputs: list[Value]  # of each section
    value: Value  # of the last one
    convolutions: dict[int, "_Weights"] = dataclasses.field(default_factory=dict)

    @property
    def index(self) -> int:
        return len(self.outputs)

    def earlier(self, section: Section, offset: int) -> Value:
        """The output of a section: by its number, or counted back if negative."""
        index = offset if offset >= 0 else self.index + offset
        if not 0 <= index < self.index:
            raise section.error(
                f"refers to section {offset}; there are {self.index} before it."
            )
        return self.outputs[index]


def _import(found: list[Section]) -> Workload:
    net, *layers = found
    if net.text("inputs", ""):
        shape = (net.number("inputs", 1, 1),)
    else:
        shape = tuple(net.number(key, 0, 1) for key in ("height", "width", "channels"))
        if not all(shape):
            raise net.error("needs `height`, `width` and `channels`.")
    recorder = Recorder()
    try:
        state = _State(recorder, [], recorder.input(shape))
    except SizeError as error:
        raise net.error(f"is refused: {error}") from None
    heads = []
    for section in layers:
        make = _LAYERS.get(section.kind)
        if make is None:
            raise section.error(
                f"is not known; these are: {sorted(_LAYERS)}. Write the network in JAX "
                "and call workload.trace, or list its ops for "
                "codesign.workload.graph.build."
            )
        try:
            state.value = make(section, state)
        except SizeError as error:
            raise section.error(f"is refused: {error}") from None
        if section.kind not in _HEADS:
            section.check_all_used()
        else:
            heads.append(state.value)
        state.outputs.append(state.value)
    if heads:
        return recorder.finish([*heads, state.value])
    return recorder.finish([state.value])


def _image(section: Section, state: _State, value: Value) -> Value:
    """A map of height, width and channels, as which C values are 1 x 1 x C."""
    if len(value.shape) == 1 and value.source >= 0:
        return state.recorder.view(value, (1, 1, *value.shape))
    if len(value.shape) != 3:
        raise section.error(f"needs an image, and is given {value.shape}.")
    return value


def _activated(section: Section, state: _State, value: Value, default: str) -> Value:
    function = section.text("activation", default)
    if function not in _ACTIVATIONS:
        raise section.error(
            f"has the activation {function!r}; it must be one of {list(_ACTIVATIONS)}."
        )
    return state.recorder.activation(f"{function}_{state.index}", value, function)


def _norm_weight(section: Section, state: _State, channels: int) -> str:
    """Scale, bias, mean and variance, where the section asks for batch norm."""
    if not section.number("batch_normalize", 0):
        return ""
    return state.recorder.weight(f"bn_{state.index}", 4 * channels)


def _normed(state: _State, value: Value, weight: str) -> Value:
    if not weight:
        return value
    name = f"bn_{state.index}"
    return state.recorder.op(
        name, "norm", [value], value.shape, variant="batch", weights=[weight]
    )


def _convolutional(section: Section, state: _State) -> Value:
    image = _image(section, state, state.value)
    height, width, channels = image.shape
    filters, size = section.number("filters", 1, 1), section.number("size", 1, 1)
    stride = section.number("stride", 1, 1)
    strides = (
        section.number("stride_y", stride, 1),
        section.number("stride_x", stride, 1),
    )
    dilation, groups = section.number("dilation", 1, 1), section.number("groups", 1, 1)
    padding = section.number("padding", 0)
    if section.number("pad", 0):
        padding = size // 2
    if channels % groups or filters % groups:
        raise section.error(
            f"has {groups} groups, which must divide {channels} channels and {filters} "
            "filters."
        )
    missing = dilation * (size - 1) - 2 * padding * dilation
    shape = tuple(
        (length - 1 - missing) // step + 1
        for length, step in zip((height, width), strides, strict=True)
    )
    weights = _conv_weights(section, state, (size, size, channels // groups, filters))
    value = state.recorder.conv(
        f"conv_{state.index}", image, (*shape, filters), weights.kernel, [weights.conv]
    )
    return _activated(section, state, _normed(state, value, weights.norm), "logistic")


def _conv_weights(section: Section, state: _State, kernel: Shape) -> _Weights:
    """New weights, or those of the section `share_index`."""
    norm = bool(section.number("batch_normalize", 0))
    if "share_index" in section.settings:
        offset = section.numbers("share_index", (), -MOST)[0]
        shared = state.convolutions.get(offset if offset >= 0 else state.index + offset)
        if shared is None or (shared.kernel, bool(shared.norm)) != (kernel, norm):
            raise section.error(
                f"shares the weights of section {offset}, which must be an earlier "
                f"convolution with the kernel {kernel} and the same `batch_normalize`."
            )
    else:
        size = math.prod(kernel) + (0 if norm else kernel[-1])
        shared = _Weights(
            kernel,
            state.recorder.weight(f"conv_{state.index}", size),
            _norm_weight(section, state, kernel[-1]),
        )
    state.convolutions[state.index] = shared
    return shared


def _connected(section: Section, state: _State) -> Value:
    fan_in, fan_out = math.prod(state.value.shape), section.number("output", 1, 1)
    has_norm = section.number("batch_normalize", 0)
    name = f"dense_{state.index}"
    weight = state.recorder.weight(
        name, fan_in * fan_out + (0 if has_norm else fan_out)
    )
    flat = state.recorder.view(state.value, (fan_in,))
    value = state.recorder.dense(name, flat, (fan_out,), (fan_in, fan_out), [weight])
    value = _normed(state, value, _norm_weight(section, state, fan_out))
    return _activated(section, state, value, "logistic")


def _maxpool(section: Section, state: _State) -> Value:
    image = _image(section, state, state.value)
    height, width, channels = image.shape
    stride = section.number("stride", 1, 1)
    strides = (
        section.number("stride_y", stride, 1),
        section.number("stride_x", stride, 1),
    )
    size = section.number("size", stride, 1)
    padding = section.number("padding", size - 1)
    shape = tuple(
        (length + padding - size) // step + 1
        for length, step in zip((height, width), strides, strict=True)
    )
    name = f"maxpool_{state.index}"
    return state.recorder.pool(name, image, (*shape, channels), "max", size * size)


def _avgpool(section: Section, state: _State) -> Value:
    image = _image(section, state, state.value)
    height, width, channels = image.shape
    return state.recorder.pool(
        f"avgpool_{state.index}",
        image,
        (channels,),
        "global_average",
        height * width,
    )


def _route(section: Section, state: _State) -> Value:
    offsets = section.numbers("layers", (), -MOST)
    if not offsets:
        raise section.error("needs `layers`.")
    values = [
        _image(section, state, state.earlier(section, offset)) for offset in offsets
    ]
    groups, group = section.number("groups", 1, 1), section.number("group_id", 0)
    name = f"route_{state.index}"
    shapes = [value.shape for value in values]
    if len({shape[:2] for shape in shapes}) > 1:
        raise section.error(f"joins maps of unequal size: {shapes}.")
    if any(shape[-1] % groups for shape in shapes) or group >= groups:
        raise section.error(f"cannot take group {group} of {groups} of {shapes}.")
    if groups > 1:
        values = [
            state.recorder.op(
                name if len(values) == 1 else f"{name}/group",
                "slice",
                [value],
                (*shape[:2], shape[-1] // groups),
            )
            for value, shape in zip(values, shapes, strict=True)
        ]
    if len(values) == 1:
        return values[0]
    joined = (*shapes[0][:2], sum(value.shape[-1] for value in values))
    return state.recorder.op(name, "concat", values, joined)


def _shortcut(section: Section, state: _State) -> Value:
    """Adds earlier maps to the last one over the part that they have in common."""
    offsets = section.numbers("from", (), -MOST)
    if not offsets:
        raise section.error("needs `from`.")
    earlier = [state.earlier(section, offset) for offset in offsets]
    if any(value.shape != state.value.shape for value in earlier):
        last = _image(section, state, state.value)
        images = [_image(section, state, value) for value in earlier]
        earlier = [_fitted(section, state, value, last.shape) for value in images]
        values = [last, *earlier]
    else:
        values = [state.value, *earlier]
    value = state.recorder.op(f"add_{state.index}", "add", values, values[0].shape)
    return _activated(section, state, value, "linear")


def _fitted(section: Section, state: _State, image: Value, shape: Shape) -> Value:
    """A map cut to every n-th position and the first channels, and filled with zeros.

    A map of 16 x 16 x 4 fits one of 8 x 8 x 8 by its even rows and columns and 4
    channels of zeros, as `shortcut_cpu` of Darknet adds them.
    """
    (height, width, _), (rows, columns, _) = image.shape, shape
    if (height // rows, rows // height) != (width // columns, columns // width):
        raise section.error(
            f"adds {image.shape} to {shape}; their heights and widths must have one "
            "whole ratio."
        )
    name, common = f"add_{state.index}/common", tuple(map(min, image.shape, shape))
    if image.shape != common:
        image = state.recorder.op(name, "slice", [image], common)
    return state.recorder.pad(image, shape)


def _scaled(section: Section, state: _State) -> Value:
    """One map times another, or times one value for each of its channels."""
    offsets = section.numbers("from", (), -MOST)
    if len(offsets) != 1:
        raise section.error("needs one `from`.")
    other = state.earlier(section, offsets[0])
    shapes = [value.shape for value in (other, state.value)]
    if shapes[0][-1] != shapes[1][-1] or math.prod(shapes[0]) % math.prod(shapes[1]):
        raise section.error(f"multiplies maps of unequal shapes {shapes}.")
    operands = [other, state.value]
    value = state.recorder.op(f"mul_{state.index}", "mul", operands, shapes[0])
    return _activated(section, state, value, "linear")


def _upsample(section: Section, state: _State) -> Value:
    image = _image(section, state, state.value)
    height, width, channels = image.shape
    stride = section.number("stride", 2, 1)
    section.text("scale", "1")  # a factor on its values
    shape = (height * stride, width * stride, channels)
    name = f"upsample_{state.index}"
    return state.recorder.op(name, "resize", [image], shape, variant="nearest")


def _reorg(section: Section, state: _State) -> Value:
    image = _image(section, state, state.value)
    height, width, channels = image.shape
    stride = section.number("stride", 1, 1)
    if height % stride or width % stride:
        raise section.error(f"cannot cut {height} x {width} into squares of {stride}.")
    shape = (height // stride, width // stride, channels * stride**2)
    return state.recorder.view(image, shape)


def _dropout(section: Section, state: _State) -> Value:
    text = section.text("probability", "0.5")
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not 0 <= rate < 1:
        raise section.error(f"has the probability {text!r}; it must be in [0, 1).")
    if rate == 0:
        return state.value
    name = f"dropout_{state.index}"
    return state.recorder.op(name, "dropout", [state.value], state.value.shape)


def _softmax(section: Section, state: _State) -> Value:
    section.text("groups", "1")
    section.text("temperature", "1")
    return state.recorder.activation(f"softmax_{state.index}", state.value, "softmax")


def _head(section: Section, state: _State) -> Value:
    return state.value


_HEADS = ("yolo", "region", "detection", "cost")
_LAYERS: dict[str, Callable[[Section, _State], Value]] = {
    "convolutional": _convolutional,
    "connected": _connected,
    "maxpool": _maxpool,
    "avgpool": _avgpool,
    "route": _route,
    "shortcut": _shortcut,
    "scale_channels": _scaled,
    "sam": _scaled,
    "upsample": _upsample,
    "reorg": _reorg,
    "dropout": _dropout,
    "softmax": _softmax,
    **dict.fromkeys(_HEADS, _head),
}
