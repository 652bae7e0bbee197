"""Imports ONNX models from their graphs alone; the numbers of their weights stay unread.

Needs the extra `onnx`; nothing here imports it before a function is called.
"""

import importlib
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from codesign.workload.graph import Workload
from codesign.workload.importing.onnx_network import Constant, Network, Node
from codesign.workload.importing.onnx_ops import (
    IMAGE_OPS,
    KEEPS_LAYOUT,
    OPS,
    record,
    refusal,
)
from codesign.workload.importing.onnx_shapes import fix_inputs, inferred
from codesign.workload.importing.recorder import Recorder
from codesign.workload.op import Shape

__all__ = ["from_file", "from_model"]

_MOST_READ = 1024  # elements of a constant whose numbers may decide a shape


def from_file(
    path: str | os.PathLike,
    dimensions: Mapping[str, int] | None = None,
    batch_size: int | None = None,
) -> Workload:
    """Counts the model of an .onnx file; see `from_model`.

    Weights that lie in other files are neither read nor needed, but where they are said
    to lie must be inside the model's folder.

    Raises:
        ValueError: As `from_model`, or if the file is no ONNX model.
        OSError: If the file cannot be read.
    """
    onnx = _onnx()
    path = pathlib.Path(path)
    message = importlib.import_module("google.protobuf.message")
    try:
        proto = onnx.load_model_from_string(path.read_bytes())
    except message.DecodeError as error:
        raise ValueError(f"`path` (={path}) is no ONNX model: {error}.") from None
    return _import(onnx, proto, path.parent, dimensions or {}, batch_size)


def from_model(
    proto: Any,
    dimensions: Mapping[str, int] | None = None,
    batch_size: int | None = None,
) -> Workload:
    """Counts an ONNX model for one example.

    A symbolic first axis of an input is the batch and is set to 1; a fixed one must be
    1, or `batch_size` must say whether it is the batch. Images become channels last. A
    node's weights are one tensor, but for initializers that other nodes read too, as
    they are, reshaped, transposed or cast: each of these is shared. A sum with a
    constant right after a matrix product is its bias. What follows from constants and
    shapes alone is no op, nor is reshaping, transposing or padding with zeros.

    Args:
        proto: An `onnx.ModelProto`.
        dimensions: Sizes of symbolic axes, by name; a first axis that it names is no
            batch.
        batch_size: First axes of inputs that are fixed to this size become 1, others
            stay: 1 keeps all as they are, as for models that are sequence first.

    Raises:
        ValueError: If onnx is missing, the model is invalid, a shape stays open, a first
            axis is fixed and `batch_size` is not given, an operator is not known (names
            the node), or external data lies elsewhere.
    """
    return _import(_onnx(), proto, None, dimensions or {}, batch_size)


def _onnx() -> Any:
    try:
        onnx = importlib.import_module("onnx")
        for part in ("checker", "inliner", "numpy_helper", "shape_inference"):
            importlib.import_module(f"onnx.{part}")
    except ImportError as error:
        raise ValueError(
            f"onnx could not be imported ({error}); run `pip install codesign[onnx]`."
        ) from error
    return onnx


def _import(
    onnx: Any,
    proto: Any,
    folder: pathlib.Path | None,
    dimensions: Mapping[str, int],
    batch_size: int | None,
) -> Workload:
    for tensor in _tensors(proto):
        _check_location(tensor, folder)
    if proto.functions:
        proto = onnx.inliner.inline_local_functions(proto)
    constants = _constant_names(proto.graph)
    slim = _without_numbers(onnx, proto)
    initializers = {t.name for t in proto.graph.initializer}
    fix_inputs(slim, initializers, dimensions, batch_size)
    for output in slim.graph.output:  # which may leave it out, but not for the checker
        output.type.tensor_type.shape.SetInParent()
    try:
        onnx.checker.check_model(slim)
        slim = inferred(onnx, slim)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ValueError(f"The ONNX model is invalid: {error}") from None
    return _walk(onnx, slim, proto, constants)


