"""Collects the layers of a model file as ops: what the importers have in common."""

import dataclasses
import math
from collections.abc import Iterable, Sequence

from codesign.workload.graph import Op, Workload, build
from codesign.workload.op import TYPE_I_KINDS, Shape, conv_pairs

# Names that frameworks give to one and the same activation.
_SAME = {
    "swish": "silu",
    "hardswish": "hard_swish",
    "hard_silu": "hard_swish",
    "softsign": "soft_sign",
    "hardsigmoid": "hard_sigmoid",
    "logistic": "sigmoid",
    "leakyrelu": "leaky_relu",
    "leaky": "leaky_relu",
}


MOST_ELEMENTS = 1 << 40  # of a map or a weight tensor: 4 TB of float32
MOST_OPERATIONS = 1 << 56  # of an op: the sum of some hundred still fits 64 bits


class SizeError(ValueError):
    """What a file describes is empty, or too large to be counted."""


@dataclasses.dataclass(frozen=True)
class Value:
    """A map that flows between layers.

    Attributes:
        source: The op that makes it; -1 - k for input k of the network.
        shape: As its reader sees it, without the batch; views reshape it.
        padded: Its shape with the zeros that a padding layer puts around it, or empty.
            Convolutions, pools and slices read past the zeros, as if they padded by
            themselves; other readers make the padded map a map of its own.
    """

    source: int
    shape: Shape
    padded: Shape = ()


