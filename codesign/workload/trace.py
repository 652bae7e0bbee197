"""Traces a JAX function into a workload by walking its jaxpr."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from codesign.workload.graph import Workload
from codesign.workload.op import TYPE_I_KINDS
from codesign.workload.tracing.arguments import (
    Leaves,
    ambiguous,
    argument_names,
    find_inputs,
    leaf_names,
    warn_of_single,
)
from codesign.workload.tracing.assemble import assemble
from codesign.workload.tracing.node import Value
from codesign.workload.tracing.walk import Walk


def trace(
    fn: Callable,
    *args: Any,
    inputs: Sequence[int] | None = None,
    unroll_scans: bool = False,
    train_constants: bool = False,
) -> Workload:
    """Counts the ops of `fn(*args)` for one example, without running it.

    An argument is an input of the network or holds parameters, which are trained: what
    `jax.grad` by these arguments differentiates. Arrays that `fn` closes over, such as
    means of images and tables of positions, are fixed tensors. What depends on an input
    is data, and costs; what is computed from parameters and constants alone is free, as
    is its gradient, which `trace_gradient` counts.
    Convolutions and matrix products by parameters are `conv` and `dense` (with the bias
    that is added to them), products of two maps are `matmul`, and chains of point-wise
    steps become the layers that people know: norms, softmax, dropout, activations.
    Views are free, and so is padding in front of a convolution or a pool; elsewhere a
    map that is padded or repeated is a `resize`. Steps that reach no output are dropped.

    A product that is written as a multiplication and a sum, `(x[..., None] * w).sum(-2)`,
    is a `reduce` of the map in between and counts no MACs. What is read behind a stopped
    gradient, as an index or as a mask is in `Op.detached`; weights that are, or that are
    integers, are in `Op.fixed`, and a trained bias behind one is an `add` of its own. A
    function with a custom derivative is taken to pass a gradient to all that it reads.

    Nested `jit`, `remat`, `custom_jvp` and `custom_vjp` are entered. A `cond` counts as
    its branch with the most MACs. The body of a `scan` (or `fori_loop` with fixed
    bounds) is recorded once, with the number of its runs in `repeats`; a map that it
    scans over is cut by a `slice`, and what it stacks is put together by a `resize`
    named `stack`. With `unroll_scans` the body is recorded for every step, as `name@3`,
    linked through what it carries, and all steps share their weights.

    Names are Linen module paths; elsewhere `file.py:line` and the kind.

    Args:
        fn: The function.
        *args: Arrays, or `jax.ShapeDtypeStruct`s; nothing is computed.
        inputs: Numbers of the arguments that are inputs. By default those with a leading
            axis of 1 in every leaf: pass batches of 1. A kernel may look the same; if the
            second such argument or a later one enters a product as it stands, that is
            refused until `inputs` says what it is.
        unroll_scans: Whether to record every step of a loop.
        train_constants: Whether arrays that `fn` closes over are trained, as where a
            model is an object that holds its weights.

    Raises:
        ValueError: If an input has no batch of 1, no matrix op is found, layers stand in
            a `while` loop, or the cost of something that computes on data (a kernel, a
            callback) is not known.

    Warns:
        UserWarning: Naming the largest array that `fn` closes over; and an argument that
            is a single float beside wider inputs, which is taken for an input too.
    """
    numbers = find_inputs(fn, args, inputs)
    names = argument_names(fn, len(args))
    closed = jax.make_jaxpr(fn)(*args)

    def walked(numbers: Sequence[int]) -> tuple[Workload, Walk]:
        walk = Walk(Leaves(train_constants=train_constants), unroll_scans=unroll_scans)
        values, shapes = [], []
        for number, (name, arg) in enumerate(zip(names, args, strict=True)):
            paths = leaf_names(arg, name)
            for path, leaf in zip(paths, jax.tree.leaves(arg), strict=True):
                if number in numbers:
                    shapes.append(tuple(jnp.shape(leaf)))
                    values.append(Value(shape=shapes[-1], source=-len(shapes)))
                else:
                    aval = closed.in_avals[len(values)]
                    values.append(walk.leaves.constant(aval, path))
        outputs = walk.outputs(closed, values)
        return assemble(walk.nodes, outputs, shapes, walk.leaves), walk

    ops, walk = walked(numbers)
    unsure = ambiguous(args, numbers) if inputs is None else []
    read = {i for op in ops.ops for i in op.operands}
    owners = [i for i in numbers for _ in jax.tree.leaves(args[i])]
    unread = [i for i in unsure if -1 - owners.index(i) not in read]
    if unread:  # masks of a single batch norm, no inputs
        numbers = tuple(i for i in numbers if i not in unread)
        unsure = [i for i in unsure if i in numbers]
        ops, walk = walked(numbers)
    if not any(kind in TYPE_I_KINDS for kind in ops.kinds):
        raise ValueError(
            f"`fn` (={fn!r}) holds no convolution or dense layer to count."
        )
    if inputs is None:
        owners = [i for i in numbers for _ in jax.tree.leaves(args[i])]
        _check_inputs(ops, names, owners)
    warn_of_single(names, unsure, numbers)
    _warn_of_constants(walk)
    return ops


def _check_inputs(ops: Workload, names: Sequence[str], owners: Sequence[int]) -> None:
    """Refuses a guess: a kernel with a leading axis of 1 looks like an input.

    Args:
        ops: Counted with that guess.
        names: Of the arguments.
        owners: Numbers of the arguments that the inputs of `ops` come from.
    """
    numbers = tuple(dict.fromkeys(owners))
    for op in ops.ops:
        raw = [owners[-1 - i] for i in op.operands if i < 0]
        if op.kind != "matmul" or not any(-1 - i for i in op.operands if i < 0):
            continue
        ways = [
            f"`inputs={tuple(n for n in numbers if n != number)}` if `{names[number]}` "
            "holds parameters"
            for number in dict.fromkeys((*raw, *numbers))
        ]
        raise ValueError(
            f"The product at {op.name!r} multiplies the argument `{names[raw[-1]]}` as it "
            f"stands, and a leading axis of 1 does not tell inputs from parameters. Say "
            f"{', '.join(ways)}; `inputs={numbers}` if all of them are inputs."
        )


def _warn_of_constants(walk: Walk) -> None:
    """Says which arrays have no gradient, as the function closes over them."""
    arrays = {
        leaf: array
        for leaf, array in walk.leaves.fixed.items()
        if jnp.issubdtype(array.dtype, jnp.inexact)  # others cannot be trained
    }
    readers: dict[int, str] = {}
    for node in walk.nodes:
        for leaf in node.leaves & arrays.keys():
            readers.setdefault(leaf, node.place.name)
    if not readers:
        return
    largest = max(readers, key=lambda leaf: walk.leaves.sizes[leaf])
    array, reader = arrays[largest], readers[largest]
    count = len({id(arrays[leaf]) for leaf in readers})
    warnings.warn(
        f"`fn` closes over {count} array(s), the largest {array.dtype} "
        f"{tuple(jnp.shape(array))}, read at {reader!r}. They are fixed tensors "
        "without a gradient; pass what is trained as an argument, or train them all with "
        "`train_constants=True`.",
        stacklevel=3,
    )