def _tensors(message: Any) -> Iterator[Any]:
    """All tensors of a model, in its initializers, attributes, subgraphs and functions."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for part in [value] if hasattr(value, "DESCRIPTOR") else value:
            if hasattr(part, "DESCRIPTOR"):
                yield from _tensors(part)


def _check_location(tensor: Any, folder: pathlib.Path | None) -> None:
    """Raises ValueError unless a tensor's file lies in the folder of the model."""
    if tensor.data_location != tensor.EXTERNAL and not tensor.external_data:
        return
    locations = [e.value for e in tensor.external_data if e.key == "location"]
    for location in locations or [""]:
        parts = location.split("/")
        is_bad = not location or location.startswith("/") or ".." in parts
        is_bad = is_bad or bool(re.search(r"[\\:\x00]", location))
        if not is_bad and folder is not None:
            target = os.path.realpath(folder / location)
            root = os.path.realpath(folder)
            is_bad = os.path.commonpath([root, target]) != root
        if is_bad:
            raise ValueError(
                f"The tensor {tensor.name!r} says that its data lies in {location!r}; "
                "only a relative path inside the model's folder is allowed."
            )


_RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomUniform")
_LOOPS = ("If", "Loop", "Scan", "SequenceMap")


def _constant_names(graph: Any) -> set[str]:
    """Values that follow from initializers, constants and shapes alone.

    Raises:
        ValueError: For a node that is not among them and that is not known.
    """
    constants = {t.name for t in graph.initializer}
    for sparse in graph.sparse_initializer:
        raise ValueError(
            f"The initializer {sparse.values.name!r} is sparse; make it a dense one."
        )
    for index, node in enumerate(graph.node):
        is_fixed = all(name in constants for name in node.input if name)
        is_fixed &= not node.op_type.startswith(_RANDOM) and node.op_type not in _LOOPS
        if is_fixed or node.op_type in ("Shape", "Size"):
            constants.update(node.output)
        elif node.op_type not in OPS or node.domain not in ("", "ai.onnx"):
            raise refusal(_name(node, index), node.op_type, node.domain)
    return constants


def _name(node: Any, index: int) -> str:
    return node.name.strip("/") or f"{node.op_type}_{index}"


def _without_numbers(onnx: Any, proto: Any) -> Any:
    """The model with large and external initializers as inputs: only shapes are kept."""
    # Before version 4, every initializer had to be an input too.
    slim = onnx.ModelProto(ir_version=max(proto.ir_version, 4))
    slim.opset_import.extend(proto.opset_import)
    slim.graph.name = proto.graph.name or "graph"
    slim.graph.node.extend(proto.graph.node)
    for index, node in enumerate(slim.graph.node):
        node.name = _name(node, index)
    slim.graph.input.extend(proto.graph.input)
    slim.graph.output.extend(proto.graph.output)
    declared = {value.name for value in proto.graph.input}
    for tensor in proto.graph.initializer:
        if np.prod(tensor.dims, dtype=float) <= _MOST_READ and not _is_external(tensor):
            slim.graph.initializer.append(tensor)
        elif tensor.name not in declared:
            slim.graph.input.append(
                onnx.helper.make_tensor_value_info(
                    tensor.name, tensor.data_type, tensor.dims
                )
            )
    return slim


def _is_external(tensor: Any) -> bool:
    return tensor.data_location == tensor.EXTERNAL


