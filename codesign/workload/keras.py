"""Imports Keras models: live ones, or the architectures of keras.applications.

Needs the extra `keras`; nothing here imports it before a function is called, no file is
ever loaded, and weights are never filled with numbers.
"""

import concurrent.futures
import importlib
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax

from codesign.workload.graph import Workload
from codesign.workload.importing.keras_layers import LAYERS, OPERATIONS, TRACED, Call
from codesign.workload.importing.recorder import Recorder, Value
from codesign.workload.op import Shape

__all__ = ["applications", "from_application", "from_model"]


def from_model(model: Any) -> Workload:
    """Counts a functional or sequential Keras 3 model for one example.

    Ops are named after layers, those of nested models `outer/inner`. A layer's weights
    are one tensor, shared where the layer is. Activations inside a layer become ops of
    their own, a separable convolution becomes two and an attention layer all of its
    products. Reshaping, flattening and zero padding are views, as is dropout at rate 0.
    Order is depth first, consumers in the order in which the model was built. Weights of
    which Keras trains none, as those of `Normalization` or of a frozen layer, are fixed.

    Args:
        model: A `keras.Model` with symbolic inputs and outputs; inputs of fixed shapes
            except for the batch.

    Raises:
        ValueError: If Keras is missing, the model is subclassed or not built, the shape
            of an input is open, images are channels first, or a layer is not known;
            names the layer.
    """
    keras = _keras()
    _check_is_graph(keras, model)
    recorder = Recorder()
    inputs = [recorder.input(_input_shape(x)) for x in model.inputs]
    importer = _Importer(keras, recorder)
    outputs = importer.graph(model, inputs, "")
    return recorder.finish(outputs)


def from_application(name: str, input_shape: Shape | None = None) -> Workload:
    """Counts an architecture of keras.applications, such as `ResNet50`.

    The model is built abstractly: its weights take no memory.

    Args:
        name: As in keras.applications, in any case.
        input_shape: Height, width and channels; by default what the architecture was
            trained on.

    Raises:
        ValueError: If there is no such architecture, or it rejects the shape.
    """
    known = applications()
    lowered = {key.lower(): key for key in known}
    if name.lower() not in lowered:
        raise ValueError(f"`name` (={name!r}) must be one of {list(known)}.")
    create: Callable = getattr(_keras().applications, lowered[name.lower()])
    if input_shape is None and lowered[name.lower()].startswith("MobileNetV3"):
        input_shape = (224, 224, 3)  # Keras leaves it open
    options: dict[str, Any] = {"weights": None}
    if input_shape is not None:
        options["input_shape"] = tuple(input_shape)
    models = []

    def build():
        with jax.numpy_rank_promotion("allow"):  # as Keras needs it
            models.append(create(**options))
        return ()

    # Traced, so that no weight is drawn; only their shapes are read. In a thread of its
    # own, because Keras numbers layers without a name by thread: they start at 0 again.
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(jax.eval_shape, build).result()
    return from_model(models[0])


def applications() -> tuple[str, ...]:
    """Names that `from_application` takes."""
    module = _keras().applications
    return tuple(
        name
        for name in sorted(dir(module))
        if name[0].isupper() and callable(getattr(module, name))
    )


def _keras() -> Any:
    os.environ.setdefault("KERAS_BACKEND", "jax")  # read on the first import only
    try:
        keras = importlib.import_module("keras")
    except ImportError as error:
        raise ValueError(
            f"Keras could not be imported ({error}); run `pip install codesign[keras]`."
        ) from error
    if keras.backend.backend() != "jax":
        raise ValueError(
            f"Keras runs on {keras.backend.backend()!r}; set KERAS_BACKEND=jax before "
            "it is first imported."
        )
    return keras


def _check_is_graph(keras: Any, model: Any) -> None:
    if not isinstance(model, keras.Model):
        raise ValueError(f"`model` (={model!r}) must be a keras.Model.")
    if not getattr(model, "inputs", None) or not getattr(model, "outputs", None):
        raise ValueError(
            f"The model {model.name!r} ({type(model).__name__}) has no graph of layers: "
            "give a Sequential model an Input, write a subclassed one as "
            f"keras.Model(inputs, outputs), or build it and {TRACED}"
        )


def _input_shape(tensor: Any) -> Shape:
    shape = tuple(tensor.shape[1:])
    if None in shape:
        raise ValueError(
            f"The shape {tuple(tensor.shape)} of an input is open; build the model with "
            "a fixed `input_shape`, only the batch may be None."
        )
    return shape


