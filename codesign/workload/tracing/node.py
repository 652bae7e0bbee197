"""What a walk leaves behind: the steps of a function, and the values between them."""

import dataclasses
import math
from collections.abc import Hashable

from codesign.workload.op import Shape
from codesign.workload.tracing.primitives import NONLINEAR

NOISE, MASK = "noise", "mask"  # random numbers, and booleans drawn from them
POINT, REDUCE, STATE = "point", "reduce", "state"  # kinds of nodes that ops are made of


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where in the source a step stands.

    Attributes:
        name: Module path, or `file.py:line`.
        is_module: Whether `name` is a module path.
        scope: Steps of one scope may form a layer together.
        step: Time steps of the unrolled loops around it, such as `@3`.
        repeats: How often the loops around it run it.
    """

    name: str
    is_module: bool
    scope: Hashable
    step: str = ""
    repeats: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Value:
    """What is known of an array: made from data, from parameters alone, or constant.

    Attributes:
        shape: As the function sees it, with the batch.
        source: Node that made it, or -1 - k for input k; None if it is no data.
        leaves: Parameter leaves that it was computed from; of data, none.
        trained: Those of `leaves` that a gradient flows back to: not integers, nor behind
            a stopped gradient.
        noise: `NOISE` or `MASK` if random numbers went into it.
        root: Parameters that passed a square root, as a variance does.
        view: `pad` or `broadcast`, where it has grown from its source at no cost.
        inner: Shape before it was padded.
        elements: Values that a loop has stacked along `axis`, if it is such a stack.
        axis: Where they are stacked.
        detached: Whether no gradient flows back through it: it is an index or a mask, or
            behind a stopped gradient. Of a stack, its elements say so.
        number: Of a constant scalar, where it is known.
        offset: Of a part that a step of an unrolled loop takes of a constant array, where
            it begins there; of an index of such a part, its step.
    """

    shape: Shape
    source: int | None = None
    leaves: frozenset[int] = frozenset()
    trained: frozenset[int] = frozenset()
    noise: str = ""
    root: bool = False
    view: str = ""
    inner: Shape = ()
    elements: tuple["Value", ...] = ()
    axis: int = 0
    detached: bool = False
    number: float | None = None
    offset: int = 0

    @property
    def is_data(self) -> bool:
        """Whether it depends on an input of the network."""
        return self.source is not None or bool(self.elements)

    @property
    def origin(self) -> int:
        """`source` of a value that is data."""
        assert self.source is not None
        return self.source

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclasses.dataclass(kw_only=True, eq=False, slots=True)
class Node:
    """One step on data.

    Attributes:
        kind: `point` or `reduce`, of which layers are formed; `state`, what a loop
            starts from; else the kind of the op that it is.
        primitive: JAX's name of it.
        place: Where it stands.
        operands: Data, parameters and constants that it reads.
        shape: Of its output, as the function sees it.
        input_shape: Of its first operand, ordered channels last; None where the
            operand's own will do.
        output_shape: Likewise of its output.
        axes: That a reduction sums over.
        cube: Whether it raises to the third power, as gelu does.

    The others are those of `Op`.
    """

    kind: str
    primitive: str
    place: Place
    operands: tuple[Value, ...]
    shape: Shape
    variant: str = ""
    input_shape: Shape | None = None
    output_shape: Shape | None = None
    weight_shape: Shape = ()
    macs: int = 0
    window: int = 1
    site: int = -1
    axes: tuple[int, ...] = ()
    cube: bool = False

    @property
    def size(self) -> int:
        """Number of elements of its output."""
        return math.prod(self.shape)

    @property
    def data(self) -> list[Value]:
        """The operands that are data."""
        return [value for value in self.operands if value.is_data]

    @property
    def leaves(self) -> frozenset[int]:
        """Parameter leaves that it reads."""
        return frozenset().union(*(value.leaves for value in self.operands))

    @property
    def trained(self) -> frozenset[int]:
        """Parameter leaves that it passes a gradient to."""
        return frozenset().union(*(value.trained for value in self.operands))

    @property
    def bends(self) -> bool:
        """Whether it makes a chain an activation; a mask from outside does not."""
        if self.primitive == "select_n":
            chooser = self.operands[0].source
            return chooser is not None and chooser >= 0
        return self.primitive in NONLINEAR

    @property
    def is_constant(self) -> bool:
        """Whether all that it reads beside data are constants."""
        return not any(
            value.leaves or value.noise for value in self.operands if not value.is_data
        )


def without_batch(shape: Shape) -> Shape:
    """Drops a leading batch of 1; an axis that merged batch and time stays."""
    return shape[1:] if len(shape) > 1 and shape[0] == 1 else shape
