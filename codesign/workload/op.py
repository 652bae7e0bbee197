"""One op of a network: its kind, its shapes, and the rules they keep."""

import dataclasses
import graphlib
import math

# Kinds of ops. `Op.variant` tells the members of a kind apart where it matters.
MATRIX_KINDS = ("conv", "dense")  # ops whose weights a crossbar or an array can hold
TYPE_I_KINDS = (*MATRIX_KINDS, "matmul")  # many products a value: what computes
TYPE_II_KINDS = (  # one or a few operations a value: what moves data
    "norm",  # batch, layer, group, rms
    "activation",  # relu, sigmoid, tanh, gelu, silu, ...
    "softmax",
    "dropout",
    "add",  # add, sub; of maps, or of a map and a parameter
    "mul",  # mul, div; of maps, or of a map and a parameter
    "concat",
    "slice",
    "pool",  # max, average, global_average
    "resize",  # nearest, bilinear
    "embedding",
    "reduce",  # sum, mean, max, over axes that are no image
    "elementwise",  # any other chain of point-wise operations
)
KINDS = (*TYPE_I_KINDS, *TYPE_II_KINDS)

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Op:
    """One op of a network, counted for one example and one run.

    Attributes:
        name: Module path, or file and line.
        kind: One of `KINDS`.
        variant: Which member of the kind: `relu`, `max`, `layer`; may be empty.
        operands: Ops whose outputs it reads, in order; -1 - k is input k of the network.
        input_shape: Of its first operand as the op sees it, without the batch.
        output_shape: Without the batch.
        weight_shape: [..., fan_out] of a conv or dense kernel, else empty. A convolution
            of g groups has [kernel_h, kernel_w, C / g, K].
        parameters: Names of the weight tensors that it reads; ops that name the same
            tensor share it.
        macs: Multiply-accumulates.
        window: Values that one output combines: k * k of a pool, else 1.
        repeats: How often a loop runs it.
        site: Batch-norm site that it stands for, or -1.
        detached: Those of `operands` that it reads as constants: behind a stopped
            gradient, or as indices. No gradient flows back to them.
        fixed: Those of `parameters` that are constants: they have no gradient.
    """

    name: str
    kind: str
    operands: tuple[int, ...]
    output_shape: Shape
    input_shape: Shape = ()
    variant: str = ""
    weight_shape: Shape = ()
    parameters: tuple[str, ...] = ()
    macs: int = 0
    window: int = 1
    repeats: int = 1
    site: int = -1
    detached: tuple[int, ...] = ()
    fixed: tuple[str, ...] = ()

    @property
    def trained(self) -> tuple[str, ...]:
        """Those of `parameters` that have a gradient."""
        return tuple(name for name in self.parameters if name not in self.fixed)

    @property
    def elements(self) -> int:
        """Output elements of one run."""
        return math.prod(self.output_shape)


def check_names(ops: tuple[Op, ...]) -> None:
    """Raises ValueError if two ops share a name."""
    seen: set[str] = set()
    for op in ops:
        if op.name in seen:
            raise ValueError(f"Two ops are called {op.name!r}; give each its own name.")
        seen.add(op.name)


def check_order(ops: tuple[Op, ...], inputs: tuple[Shape, ...]) -> None:
    """Raises ValueError unless every op stands after its operands."""
    num_inputs = len(inputs)
    for shape in inputs:
        if min(shape, default=1) < 1:
            raise ValueError(f"`inputs` has a shape {shape}; sizes must be positive.")
    late = []
    for i, op in enumerate(ops):
        for operand in op.operands:
            if not -num_inputs <= operand < len(ops):
                raise ValueError(
                    f"The op {op.name!r} reads operand {operand}; there are {len(ops)} "
                    f"ops and {num_inputs} inputs (-1 is the first input)."
                )
            if operand >= i:
                late.append((op, ops[operand]))
    if not late:
        return
    feeds = {
        i: [operand for operand in op.operands if operand >= 0]
        for i, op in enumerate(ops)
    }
    try:
        graphlib.TopologicalSorter(feeds).prepare()
    except graphlib.CycleError as error:
        path = " -> ".join(repr(ops[i].name) for i in error.args[1])
        raise ValueError(
            f"The graph has a cycle: {path}; unroll the loop that it stands for."
        ) from None
    op, producer = late[0]
    raise ValueError(
        f"The op {op.name!r} stands before {producer.name!r}, which it reads; list "
        "every op after its operands."
    )


# Ops that give one value for each value of their operand.
_ELEMENTWISE = ("norm", "activation", "softmax", "dropout", "elementwise")


def check_op(op: Op, operand_shapes: list[Shape], sizes: dict[str, int]) -> None:
    """Raises ValueError, naming the op and the rule, unless its shapes fit together."""
    why = _fault(op, operand_shapes, sizes)
    if why:
        raise ValueError(f"The op {op.name!r} ({op.kind}): {why}.")


def _fault(op: Op, operand_shapes: list[Shape], sizes: dict[str, int]) -> str:
    """What is wrong with an op, or an empty string."""
    kernel, output = op.weight_shape, op.output_shape
    given = [math.prod(shape) for shape in operand_shapes]
    if op.kind not in KINDS:
        return (
            f"its kind must be one of {list(KINDS)}; take `elementwise` or `reduce` for "
            "one that has no name of its own"
        )
    counts = (*output, *op.input_shape, *kernel, op.repeats, op.window)
    if min(counts) < 1:
        return (
            f"its shapes {op.input_shape} -> {output}, kernel {kernel}, repeats "
            f"{op.repeats} and window {op.window} must be positive"
        )
    if op.macs < 0 or op.macs != int(op.macs):
        return f"its MACs (={op.macs}) must be a whole number of at least 0"
    if not set(op.detached) <= set(op.operands):
        return f"what it reads as constants, {op.detached}, must be among its operands"
    if not set(op.fixed) <= set(op.parameters):
        return f"its constants, {op.fixed}, must be among its parameters"
    for name in op.parameters:
        if sizes.get(name, 0) < 1 or sizes[name] != int(sizes[name]):
            return f"its parameter {name!r} needs a whole size in `parameters`"
    if op.kind in MATRIX_KINDS:
        if not kernel or not op.input_shape:
            return "it needs a `weight_shape` and an `input_shape`"
        if given and given[0] != math.prod(op.input_shape):
            return (
                f"its `input_shape` {op.input_shape} does not hold the {given[0]} values "
                f"of its operand {operand_shapes[0]}"
            )
        inputs = op.input_shape[-1]
        takes = math.prod(kernel[:-1]) if op.kind == "dense" else kernel[-2]
        fits = (
            math.prod(op.input_shape) % takes == 0
            if op.kind == "dense"
            else (inputs % takes == 0)
        )
        if not fits or op.elements % kernel[-1]:
            return f"its kernel {kernel} does not fit {op.input_shape} -> {output}"
    if op.kind in _ELEMENTWISE and given and given[0] != op.elements:
        return f"it makes {output} of {operand_shapes[0]}; shapes must agree"
    if op.kind == "concat" and sum(given) > op.elements:  # constants may fill the rest
        return f"operands {operand_shapes} do not fit into {output}"
    if op.kind in ("add", "mul"):
        for shape, count in zip(operand_shapes, given, strict=True):
            if count > op.elements or op.elements % count:
                return f"operand {shape} does not spread over {output}"
    return ""
