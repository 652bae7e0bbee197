"""Tells what layer a chain of point-wise steps is, and where one chain is several."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from codesign.workload.op import Shape
from codesign.workload.tracing.grouping import Marks, readers_outside, waists
from codesign.workload.tracing.node import POINT, REDUCE, Node, without_batch

_JOINS = {
    "add": ("add", ""),
    "add_any": ("add", ""),
    "sub": ("add", "sub"),
    "mul": ("mul", ""),
    "div": ("mul", "div"),
}
_REDUCTIONS = {
    "reduce_max": "max",
    "reduce_min": "min",
    "reduce_sum": "sum",
    "reduce_prod": "prod",
}


def pieces(
    nodes: Sequence[Node],
    members: list[int],
    readers: dict[int, list[int]],
    marks: Marks,
) -> list[tuple[list[int], int]]:
    """Cuts a layer into ops: their nodes, and the one whose value leaves each of them.

    A layer is cut behind every value that others read or that leaves the network, and
    where an activation stands before a norm or around a reduction. Statistics that
    leave the network beside a norm's map are no cut.
    """
    if nodes[members[0]].kind not in (POINT, REDUCE):
        return [(members, members[-1])]
    outside = readers_outside(members, readers)
    read = list(outside)
    if any(i in marks.event for i in members):
        inner = {i for i in read if i in marks.statistic and max(outside[i]) < 0}
        read = [i for i in read if i not in inner] or read
    ends = sorted({*read, *_bounds(nodes, members, marks, max(read))})
    return _closures(nodes, members, ends)


def _bounds(
    nodes: Sequence[Node], members: list[int], marks: Marks, last: int
) -> list[int]:
    """Where an activation ends before a norm, or around a reduction."""
    reductions = [i for i in members if nodes[i].kind == REDUCE]
    events = [i for i in members if i in marks.event]
    if not reductions or not (events or last in marks.statistic):
        return []
    narrow = waists(nodes, members)

    def bends(after: int, until: int) -> bool:
        return any(nodes[i].bends for i in members if after < i <= until)

    found: list[int] = []
    for reduction in reductions[:1] if events else reductions:
        before = [i for i in narrow if i < reduction][-1:]
        start = found[-1] if found else -1
        # A reduction of a reduction is an op of its own, as are pools in a row.
        found += [i for i in before if i in marks.statistic or bends(start, i)]
    after = [i for i in members if i > reductions[-1] and nodes[i].bends]
    if after and not events:
        found += [i for i in narrow if reductions[-1] <= i < after[0]][-1:]
    return found


def _closures(nodes, members, ends) -> list[tuple[list[int], int]]:
    """Gives each end the nodes that lead to it and to no end before it."""
    inside, taken, found = set(members), set(), []
    for end in ends:
        piece, stack = set(), [end]
        while stack:
            i = stack.pop()
            if i in taken or i in piece:
                continue
            piece.add(i)
            stack += [v.source for v in nodes[i].data if v.source in inside]
        taken |= piece
        found.append((sorted(piece), end))
    rest = [i for i in members if i not in taken]
    if rest:  # statistics that only leave the network
        piece, end = found[-1]
        found[-1] = (sorted([*piece, *rest]), end)
    return found


def kind_of(
    nodes: Sequence[Node], piece: list[int], end: int, marks: Marks, num_maps: int
) -> tuple[str, str, int]:
    """Kind, variant and window of an op made of the nodes `piece`."""
    head = nodes[piece[0]]
    if head.kind not in (POINT, REDUCE):
        return head.kind, _variant(nodes, piece), head.window
    events = [marks.event[i] for i in piece if i in marks.event]
    names = [nodes[i].primitive for i in piece]
    if "norm" in events:
        return "norm", _norm_variant(nodes, piece, end, marks), 1
    if "softmax" in events or "log_softmax" in events:
        return "softmax", "log" if "log_softmax" in events else "", 1
    if "dropout" in events:
        return "dropout", "", 1
    reductions = [i for i in piece if nodes[i].kind == REDUCE]
    if reductions and end in marks.statistic:
        return _reduction(nodes, piece, reductions[-1], names)
    if len(piece) == 1 and num_maps > 1:
        return *_JOINS.get(names[0], ("elementwise", names[0])), 1
    if len(piece) == 1 and not head.is_constant and names[0] in _JOINS:
        return *_JOINS[names[0]], 1
    variant = _activation(nodes, piece)
    if variant:
        return "activation", variant, 1
    return "elementwise", names[0] if len(set(names)) == 1 else "", 1


def _variant(nodes, piece) -> str:
    head = nodes[piece[0]]
    if head.kind == "pool" and head.variant == "sum":
        scaled = any(nodes[i].primitive in ("div", "mul") for i in piece[1:])
        return "average" if scaled else "sum"
    return head.variant


@dataclasses.dataclass(frozen=True)
class _Chain:
    """What tells activations apart: the primitives of a chain, and how it uses them."""

    names: frozenset[str]
    cubes: bool  # raises to the third power
    chooses: bool  # takes one of two values by a condition on the map
    gates: bool  # multiplies the map by something made of it
    bounds: frozenset[float | None]  # that it clips to


class _Pattern(NamedTuple):
    """An activation: primitives that it has among others, and a condition."""

    variant: str
    names: frozenset[str]
    holds: Callable[[_Chain], bool] = lambda chain: True


def _patterns(
    variant: str, *names: str, holds: Callable[[_Chain], bool] = lambda chain: True
) -> list[_Pattern]:
    """One pattern for each way of writing it, such as "max min" or "clamp"."""
    return [_Pattern(variant, frozenset(n.split()), holds) for n in names]


_PLAIN = ("exp", "exp2", "log", "sin", "cos", "tan", "abs", "sign", "min")
# The first that fits names a chain.
_ACTIVATIONS = [
    *_patterns("gelu", "erf", "erfc"),
    *_patterns("gelu", "tanh", holds=lambda c: c.cubes),
    *_patterns("mish", "tanh log1p mul"),
    *_patterns("tanh", "tanh"),
    *_patterns("silu", "logistic mul", holds=lambda c: c.gates),
    *_patterns("sigmoid", "logistic"),
    *_patterns("softplus", "log1p"),
    *_patterns("elu", "expm1"),
    *_patterns(
        "hard_swish",
        "max min mul",
        "clamp mul",
        holds=lambda c: c.bounds == {0.0, 6.0} and c.gates,
    ),
    *_patterns("relu6", "max min", "clamp", holds=lambda c: c.bounds == {0.0, 6.0}),
    *_patterns("clip", "max min", "clamp"),
    *_patterns("leaky_relu", "max mul"),
    *_patterns("relu", "max"),
    *_patterns("elu", "select_n exp", holds=lambda c: c.chooses),
    *_patterns("leaky_relu", "select_n mul", holds=lambda c: c.chooses),
    *_patterns("relu", "select_n", holds=lambda c: c.chooses),
    *(pattern for name in _PLAIN for pattern in _patterns(name, name)),
]


def _activation(nodes: Sequence[Node], piece: list[int]) -> str:
    """Name of the activation that a chain of primitives is, or an empty string."""
    members, inside = [nodes[i] for i in piece], set(piece)
    outward = [n for n in members if any(v.source not in inside for v in n.data)]
    clips = [n for n in members if n.primitive in ("max", "min", "clamp")]
    chain = _Chain(
        names=frozenset(node.primitive for node in members),
        cubes=any(node.cube for node in members),
        chooses=any(node.bends for node in members),
        gates=len(outward) > 1,
        bounds=frozenset(
            v.number for node in clips for v in node.operands if not v.is_data
        ),
    )
    fits = (
        p.variant for p in _ACTIVATIONS if p.names <= chain.names and p.holds(chain)
    )
    return next(fits, "")


def _reduction(
    nodes: Sequence[Node], piece: list[int], last: int, names: list[str]
) -> tuple[str, str, int]:
    node = nodes[last]
    given = node.operands[0].shape
    window = math.prod(given[axis] for axis in node.axes)
    name: str = node.primitive
    what = _REDUCTIONS[name] if name in _REDUCTIONS else name.removeprefix("reduce_")
    after = [nodes[i].primitive for i in piece if i > last]
    if what == "sum" and ("div" in after or "mul" in after):
        what = "mean"
    is_plain = sum(name in _REDUCTIONS for name in names) == 1
    is_plain = is_plain and what in ("mean", "max")
    if is_plain and len(given) == 4 and node.axes in ((1, 2), (2, 3)):
        return "pool", "global_average" if what == "mean" else "max", window
    if is_plain and len(given) == 6 and node.axes in ((2, 4), (3, 5)):
        return "pool", "average" if what == "mean" else "max", window
    return "reduce", what, 1


def _norm_variant(nodes, piece, end, marks) -> str:
    """Batch norms share statistics over examples, group norms over part of a map."""
    reductions = [i for i in piece if nodes[i].kind == REDUCE]
    if not reductions:
        return "batch"  # by running statistics
    node = nodes[reductions[0]]
    given, axes = node.operands[0].shape, sorted(node.axes)
    if axes[0] == 0 and len(axes) < len(given):
        return "batch"
    count = math.prod(given[axis] for axis in axes)
    whole = without_batch(nodes[end].shape)
    same = _long(given) == _long(whole)
    long = [axis for axis in range(len(given)) if given[axis] > 1]
    summed = [axis for axis in axes if given[axis] > 1]
    is_last = summed == long[len(long) - len(summed) :]
    # Of a map that was split for it, a layer norm takes all that a trailing axis held.
    is_layer = is_last and count in _trailing(whole)
    if same:
        is_layer = is_last or len(axes) == 1
    if not is_layer:
        return "group"
    centered = any("center" in marks.lineage.get(i, ()) for i in piece)
    return "layer" if centered else "rms"


def _long(shape: Shape) -> list[int]:
    return [length for length in shape if length > 1]


def _trailing(shape: Shape) -> set[int]:
    return {math.prod(shape[i:]) for i in range(len(shape))}
