"""Imports ONNX models from their graphs alone; the numbers of their weights stay unread.

Needs the extra `onnx`; nothing here imports it before a function is called.
"""

import importlib
import os
import pathlib
from typing import Any

from codesign.workload.graph import Workload
from codesign.workload.importing.file import read_bytes
from codesign.workload.importing.onnx_bounds import check_content
from codesign.workload.importing.onnx_inputs import Dimensions, fix_inputs
from codesign.workload.importing.onnx_ops import record
from codesign.workload.importing.onnx_prepare import (
    constant_names,
    prepared,
    without_numbers,
)
from codesign.workload.importing.onnx_shapes import infer

__all__ = ["from_file", "from_model"]

_MOST_BYTES = (1 << 31) - 1  # protobuf's own limit


def from_file(
    path: str | os.PathLike,
    dimensions: Dimensions | None = None,
    batch_size: int | None = None,
    *,
    train_constants: bool = False,
) -> Workload:
    """Counts the model of an .onnx file; see `from_model`.

    Weights that lie in other files are neither read nor needed, but where they are said
    to lie must be inside the model's folder.

    Raises:
        ValueError: As `from_model`, if the file is no ONNX model, or no regular file.
        OSError: If the file cannot be read.
    """
    onnx = _onnx()
    path = pathlib.Path(path)
    message = importlib.import_module("google.protobuf.message")
    try:
        proto = onnx.load_model_from_string(read_bytes(path, _MOST_BYTES))
    except message.DecodeError as error:
        raise ValueError(f"`path` (={path}) is no ONNX model: {error}.") from None
    try:
        return _import(
            onnx, proto, path.parent, dimensions or {}, batch_size, train_constants
        )
    except ValueError as error:
        raise ValueError(f"`path` (={path}): {error}") from error


def from_model(
    proto: Any,
    dimensions: Dimensions | None = None,
    batch_size: int | None = None,
    *,
    train_constants: bool = False,
) -> Workload:
    """Counts an ONNX model for one example.

    A symbolic first axis of an input is the batch and is set to 1; a fixed one must be
    1, or `batch_size` must say whether it is the batch. Images become channels last. A
    node's weights are one tensor, but for initializers that other nodes read too, as
    they are, reshaped, transposed or cast: each of these is shared. A sum with a
    constant right after a matrix product is its bias. What follows from constants and
    shapes alone is no op, nor is reshaping, transposing or padding with zeros.

    A file does not say what is trained. Constants that are applied to an input before
    the first matrix product or embedding on its way are fixed: of `Conv((x - mean) / std)`
    the mean and the deviation, so that training computes no gradient for them, nor for
    the input of the convolution. All other weights are trained.

    Args:
        proto: An `onnx.ModelProto`.
        dimensions: Sizes of symbolic axes, by name, as `{"H": 480, "W": 640}`; a first
            axis that it names is no batch. Or by the name of an input the sizes of all
            its axes, as `{"x": (1, 3, 480, 640)}` for one example.
        batch_size: First axes of inputs that are fixed to this size become 1, others
            stay: 1 keeps all as they are, as for models that are sequence first.
        train_constants: Whether what is applied to the input before the first matrix
            product, such as means and deviations of images, is trained too.

    Raises:
        ValueError: If onnx is missing, the model is invalid, a shape stays open, a first
            axis is fixed and `batch_size` is not given, `dimensions` names nothing of
            the model, an operator is not known (names the node), external data lies
            elsewhere or decides a shape, or anything is too large to count.
    """
    return _import(_onnx(), proto, None, dimensions or {}, batch_size, train_constants)


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
    dimensions: Dimensions,
    batch_size: int | None,
    train_constants: bool,
) -> Workload:
    check_content(onnx, proto, folder)
    try:
        if proto.functions:
            proto = onnx.inliner.inline_local_functions(proto)
        model, tensors = without_numbers(onnx, proto)
        names = constant_names(model.graph, tensors)
        fix_inputs(model, tensors, dimensions, batch_size)
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise ValueError(f"The ONNX model is invalid: {error}") from None
    network, nodes = prepared(onnx, model.graph, names, infer(onnx, model))
    for node in nodes:
        record(network, node)
    if not train_constants:
        network.recorder.fix_preprocessing()
    network.recorder.merge_weights()
    outputs = (value.name for value in model.graph.output if value.name not in names)
    return network.recorder.finish([network.values[name] for name in outputs])
