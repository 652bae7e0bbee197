"""Shapes of the values of an ONNX graph."""

import importlib
from collections.abc import Mapping
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


def fix_inputs(
    model: Any,
    initializers: set[str],
    sizes: Mapping[str, int],
    batch_size: int | None,
) -> None:
    """Sets the batch of each input to 1, and its other symbolic axes to `sizes`."""
    inputs = [v for v in model.graph.input if v.name not in initializers]
    for value in inputs:
        if not value.type.tensor_type.HasField("shape"):
            raise ValueError(
                f"The input {value.name!r} has no shape; export it with one."
            )
    given = {v.name: v.type.tensor_type.shape.dim for v in inputs}
    firsts = [dims[0] for dims in given.values() if dims]
    fixed = {dim.dim_value for dim in firsts if dim.dim_value > 0}
    if batch_size not in (None, 1, *fixed):
        raise ValueError(
            f"`batch_size` (={batch_size}) must be 1 or the fixed first axis of an "
            f"input; these are {sorted(fixed)}."
        )
    batches = {dim.dim_param for dim in firsts}
    for name, dims in given.items():
        first = dims[0].dim_param if dims else ""
        if dims and dims[0].dim_value > 1:
            _check_batch(name, dims, batch_size)
        for axis, dim in enumerate(dims):
            symbol, size = dim.dim_param, dim.dim_value
            is_batch = axis == 0 and (size < 1 or size == batch_size)
            if symbol and symbol in sizes:
                dim.dim_value = sizes[symbol]
            elif is_batch or (symbol and symbol in batches):
                dim.dim_value = 1
            elif size < 1:
                way_out = (
                    f"pass its size, as in dimensions={{{symbol!r}: 224}}, or export"
                    if symbol
                    else "name it, or export"
                )
                raise ValueError(
                    f"Axis {axis} of the input {name!r} is open ({symbol!r}); {way_out} "
                    f"the model with fixed sizes. Its first axis ({first!r}) is the "
                    "batch, unless `dimensions` gives its size too."
                )


def _check_batch(name: str, dims: Any, batch_size: int | None) -> None:
    """Raises ValueError unless it was said whether a fixed first axis is the batch."""
    if batch_size is None:
        shape = tuple(dim.dim_param or dim.dim_value for dim in dims)
        size = dims[0].dim_value
        raise ValueError(
            f"The input {name!r} has the shape {shape}: its first axis is fixed to "
            f"{size}. Pass batch_size={size} if it is the batch, to count one example; "
            "pass batch_size=1 if it is not, as where the sequence comes first; or "
            "export the model with a batch of 1."
        )


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