class Recorder:
    """Ops in execution order, the network's inputs, and the sizes of its weights.

    Every method raises `SizeError` for a map or a weight without elements or with more
    than `MOST_ELEMENTS`, and for an op of more than `MOST_OPERATIONS`.
    """

    def __init__(self):
        self._ops: list[Op] = []
        self._names = _Names()
        self._inputs: list[Shape] = []
        self._sizes: dict[str, int] = {}
        self._tensors = _Names()
        self._fixed: set[str] = set()
        self._constants: set[str] = set()  # of these, what is no weight at all
        self._filled: dict[Value, Value] = {}

    def input(self, shape: Shape) -> Value:
        """The next input of the network."""
        _check_size("an input", shape)
        self._inputs.append(shape)
        return Value(-len(self._inputs), shape)

    def weight(self, name: str, size: int, *, is_trained: bool = True) -> str:
        """A new weight tensor; returns the name under which ops share it."""
        _check_size(f"the weights {name!r}", (size,))
        name = self._tensors.unused(name)
        self._sizes[name] = size
        if not is_trained:
            self._fixed.add(name)
        return name

    def op(
        self,
        name: str,
        kind: str,
        operands: Sequence[Value],
        output_shape: Shape,
        *,
        weights: Sequence[str] = (),
        reads_past_padding: bool = False,
        **fields,
    ) -> Value:
        """Any op; `fields` are those of `Op` that are not empty."""
        if not reads_past_padding:
            operands = [self.filled(value) for value in operands]
        record = Op(
            name=self._names.unused(name),
            kind=kind,
            operands=tuple(value.source for value in operands),
            input_shape=operands[0].shape if operands else (),
            output_shape=output_shape,
            parameters=tuple(weights),
            **fields,
        )
        _check_size(f"the map of {name!r}", output_shape)
        operations = max(record.macs, record.elements * record.window)
        if operations > MOST_OPERATIONS:
            raise SizeError(
                f"{name!r} needs {operations:.3g} operations; at most 2^56 can be "
                "counted."
            )
        self._ops.append(record)
        return Value(len(self._ops) - 1, output_shape)

    def conv(
        self,
        name: str,
        x: Value,
        output_shape: Shape,
        kernel: Shape,
        weights: Sequence[str],
        *,
        transposed: bool = False,
    ) -> Value:
        """A convolution with a kernel [..., C / groups, K]; depthwise if C / groups is 1.

        Its MACs are those of `op.conv_pairs`.
        """
        groups = x.shape[-1] // kernel[-2]
        variant = "transposed" if transposed else "grouped" if groups > 1 else ""
        if variant == "grouped" and kernel[-2] == 1:
            variant = "depthwise"
        pairs = conv_pairs(x.shape[:-1], output_shape[:-1], kernel[:-2])
        return self.op(
            name,
            "conv",
            [x],
            output_shape,
            variant=variant,
            weight_shape=kernel,
            weights=weights,
            macs=math.prod(kernel[-2:]) * pairs,
            reads_past_padding=True,
        )

    def dense(
        self,
        name: str,
        x: Value,
        output_shape: Shape,
        kernel: Shape,
        weights: Sequence[str],
        *,
        grouped: bool = False,
    ) -> Value:
        """A product of a map with a kernel [fan_in, fan_out].

        Of a grouped one, maps are [..., groups * fan_in] and [..., groups * fan_out], and
        the kernel is [fan_in, groups * fan_out].
        """
        return self.op(
            name,
            "dense",
            [x],
            output_shape,
            variant="grouped" if grouped else "",
            weight_shape=kernel,
            weights=weights,
            macs=kernel[0] * math.prod(output_shape),
        )

    def matmul(
        self,
        name: str,
        operands: Sequence[Value],
        output_shape: Shape,
        num_terms: int,
    ) -> Value:
        """A product of two maps, each value the sum of `num_terms` products."""
        macs = num_terms * math.prod(output_shape)
        return self.op(name, "matmul", operands, output_shape, macs=macs)

    def pool(
        self, name: str, x: Value, output_shape: Shape, variant: str, window: int
    ) -> Value:
        """A pool; over whole maps, its window is all their positions."""
        return self.op(
            name,
            "pool",
            [x],
            output_shape,
            variant=variant,
            window=window,
            reads_past_padding=True,
        )

    def activation(
        self, name: str, x: Value, function: str, weights: Sequence[str] = ()
    ) -> Value:
        """An activation by the name that its framework gives it; `linear` is no op."""
        function = _SAME.get(function, function)
        if function in ("linear", "identity"):
            return x
        if function in ("softmax", "log_softmax"):
            variant = "" if function == "softmax" else "log"
            return self.op(name, "softmax", [x], self.shape(x), variant=variant)
        return self.op(
            name,
            "activation",
            [x],
            self.shape(x),
            variant=function,
            weights=weights,
        )

    def view(self, x: Value, shape: Shape) -> Value:
        """The same values in another shape: no op.

        Raises:
            ValueError: If the shapes do not hold equally many values.
        """
        x = self.filled(x)
        if math.prod(shape) != math.prod(x.shape):
            raise ValueError(
                f"{x.shape} cannot be seen as {shape}, which holds another number of "
                "values; export the model for a batch of 1."
            )
        return Value(x.source, shape)

    def pad(self, x: Value, shape: Shape) -> Value:
        """Zeros around a map: no op, where its readers can pad by themselves."""
        return dataclasses.replace(x, padded=shape) if shape != x.shape else x

    def shape(self, x: Value) -> Shape:
        """The shape of a value, with its padding."""
        return x.padded or x.shape

    def filled(self, x: Value) -> Value:
        """The value, with its padding written out by an op if it has one."""
        if not x.padded:
            return x
        if x not in self._filled:
            self._filled[x] = self.op(
                "pad", "resize", [Value(x.source, x.shape)], x.padded, variant="pad"
            )
        return self._filled[x]

    def fix_preprocessing(self) -> None:
        """Makes constants of what is applied to inputs before the first trained layer.

        That is the first matrix product or embedding on every way from the inputs, such
        as the convolution behind `(x - mean) / std`. What a later op reads too is trained.
        """
        is_raw: list[bool] = []  # of each op, whether no layer stands before it
        fixed: set[str] = set()
        trained: set[str] = set()
        for op in self._ops:
            is_layer = op.kind in (*TYPE_I_KINDS, "embedding") or not op.operands
            is_raw.append(not is_layer and all(i < 0 or is_raw[i] for i in op.operands))
            (fixed if is_raw[-1] else trained).update(op.parameters)
        self._constants |= fixed - trained
        self._fixed |= self._constants

    def merge_weights(self) -> None:
        """Makes one tensor of weights that the very same ops read.

        It is named like the first of these ops, the others that start there `op/weight`.
        """
        listed: dict[str, list[int]] = {}
        for i, op in enumerate(self._ops):
            for name in dict.fromkeys(op.parameters):
                listed.setdefault(name, []).append(i)
        readers = {name: tuple(ops) for name, ops in listed.items()}
        sizes: dict[str, int] = {}
        names = _Names()
        merged: dict[tuple[int, ...], str] = {}
        renamed: dict[str, str] = {}
        started: set[int] = set()
        for name, ops in readers.items():
            if ops not in merged:
                first = self._ops[ops[0]].name
                first = f"{first}/{name}" if ops[0] in started else first
                started.add(ops[0])
                merged[ops] = names.unused(first)
            renamed[name] = merged[ops]
            sizes[merged[ops]] = sizes.get(merged[ops], 0) + self._sizes[name]
        for i, op in enumerate(self._ops):
            shared = dict.fromkeys(renamed[name] for name in op.parameters)
            self._ops[i] = dataclasses.replace(op, parameters=tuple(shared))
        self._sizes = sizes
        self._fixed = {renamed[name] for name in self._fixed & renamed.keys()}
        self._constants = {renamed[n] for n in self._constants & renamed.keys()}

    def finish(self, outputs: Iterable[Value]) -> Workload:
        """The workload; an output of the network that is one of its inputs is dropped.

        Raises:
            ValueError: If there is no op at all.
        """
        constants = self._constants
        sources = dict.fromkeys(self.filled(value).source for value in outputs)
        if not self._ops:
            raise ValueError("The network has no layers; there is nothing to count.")
        ops = (
            dataclasses.replace(
                op, fixed=tuple(name for name in op.parameters if name in self._fixed)
            )
            for op in self._ops
        )
        return build(
            ops,
            inputs=self._inputs,
            outputs=[source for source in sources if source >= 0],
            parameters={n: s for n, s in self._sizes.items() if n not in constants},
            constants={n: s for n, s in self._sizes.items() if n in constants},
        )


class _Names:
    """Names given so far; counts go on where they stopped, for files of one name."""

    def __init__(self):
        self._counts: dict[str, int] = {}

    def unused(self, name: str) -> str:
        """`name`, or the first of `name_2`, `name_3`, ... that was not given yet."""
        free, count = name, self._counts.get(name, 0)
        while free in self._counts:
            count += 1
            free = f"{name}_{count}"
        self._counts[name] = max(count, 1)
        self._counts.setdefault(free, 1)
        return free


def _check_size(what: str, shape: Shape) -> None:
    if min(shape, default=1) < 1 or math.prod(shape) > MOST_ELEMENTS:
        raise SizeError(
            f"{what} of {shape} must have at least one element and at most 2^40."
        )
