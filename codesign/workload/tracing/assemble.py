"""Puts ops together from layers: operands, shapes, names and weight tensors."""

import collections
import math
from typing import Any

from codesign.workload.graph import Workload, build
from codesign.workload.op import MATRIX_KINDS, Op, Shape
from codesign.workload.tracing.arguments import Leaves
from codesign.workload.tracing.grouping import Grouping, uses
from codesign.workload.tracing.node import (
    POINT,
    REDUCE,
    STATE,
    Node,
    Place,
    Value,
    without_batch,
)
from codesign.workload.tracing.recognise import kind_of, pieces

_UNSUFFIXED = ("conv", "dense", "norm")
_CHAINS = (POINT, REDUCE)
_SAME_SIZE = ("norm", "activation", "softmax", "dropout", "elementwise")


def assemble(
    nodes: list[Node], outputs: list[Value], inputs: list[Shape], leaves: Leaves
) -> Workload:
    """Builds a workload of the nodes that reach an output.

    Args:
        nodes: In an order in which every node stands after its operands.
        outputs: Of the function.
        inputs: Shapes of the network's inputs, with the batch.
        leaves: Names and sizes of the parameter leaves that nodes read.
    """
    readers = uses(nodes, outputs)
    grouping = Grouping(nodes, readers, leaves.sizes)
    found = []
    for layer in grouping.layers():
        found += pieces(nodes, sorted(layer.members), readers, grouping.marks)
    # A chain stands where it ends, a product with its bias where it starts.
    found.sort(key=lambda p: p[1] if nodes[p[0][0]].kind in _CHAINS else p[0][0])
    assembly = _Assembly(nodes, [without_batch(shape) for shape in inputs], leaves)
    for piece, end in found:
        assembly.add(piece, end, grouping)
    return assembly.finish(outputs)


