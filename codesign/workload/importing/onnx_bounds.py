"""What the ONNX model of a stranger may hold, checked before anything is expanded."""

import graphlib
import math
import os
import pathlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

from codesign.workload.importing.recorder import MOST_ELEMENTS

_MOST_NODES = 1 << 14  # functions expanded; a GPT-2 as exported has some 3,000
_MOST_BYTES = 1 << 26  # of nodes, functions expanded
_PACKED = {  # bits of a number where several share a byte
    **{"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2},
    **{"FLOAT6E2M3": 6, "FLOAT6E3M2": 6},
}
_COMPLEX = ("COMPLEX64", "COMPLEX128")


def check_content(onnx: Any, proto: Any, folder: pathlib.Path | None) -> None:
    """Checks the names and tensors of a model, and how many nodes it comes to.

    Args:
        onnx: The package.
        proto: An `onnx.ModelProto`.
        folder: Where its file lies, if it comes from one.

    Raises:
        ValueError: For a name that is no UTF-8, a tensor whose bytes do not fit its
            dims, external data outside the folder, sparse tensors, functions that call
            themselves, or too many nodes.
    """
    for message in _messages(proto):
        kind = message.DESCRIPTOR.name
        if kind == "SparseTensorProto":
            raise ValueError(
                f"The tensor {message.values.name!r} is sparse; make it a dense one."
            )
        if kind == "TensorProto" and is_external(message):
            _check_location(message, folder)
        if kind == "TensorProto":
            _check_bytes(onnx, message)
    _check_expansion(proto)


def is_external(tensor: Any) -> bool:
    """Whether a tensor's numbers lie in another file, which is never read."""
    return tensor.data_location == tensor.EXTERNAL or bool(tensor.external_data)


def _messages(message: Any) -> Iterator[Any]:
    """A message and all in it; raises ValueError where text is no UTF-8."""
    try:
        fields = message.ListFields()
        for field, value in fields:
            parts = (
                value if hasattr(value, "append") or hasattr(value, "add") else [value]
            )
            if field.type == field.TYPE_STRING:
                for text in parts:
                    if isinstance(text, bytes):  # as protobuf gives what it cannot read
                        text.decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"A {message.DESCRIPTOR.name} of the ONNX model has a text that is no UTF-8 "
            f"({error}); the file is damaged."
        ) from None
    yield message
    for field, value in fields:
        if field.message_type is not None:
            for part in [value] if hasattr(value, "DESCRIPTOR") else value:
                if hasattr(part, "DESCRIPTOR"):
                    yield from _messages(part)


def _check_location(tensor: Any, folder: pathlib.Path | None) -> None:
    """Raises ValueError unless a tensor's file lies in the folder of the model."""
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


def _check_bytes(onnx: Any, tensor: Any) -> None:
    """Raises ValueError unless a tensor holds as many numbers as its dims say."""
    shape, count = tuple(tensor.dims), math.prod(tensor.dims)
    if min(shape, default=1) < 0 or count > MOST_ELEMENTS:
        raise ValueError(
            f"The tensor {tensor.name!r} has the dims {shape}; they must not be negative "
            "and make at most 2^40 elements."
        )
    kinds = onnx.TensorProto.DataType
    if tensor.data_type not in kinds.values() or tensor.data_type == kinds.UNDEFINED:
        raise ValueError(
            f"The tensor {tensor.name!r} has the type {tensor.data_type}, which this "
            "release of onnx does not know."
        )
    if is_external(tensor):
        return
    kind = kinds.Name(tensor.data_type)
    bits = _PACKED.get(kind)
    if tensor.HasField("raw_data"):
        width = (
            bits or 8 * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        )
        held, unit, due = len(tensor.raw_data), "bytes", -(-count * width // 8)
    else:
        field = onnx.helper.tensor_dtype_to_field(tensor.data_type)
        held, unit = len(getattr(tensor, field)), f"values of `{field}`"
        due = -(-count * bits // 8) if bits else count * (1 + (kind in _COMPLEX))
    if held != due:
        raise ValueError(
            f"The tensor {tensor.name!r} has the dims {shape} and the type {kind}, which "
            f"take {due} {unit}; it holds {held}."
        )


def _check_expansion(proto: Any) -> None:
    """Raises ValueError if functions call themselves or all nodes are too many."""
    bodies = {_key(function): function.node for function in proto.functions}
    calls = {
        key: [called for node in _all_nodes(body) if (called := _key(node)) in bodies]
        for key, body in bodies.items()
    }
    try:
        order = list(graphlib.TopologicalSorter(calls).static_order())
    except graphlib.CycleError as error:
        path = " -> ".join(repr(name) for _, name, _ in error.args[1])
        raise ValueError(
            f"The functions {path} of the ONNX model call themselves."
        ) from None
    totals: dict[tuple, tuple[int, int]] = {}  # nodes and bytes of a call
    for key in order:
        totals[key] = _expanded(bodies[key], totals)
    num_nodes, num_bytes = _expanded(proto.graph.node, totals)
    if num_nodes > _MOST_NODES or num_bytes > max(_MOST_BYTES, proto.ByteSize()):
        raise ValueError(
            f"The ONNX model comes to {num_nodes} nodes of {num_bytes} bytes in all, its "
            f"functions expanded; at most {_MOST_NODES} of {_MOST_BYTES} are imported."
        )


def _key(part: Any) -> tuple[str, str, str]:
    """What a function is called by, or what a node calls."""
    name = part.op_type if part.DESCRIPTOR.name == "NodeProto" else part.name
    domain = "" if part.domain == "ai.onnx" else part.domain
    return domain, name, getattr(part, "overload", "")  # since IR version 10


def _all_nodes(nodes: Iterable[Any]) -> Iterator[Any]:
    """The nodes, and those of the graphs in their attributes."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _all_nodes(graph.node)


def _expanded(nodes: Any, totals: dict[tuple, tuple[int, int]]) -> tuple[int, int]:
    """Number and bytes of nodes, given those of the functions that they call."""
    count = size = 0
    for node in _all_nodes(nodes):
        inner_count, inner_size = totals.get(_key(node), (1, 0))
        count += inner_count
        size += inner_size
    return count, size + sum(node.ByteSize() for node in nodes)
