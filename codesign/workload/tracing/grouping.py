"""Forms layers of point-wise steps: chains that start from one map."""

from collections.abc import Hashable, Sequence

from codesign.workload.tracing.joins import AFFINE, JOINS, Meeting
from codesign.workload.tracing.node import MASK, POINT, REDUCE, STATE, Node, Value


class Layer:
    """Nodes that become one op, or a few where others read what lies between them.

    Attributes:
        members: Numbers of its nodes.
        base: The layer or input that all of them stem from; None of a single op.
        scope: Where it stands; others of the same scope may join.
        is_open: Whether others may join freely; else only a scale or a shift.
        tip: Its last node.
    """

    __slots__ = ("base", "is_open", "members", "merged", "scope", "tip")

    def __init__(self, node: int, scope: Hashable, base: object, *, is_open: bool):
        self.members = [node]
        self.base = base
        self.scope = scope
        self.is_open = is_open
        self.tip = node
        self.merged: Layer | None = None


class Marks:
    """What is known of each node of a layer from those before it.

    Attributes:
        statistic: Nodes that a reduction leads to.
        lineage: What a node has passed: `exp`, `log`, `root`, `center`.
        event: The layer that a node completes: `norm`, `softmax`, `dropout`.
    """

    def __init__(self):
        self.statistic: set[int] = set()
        self.lineage: dict[int, frozenset[str]] = {}
        self.event: dict[int, str] = {}


def uses(nodes: Sequence[Node], outputs: Sequence[Value]) -> dict[int, list[int]]:
    """Readers of each node that reaches an output; -1 stands for the outputs."""
    readers: dict[int, list[int]] = {}
    for value in outputs:
        if value.source is not None and value.source >= 0:
            readers.setdefault(value.source, []).append(-1)
    for i in range(len(nodes) - 1, -1, -1):
        if i not in readers:
            continue
        for source in {value.origin for value in nodes[i].data}:
            if source >= 0:
                readers.setdefault(source, []).append(i)
    return readers


def running_statistics(
    nodes: Sequence[Node], readers: dict[int, list[int]]
) -> list[Value]:
    """Updates of running statistics that the function does not return.

    The norm reads its running statistics all the same: what it holds does not depend on
    what its caller keeps.
    """
    statistics: dict[int, Hashable] = {}  # scopes, by node
    found = []
    for i, node in enumerate(nodes):
        scope = node.place.scope
        if node.kind == REDUCE and i in readers:
            statistics[i] = scope
            continue
        given = [statistics.get(value.origin) for value in node.data]
        if node.kind != POINT or set(given) != {scope}:
            continue
        statistics[i] = scope
        if i not in readers and node.leaves and node.primitive in AFFINE:
            found.append(Value(shape=node.shape, source=i))
    return found