class _Assembly:
    def __init__(self, nodes: list[Node], inputs: list[Shape], leaves: Leaves):
        self.nodes, self.inputs, self.leaves = nodes, inputs, leaves
        self.ops: list[dict[str, Any]] = []
        self.places: list[Place] = []
        self.read: list[frozenset[int]] = []  # parameter leaves of each op
        self.op_of: dict[int, int] = {}
        self._counts = collections.Counter()
        self._resized: dict[tuple, int] = {}

    def add(self, piece: list[int], end: int, grouping: Grouping) -> None:
        """Turns some nodes into an op."""
        nodes, head = self.nodes, self.nodes[piece[0]]
        if head.kind == STATE:
            return
        inside = set(piece)
        values = [v for i in piece for v in nodes[i].data if v.source not in inside]
        if head.kind not in ("matmul", "concat"):
            distinct: dict[int | None, Value] = {}
            for value in values:
                distinct.setdefault(value.source, value)
            values = list(distinct.values())
        kind, variant, window = kind_of(nodes, piece, end, grouping.marks, len(values))
        output = nodes[end].shape if head.output_shape is None else head.output_shape
        output = output if head.output_shape is not None else without_batch(output)
        read = frozenset().union(*(nodes[i].leaves for i in piece))
        place = nodes[end].place if head.kind in _CHAINS else head.place
        if kind == "concat":
            operands = self._concatenated(head, place)
            read = frozenset()
        else:
            kind, operands = self._operands(kind, values, head, output, place)
        first = values[0].shape if values else nodes[end].shape
        self._append(
            place,
            read,
            kind=kind,
            variant=variant,
            operands=tuple(operands),
            input_shape=without_batch(first)
            if head.input_shape is None or kind != head.kind
            else head.input_shape,
            output_shape=output,
            weight_shape=head.weight_shape,
            macs=head.macs,
            window=window,
            site=head.site,
        )
        for i in piece:
            self.op_of[i] = len(self.ops) - 1

    def finish(self, outputs: list[Value]) -> Workload:
        """Names the weight tensors and builds the workload."""
        tensors, sizes = self._tensors()
        names: list[list[str]] = [[] for _ in self.ops]
        for name, (users, _) in tensors.items():
            for user in users:
                names[user].append(name)
        ops = [
            Op(**fields, parameters=tuple(parameters))
            for fields, parameters in zip(self.ops, names, strict=True)
        ]
        ends = [v.source for v in outputs if v.source is not None and v.source >= 0]
        ends = dict.fromkeys(self.op_of[end] for end in ends if end in self.op_of)
        return build(ops, inputs=self.inputs, outputs=tuple(ends), parameters=sizes)

    def _append(self, place: Place, read: frozenset[int], **fields) -> int:
        kind = fields["kind"]
        base = place.name
        if not (place.is_module and kind in _UNSUFFIXED):
            base = f"{base}/{kind}"
        self._counts[base, place.step] += 1
        count = self._counts[base, place.step]
        name = base if count == 1 else f"{base}_{count}"
        self.ops.append(dict(name=name + place.step, repeats=place.repeats, **fields))
        self.places.append(place)
        self.read.append(read)
        return len(self.ops) - 1

    def _index(self, value: Value) -> int | None:
        """Op or input that a value comes from; None of what a loop starts from."""
        source = value.source
        assert source is not None
        return source if source < 0 else self.op_of.get(source)

    def _size(self, index: int) -> int:
        shape = (
            self.inputs[-1 - index] if index < 0 else self.ops[index]["output_shape"]
        )
        return math.prod(shape)

    def _operands(self, kind, values, head, output, place) -> tuple[str, list[int]]:
        """Operands of an op; a view that has grown becomes an op where it must be read
        at its full size.
        """
        size = math.prod(output)
        found = []
        indexed = [(self._index(value), value) for value in values]
        if kind in _SAME_SIZE:  # the map itself before masks and scales

            def is_small(pair):
                return pair[0] is None or self._size(pair[0]) != size

            indexed.sort(key=is_small)
        for index, value in indexed:
            if index is None:
                continue
            want = None
            if kind in MATRIX_KINDS and value is values[0]:
                want = head.input_shape
            elif kind in _SAME_SIZE and not found:
                want = output
            elif kind in ("add", "mul") and (
                self._size(index) > size or size % self._size(index)
            ):
                want = without_batch(value.shape)
            if want is not None and math.prod(want) > self._size(index):
                index = self._grown(index, value, want, place)
            found.append(index)
        if kind in _SAME_SIZE and found and self._size(found[0]) > size:
            kind = "reduce"
        return kind, found

    def _grown(self, index: int, value: Value, shape: Shape, place: Place) -> int:
        key = (index, shape)
        if key not in self._resized:
            given = (
                self.inputs[-1 - index]
                if index < 0
                else self.ops[index]["output_shape"]
            )
            self._resized[key] = self._append(
                place,
                frozenset(),
                kind="resize",
                variant=value.view or "broadcast",
                operands=(index,),
                input_shape=given,
                output_shape=shape,
            )
        return self._resized[key]

    def _concatenated(self, head: Node, place: Place) -> list[int]:
        """Operands of a concatenation; parameters and constants are read by ops."""
        found = []
        for value in head.operands:
            index = self._index(value) if value.is_data else None
            shape = without_batch(value.shape)
            if index is None:
                index = self._append(
                    place,
                    value.leaves,
                    kind="embedding" if value.leaves else "slice",
                    variant="state"
                    if value.is_data
                    else ("parameter" if value.leaves else "constant"),
                    operands=(),
                    output_shape=shape,
                )
            elif self._size(index) != value.size:
                index = self._grown(index, value, shape, place)
            found.append(index)
        return found

    def _tensors(self):
        """Weight tensors: the leaves that the same ops read, under one name."""
        users: dict[int, list[int]] = collections.defaultdict(list)
        for i, read in enumerate(self.read):
            for leaf in sorted(read):
                users[leaf].append(i)
        tensors: dict[tuple[int, ...], list[int]] = collections.defaultdict(list)
        for leaf, ops in users.items():
            tensors[tuple(ops)].append(leaf)
        wanted = {ops: self._module(ops) for ops in tensors}
        clashes = collections.Counter(wanted.values())
        named, sizes = {}, {}
        for ops, leaves in tensors.items():
            name = wanted[ops]
            if not name or clashes[name] > 1:
                first = self.ops[ops[0]]["name"]
                if len({self.places[op].step for op in ops}) > 1:  # shared by steps
                    first = first.removesuffix(self.places[ops[0]].step)
                name = first if name else self._leaf_name(leaves) or first
            unique, count = name, 1
            while unique in named:
                count += 1
                unique = f"{name}_{count}"
            named[unique] = (ops, leaves)
            sizes[unique] = sum(self.leaves.sizes[leaf] for leaf in leaves)
        return named, sizes

    def _module(self, ops: tuple[int, ...]) -> str:
        """The module path that all of some ops share, or an empty string."""
        first = self.places[ops[0]]
        same = all(self.places[op].name == first.name for op in ops)
        return first.name if same and first.is_module else ""

    def _leaf_name(self, leaves: list[int]) -> str:
        names = [self.leaves.names[leaf] for leaf in leaves]
        parts = [name.split("/") for name in names]
        common = []
        for column in zip(*parts, strict=False):
            if len(set(column)) > 1:
                break
            common.append(column[0])
        largest = max(leaves, key=lambda leaf: self.leaves.sizes[leaf])
        return "/".join(common) or self.leaves.names[largest]
