"""Tells the inputs of a network from its parameters."""

import inspect
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from codesign.types import is_whole
from codesign.workload.tracing.node import NOISE, Value

_COLLECTIONS = ("params", "batch_stats")  # of Flax, no part of a name
_LEAF_ENDS = ("value",)  # that NNX adds to a path


class Leaves:
    """Names and sizes of parameter leaves, by number.

    Args:
        train_constants: Whether arrays that the function closes over are trained.

    Attributes:
        names, sizes: Of each leaf.
        fixed: Those leaves that are constants, with their arrays.
    """

    def __init__(self, *, train_constants: bool = False):
        self._trains = train_constants
        self.fixed: dict[int, Any] = {}
        self.names: list[str] = []
        self.sizes: list[int] = []
        self._slices: dict[tuple[int, int], int] = {}

    def add(self, name: str, size: int) -> int:
        """Registers a leaf; returns its number."""
        self.names.append(name)
        self.sizes.append(size)
        return len(self.names) - 1

    def slice(self, leaf: int, step: int, length: int) -> int:
        """The part of a stacked leaf that one step of an unrolled loop reads."""
        if self.sizes[leaf] % length:
            return leaf  # mixed into the stack, not stacked itself
        key = (leaf, step)
        if key not in self._slices:
            name = f"{self.names[leaf]}@{step}" if self.names[leaf] else ""
            self._slices[key] = self.add(name, self.sizes[leaf] // length)
            if leaf in self.fixed:
                self.fixed[self._slices[key]] = self.fixed[leaf]
        return self._slices[key]

    def constant(self, array: Any, name: str = "") -> Value:
        """The value of an array that is no input: a parameter, a constant or a key.

        One without a name is no argument: the function closes over it.
        """
        shape, dtype = tuple(jnp.shape(array)), array.dtype
        if jnp.issubdtype(dtype, jax.dtypes.prng_key):
            return Value(shape=shape, noise=NOISE)
        # Vectors of integers index or count; a matrix of them may be quantised weights.
        is_number = jnp.issubdtype(dtype, jnp.inexact) or (
            jnp.issubdtype(dtype, jnp.integer) and len(shape) > 1
        )
        if not is_number or not (name or len(shape)):
            return Value(shape=shape)
        leaf = self.add(name, math.prod(shape))
        leaves = trained = frozenset((leaf,))
        if not name and not self._trains:
            self.fixed[leaf], trained = array, frozenset()
        return Value(shape=shape, leaves=leaves, trained=trained)


def find_inputs(
    fn: Callable, args: Sequence[Any], inputs: Sequence[int] | None
) -> tuple[int, ...]:
    """Numbers of the arguments that carry a batch of 1.

    Args:
        fn: The function, for the names of its arguments.
        args: Its positional arguments.
        inputs: The answer, if the user knows it; checked.

    Raises:
        ValueError: If an input has no batch of 1, or none is found.
    """
    names = argument_names(fn, len(args))
    if inputs is not None:
        known = range(len(args))
        is_several = isinstance(inputs, Sequence) and all(map(is_whole, inputs))
        if (
            not is_several
            or not set(inputs) <= {*known}
            or len({*inputs}) < len(inputs)
        ):
            raise ValueError(
                f"`inputs` (={inputs!r}) must number positional arguments, each once, "
                f"from 0 to {len(args) - 1}, such as (1,)."
            )
        for number in inputs:
            for leaf in jax.tree.leaves(args[number]):
                if jnp.shape(leaf)[:1] != (1,):
                    raise _batch_error(names[number], leaf)
        return tuple(inputs)
    found = [i for i, arg in enumerate(args) if _is_batched(arg)]
    if found:
        return tuple(found)
    shapes = [
        f"`{name}` has {_batch(jax.tree.leaves(arg)[0])}"
        for name, arg in zip(names, args, strict=True)
        if jax.tree.leaves(arg) and not isinstance(arg, Mapping)
    ]
    raise ValueError(
        f"`fn` (={fn!r}) has no argument with a leading batch axis of 1"
        + (f", but {', '.join(shapes)}" if shapes else "")
        + "; inputs are counted for one example: pass batches of 1, or say which "
        "arguments are inputs with `inputs=`."
    )


def ambiguous(args: Sequence[Any], numbers: Sequence[int]) -> list[int]:
    """Those inputs that are a single float, where others are not.

    A time step or a target looks like this, and so does a scale that is trained.
    """
    single = [i for i in numbers if all(map(_is_single, jax.tree.leaves(args[i])))]
    return single if len(single) < len(numbers) else []


def warn_of_single(
    names: Sequence[str], unsure: Sequence[int], inputs: Sequence[int]
) -> None:
    """Says of each ambiguous argument what it was taken for, and how to decide."""
    for number in unsure:
        others = tuple(i for i in inputs if i != number)
        warnings.warn(
            f"The argument `{names[number]}` is a single float and was taken for an "
            f"input, such as a time step. Say so with `inputs={tuple(inputs)}`; if it is "
            f"a parameter or a mask, say `inputs={others}`.",
            stacklevel=3,
        )


def argument_names(fn: Callable, count: int) -> list[str]:
    """Names of the first `count` positional arguments."""
    try:
        names = list(inspect.signature(fn).parameters)
    except (TypeError, ValueError):
        names = []
    return [names[i] if i < len(names) else f"args[{i}]" for i in range(count)]


def leaf_names(arg: Any, name: str) -> list[str]:
    """Paths of an argument's leaves; a bare array is called `name`."""
    found = []
    for path, _ in jax.tree_util.tree_flatten_with_path(arg)[0]:
        parts = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
        if parts[0] in _COLLECTIONS and len(parts) > 1:
            parts = parts[1:]
        if parts[-1] in _LEAF_ENDS and len(parts) > 1:
            parts = parts[:-1]
        found.append("/".join(part for part in parts if part) or name)
    return found


def _is_batched(arg: Any) -> bool:
    leaves = jax.tree.leaves(arg)
    return bool(leaves) and all(
        jnp.shape(leaf)[:1] == (1,)
        and not jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key)
        for leaf in leaves
    )


def _is_single(leaf: Any) -> bool:
    return jnp.ndim(leaf) == 1 and jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def _batch_error(name: str, leaf: Any) -> ValueError:
    return ValueError(
        f"The argument `{name}` has {_batch(leaf)}; inputs are counted for one example: "
        "pass batches of 1, or say which arguments are inputs with `inputs=`."
    )


def _batch(leaf: Any) -> str:
    shape = jnp.shape(leaf)
    return f"{f'a batch of {shape[0]}' if shape else 'no batch axis'} (shape {shape})"
