"""Shapes of the values of an ONNX graph, and what is known of its constants."""

import dataclasses
import importlib
import math
from typing import Any

import numpy as np

from codesign.workload.importing.recorder import MOST_ELEMENTS
from codesign.workload.op import Shape

MOST_KNOWN = 1024  # elements of a value whose numbers may decide a shape
_MOST_AXES = 32  # of a value; networks have up to 8
_MOST_COMPUTED = 1 << 12  # nodes
_COMPUTED = (  # operators by which exporters compute a shape
    *("Add", "And", "Cast", "Ceil", "Concat", "ConstantOfShape", "Div", "Equal"),
    *("Expand", "Floor", "Gather", "Greater", "GreaterOrEqual", "Identity", "Less"),
    *("LessOrEqual", "Max", "Min", "Mod", "Mul", "Neg", "Not", "Or", "Pad", "Range"),
    *("ReduceProd", "Reshape", "ScatterND", "Slice", "Squeeze", "Sub", "Tile"),
    *("Transpose", "Unsqueeze", "Where"),
)
# First of the inputs that give an operator's result as many axes as they have elements.
_MAKES_AXES = {
    **dict.fromkeys(("Reshape", "Expand", "Tile", "Resize", "Upsample", "Col2Im"), 1),
    **dict.fromkeys(("ConstantOfShape", "CenterCropPad", "AffineGrid", "MaxUnpool"), 0),
}


@dataclasses.dataclass(eq=False)
class Values:
    """What is known of the values of a graph before anything is run.

    Attributes:
        types: An `onnx.TypeProto` for each value whose type follows.
        shapes: Of each value whose shape follows.
        arrays: Numbers of small constants, and of what follows from them and shapes.
    """

    types: dict[str, Any] = dataclasses.field(default_factory=dict)
    shapes: dict[str, Shape] = dataclasses.field(default_factory=dict)
    arrays: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def add(self, name: str, kind: Any) -> None:
        """Notes the type of a value, an `onnx.TypeProto`."""
        self.types[name] = kind
        tensor = kind.tensor_type
        if tensor.HasField("shape"):
            dims = tensor.shape.dim
            if all(dim.HasField("dim_value") for dim in dims):
                self.shapes[name] = tuple(dim.dim_value for dim in dims)


def infer(onnx: Any, model: Any) -> Values:
    """Infers types and shapes node by node, and computes small constants on the way.

    Each shape is held against the bounds before another node reads it, so that no node
    can make onnx expand what a former one only declared.

    Args:
        onnx: The package.
        model: A checked `onnx.ModelProto` without functions, its nodes named.

    Raises:
        ValueError: If a node does not fit what it reads, or a value is too large; names
            the node.
    """
    graph = model.graph
    values = Values()
    for value in graph.input:
        values.add(value.name, value.type)
        _check_size(f"The input {value.name!r} is", values.shapes.get(value.name, ()))
    for tensor in graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        values.add(tensor.name, _type_of(onnx, tensor.data_type, tensor.dims))
        values.arrays[tensor.name] = array
    inference = _Inference(onnx, model, values)
    for node in graph.node:
        inference.visit(node)
    return values


def _type_of(onnx: Any, data_type: int, shape: Any) -> Any:
    return onnx.helper.make_tensor_type_proto(data_type, tuple(shape))


def _check_size(what: str, shape: Shape) -> None:
    """Raises ValueError for too many elements or axes."""
    is_sized = min(shape, default=0) >= 0 and math.prod(shape) <= MOST_ELEMENTS
    if not is_sized or len(shape) > _MOST_AXES:
        told = shape if len(shape) <= _MOST_AXES else f"{len(shape)} axes"
        raise ValueError(
            f"{what} of {told}; it may have at most 2^40 elements and {_MOST_AXES} axes."
        )


