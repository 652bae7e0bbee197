"""One training iteration of a network: its steps, and the tensors that they touch."""

import dataclasses
import functools
import math

import numpy as np

from codesign.workload.graph import Workload
from codesign.workload.op import MATRIX_KINDS, TYPE_I_KINDS, Op

# What the backward step of an op reads beside the gradient of its output: its operands
# (X), its output (Y), its weights (W). An activation is told by its variant.
_BACKWARD_READS = {
    "conv": "XW",  # W only where an operand needs a gradient
    "dense": "XW",
    "matmul": "XW",  # W where one side is a weight
    "norm": "XW",
    "softmax": "Y",
    "dropout": "Y",
    "mul": "XW",
    "embedding": "X",
    "elementwise": "X",
}
# Activations whose slope follows from their output; the others' from their input.
_BY_OUTPUT = ("relu", "relu6", "leaky_relu", "sigmoid", "tanh", "elu", "selu", "exp")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Program:
    """The steps of one training iteration, forward and then backward.

    Step s touches the tensors `touched[first[s] : first[s + 1]]`, each once, and for each
    of them `reads` or `writes` or both. Tensors are feature maps (A) and their gradients
    (G), which grow with the batch, and weights (W) and theirs (D), which do not.

    Attributes:
        workload: What was expanded.
        tensors: [T] names, such as `A:conv1`; inputs of the network are `A:input_0`.
        roles: [T] one of A, G, W, D.
        per_example: [T] elements for each example of a batch, int64.
        fixed: [T] elements whatever the batch, int64.
        row: [T] elements of a row of one example's map, all of a weight's, int64.
        in_memory: [T] whether memory holds the tensor when the iteration starts.
        op: [S] index of the op that a step runs.
        is_backward: [S]
        operations: [S] for each example; one for a MAC or a point-wise result, int64.
        first: [S + 1] start of each step in the arrays below.
        touched: [N] tensors, in the order in which the rules name them.
        reads: [N]
        writes: [N]
    """

    workload: Workload
    tensors: tuple[str, ...]
    roles: tuple[str, ...]
    per_example: np.ndarray
    fixed: np.ndarray
    row: np.ndarray
    in_memory: np.ndarray
    op: np.ndarray
    is_backward: np.ndarray
    operations: np.ndarray
    first: np.ndarray
    touched: np.ndarray
    reads: np.ndarray
    writes: np.ndarray

    @property
    def num_steps(self) -> int:
        """S."""
        return len(self.op)

    @property
    def num_tensors(self) -> int:
        """T."""
        return len(self.tensors)

    @functools.cached_property
    def step_names(self) -> tuple[str, ...]:
        """[S] name of each step's op, with ` back` behind the backward ones."""
        names = self.workload.names
        return tuple(
            names[op] + (" back" if back else "")
            for op, back in zip(self.op, self.is_backward, strict=True)
        )

    @functools.cached_property
    def is_type_ii(self) -> np.ndarray:
        """[S] whether a step's op is point-wise, and not conv, dense or matmul."""
        kinds = self.workload.kinds
        return np.array([kinds[op] not in TYPE_I_KINDS for op in self.op])

    def sizes(self, batch_size: int, value_bytes: int = 4) -> np.ndarray:
        """[T] bytes of each tensor, int64.

        Raises:
            ValueError: If the batch or the width of a value is below 1.
        """
        count = float(batch_size)  # of an array, too
        if not 1 <= count < 2**40 or count != int(count):
            raise ValueError(
                "`batch_size` must be a whole number of at least 1 and less than 2^40, "
                f"got {batch_size}."
            )
        if not 1 <= value_bytes <= 64:
            raise ValueError(f"`value_bytes` must lie in 1..64, got {value_bytes}.")
        largest = int(self.per_example.max()) * int(count) + int(self.fixed.max())
        if largest * value_bytes * len(self.touched) >= 2**62:
            raise ValueError(
                f"`batch_size` (={batch_size}) makes tensors too large to count; take a "
                "smaller one."
            )
        return (self.fixed + int(count) * self.per_example) * value_bytes