def _shapes(
    keras: Any, inputs: Sequence[Any], given: Sequence[Shape], tensors: Sequence[Any]
) -> dict[int, Shape]:
    """Shapes without the batch, by the id of the tensor.

    Keras may leave one open that follows from the inputs, such as that of
    `EinsumDense("abc,cd->abd", (None, 64))`: then the graph is traced.
    """
    shapes = [tuple(x.shape[1:]) for x in tensors]
    if any(None in shape for shape in shapes):
        function = keras.Function(list(inputs), list(tensors))
        structs = [
            jax.ShapeDtypeStruct((1, *shape), x.dtype)
            for x, shape in zip(inputs, given, strict=True)
        ]
        with jax.numpy_rank_promotion("allow"), keras.StatelessScope():
            traced = jax.eval_shape(function, structs)
        shapes = [tuple(x.shape[1:]) for x in traced]
    return {id(x): shape for x, shape in zip(tensors, shapes, strict=True)}


class _Importer:
    """Walks graphs of Keras nodes; layers' weights are shared between their calls."""

    def __init__(self, keras: Any, recorder: Recorder):
        self._keras = keras
        self._recorder = recorder
        self._weights: dict[tuple[int, str], tuple[str, ...]] = {}

    def graph(self, model: Any, inputs: Sequence[Value], prefix: str) -> list[Value]:
        """Records a model's layers; returns the values of its outputs."""
        values = {id(x): value for x, value in zip(model.inputs, inputs, strict=True)}
        nodes = _nodes(model.outputs, set(values))
        given = [self._recorder.shape(value) for value in inputs]
        tensors = [x for node in nodes.values() for x in node.output_tensors]
        shapes = _shapes(self._keras, model.inputs, given, tensors)
        stack = _consumers(model.inputs, nodes)
        while stack:
            node = stack.pop()
            is_ready = all(id(x) in values for x in node.input_tensors)
            if not is_ready or id(node.output_tensors[0]) in values:
                continue
            results = self._node(
                node,
                [values[id(x)] for x in node.input_tensors],
                [shapes[id(x)] for x in node.output_tensors],
                prefix,
            )
            for tensor, value in zip(node.output_tensors, results, strict=True):
                values[id(tensor)] = value
            stack += _consumers(node.output_tensors, nodes)
        return [values[id(x)] for x in model.outputs]

    def _node(
        self, node: Any, inputs: list[Value], shapes: list[Shape], prefix: str
    ) -> list[Value]:
        layer = node.operation
        name = f"{prefix}{layer.name}"
        if isinstance(layer, self._keras.Model):
            _check_is_graph(self._keras, layer)
            return self.graph(layer, inputs, f"{name}/")
        what = f"the layer {name!r} ({type(layer).__name__})"
        call = Call(
            name=name,
            layer=layer,
            arguments=node.arguments,
            inputs=tuple(inputs),
            by_tensor={
                id(x): v for x, v in zip(node.input_tensors, inputs, strict=True)
            },
            output_shapes=tuple(shapes),
            recorder=self._recorder,
            shared=self._weights,
        )
        if getattr(layer, "data_format", None) == "channels_first":
            raise ValueError(
                f"{what} has images with channels first; build the model after "
                "keras.config.set_image_data_format('channels_last')."
            )
        package, _, path = type(layer).__module__.partition(".")
        table = OPERATIONS if path.startswith("src.ops") else LAYERS
        make = table.get(type(layer).__name__) if package == "keras" else None
        if make is None:
            raise ValueError(
                f"Cannot import {what}: it is no layer that the importer knows. Write "
                "it as a nested functional model of known layers, list its ops for "
                f"codesign.workload.graph.build, or {TRACED}"
            )
        try:
            result = make(call)
        except ValueError as error:
            raise ValueError(f"Cannot import {what}: {error}") from error
        return result if isinstance(result, list) else [result]


def _nodes(outputs: Sequence[Any], ends: set[int]) -> dict[int, Any]:
    """The nodes from which `outputs` follow, back to the tensors `ends`, by their id."""
    found: dict[int, Any] = {}
    tensors = list(outputs)
    while tensors:
        tensor = tensors.pop()
        if id(tensor) in ends:
            continue
        history = tensor._keras_history
        node = history.operation._inbound_nodes[history.node_index]
        if id(node) not in found:
            found[id(node)] = node
            tensors += node.input_tensors
    return found


def _consumers(tensors: Sequence[Any], nodes: dict[int, Any]) -> list[Any]:
    """Nodes of a graph that read any of `tensors`, the first built last."""
    wanted = {id(x) for x in tensors}
    operations = {id(x): x._keras_history.operation for x in tensors}.values()
    found = {
        id(node): node
        for operation in operations
        for node in operation._outbound_nodes
        if id(node) in nodes and any(id(x) in wanted for x in node.input_tensors)
    }
    return list(reversed(found.values()))
