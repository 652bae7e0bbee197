"""Puts ops together from layers: operands, shapes, names and weight tensors."""

import collections
import math
from typing import Any

from codesign.workload.graph import Workload, build
from codesign.workload.op import MATRIX_KINDS, Op, Shape
from codesign.workload.tracing.arguments import Leaves
from codesign.workload.tracing.grouping import Grouping, running_statistics, uses
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
_Operands = list[tuple[int, int | None]]  # ops or inputs, and the nodes they come from
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
    moving = running_statistics(nodes, readers)
    grouping = Grouping(nodes, uses(nodes, [*outputs, *moving]), leaves.sizes)
    kept = [value for value in moving if grouping.is_norm(value.origin)]
    leaving = [v for output in outputs for v in grouping.unstacked(output)]
    readers = uses(nodes, [*leaving, *kept])
    if len(kept) < len(moving) or leaving != outputs:
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
        self.trained: list[frozenset[int]] = []  # those that it passes a gradient to
        self.op_of: dict[int, int] = {}
        self.ends: dict[int, int] = {}  # ops by the node whose value leaves them
        self._resized: dict[tuple, int] = {}

    def add(self, piece: list[int], end: int, grouping: Grouping) -> None:
        """Turns some nodes into an op, by the kind of the first of them."""
        head = self.nodes[piece[0]]
        if head.kind == STATE:
            return
        if head.kind == "concat":
            fields, found = self._concat(head)
        elif head.kind in _CHAINS:
            fields, found = self._chain(piece, end, grouping)
        else:
            fields, found = self._layer(piece, end, grouping)
        attached = {None, *self._attached({*piece}, end)}  # None: made of parameters
        free = {index for index, source in found if source in attached}
        operands = tuple(index for index, _ in found)
        self._append(
            operands=operands,
            detached=tuple(i for i in dict.fromkeys(operands) if i not in free),
            **fields,
        )
        for i in piece:
            self.op_of[i] = len(self.ops) - 1
        self.ends[end] = len(self.ops) - 1

    def _concat(self, head: Node) -> tuple[dict[str, Any], _Operands]:
        """A concatenation reads maps alone: what it joins of parameters is an op."""
        found = []
        for value in head.operands:
            index = self._index(value) if value.is_data else None
            shape = without_batch(value.shape)
            if index is None:
                index = self._append(
                    place=head.place,
                    read=value.leaves,
                    trained=value.trained,
                    kind="embedding" if value.leaves else "slice",
                    variant="state"
                    if value.is_data
                    else ("parameter" if value.leaves else "constant"),
                    operands=(),
                    output_shape=shape,
                )
            elif self._size(index) != value.size:
                index = self._grown(index, value, shape, head.place)
            found.append((index, value.source))
        fields = dict(
            place=head.place,
            kind="concat",
            input_shape=without_batch(head.data[0].shape),
            output_shape=without_batch(head.shape),
        )
        return fields, found

    def _chain(self, piece, end, grouping) -> tuple[dict[str, Any], _Operands]:
        """Point-wise steps and reductions, which end in a map."""
        nodes, values = self.nodes, self._distinct(piece)
        kind, variant, window = kind_of(nodes, piece, end, grouping.marks, len(values))
        output, place = without_batch(nodes[end].shape), nodes[end].place
        kind, found = self._operands(kind, values, None, output, place)
        first = values[0].shape
        if kind == "reduce":  # of what it makes of its operands first
            given = [nodes[i].operands[0].shape for i in piece if nodes[i].axes]
            first = max([first, *given], key=math.prod)
        fields = dict(
            place=place,
            kind=kind,
            variant=variant,
            window=window,
            input_shape=without_batch(first),
            output_shape=output,
            **self._weights(piece),
        )
        return fields, found

    def _layer(self, piece, end, grouping) -> tuple[dict[str, Any], _Operands]:
        """A step that is a layer by itself, with the scale and shift behind it."""
        nodes, head = self.nodes, self.nodes[piece[0]]
        values = self._distinct(piece)
        if head.kind == "matmul":  # of a map by itself, too
            values = self._values(piece)
        _, variant, window = kind_of(nodes, piece, end, grouping.marks, len(values))
        output = head.output_shape or without_batch(nodes[end].shape)
        kind, found = self._operands(
            head.kind, values, head.input_shape, output, head.place
        )
        first = values[0].shape if values else nodes[end].shape
        is_told = head.input_shape is not None and kind == head.kind
        fields = dict(
            place=head.place,
            kind=kind,
            variant=variant,
            window=window,
            input_shape=head.input_shape if is_told else without_batch(first),
            output_shape=output,
            weight_shape=head.weight_shape,
            macs=head.macs,
            site=head.site,
            **self._weights(piece),
        )
        return fields, found

    def _values(self, piece: list[int]) -> list[Value]:
        """What some nodes read from outside."""
        inside = set(piece)
        return [v for i in piece for v in self.nodes[i].data if v.source not in inside]

    def _distinct(self, piece: list[int]) -> list[Value]:
        """The same, each source once."""
        found: dict[int | None, Value] = {}
        for value in self._values(piece):
            found.setdefault(value.source, value)
        return list(found.values())

    def _weights(self, piece: list[int]) -> dict[str, frozenset[int]]:
        nodes = [self.nodes[i] for i in piece]
        return dict(
            read=frozenset().union(*(node.leaves for node in nodes)),
            trained=frozenset().union(*(node.trained for node in nodes)),
        )

    def finish(self, outputs: list[Value]) -> Workload:
        """Names the ops and the weight tensors, and builds the workload."""
        self._name()
        tensors, sizes = self._tensors()
        names: list[list[str]] = [[] for _ in self.ops]
        fixed: list[list[str]] = [[] for _ in self.ops]
        for name, (users, leaves) in tensors.items():
            for user in users:
                names[user].append(name)
                if leaves[0] not in self.trained[user]:
                    fixed[user].append(name)
        constants = {
            name
            for name, (_, leaves) in tensors.items()
            if leaves[0] in self.leaves.fixed
        }
        ops = [
            Op(**fields, parameters=tuple(parameters), fixed=tuple(stopped))
            for fields, parameters, stopped in zip(self.ops, names, fixed, strict=True)
        ]
        # A statistic that leaves its norm is no output: no gradient comes back by it.
        ends = [self.ends[v.source] for v in outputs if v.source in self.ends]
        ends = dict.fromkeys(ends)
        return build(
            ops,
            inputs=self.inputs,
            outputs=tuple(ends),
            parameters={n: size for n, size in sizes.items() if n not in constants},
            constants={n: size for n, size in sizes.items() if n in constants},
        )

    def _append(
        self,
        *,
        place: Place,
        read: frozenset[int] = frozenset(),
        trained: frozenset[int] = frozenset(),
        **fields,
    ) -> int:
        kind = fields["kind"]
        base = place.name
        if not (place.is_module and kind in _UNSUFFIXED):
            base = f"{base}/{kind}"
        self.ops.append(dict(name=base, repeats=place.repeats, **fields))
        self.places.append(place)
        self.read.append(read)
        self.trained.append(trained)
        return len(self.ops) - 1

    def _name(self) -> None:
        """Numbers ops of one place, and leaves out what others are called anyway."""
        steps = [place.step for place in self.places]
        plain = [op["name"] + step for op, step in zip(self.ops, steps, strict=True)]
        used = {f"input_{i}" for i in range(len(self.inputs))}
        taken, counts = used | {*plain}, dict.fromkeys(plain, 1)
        for op, step, first in zip(self.ops, steps, plain, strict=True):
            name = first
            while name in used:
                counts[first] += 1
                numbered = f"{op['name']}_{counts[first]}{step}"
                name = first if numbered in taken else numbered
            used.add(name)
            op["name"] = name

    def _attached(self, inside: set[int], end: int) -> set[int]:
        """What an op reads by a path on which no gradient is stopped."""
        found, stack, seen = set(), [end], {end}
        while stack:
            for value in self.nodes[stack.pop()].data:
                if value.detached or value.origin in seen:
                    continue
                if value.origin in inside:
                    seen.add(value.origin)
                    stack.append(value.origin)
                else:
                    found.add(value.origin)
        return found

    def _index(self, value: Value) -> int | None:
        """The op that made a value, or -1 - k for input k.

        None for the state that a loop starts from: it is data only because of what later
        runs make of it, so no op made it.
        """
        source = value.source
        assert source is not None
        return source if source < 0 else self.op_of.get(source)

    def _size(self, index: int) -> int:
        shape = (
            self.inputs[-1 - index] if index < 0 else self.ops[index]["output_shape"]
        )
        return math.prod(shape)

    def _operands(
        self, kind, values, want_first, output, place
    ) -> tuple[str, _Operands]:
        """The kind of an op and what it reads.

        A view that has grown, by padding or repeating, costs nothing where the op reads
        it piece by piece; where it must stand there in full, a `resize` makes it first.

        Args:
            kind: Of the op, which is a `reduce` if its operand turns out to be larger.
            values: That it reads.
            want_first: Shape at which a product reads the first of them.
            output: Shape of its output.
            place: Where it stands.
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
                want = want_first
            elif kind in _SAME_SIZE and not found:
                want = output
            elif kind in ("add", "mul") and (
                self._size(index) > size or size % self._size(index)
            ):
                want = without_batch(value.shape)
            if want is not None and math.prod(want) > self._size(index):
                index = self._grown(index, value, want, place)
            found.append((index, value.source))
        if kind in _SAME_SIZE and found and self._size(found[0][0]) > size:
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
                place=place,
                kind="resize",
                variant=value.view or "broadcast",
                operands=(index,),
                input_shape=given,
                output_shape=shape,
            )
        return self._resized[key]

    def _tensors(self):
        """Weight tensors: the leaves that the same ops read, and train, under one name."""
        users: dict[int, list[int]] = collections.defaultdict(list)
        for i, read in enumerate(self.read):
            for leaf in sorted(read):
                users[leaf].append(i)
        tensors: dict[tuple, list[int]] = collections.defaultdict(list)
        for leaf, ops in users.items():
            trains = tuple(leaf in self.trained[op] for op in ops)
            tensors[tuple(ops), trains, leaf in self.leaves.fixed].append(leaf)
        clashes = collections.Counter(self._module(ops) for ops, *_ in tensors)
        named, sizes = {}, {}
        for (ops, *_), leaves in tensors.items():
            name = self._module(ops)
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