def training_iteration(workload: Workload) -> Program:
    """Expands a forward graph into the steps of one training iteration.

    Forward, each op runs once: it reads its operands and weights and writes its output.
    The order is depth first from each input, consumers in listed order; a join runs
    with the last of its producers (Wang et al., "SuperNeurons", PPoPP 2018). Backward
    is the exact reverse. A backward step reads the gradient of its output and

        conv, dense             X, and W if some operand needs a gradient
        norm                    X and W
        relu, sigmoid, tanh, softmax, dropout     Y; other activations X
        max pool                X and Y
        matmul, mul             X
        add, concat, slice, resize, average pool  nothing

    and writes the gradient of every operand that needs one and of every weight. A
    gradient that holds a value already (a fork, a shared weight, the loss's own) is also
    read: it accumulates in place. Nothing else is in place, and no optimiser runs.

    Operations: one for a MAC, and one for each value that a point-wise op or a pool's
    window reads. Backward, a matrix op costs its MACs once for its weights and once more
    if it writes an input gradient, a matmul once for each operand that needs one, the
    rest once. Operands and weights that an op reads as constants need none.

    Raises:
        TypeError: If `workload` is none.
        ValueError: If a loop of the workload was counted and not unrolled, or nothing in
            it can be trained.
    """
    if not isinstance(workload, Workload):
        raise TypeError(
            f"`workload` must be a Workload, got {type(workload).__name__}; `trace` makes "
            "one of any JAX function."
        )
    _check(workload)
    ops = workload.ops
    builder = _Builder(workload)
    order = execution_order(workload)
    needs_gradient = _needs_gradient(workload)
    for i in order:
        builder.forward(i)
    outputs = set(workload.graph.outputs)
    has_gradient = {builder.gradient(i) for i in outputs if needs_gradient[i]}
    for tensor in has_gradient:
        builder.in_memory[tensor] = True
    for i in reversed(order):
        op = ops[i]
        if not needs_gradient[i] or builder.gradient(i) not in has_gradient:
            continue
        wanted = [
            operand
            for operand in dict.fromkeys(op.operands)
            if operand >= 0 and needs_gradient[operand] and operand not in op.detached
        ]
        builder.backward(i, wanted, has_gradient)
    return builder.program()


def twice(program: Program) -> Program:
    """Two iterations in a row: they share their weights (W) and nothing else.

    The second finds in the cache what the first left there of W: the steady state.
    """
    size = program.num_tensors
    is_shared = np.array([role == "W" for role in program.roles])
    second = np.where(is_shared, np.arange(size), size + np.arange(size))

    def doubled(values: np.ndarray) -> np.ndarray:
        return np.concatenate([values, values])

    return dataclasses.replace(
        program,
        tensors=(*program.tensors, *(f"{name} again" for name in program.tensors)),
        roles=program.roles * 2,
        per_example=doubled(program.per_example),
        fixed=doubled(program.fixed),
        row=doubled(program.row),
        in_memory=doubled(program.in_memory),
        op=doubled(program.op),
        is_backward=doubled(program.is_backward),
        operations=doubled(program.operations),
        first=np.append(program.first, program.first[1:] + program.first[-1]),
        touched=np.append(program.touched, second[program.touched]),
        reads=doubled(program.reads),
        writes=doubled(program.writes),
    )


def execution_order(workload: Workload) -> list[int]:
    """Ops depth first from each input; a join stands after its last producer.

    Ops that read no data (initial states, tables of positions) come before all inputs, in
    listed order: else a recurrent net would wait for the states of all its layers, and
    run layer by layer instead of time step by time step.
    """
    ops = workload.ops
    consumers: dict[int, list[int]] = {}
    waiting = []
    for i, op in enumerate(ops):
        producers = set(op.operands)
        waiting.append(len(producers))
        for producer in producers:
            consumers.setdefault(producer, []).append(i)
    order: list[int] = []

    def visit(stack: list[int]) -> None:
        while stack:
            value = stack.pop()
            if value >= 0:
                order.append(value)
            ready = []
            for consumer in consumers.get(value, ()):
                waiting[consumer] -= 1
                if waiting[consumer] == 0:
                    ready.append(consumer)
            stack.extend(reversed(ready))

    for i, op in enumerate(ops):
        if not op.operands:
            visit([i])
    for i in range(len(workload.graph.inputs)):
        visit([-1 - i])
    return order


def _check(workload: Workload) -> None:
    for op in workload.ops:
        if op.repeats > 1:
            raise ValueError(
                f"The op {op.name!r} stands in a loop that runs {op.repeats} times; "
                "trace with `unroll_scans=True`, so that each run has its own tensors."
            )
    if not any(op.trained for op in workload.ops):
        raise ValueError(
            "`workload` has no parameters that are trained: there is nothing to do."
        )


def _needs_gradient(workload: Workload) -> list[bool]:
    """For each op, whether the gradient of a weight passes through what it makes."""
    needs: list[bool] = []
    for op in workload.ops:
        needs.append(
            bool(op.trained)
            or any(needs[i] for i in op.operands if i >= 0 and i not in op.detached)
        )
    return needs


def operations(op: Op) -> int:
    """Forward operations of an op for one example: MACs, or values read point by point."""
    if op.kind in TYPE_I_KINDS:
        return op.macs
    if op.kind == "reduce":
        return max(op.elements, math.prod(op.input_shape))
    return op.elements * op.window


