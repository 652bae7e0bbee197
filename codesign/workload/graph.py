"""What a network asks of hardware: its ops, their shapes and counts, and their edges."""

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.core import Tracer

from codesign import units
from codesign.records import html
from codesign.types import Array
from codesign.workload.op import (
    MATRIX_KINDS,
    Op,
    Shape,
    check_names,
    check_op,
    check_order,
)

__all__ = ["MATRIX_KINDS", "Graph", "Op", "Workload", "build"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Graph:
    """The exact, static side of a workload.

    Attributes:
        ops: In an order in which every op stands after its operands.
        inputs: Shapes of the network's inputs, without the batch.
        outputs: Ops whose values leave the network.
        parameters: Elements of each weight tensor, by name.
        constants: Likewise of tensors that ops read and nobody trains, such as tables.
    """

    ops: tuple[Op, ...]
    inputs: tuple[Shape, ...] = ()
    outputs: tuple[int, ...] = ()
    parameters: tuple[tuple[str, int], ...] = ()
    constants: tuple[tuple[str, int], ...] = ()

    @property
    def _fields(self) -> tuple[object, ...]:
        return self.ops, self.inputs, self.outputs, self.parameters, self.constants

    @functools.cached_property
    def _hash(self) -> int:
        return hash(self._fields)

    def __hash__(self) -> int:
        return self._hash  # jit asks for it on every call

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Graph) or hash(self) != hash(other):
            return False
        return self._fields == other._fields