class Grouping:
    """Assigns every living node to a layer, in order.

    A point-wise step joins the open layers of its scope if all that it reads stems from
    one map; `x * sigmoid(x)` does, a sum of two maps does not and is a layer of its own.
    A norm, a softmax or a dropout is complete once its last step is seen; after that
    only a scale and a shift join it, as they join a matrix product.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        readers: dict[int, list[int]],
        leaf_sizes: Sequence[int],
    ):
        self.nodes = nodes
        self.readers = readers
        self.marks = Marks()
        self._sizes = leaf_sizes
        self._layers: dict[int, Layer] = {}
        for i in range(len(nodes)):
            if i in readers:
                self._assign(i)

    def layers(self) -> list[Layer]:
        """Layers, each once."""
        return list(dict.fromkeys(self._find(i) for i in self._layers))

    def is_norm(self, node: int) -> bool:
        """Whether a node is part of a norm."""
        return any(self.marks.event.get(i) == "norm" for i in self._find(node).members)

    def unstacked(self, value: Value) -> list[Value]:
        """An output; if it stacks the statistics of norms in a loop, these instead."""
        found, stack = [], [value]
        while stack:
            source = stack.pop().source
            if source is None or source < 0:
                return [value]
            node = self.nodes[source]
            if node.kind == "concat" or node.variant == "stack":
                stack += node.data
            elif source in self.marks.statistic and self.is_norm(source):
                found.append(Value(shape=node.shape, source=source))
            else:
                return [value]
        return found

    def _find(self, node: int) -> Layer:
        layer = self._layers[node]
        while layer.merged is not None:
            layer = layer.merged
        self._layers[node] = layer
        return layer

    def _assign(self, i: int) -> None:
        node = self.nodes[i]
        if node.kind not in (POINT, REDUCE):
            self._layers[i] = Layer(i, node.place.scope, None, is_open=False)
            return
        sources = self._sources(node)
        found = {s: self._find(s) if s >= 0 else None for s in sources}
        scope = node.place.scope
        open_layers = {
            layer
            for layer in found.values()
            if layer is not None and layer.is_open and layer.scope == scope
        } - {found.get(source) for source in self._grown(node)}
        bases = {self._base(s, layer, open_layers) for s, layer in found.items()}
        masks = any(value.noise == MASK for value in node.operands)
        if masks and len(set(found.values())) == 1 and self._bends(open_layers):
            bases, open_layers = set(found.values()), set()
        if len(bases) > 1:
            self._layers[i] = Layer(i, scope, None, is_open=False)
            return
        (base,) = bases
        if open_layers:
            layer = self._merge(open_layers)
            layer.members.append(i)
            layer.tip = i
        elif isinstance(base, Layer) and self._joins(i, base, sources):
            layer = base
            layer.members.append(i)
            if not sources <= self.marks.statistic:
                layer.tip = i
        else:
            layer = Layer(i, scope, base, is_open=True)
        self._layers[i] = layer
        self._mark(i, layer)

    def _sources(self, node: Node) -> set[int]:
        """Maps that a step reads, less a mask that is made of an input alone."""
        sources = {value.origin for value in node.data}
        if node.primitive == "select_n" and len(sources) > 1:
            mask = node.operands[0].source
            rest = {v.source for v in node.operands[1:] if v.source is not None}
            if mask is not None and mask < 0 and rest:
                return rest
        return sources

    def _grown(self, node: Node) -> set[int]:
        """Maps that a step reads padded or repeated: they have to be stored first."""
        return {
            value.origin
            for value in node.data
            if value.origin >= 0
            and value.origin not in self.marks.statistic
            and value.size > self.nodes[value.origin].size
        }

    def _base(self, source: int, layer: Layer | None, open_layers: set[Layer]):
        if layer is None:
            return source
        base = layer.base if layer in open_layers else layer
        while isinstance(base, Layer) and base.merged is not None:
            base = base.merged
        return base

    def _bends(self, layers: set[Layer]) -> bool:
        return any(self.nodes[i].bends for la in layers for i in la.members)

    def _merge(self, layers: set[Layer]) -> Layer:
        kept, *others = sorted(layers, key=lambda la: -len(la.members))
        for other in others:
            kept.members += other.members
            other.merged = kept
        return kept

    def _joins(self, i: int, layer: Layer, sources: set[int]) -> bool:
        """Whether a step belongs to a complete layer, by any of `JOINS`."""
        node, head = self.nodes[i], self.nodes[layer.members[0]]
        here, there = node.place, head.place
        if layer.is_open or head.kind == STATE:
            return False
        if (here.step, here.repeats) != (there.step, there.repeats):
            return False
        events = (self.marks.event.get(m, "") for m in (layer.tip, *layer.members))
        meeting = Meeting(
            node=node,
            head=head,
            event=next(filter(None, events), ""),
            of_statistics=sources <= self.marks.statistic,
            follows=sources == {layer.tip} and self.readers[layer.tip] == [i],
            leaf_sizes=self._sizes,
        )
        return any(rule(meeting) for rule in JOINS)

    def _mark(self, i: int, layer: Layer) -> None:
        """Notes what a step adds to its lineage, and whether it completes a layer."""
        node, marks = self.nodes[i], self.marks
        inside = [
            v
            for v in node.data
            if v.origin in self._layers and self._find(v.origin) is layer
        ]
        statistics = [v for v in inside if v.origin in marks.statistic]
        full = [v for v in node.data if v not in statistics]
        lineage = frozenset().union(
            *(marks.lineage.get(v.origin, frozenset()) for v in inside)
        )
        if node.kind == REDUCE or (statistics and not full):
            marks.statistic.add(i)
        name = node.primitive
        passed = {"exp": "exp", "exp2": "exp", "log": "log", "sqrt": "root"}.get(name)
        passed = "root" if name in ("rsqrt", "pow") else passed
        if name == "sub" and full and statistics:
            passed = "center"
        marks.lineage[i] = lineage | {passed} if passed else lineage
        event = self._event(node, full, statistics)
        if event:
            marks.event[i] = event
            layer.is_open = False

    def _event(self, node: Node, full: list[Value], statistics: list[Value]) -> str:
        name, lineage = node.primitive, self.marks.lineage
        others = [value for value in node.operands if not value.is_data]
        if any(value.noise == MASK for value in others) and full:
            return "dropout"
        if name in ("mul", "div") and full and any(v.root for v in others):
            return "norm"  # by statistics that are parameters
        if not (full and statistics):
            return ""
        reduced = frozenset().union(*(lineage[v.origin] for v in statistics))
        before = frozenset().union(*(lineage.get(v.origin, ()) for v in full))
        if name in ("mul", "div"):
            if "root" in reduced:
                return "norm"
            return "softmax" if "exp" in reduced and "exp" in before else ""
        return "log_softmax" if name == "sub" and {"exp", "log"} <= reduced else ""


def waists(nodes: Sequence[Node], members: Sequence[int]) -> list[int]:
    """Members through which all passes from those before them to those after."""
    inside = set(members)
    last: dict[int, int] = {}  # the last member that reads each member or the base
    base_last = -1
    for position, i in enumerate(members):
        for value in nodes[i].data:
            if value.origin in inside:
                last[value.origin] = position
            else:
                base_last = position
    found, reach = [], base_last
    for position, i in enumerate(members[:-1]):
        if reach <= position:
            found.append(i)
        reach = max(reach, last.get(i, position))
    return found


def readers_outside(
    members: Sequence[int], readers: dict[int, list[int]]
) -> dict[int, list[int]]:
    """Members that others read, and who reads them."""
    inside = set(members)
    found: dict[int, list[int]] = {}
    for i in members:
        outside = [reader for reader in readers.get(i, ()) if reader not in inside]
        if outside:
            found[i] = outside
    return found
