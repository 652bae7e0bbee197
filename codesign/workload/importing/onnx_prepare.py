"""Prepares an ONNX model for the walk over its nodes."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from codesign.workload.importing.onnx_bounds import is_external
from codesign.workload.importing.onnx_network import Constant, Network, Node
from codesign.workload.importing.onnx_ops import (
    IMAGE_OPS,
    KEEPS_LAYOUT,
    OPS,
    refusal,
)
from codesign.workload.importing.onnx_shapes import MOST_KNOWN, Values
from codesign.workload.importing.recorder import Recorder
from codesign.workload.op import Shape

_RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomUniform")
_LOOPS = ("If", "Loop", "Scan", "SequenceMap")
# How many of its first inputs an operator reads the numbers of; of others, all.
_READS = {"CastLike": 1, "EyeLike": 0, "Shape": 0, "Size": 0}
_SAME_VALUES = (
    *("Cast", "CastLike", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose"),
    "Unsqueeze",
)


def without_numbers(onnx: Any, proto: Any) -> tuple[Any, set[str]]:
    """The model with named nodes and no large numbers, and the names of its tensors.

    Constant nodes become initializers, and of initializers that are large or lie in other
    files only the shapes are kept, as inputs.

    Raises:
        ValueError: If an attribute of another node lies in another file.
    """
    # Before version 4, every initializer had to be an input too.
    slim = onnx.ModelProto(ir_version=max(proto.ir_version, 4))
    for opset in proto.opset_import:
        domain = "" if opset.domain == "ai.onnx" else opset.domain
        slim.opset_import.add(domain=domain, version=opset.version)
    slim.graph.name = proto.graph.name or "graph"
    slim.graph.input.extend(proto.graph.input)
    slim.graph.output.extend(proto.graph.output)
    for output in slim.graph.output:  # which may leave it out, but not for the checker
        output.type.tensor_type.shape.SetInParent()
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    for index, node in enumerate(proto.graph.node):
        tensor = _held(onnx, node)
        if tensor is not None:
            tensors[node.output[0]] = tensor
            continue
        if any(is_external(attribute.t) for attribute in node.attribute):
            raise ValueError(
                f"The node {_name(node, index)!r} ({node.op_type}) needs numbers that "
                "lie in another file, which is never read; store them in the model."
            )
        kept = slim.graph.node.add()
        kept.CopyFrom(node)
        kept.name = _name(node, index)
        kept.domain = "" if node.domain == "ai.onnx" else node.domain
    declared = {value.name for value in proto.graph.input}
    for name, tensor in tensors.items():
        shape = tuple(tensor.dims)
        if np.prod(shape, dtype=float) <= MOST_KNOWN and not is_external(tensor):
            slim.graph.initializer.add().CopyFrom(tensor)
            slim.graph.initializer[-1].name = name
        elif name not in declared:
            kind = onnx.helper.make_tensor_value_info(name, tensor.data_type, shape)
            slim.graph.input.append(kind)
    return slim, set(tensors)


def _name(node: Any, index: int) -> str:
    return node.name.strip("/") or f"{node.op_type}_{index}"


def _held(onnx: Any, node: Any) -> Any:
    """The tensor of a Constant node, or None."""
    if node.op_type != "Constant" or len(node.output) != 1 or len(node.attribute) != 1:
        return None
    given, kinds = node.attribute[0], onnx.TensorProto
    if given.name == "value":
        return given.t
    if given.name in ("value_float", "value_floats"):
        numbers = given.f if given.name == "value_float" else given.floats
        return onnx.numpy_helper.from_array(np.array(numbers, np.float32))
    if given.name in ("value_int", "value_ints"):
        numbers = given.i if given.name == "value_int" else given.ints
        return onnx.numpy_helper.from_array(np.array(numbers, np.int64))
    return (
        None
        if given.name not in ("value_string", "value_strings")
        else kinds(
            data_type=kinds.STRING,
            dims=[] if given.name == "value_string" else [len(given.strings)],
            string_data=given.strings or [given.s],
        )
    )


def constant_names(graph: Any, tensors: set[str]) -> set[str]:
    """Values that follow from tensors, constants and shapes alone.

    Raises:
        ValueError: For a node that is not among them and that is not known.
    """
    constants = set(tensors)
    for node in graph.node:
        read = node.input[: _READS.get(node.op_type)]
        is_fixed = all(name in constants for name in read if name)
        is_fixed &= not node.op_type.startswith(_RANDOM) and node.op_type not in _LOOPS
        if is_fixed:
            constants.update(node.output)
        elif node.op_type not in OPS or node.domain:
            raise refusal(node.name, node.op_type, node.domain)
    return constants


def prepared(
    onnx: Any, graph: Any, names: set[str], values: Values
) -> tuple[Network, list[Node]]:
    """The network before its walk, with its inputs, and the nodes to be walked in order.

    Args:
        onnx: The package.
        graph: Without numbers.
        names: Of the values that are constant.
        values: What is known of all values.
    """
    constants = _constants(onnx, names, values)
    network = Network(
        recorder=Recorder(),
        shapes=values.shapes,
        constants=constants,
        images=_images(graph.node, values.shapes),
        origins=_origins(graph, constants),
        biases=_biases(graph, names, constants),
        read={name for node in graph.node for name in node.input}
        | {value.name for value in graph.output},
    )
    for value in graph.input:
        if value.name not in names:
            shape = network.shape(value.name)
            network.values[value.name] = network.recorder.input(shape)
    get = onnx.helper.get_attribute_value
    nodes = [
        Node(
            name=node.name,
            op=node.op_type,
            inputs=tuple(node.input),
            outputs=tuple(node.output),
            attributes={a.name: get(a) for a in node.attribute},
        )
        for node in graph.node
        if not all(name in names for name in node.output if name)
    ]
    return network, nodes


def _constants(onnx: Any, names: Iterable[str], values: Values) -> dict[str, Constant]:
    kinds = onnx.TensorProto
    floats = kinds.FLOAT, kinds.FLOAT16, kinds.BFLOAT16, kinds.DOUBLE
    constants = {}
    for name in names:
        if name in values.shapes:
            array = values.arrays.get(name)
            is_float = values.types[name].tensor_type.elem_type in floats
            number = None
            if is_float and array is not None and array.size == 1:
                number = float(array.reshape(()))
            constants[name] = Constant(values.shapes[name], is_float, number)
    return constants


def _images(nodes: Any, shapes: dict[str, Shape]) -> set[str]:
    """Values with the channels before the positions: what feeds or leaves a convolution.

    Followed both ways through operators that keep the order of the axes.
    """
    touching: dict[str, list[Any]] = {}
    found = []
    for node in nodes:
        if node.op_type in IMAGE_OPS:
            found += [node.input[0], node.output[0]]
        if node.op_type in KEEPS_LAYOUT:
            for name in (*node.input, *node.output):
                touching.setdefault(name, []).append(node)
    images: set[str] = set()
    while found:
        name = found.pop()
        if len(shapes.get(name, ())) > 2 and name not in images:
            images.add(name)
            for node in touching.pop(name, ()):
                found += (*node.input, *node.output)
    return images


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
        for name in node.input[: 1 if node.op_type == "CastLike" else None]:
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
    if node.op_type == "MatMul" and len(kernel.shape) > 1:
        return kernel.size // max(1, kernel.shape[-2])
    return kernel.shape[0] if node.op_type == "Conv" and kernel.shape else 0