@struct.dataclass(kw_only=True)
class Workload:
    """The ops of one network in execution order, counted for one example.

    Leaves are `[L]` float32, for differentiable models, and count all runs of an op; the
    exact integers are in `graph`. `fan_in`, `fan_out` and `num_windows` view an op as
    the matrix product of `[num_windows, fan_in]` by `[fan_in, fan_out]`; they are 0
    where there is none.
    """

    macs: Array  # [L] multiply-accumulates
    elements: Array  # [L] output elements; of a norm, scaled by its mask
    weights: Array  # [L] of a matrix op its kernel, of others their parameters
    fan_in: Array  # [L]
    fan_out: Array  # [L]
    num_windows: Array  # [L] positions of the output map
    num_input_windows: Array  # [L] positions of the input map
    graph: Graph = struct.field(pytree_node=False)

    @property
    def ops(self) -> tuple[Op, ...]:
        """The ops, in execution order."""
        return self.graph.ops

    @property
    def num_ops(self) -> int:
        """L."""
        return len(self.ops)

    @property
    def num_sites(self) -> int:
        """C, the length of a placement mask."""
        return max(self.sites, default=-1) + 1

    @property
    def names(self) -> tuple[str, ...]:
        """Module paths, [L]."""
        return tuple(op.name for op in self.ops)

    @property
    def kinds(self) -> tuple[str, ...]:
        """One of `KINDS` for each op, [L]."""
        return tuple(op.kind for op in self.ops)

    @property
    def sites(self) -> tuple[int, ...]:
        """BN site of each op, or -1, [L]."""
        return tuple(op.site for op in self.ops)

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """Pairs (from, to) of ops between which data flows, sorted."""
        pairs = {
            (start, end)
            for end, op in enumerate(self.ops)
            for start in op.operands
            if start >= 0
        }
        return tuple(sorted(pairs))

    @property
    def input_shapes(self) -> tuple[Shape, ...]:
        """Shape of each op's first operand, [L]."""
        return tuple(op.input_shape for op in self.ops)

    @property
    def output_shapes(self) -> tuple[Shape, ...]:
        """Shape of each op's output, [L]."""
        return tuple(op.output_shape for op in self.ops)

    @property
    def weight_shapes(self) -> tuple[Shape, ...]:
        """Shape of each op's kernel, empty where it has none, [L]."""
        return tuple(op.weight_shape for op in self.ops)

    @property
    def total_macs(self) -> int:
        """Multiply-accumulates of one example, exactly."""
        return sum(op.macs * op.repeats for op in self.ops)

    def select(self, *kinds: str) -> "Workload":
        """The ops of these kinds, in order, with the edges that paths between them leave.

        An edge joins two selected ops when data flows from one to the other through
        ops that are not selected.
        """
        keep = [i for i, kind in enumerate(self.kinds) if kind in kinds]
        new = {old: i for i, old in enumerate(keep)}
        sources: list[set[int]] = []  # of each op, the kept ops or inputs that feed it
        for op in self.ops:
            fed: set[int] = set()
            for operand in op.operands:
                is_end = operand < 0 or operand in new
                fed |= {operand} if is_end else sources[operand]
            sources.append(fed)

        def renumbered(index):
            return tuple(sorted(new[s] if s >= 0 else s for s in sources[index]))

        ops = tuple(
            dataclasses.replace(self.ops[i], operands=renumbered(i), detached=())
            for i in keep
        )
        used = {name for op in ops for name in op.parameters}
        graph = Graph(
            ops=ops,
            inputs=self.graph.inputs,
            outputs=_sinks(ops),
            parameters=tuple(p for p in self.graph.parameters if p[0] in used),
            constants=tuple(c for c in self.graph.constants if c[0] in used),
        )
        index = jnp.array(keep, int)
        return Workload(
            **{name: getattr(self, name)[index] for name in _LEAVES}, graph=graph
        )

    def masked(self, bn_mask: Array) -> "Workload":
        """Scales the elements of each norm op by its site's entry of `bn_mask` [C].

        Raises:
            ValueError: If the mask's length is not the number of sites, or a concrete
                entry lies outside [0, 1].
        """
        bn_mask = jnp.asarray(bn_mask)
        if bn_mask.shape != (self.num_sites,):
            is_looped = any(op.site >= 0 and op.repeats > 1 for op in self.ops)
            raise ValueError(
                f"`bn_mask` has shape {bn_mask.shape}; this network has "
                f"{self.num_sites} batch-norm sites, so pass ({self.num_sites},)"
                + (
                    ", or trace it with `unroll_scans=True`, since some stand in a loop."
                    if is_looped
                    else "."
                )
            )
        if not isinstance(bn_mask, Tracer):
            given = np.asarray(bn_mask)  # JAX would stage its own under `jit`
            outside = ~((given >= 0) & (given <= 1))  # NaN as well
            if outside.any():
                site = int(outside.argmax())
                raise ValueError(
                    f"`bn_mask` must lie in [0, 1], got {given[site]} at site {site}: "
                    "1 keeps a batch norm, 0 leaves it out."
                )
        padded = jnp.append(bn_mask, 1.0)  # site -1 reads the 1
        return dataclasses.replace(
            self, elements=self.elements * padded[jnp.array(self.sites)]
        )

    def _repr_html_(self) -> str:
        """The ops in a notebook, from the exact integers: leaves may be traced."""
        sizes = dict(self.graph.parameters)
        macs = [op.macs * op.repeats for op in self.ops]
        weights = [_num_weights(op, sizes) for op in self.ops]
        rows = [
            (
                op.name,
                op.kind if op.variant in ("", op.kind) else f"{op.kind} {op.variant}",
                f"{_sizes(op.input_shape)} → {_sizes(op.output_shape)}".strip(),
                units.si(num_macs, "") if num_macs else "",
                units.si(num_weights, "") if num_weights else "",
                str(op.site) if op.site >= 0 else "",
            )
            for op, num_macs, num_weights in zip(self.ops, macs, weights, strict=True)
        ]
        owners = {op.parameters or op.name: i for i, op in enumerate(self.ops)}
        total = sum(weights[i] for i in owners.values())
        sites = f"{self.num_sites} in all" if self.num_sites else ""
        found = units.si(sum(macs), ""), units.si(total, ""), sites
        note = ["Weights that ops share are counted once in the sum."]
        return html.notebook(
            html.table(
                ["Op", "Kind", "Input → output", "MACs", "Weights", "Site"],
                [*rows, ("Sum", "", "", *found)],
                f"Workload of {self.num_ops} ops, for one example",
                sides=["left", "left", "left", "right", "right", "right"],
                looks=[*[""] * len(rows), "sum"],
                notes=note if total < sum(weights) else [],
                most=_MOST_SHOWN,
            )
        )


