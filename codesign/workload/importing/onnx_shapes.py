"""Shapes of the values of an ONNX graph."""

import importlib
from typing import Any

import numpy as np

_MOST = 1024  # elements of a value that is computed
_KEEPS_SIZE = (  # operators by which exporters compute a shape
    *("Add", "And", "Cast", "Ceil", "Concat", "Constant", "Div", "Equal", "Floor"),
    *("Gather", "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Max"),
    *("Min", "Mod", "Mul", "Neg", "Not", "Or", "ReduceProd", "Reshape", "Slice"),
    *("Squeeze", "Sub", "Transpose", "Unsqueeze", "Where"),
)
_GROWS = ("ConstantOfShape", "Expand", "Pad", "Range", "ScatterND", "Tile")


def inferred(onnx: Any, model: Any) -> Any:
    """The model with the shapes of its values.

    Where inference gives up, constants that follow from known shapes are computed and
    it is asked again, until that tells nothing new.
    """
    while True:
        model.graph.ClearField("value_info")
        for output in model.graph.output:  # may be of another batch
            output.type.tensor_type.ClearField("shape")
        model = onnx.shape_inference.infer_shapes(
            model, check_type=True, strict_mode=True, data_prop=True
        )
        shapes = _known_shapes(model.graph)
        made = {name for node in model.graph.node for name in node.output if name}
        if made <= shapes.keys() or not _fold(onnx, model, shapes):
            return model


def _known_shapes(graph: Any) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        if kind.HasField("shape"):
            dims = kind.shape.dim
            if all(dim.HasField("dim_value") for dim in dims):
                shapes[value.name] = tuple(dim.dim_value for dim in dims)
    return shapes


def _fold(onnx: Any, model: Any, shapes: dict[str, tuple[int, ...]]) -> bool:
    """Replaces what can be computed by constants; says whether there was any."""
    graph = model.graph
    values = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    kept = []
    for node in graph.node:
        value = _value(onnx, model, node, values, shapes)
        if value is None or value.size > _MOST:
            kept.append(node)
            continue
        values[node.output[0]] = value
        graph.initializer.append(onnx.numpy_helper.from_array(value, node.output[0]))
    is_new = len(kept) < len(graph.node)
    del graph.node[:]
    graph.node.extend(kept)
    return is_new


def _value(onnx: Any, model: Any, node: Any, values: Any, shapes: Any) -> Any:
    """What a node computes, or None if that is not known or may be large."""
    if node.op_type in ("Shape", "Size"):
        shape = shapes.get(node.input[0])
        if node.input[0] in values:
            shape = values[node.input[0]].shape
        if shape is None:
            return None
        given = {a.name: a.i for a in node.attribute}
        part = np.array(shape[given.get("start") : given.get("end")], np.int64)
        return part if node.op_type == "Shape" else np.prod(part, dtype=np.int64)
    output = shapes.get(node.output[0])
    is_small = output is not None and np.prod(output, dtype=float) <= _MOST
    if node.op_type not in _KEEPS_SIZE and not (node.op_type in _GROWS and is_small):
        return None
    inputs = [name for name in node.input if name]
    if any(name not in values for name in inputs) or len(node.output) != 1:
        return None
    reference = importlib.import_module("onnx.reference")
    helper = onnx.helper
    graph = helper.make_graph(
        [node],
        "node",
        [_declared(helper, name, values[name]) for name in dict.fromkeys(inputs)],
        [helper.make_value_info(node.output[0], onnx.TypeProto())],
    )
    alone = helper.make_model(graph, opset_imports=model.opset_import)
    feeds = {name: values[name] for name in inputs}
    try:
        with np.errstate(all="ignore"):
            return np.asarray(reference.ReferenceEvaluator(alone).run(None, feeds)[0])
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError):
        return None  # a shape that then stays open, which is said where it is needed


def _declared(helper: Any, name: str, value: np.ndarray) -> Any:
    kind = helper.np_dtype_to_tensor_dtype(value.dtype)
    return helper.make_tensor_value_info(name, kind, value.shape)
