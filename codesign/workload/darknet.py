"""Imports the architectures of Darknet .cfg files."""

import dataclasses
import math
import os
import pathlib
from collections.abc import Callable

from codesign.workload.graph import Workload
from codesign.workload.importing.recorder import Recorder, Value
from codesign.workload.op import Shape

__all__ = ["from_cfg"]

_MOST_BYTES = 1 << 22  # of a file
_MOST = 1 << 24  # of any number in it, and of the values of a map per example times 256

_ACTIVATIONS = (
    *("linear", "leaky", "relu", "relu6", "mish", "swish", "logistic", "tanh", "elu"),
    *("selu", "gelu", "hard_mish"),
)
# Settings that a section may have and that change no count.
_SILENT = (
    *("stopbackward", "onlyforward", "dontload", "dontloadscales", "dontsave"),
    *("learning_rate", "learning_rate_scale", "burnin_update", "train_only_bn"),
    *("flipped", "name", "clip", "momentum", "decay", "smooth", "batch", "noloss"),
)


def from_cfg(path: str | os.PathLike) -> Workload:
    """Counts the network of a Darknet .cfg file for one example.

    A convolution with batch norm has the kernel as its weights and the norm all four
    vectors; one without has kernel and bias. Ops are named by kind and section, `conv_0`
    being the first after [net]. YOLO, region and detection sections are no ops: the
    convolutions before them are the heads. `reorg` is a view.

    Raises:
        ValueError: Naming the line, for a section, setting or number that is not known.
        OSError: If the file cannot be read.
    """
    path = pathlib.Path(path)
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise ValueError(
            f"`path` (={path}) has {size} bytes; a .cfg has at most {_MOST_BYTES}."
        )
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"`path` (={path}) is no text: {error}.") from None
    return _import(_sections(text, path.name))