_MOST_SHOWN = 24  # rows in a notebook
_LEAVES = (
    "macs",
    "elements",
    "weights",
    "fan_in",
    "fan_out",
    "num_windows",
    "num_input_windows",
)


def build(
    ops: Iterable[Op],
    *,
    inputs: Iterable[Shape] = (),
    outputs: Iterable[int] | None = None,
    parameters: Mapping[str, int] | None = None,
    constants: Mapping[str, int] | None = None,
) -> Workload:
    """Assembles a workload.

    Args:
        ops: Each after its operands.
        inputs: Shapes of the network's inputs, without the batch.
        outputs: Ops whose values leave the network; by default those that no op reads.
        parameters: Elements of each weight tensor that ops name.
        constants: Likewise of tensors that are not trained; ops that name them list them
            in `fixed` too.

    Raises:
        ValueError: Naming the op, for an unknown kind, a parameter without a size, an
            operand that does not exist, a cycle, or shapes that do not fit; for a
            constant that an op trains, or one that is a parameter as well.
    """
    ops = tuple(ops)
    inputs = tuple(inputs)
    sizes, constants = dict(parameters or {}), dict(constants or {})
    if both := sorted(sizes.keys() & constants.keys()):
        raise ValueError(f"`constants` holds {both[0]!r}, which is a parameter.")
    check_order(ops, inputs)
    check_names(ops)
    for op in ops:
        shapes = [inputs[-1 - i] if i < 0 else ops[i].output_shape for i in op.operands]
        check_op(op, shapes, sizes, constants)
    graph = Graph(
        ops=ops,
        inputs=inputs,
        outputs=_sinks(ops) if outputs is None else tuple(outputs),
        parameters=tuple(sizes.items()),
        constants=tuple(constants.items()),
    )
    for output in graph.outputs:
        if not 0 <= output < len(ops):
            raise ValueError(f"`outputs` names op {output}; there are {len(ops)}.")

    def counts(op: Op):
        kernel, output = op.weight_shape, op.output_shape
        weights = _num_weights(op, sizes)
        if op.kind not in MATRIX_KINDS:
            return op.macs * op.repeats, op.elements * op.repeats, weights, 0, 0, 0, 0
        return (
            op.macs * op.repeats,
            op.elements * op.repeats,
            weights,
            math.prod(kernel[:-1]),
            kernel[-1],
            math.prod(output[:-1]) * op.repeats,
            math.prod(op.input_shape[:-1]) * op.repeats,
        )

    columns = list(zip(*map(counts, ops), strict=True)) or [()] * len(_LEAVES)
    leaves = {
        name: jnp.array(column, jnp.float32)
        for name, column in zip(_LEAVES, columns, strict=True)
    }
    return Workload(**leaves, graph=graph)


def _num_weights(op: Op, sizes: Mapping[str, int]) -> int:
    if op.kind in MATRIX_KINDS:
        return math.prod(op.weight_shape)
    # Of a batch norm, scale and bias: what a chip that trains it must hold.
    if op.site >= 0:
        return 2 * op.output_shape[-1]
    return sum(sizes.get(name, 0) for name in op.parameters)  # constants are none


def _sizes(shape: Shape) -> str:
    return "×".join(map(str, shape))


def _sinks(ops: tuple[Op, ...]) -> tuple[int, ...]:
    read = {operand for op in ops for operand in op.operands}
    return tuple(i for i in range(len(ops)) if i not in read)
