"""One op of a network: its kind, its shapes, and the rules they keep."""

import collections
import dataclasses
import graphlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator

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
    """One op of a network, counted for one example and one run; shapes have no batch.

    Ops that name the same parameter share it. No gradient flows back to the operands in
    `detached`, which the op reads behind a stopped gradient or as indices.
    """

    name: str  # module path, or file and line
    kind: str  # one of `KINDS`
    operands: tuple[int, ...]  # ops whose outputs it reads; -1 - k is input k
    output_shape: Shape
    input_shape: Shape = ()  # of its first operand as the op sees it
    variant: str = ""  # which member of the kind: `relu`, `max`, `layer`
    weight_shape: Shape = ()  # [..., fan_out] of a kernel; of a conv [h, w, C / g, K]
    parameters: tuple[str, ...] = ()  # names of the weights and constants that it reads
    macs: int = 0  # multiply-accumulates
    window: int = 1  # values that one output combines: k * k of a pool
    repeats: int = 1  # how often a loop runs it
    site: int = -1  # batch-norm site that it stands for, or -1
    detached: tuple[int, ...] = ()  # those of `operands` that it reads as constants
    fixed: tuple[str, ...] = ()  # those of `parameters` without a gradient

    @property
    def trained(self) -> tuple[str, ...]:
        """Those of `parameters` that have a gradient."""
        return tuple(name for name in self.parameters if name not in self.fixed)

    @property
    def elements(self) -> int:
        """Output elements of one run."""
        return math.prod(self.output_shape)


def conv_pairs(given: Iterable[int], made: Iterable[int], taps: Iterable[int]) -> int:
    """Pairs of a value and a tap that a convolution multiplies, in one channel of each.

        pairs = taps * min(positions of its input, positions of its output)

    Every output meets every tap, padding included; where there are more outputs than
    inputs, as of a transposed convolution, every input does, without the zeros that are
    inserted or put around. Its two gradients pair the same values.

    Args:
        given, made: Height and width of its input and of its output.
        taps: Of its kernel.
    """
    return math.prod(taps) * min(math.prod(given), math.prod(made))


def check_names(ops: tuple[Op, ...]) -> None:
    """Raises ValueError if two ops share a name."""
    for name, count in collections.Counter(op.name for op in ops).items():
        if count > 1:
            raise ValueError(f"Two ops are called {name!r}; give each its own name.")


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


def check_op(
    op: Op,
    operand_shapes: list[Shape],
    sizes: dict[str, int],
    constants: dict[str, int],
) -> None:
    """Checks that an op's fields fit together, and that its operands fit its kind.

    Args:
        op: Its operands exist.
        operand_shapes: Without the batch, in the order of `op.operands`.
        sizes, constants: Elements of each weight and of each constant, by name.

    Raises:
        ValueError: Names the op and the rule.
    """
    of_kind = _FAULTS.get(op.kind, lambda *_: ())
    # Lazy: a fault may keep the checks that follow it from making sense.
    for why in itertools.chain(
        _faults(op, sizes, constants), of_kind(op, operand_shapes)
    ):
        raise ValueError(f"The op {op.name!r} ({op.kind}): {why}.")


def _faults(op: Op, sizes: dict[str, int], constants: dict[str, int]) -> Iterator[str]:
    """Yields what is wrong with an op of any kind."""
    if op.kind not in KINDS:
        yield (
            f"its kind must be one of {list(KINDS)}; take `elementwise` or `reduce` for "
            "one that has no name of its own"
        )
    counts = (
        *op.output_shape,
        *op.input_shape,
        *op.weight_shape,
        op.repeats,
        op.window,
    )
    if min(counts) < 1:
        yield (
            f"its shapes {op.input_shape} -> {op.output_shape}, kernel "
            f"{op.weight_shape}, repeats {op.repeats} and window {op.window} must be "
            "positive"
        )
    if op.macs < 0 or op.macs != int(op.macs):
        yield f"its MACs (={op.macs}) must be a whole number of at least 0"
    if not set(op.detached) <= set(op.operands):
        yield f"what it reads as constants, {op.detached}, must be among its operands"
    if not set(op.fixed) <= set(op.parameters):
        yield f"its constants, {op.fixed}, must be among its parameters"
    if trained := sorted(set(op.trained) & constants.keys()):
        yield f"it trains the constant {trained[0]!r}, which must be in its `fixed`"
    for name in op.parameters:
        size = sizes.get(name, constants.get(name, 0))
        if size < 1 or size != int(size):
            yield f"its parameter {name!r} needs a whole size in `parameters`"


def _matrix_faults(op: Op, operands: list[Shape]) -> Iterator[str]:
    """A kernel multiplies whole groups of inputs, and gives whole groups of outputs."""
    kernel, num_inputs = op.weight_shape, math.prod(op.input_shape)
    if not kernel or not op.input_shape:
        yield "it needs a `weight_shape` and an `input_shape`"
    if operands and math.prod(operands[0]) != num_inputs:
        yield (
            f"its `input_shape` {op.input_shape} does not hold the "
            f"{math.prod(operands[0])} values of its operand {operands[0]}"
        )
    if op.kind == "dense":
        fits = num_inputs % math.prod(kernel[:-1]) == 0
    else:
        fits = op.input_shape[-1] % kernel[-2] == 0  # channels, in groups
    if not fits or op.elements % kernel[-1]:
        yield f"its kernel {kernel} does not fit {op.input_shape} -> {op.output_shape}"


def _map_faults(op: Op, operands: list[Shape]) -> Iterator[str]:
    """One value comes out for each value of the operand."""
    if operands and math.prod(operands[0]) != op.elements:
        yield f"it makes {op.output_shape} of {operands[0]}; shapes must agree"


def _join_faults(op: Op, operands: list[Shape]) -> Iterator[str]:
    """Operands stand side by side; constants may fill the rest."""
    if sum(map(math.prod, operands)) > op.elements:
        yield f"operands {operands} do not fit into {op.output_shape}"


def _spread_faults(op: Op, operands: list[Shape]) -> Iterator[str]:
    """Every operand is repeated over the output a whole number of times."""
    for shape in operands:
        if math.prod(shape) > op.elements or op.elements % math.prod(shape):
            yield f"operand {shape} does not spread over {op.output_shape}"


# How operands fit an op, by its kind; of kinds that are not here, any fit.
_FAULTS: dict[str, Callable[[Op, list[Shape]], Iterator[str]]] = {
    **dict.fromkeys(MATRIX_KINDS, _matrix_faults),
    **dict.fromkeys(
        ("norm", "activation", "softmax", "dropout", "elementwise"), _map_faults
    ),
    "concat": _join_faults,
    **dict.fromkeys(("add", "mul"), _spread_faults),
}