@dataclasses.dataclass(eq=False)
class _Section:
    """One `[kind]` with its settings, each with the line that it stands on."""

    kind: str
    where: str
    settings: dict[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    used: set[str] = dataclasses.field(default_factory=set)

    def text(self, key: str, default: str) -> str:
        self.used.add(key)
        return self.settings.get(key, (default, ""))[0]

    def number(self, key: str, default: int, least: int = 0) -> int:
        return self.numbers(key, (default,), least)[0]

    def numbers(
        self, key: str, default: tuple[int, ...], least: int
    ) -> tuple[int, ...]:
        self.used.add(key)
        if key not in self.settings:
            return default
        text, where = self.settings[key]
        try:
            values = tuple(int(part) for part in text.strip(",").split(","))
        except ValueError:
            values = ()
        if not values or not all(least <= value <= _MOST for value in values):
            raise ValueError(
                f"{where}: `{key}` (={text!r}) must be a whole number from {least} to "
                f"{_MOST}."
            )
        return values

    def check_all_used(self) -> None:
        for key, (_, where) in self.settings.items():
            if key not in self.used and key not in _SILENT:
                raise ValueError(
                    f"{where}: `{key}` of [{self.kind}] is not known; remove it if it "
                    "changes no shape."
                )

    def error(self, why: str) -> ValueError:
        return ValueError(f"{self.where}: [{self.kind}] {why}")


def _sections(text: str, name: str) -> list[_Section]:
    sections: list[_Section] = []
    for number, line in enumerate(text.splitlines(), start=1):
        where = f"{name}, line {number}"
        line = "".join(line.partition("#")[0].partition(";")[0].split())
        if not line:
            continue
        if line.startswith("["):
            if not line.endswith("]"):
                raise ValueError(f"{where}: {line!r} must end in ].")
            sections.append(_Section(line[1:-1].lower(), where))
            continue
        key, equals, value = line.partition("=")
        if not equals or not key or not sections:
            raise ValueError(
                f"{where}: {line!r} must be `key=value`, after a [section]."
            )
        settings = sections[-1].settings
        first = settings.setdefault(key, (value, where))[0]
        if first != value and sections[-1].kind not in ("net", "network"):
            raise ValueError(f"{where}: `{key}` is set twice, and differently.")
    if not sections or sections[0].kind not in ("net", "network"):
        raise ValueError(f"{name}: the first section must be [net].")
    return sections


@dataclasses.dataclass(eq=False)
class _State:
    """The network up to a section."""

    recorder: Recorder
    outputs: list[Value]  # of each section
    value: Value  # of the last one

    @property
    def index(self) -> int:
        return len(self.outputs)

    def earlier(self, section: _Section, offset: int) -> Value:
        """The output of a section: by its number, or counted back if negative."""
        index = offset if offset >= 0 else self.index + offset
        if not 0 <= index < self.index:
            raise section.error(
                f"refers to section {offset}; there are {self.index} before it."
            )
        return self.outputs[index]


def _import(sections: list[_Section]) -> Workload:
    net, *layers = sections
    if net.text("inputs", ""):
        shape = (net.number("inputs", 1, 1),)
    else:
        shape = tuple(net.number(key, 0, 1) for key in ("height", "width", "channels"))
        if not all(shape):
            raise net.error("needs `height`, `width` and `channels`.")
    recorder = Recorder()
    state = _State(recorder, [], recorder.input(shape))
    heads = []
    for section in layers:
        make = _LAYERS.get(section.kind)
        if make is None:
            raise section.error(
                f"is not known; these are: {sorted(_LAYERS)}. Write the network in JAX "
                "and call workload.trace, or list its ops for "
                "codesign.workload.graph.build."
            )
        state.value = make(section, state)
        if section.kind not in _HEADS:
            section.check_all_used()
        else:
            heads.append(state.value)
        state.outputs.append(state.value)
    if heads:
        return recorder.finish([*heads, state.value])
    return recorder.finish([state.value])


def _image(section: _Section, value: Value) -> Shape:
    if len(value.shape) != 3:
        raise section.error(f"needs an image, and is given {value.shape}.")
    return value.shape


def _sized(section: _Section, shape: Shape) -> Shape:
    if min(shape) < 1 or math.prod(shape) > 256 * _MOST:
        raise section.error(f"makes a map of {shape}: too small or too large.")
    return shape


def _activated(section: _Section, state: _State, value: Value, default: str) -> Value:
    function = section.text("activation", default)
    if function not in _ACTIVATIONS:
        raise section.error(
            f"has the activation {function!r}; it must be one of {list(_ACTIVATIONS)}."
        )
    return state.recorder.activation(f"{function}_{state.index}", value, function)


def _normed(section: _Section, state: _State, value: Value) -> Value:
    """Batch norm, where the section asks for it: scale, bias, mean and variance."""
    if not section.number("batch_normalize", 0):
        return value
    name = f"bn_{state.index}"
    weight = state.recorder.weight(name, 4 * value.shape[-1])
    return state.recorder.op(
        name, "norm", [value], value.shape, variant="batch", weights=[weight]
    )


def _convolutional(section: _Section, state: _State) -> Value:
    height, width, channels = _image(section, state.value)
    filters, size = section.number("filters", 1, 1), section.number("size", 1, 1)
    stride = section.number("stride", 1, 1)
    strides = (
        section.number("stride_y", stride, 1),
        section.number("stride_x", stride, 1),
    )
    dilation, groups = section.number("dilation", 1, 1), section.number("groups", 1, 1)
    padding = section.number("padding", 0)
    if section.number("pad", 0):
        padding = size // 2 * dilation
    if channels % groups or filters % groups:
        raise section.error(
            f"has {groups} groups, which must divide {channels} channels and {filters} "
            "filters."
        )
    reach = dilation * (size - 1) + 1
    shape = tuple(
        (length + 2 * padding - reach) // step + 1
        for length, step in zip((height, width), strides, strict=True)
    )
    kernel = (size, size, channels // groups, filters)
    has_norm = section.number("batch_normalize", 0)
    name = f"conv_{state.index}"
    weight = state.recorder.weight(
        name, math.prod(kernel) + (0 if has_norm else filters)
    )
    value = state.recorder.conv(
        name, state.value, _sized(section, (*shape, filters)), kernel, [weight]
    )
    value = _normed(section, state, value)
    return _activated(section, state, value, "logistic")


def _connected(section: _Section, state: _State) -> Value:
    fan_in, fan_out = math.prod(state.value.shape), section.number("output", 1, 1)
    has_norm = section.number("batch_normalize", 0)
    name = f"dense_{state.index}"
    weight = state.recorder.weight(
        name, fan_in * fan_out + (0 if has_norm else fan_out)
    )
    flat = state.recorder.view(state.value, (fan_in,))
    value = state.recorder.dense(name, flat, (fan_out,), (fan_in, fan_out), [weight])
    value = _normed(section, state, value)
    return _activated(section, state, value, "logistic")


def _maxpool(section: _Section, state: _State) -> Value:
    height, width, channels = _image(section, state.value)
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
    shape = _sized(section, (*shape, channels))
    name = f"maxpool_{state.index}"
    return state.recorder.pool(name, state.value, shape, "max", size * size)


def _avgpool(section: _Section, state: _State) -> Value:
    height, width, channels = _image(section, state.value)
    return state.recorder.pool(
        f"avgpool_{state.index}",
        state.value,
        (channels,),
        "global_average",
        height * width,
    )


def _route(section: _Section, state: _State) -> Value:
    offsets = section.numbers("layers", (), -_MOST)
    if not offsets:
        raise section.error("needs `layers`.")
    values = [state.earlier(section, offset) for offset in offsets]
    groups, group = section.number("groups", 1, 1), section.number("group_id", 0)
    name = f"route_{state.index}"
    shapes = [_image(section, value) for value in values]
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
    return state.recorder.op(name, "concat", values, _sized(section, joined))


def _shortcut(section: _Section, state: _State) -> Value:
    offsets = section.numbers("from", (), -_MOST)
    if not offsets:
        raise section.error("needs `from`.")
    values = [state.value, *(state.earlier(section, offset) for offset in offsets)]
    shapes = [value.shape for value in values]
    if len(set(shapes)) > 1:
        raise section.error(f"adds maps of unequal shapes {shapes}.")
    value = state.recorder.op(f"add_{state.index}", "add", values, shapes[0])
    return _activated(section, state, value, "linear")


def _scaled(section: _Section, state: _State) -> Value:
    """One map times another, or times one value for each of its channels."""
    offsets = section.numbers("from", (), -_MOST)
    if len(offsets) != 1:
        raise section.error("needs one `from`.")
    other = state.earlier(section, offsets[0])
    shapes = [value.shape for value in (other, state.value)]
    if shapes[0][-1] != shapes[1][-1] or math.prod(shapes[0]) % math.prod(shapes[1]):
        raise section.error(f"multiplies maps of unequal shapes {shapes}.")
    operands = [other, state.value]
    value = state.recorder.op(f"mul_{state.index}", "mul", operands, shapes[0])
    return _activated(section, state, value, "linear")


def _upsample(section: _Section, state: _State) -> Value:
    height, width, channels = _image(section, state.value)
    stride = section.number("stride", 2, 1)
    section.text("scale", "1")  # a factor on its values
    shape = _sized(section, (height * stride, width * stride, channels))
    name = f"upsample_{state.index}"
    return state.recorder.op(name, "resize", [state.value], shape, variant="nearest")


def _reorg(section: _Section, state: _State) -> Value:
    height, width, channels = _image(section, state.value)
    stride = section.number("stride", 1, 1)
    if height % stride or width % stride:
        raise section.error(f"cannot cut {height} x {width} into squares of {stride}.")
    shape = (height // stride, width // stride, channels * stride**2)
    return state.recorder.view(state.value, shape)


def _dropout(section: _Section, state: _State) -> Value:
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


def _softmax(section: _Section, state: _State) -> Value:
    section.text("groups", "1")
    section.text("temperature", "1")
    return state.recorder.activation(f"softmax_{state.index}", state.value, "softmax")


def _head(section: _Section, state: _State) -> Value:
    return state.value


_HEADS = ("yolo", "region", "detection", "cost")
_LAYERS: dict[str, Callable[[_Section, _State], Value]] = {
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