class _Inference:
    """Goes through the nodes of a model and fills its `Values`."""

    def __init__(self, onnx: Any, model: Any, values: Values):
        self._onnx = onnx
        self._opsets = {o.domain: o.version for o in model.opset_import}
        self._imports = list(model.opset_import)
        self._ir_version = model.ir_version
        self._values = values
        self._num_computed = 0

    def visit(self, node: Any) -> None:
        """Infers the types of a node's results, and its value if that may be needed."""
        self._check_axes(node)
        for name, kind in self._types(node).items():
            self._values.add(name, kind)
            what = f"The node {node.name!r} ({node.op_type}) makes a value"
            _check_size(what, self._values.shapes.get(name, ()))
        value = self._computed(node)
        if value is not None and value.dtype != object and value.size <= MOST_KNOWN:
            kind = self._onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
            self._values.add(node.output[0], _type_of(self._onnx, kind, value.shape))
            self._values.arrays[node.output[0]] = value

    def _types(self, node: Any) -> dict[str, Any]:
        """Types of a node's results, by name; none where what it reads is not known."""
        names = [name for name in node.input if name]
        version = self._opsets.get(node.domain, 0)
        defs, values = self._onnx.defs, self._values
        is_typed = all(name in values.types for name in names)
        if not is_typed or not defs.has(node.op_type, node.domain):
            return {}
        schema = defs.get_schema(node.op_type, version, node.domain)
        if not schema.has_type_and_shape_inference_function:  # as GroupNormalization
            return {node.output[0]: values.types[names[0]]} if names else {}
        data = {
            name: self._onnx.numpy_helper.from_array(values.arrays[name], name)
            for name in names
            if name in values.arrays and values.arrays[name].dtype != object
        }
        inference = self._onnx.shape_inference
        failures = self._onnx.checker.ValidationError, inference.InferenceError
        try:
            found = inference.infer_node_outputs(
                schema,
                node,
                {name: values.types[name] for name in names},
                data,
                opset_imports=self._imports,
                ir_version=self._ir_version,
            )
        except (*failures, RuntimeError) as error:
            raise ValueError(
                f"The ONNX model is invalid: the node {node.name!r} ({node.op_type}) "
                f"does not fit what it reads: {error}"
            ) from None
        return {name: kind for name, kind in found.items() if name}

    def _check_axes(self, node: Any) -> None:
        """Raises ValueError if a node makes onnx write out very many axes or shapes."""
        for given in node.attribute:
            if given.name == "num_outputs" and given.i != len(node.output):
                raise ValueError(
                    f"The node {node.name!r} ({node.op_type}) has {len(node.output)} "
                    f"outputs; its `num_outputs` (={given.i}) must be as many."
                )
        first = _MAKES_AXES.get(node.op_type)
        for name in () if first is None else node.input[first:]:
            shape = self._values.shapes.get(name)
            if shape is not None and math.prod(shape) > _MOST_AXES and len(shape) < 2:
                raise ValueError(
                    f"The node {node.name!r} ({node.op_type}) takes its shape from "
                    f"{name!r} of {shape}; a value has at most {_MOST_AXES} axes."
                )

    def _computed(self, node: Any) -> np.ndarray | None:
        """What a node computes, or None if that is not known or may be large."""
        if node.domain not in ("", "ai.onnx"):
            return None
        if node.op_type in ("Shape", "Size"):
            return self._measured(node)
        arrays, names = self._values.arrays, [name for name in node.input if name]
        if node.op_type not in _COMPUTED or len(node.output) != 1:
            return None
        shape = self._values.shapes.get(node.output[0])
        if shape is None:
            return None
        kind = self._values.types[node.output[0]].tensor_type.elem_type
        is_whole = kind in (self._onnx.TensorProto.INT64, self._onnx.TensorProto.INT32)
        # Few shapes are computed in floats, and most small tensors of floats are weights.
        is_small = math.prod(shape) <= (MOST_KNOWN if is_whole else _MOST_AXES)
        is_known = all(name in arrays for name in names)
        if not is_small or not is_known or self._num_computed == _MOST_COMPUTED:
            return None
        self._num_computed += 1
        reference = importlib.import_module("onnx.reference")
        try:
            alone = reference.ReferenceEvaluator(node, opsets=self._opsets)
            feeds = {name: arrays[name] for name in names}
            with np.errstate(all="ignore"):
                return np.asarray(alone.run(None, feeds)[0])
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError):
            return None  # what then stays open is said where it is needed

    def _measured(self, node: Any) -> np.ndarray | None:
        """The shape or size of what a node reads."""
        shape = self._values.shapes.get(node.input[0])
        if shape is None:
            return None
        given = {a.name: a.i for a in node.attribute}
        part = shape[given.get("start") : given.get("end")]
        return np.array(part if node.op_type == "Shape" else math.prod(part), np.int64)