def _walk(onnx: Any, slim: Any, proto: Any, names: set[str]) -> Workload:
    graph = slim.graph
    shapes = {}
    floats = set()
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        if kind.HasField("shape"):
            shapes[value.name] = tuple(
                dim.dim_value if dim.HasField("dim_value") else -1
                for dim in kind.shape.dim
            )
        if kind.elem_type in _float_types(onnx):
            floats.add(value.name)
    constants = {}
    for name in names:
        if name in shapes:
            constants[name] = Constant(shapes[name], name in floats, None)
    for tensor in (*graph.initializer, *proto.graph.initializer):
        constants[tensor.name] = _constant(onnx, tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                constants[node.output[0]] = _constant(onnx, attribute.t)
            elif node.op_type == "Constant" and attribute.name == "value_float":
                constants[node.output[0]] = Constant((), True, attribute.f)
    for name, constant in constants.items():
        shapes[name] = constant.shape
    recorder = Recorder()
    network = Network(
        recorder=recorder,
        shapes=shapes,
        constants=constants,
        images=_images(graph.node, shapes),
        origins=_origins(proto.graph, constants),
        biases=_biases(graph, names, constants),
        read={name for node in graph.node for name in node.input}
        | {value.name for value in graph.output},
    )
    for value in graph.input:
        if value.name not in names:
            shape = network.shape(value.name)
            network.values[value.name] = recorder.input(shape)
    get = onnx.helper.get_attribute_value
    for node in graph.node:
        if all(name in names for name in node.output if name):
            continue
        walked = Node(
            name=node.name,
            op=node.op_type,
            inputs=tuple(node.input),
            outputs=tuple(node.output),
            attributes={a.name: get(a) for a in node.attribute},
        )
        record(network, walked)
    outputs = [network.values[v.name] for v in graph.output if v.name not in names]
    recorder.merge_weights()
    return recorder.finish(outputs)


def _float_types(onnx: Any) -> tuple[int, ...]:
    types = onnx.TensorProto
    return types.FLOAT, types.FLOAT16, types.BFLOAT16, types.DOUBLE


def _constant(onnx: Any, tensor: Any) -> Constant:
    shape = tuple(tensor.dims)
    is_float = tensor.data_type in _float_types(onnx)
    is_read = np.prod(shape, dtype=float) <= 1 and not _is_external(tensor)
    number = None
    if is_read and is_float:
        number = float(onnx.numpy_helper.to_array(tensor).reshape(()))
    return Constant(shape, is_float, number)


def _images(nodes: Any, shapes: dict[str, Shape]) -> set[str]:
    """Values with the channels before the positions: what feeds or leaves a convolution.

    Followed both ways through operators that keep the order of the axes.
    """
    images: set[str] = set()

    def add(names) -> bool:
        new = {n for n in names if len(shapes.get(n, ())) > 2 and n not in images}
        images.update(new)
        return bool(new)

    for node in nodes:
        if node.op_type in IMAGE_OPS:
            add((node.input[0], node.output[0]))
    nodes = [node for node in nodes if node.op_type in KEEPS_LAYOUT]
    grows = True
    while grows:
        grows = False
        for node in (*nodes, *reversed(nodes)):
            names = (*node.input, *node.output)
            grows |= not images.isdisjoint(names) and add(names)
    return images


_SAME_VALUES = (
    *("Cast", "CastLike", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose"),
    "Unsqueeze",
)


def _origins(graph: Any, constants: dict[str, Constant]) -> dict[str, str]:
    """For each constant that holds the values of another one, the first such."""
    found: dict[str, str] = {}
    for node in graph.node:
        if node.op_type in _SAME_VALUES and node.output[0] in constants:
            origin = found.get(node.input[0], node.input[0])
            if origin in constants:
                found[node.output[0]] = origin
    return found


def _biases(
    graph: Any, names: set[str], constants: dict[str, Constant]
) -> dict[str, tuple[str, str]]:
    """Sums that add a bias to a matrix product: product to bias and sum."""
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {value.name for value in graph.output}
    found = {}
    for node in graph.node:
        width = _width_without_bias(node, constants)
        product = node.output[0] if node.output else ""
        follows = readers.get(product, [])
        if not width or product in outputs or len(follows) != 1:
            continue
        others = [name for name in follows[0].input if name != product]
        if follows[0].op_type == "Add" and len(others) == 1 and others[0] in names:
            bias = constants.get(others[0])
            if bias and bias.is_float and bias.size == width:
                found[product] = others[0], follows[0].output[0]
    return found


def _width_without_bias(node: Any, constants: dict[str, Constant]) -> int:
    """Output channels of a matrix product with constant weights and no bias, else 0."""
    kernel = constants.get(node.input[1]) if len(node.input) > 1 else None
    if kernel is None or any(node.input[2:]):
        return 0
    if node.op_type == "MatMul":
        return kernel.size // kernel.shape[-2] if len(kernel.shape) > 1 else 0
    return kernel.shape[0] if node.op_type == "Conv" else 0