def _backward_reads(op: Op) -> str:
    if op.kind == "activation":
        return "Y" if op.variant in _BY_OUTPUT else "X"
    if op.kind in ("pool", "reduce"):
        return "XY" if op.variant == "max" else ""
    if op.variant == "div":
        return "XYW"
    return _BACKWARD_READS.get(op.kind, "")


class _Builder:
    """Collects tensors and steps."""

    def __init__(self, workload: Workload):
        self._workload = workload
        self._ops = workload.ops
        self._sizes = dict((*workload.graph.parameters, *workload.graph.constants))
        self._index: dict[tuple[str, str | int], int] = {}
        self._names: list[str] = []
        self._per_example: list[int] = []
        self._fixed: list[int] = []
        self._row: list[int] = []
        self.in_memory: list[bool] = []
        self._steps: list[tuple[int, bool, int]] = []
        self._first = [0]
        self._touched: list[int] = []
        self._reads: list[bool] = []
        self._writes: list[bool] = []

    def _tensor(
        self, key, name: str, per_example: int, fixed: int, row: int, start: bool
    ) -> int:
        """The tensor of a role and an op, or of a role and a weight's name."""
        if key not in self._index:
            self._index[key] = len(self._index)
            self._names.append(f"{key[0]}:{name}")
            self._per_example.append(per_example)
            self._fixed.append(fixed)
            self._row.append(row)
            self.in_memory.append(start)
        return self._index[key]

    def _map(self, role: str, value: int) -> int:
        """A or G of an op, or of an input."""
        if value >= 0:
            name, shape = self._ops[value].name, self._ops[value].output_shape
        else:
            name = f"input_{-1 - value}"
            shape = self._workload.graph.inputs[-1 - value]
        row = shape[1:] if len(shape) > 1 else shape
        return self._tensor(
            (role, value), name, math.prod(shape), 0, math.prod(row), value < 0
        )

    def gradient(self, value: int) -> int:
        """G of an op."""
        return self._map("G", value)

    def _weight(self, name: str) -> int:
        size = self._sizes[name]
        return self._tensor(("W", name), name, 0, size, size, True)

    def _weight_gradient(self, name: str) -> int:
        size = self._sizes[name]
        return self._tensor(("D", name), name, 0, size, size, False)

    def _step(self, i: int, back: bool, count: int, reads, writes) -> None:
        reads, writes = dict.fromkeys(reads), dict.fromkeys(writes)
        for tensor in dict.fromkeys((*reads, *writes)):
            self._touched.append(tensor)
            self._reads.append(tensor in reads)
            self._writes.append(tensor in writes)
        self._steps.append((i, back, count))
        self._first.append(len(self._touched))

    def forward(self, i: int) -> None:
        op = self._ops[i]
        reads = [self._map("A", value) for value in op.operands]
        reads += [self._weight(name) for name in op.parameters]
        self._step(i, False, operations(op), reads, [self._map("A", i)])

    def backward(self, i: int, wanted: list[int], has_gradient: set[int]) -> None:
        op = self._ops[i]
        which = _backward_reads(op)
        reads = [self.gradient(i)]
        if "X" in which:
            reads += [self._map("A", value) for value in op.operands]
        if "Y" in which:
            reads.append(self._map("A", i))
        is_product = op.kind in MATRIX_KINDS or (op.kind == "matmul" and op.parameters)
        if "W" in which and (wanted or not is_product):
            reads += [self._weight(name) for name in op.parameters]
        writes = [self.gradient(value) for value in wanted]
        writes += [self._weight_gradient(name) for name in op.trained]
        reads += [tensor for tensor in writes if tensor in has_gradient]
        has_gradient.update(writes)
        count = operations(op)
        if is_product:
            count *= bool(op.trained) + bool(wanted)
        elif op.kind == "matmul":
            count *= sum(value in wanted for value in op.operands)
        self._step(i, True, count, reads, writes)

    def program(self) -> Program:
        index, backward, operations = zip(*self._steps, strict=True)
        return Program(
            workload=self._workload,
            tensors=tuple(self._names),
            roles=tuple(name[0] for name in self._names),
            per_example=np.array(self._per_example, np.int64),
            fixed=np.array(self._fixed, np.int64),
            row=np.array(self._row, np.int64),
            in_memory=np.array(self.in_memory),
            op=np.array(index, np.int64),
            is_backward=np.array(backward),
            operations=np.array(operations, np.int64),
            first=np.array(self._first, np.int64),
            touched=np.array(self._touched, np.int64),
            reads=np.array(self._reads),
            writes=np.array(self._writes),
        )
