"""What is known of an ONNX graph while its nodes are walked."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from codesign.workload.importing.recorder import Recorder, Value
from codesign.workload.op import Shape


@dataclasses.dataclass(frozen=True)
class Constant:
    """A weight, or what follows from constants alone.

    Attributes:
        shape: Its axes.
        is_float: Whether it can be a weight, and is no index or mask.
        number: Its value, where it has only one and that is known.
    """

    shape: Shape
    is_float: bool
    number: float | None

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.shape)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Node:
    """One node; inputs that are left out are empty names."""

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]


@dataclasses.dataclass(eq=False, kw_only=True)
class Network:
    """The graph as far as it was walked.

    Attributes:
        recorder: Takes the ops.
        shapes: Of all values, with the batch, in the order of ONNX.
        constants: Of the values that are no data.
        images: Values with the channels before the positions.
        origins: For a constant that is another one reshaped or cast, that other one.
        biases: For a matrix product, the bias that is added to it and the sum.
        read: Values that some node reads or that leave the network.
        values: What the data is so far.
    """

    recorder: Recorder
    shapes: dict[str, Shape]
    constants: dict[str, Constant]
    images: set[str]
    origins: dict[str, str]
    biases: dict[str, tuple[str, str]]
    read: set[str]
    values: dict[str, Value] = dataclasses.field(default_factory=dict)
    tensors: dict[str, str] = dataclasses.field(default_factory=dict)

    def shape(self, name: str) -> Shape:
        """Shape of a value without the batch, channels last."""
        shape = self.shapes.get(name)
        if shape is None or min(shape, default=1) < 1:
            raise ValueError(
                f"the shape of {name!r} ({shape}) does not follow from the graph, of "
                "which no external data is read; export the model with fixed shapes, or "
                "simplify it."
            )
        batch, rest = shape[:1], shape[1:]
        if name in self.images:
            rest = (*rest[1:], rest[0])
        return rest if batch == (1,) else (*batch, *rest)

    def data(self, node: Node) -> list[Value]:
        """Those of a node's inputs that are data, in order."""
        return [self.values[name] for name in node.inputs if name in self.values]

    def number(self, name: str) -> float | None:
        """The value of a constant, where it has only one and that is known."""
        constant = self.constants.get(self.origins.get(name, name))
        return None if constant is None else constant.number

    def weights(self, names: Sequence[str]) -> tuple[str, ...]:
        """A tensor for each of these constants, shared by all that stem from the same."""
        made = []
        for name in names:
            if name not in self.constants or not self.constants[name].size:
                continue
            origin = self.origins.get(name, name)
            if origin not in self.tensors:
                size = self.constants[origin].size
                self.tensors[origin] = self.recorder.weight(origin, size)
            made.append(self.tensors[origin])
        return tuple(dict.fromkeys(made))
