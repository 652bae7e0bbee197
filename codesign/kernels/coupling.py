"""Additive coupling: blocks whose backward pass needs their outputs only."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from codesign.kernels.boundary import apart, zero_after
from codesign.kernels.coupling_checks import check_streams, check_value, depth_of
from codesign.kernels.named_op import uncounted
from codesign.numerics import lattice
from codesign.numerics.read_errors import read
from codesign.types import Array, PyTree

Residual = Callable[[PyTree, PyTree, Array], tuple[Array, PyTree]]


class Streams(NamedTuple):
    """Two arrays of one shape and type, each the other's input in turn."""

    first: Array
    second: Array


class Reads(NamedTuple):
    """Of the memory that the streams are read from, at the end of each block.

    Attributes:
        rate: [depth] of values that are read as noise; see `numerics.read_errors.read`.
        words: [depth, 6, W] of random keys: of streams forward, back, of gradients.
    """

    rate: Array
    words: Array


class Coupled(NamedTuple):
    """What a stack makes.

    Attributes:
        streams: Its outputs.
        aux: What the residual functions said beside their values, a pair of pytrees
            [depth, ...]. It carries no gradient.
        num_overflows: [] int32 values of all blocks that left the lattice's range, after
            which the inverse is not exact; 0 of float streams.
    """

    streams: Streams
    aux: tuple[PyTree, PyTree]
    num_overflows: Array


def couple(
    f1: Residual,
    f2: Residual,
    blocks: tuple[PyTree, PyTree],
    shared: PyTree,
    streams: Streams,
    *,
    fraction_bits: int | None = None,
    reads: Reads | None = None,
) -> Coupled:
    """Runs a stack of reversible blocks.

        y2 = x2 + f1(x1),    y1 = x1 + f2(y2)         (CAMEL, Eq. 1)

    The backward pass computes x1 = y1 - f2(y2) and x2 = y2 - f1(x1) block by block, from
    the last to the first: memory is that of one block at any depth. Gradients reach
    whatever the functions close over. There is no forward-mode derivative; under `vmap`
    each element has gradients of its own before they are added, so a batch belongs into
    the streams.

    Args:
        f1, f2: `f(block, shared, x) -> (value, aux)`, the value of x's shape and type.
        blocks: Of f1 and of f2: pytrees [depth, ...], one slice for each block, such as
            parameters, taps, random keys. What has no derivative (whole numbers, keys,
            results of `lax.stop_gradient`) costs none.
        shared: Pytree that all blocks see.
        streams: [...] each, float32 with `fraction_bits`.
        fraction_bits: Of a lattice stream: all values are multiples of 2^-fraction_bits,
            so that additions are exact and the inverse returns the input bit for bit,
            while no value is beyond 2^(24 - fraction_bits). The gradient passes the
            rounding of f1 and f2. None leaves the streams as they are, with an inverse
            that is as exact as float additions are.
        reads: Of a memory that errs: each block leaves what is read of its outputs, and
            the backward pass reads them once more before it inverts them. No gradient
            reaches the rate.

    Raises:
        ValueError: If the streams or the values of f1 and f2 do not fit each other, the
            slices are not equally many, or `fraction_bits` is no whole number from 0 to
            23 or the streams are not float32 with it.
    """
    stack = _Stack.of(f1, f2, blocks, shared, streams, fraction_bits)
    run = jax.custom_vjp(stack.forward)
    run.defvjp(stack.forward_keeping_outputs, stack.backward, symbolic_zeros=True)
    return run(stack.blocks, stack.shared, Streams(*streams), reads)


def invert(
    f1: Residual,
    f2: Residual,
    blocks: tuple[PyTree, PyTree],
    shared: PyTree,
    streams: Streams,
    *,
    fraction_bits: int | None = None,
) -> Streams:
    """Inputs of `couple` from its outputs; arguments and errors as there."""
    stack = _Stack.of(f1, f2, blocks, shared, streams, fraction_bits)
    return stack.inverse(Streams(*streams))


class _Value(NamedTuple):
    """Of a residual function of one block.

    `value` is rounded; `pull` turns its cotangent into those of the leaves of the block
    and of what is shared, None where there is none. `pull_input(cotangent, i)` is that of
    the input; leaves of the block which it alone needs are sliced anew, by `i`, and so do
    not lie in memory before. `used` is 0; who does not pull adds it to a result.
    """

    value: Array
    aux: PyTree
    pull: Callable[[Array], tuple[list[Any], list[Any]]]
    pull_input: Callable[[Array, Array], Array]
    used: Array | int


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _Wanted:
    """Which leaves of both blocks and of what is shared are differentiated."""

    blocks: tuple[tuple[bool, ...], tuple[bool, ...]]
    shared: tuple[bool, ...]


@dataclasses.dataclass(frozen=True)
class _Stack:
    """A stack with its pytrees taken apart into leaves.

    Attributes:
        functions: f1 and f2, of leaves.
        blocks: Leaves [depth, ...] of both.
        shared: Leaves, with what f1 and f2 close over.
        fraction_bits: As of `couple`.
        depth: Number of blocks.
    """

    functions: tuple[Callable, Callable]
    blocks: tuple[list[Array], list[Array]]
    shared: list[Array]
    fraction_bits: int | None
    depth: int

    @classmethod
    def of(cls, f1, f2, blocks, shared, streams, fraction_bits) -> "_Stack":
        check_streams(streams, fraction_bits)
        depth = depth_of(blocks)
        shared, shared_tree = jax.tree.flatten(shared)
        functions, leaves, num_own = [], [], len(shared)
        for name, f, block in zip(("f1", "f2"), (f1, f2), blocks, strict=True):
            flat, block_tree = jax.tree.flatten(block)
            first = [jax.eval_shape(lambda a: a[0], leaf) for leaf in flat]

            def of_leaves(flat, shared, x, *, f=f, block_tree=block_tree):
                trees = block_tree.unflatten(flat), shared_tree.unflatten(shared)
                return f(*trees, x)

            x = jax.eval_shape(lambda x: x, streams[0])
            check_value(name, jax.eval_shape(of_leaves, first, shared[:num_own], x), x)
            f, held = jax.closure_convert(of_leaves, first, shared[:num_own], x)
            ends = len(shared), len(shared) + len(held)
            shared = [*shared, *held]

            def of_all(flat, shared, x, *, f=f, ends=ends):
                return f(flat, shared[:num_own], x, *shared[slice(*ends)])

            functions.append(of_all)
            leaves.append(flat)
        return cls(tuple(functions), tuple(leaves), shared, fraction_bits, depth)

    def forward(self, blocks, shared, streams, reads) -> Coupled:
        def step(streams: Streams, i: Array):
            x1, x2 = streams
            first = self._evaluate(0, i, blocks, shared, x1)
            y2 = x2 + first.value
            second = self._evaluate(1, _once(i, [y2]), blocks, shared, y2)
            y1 = x1 + second.value
            y1, y2 = self._read(reads, i, 0, (y1, y2))
            bits = self.fraction_bits
            num_beyond = uncounted(lattice.num_beyond, y1, y2, fraction_bits=bits)
            num_beyond += first.used + second.used
            return Streams(y1, y2), ((first.aux, second.aux), num_beyond)

        streams, (aux, beyond) = lax.scan(step, streams, jnp.arange(self.depth))
        return Coupled(streams, aux, jnp.sum(beyond))

    def forward_keeping_outputs(self, blocks, shared, streams, reads):
        first, second, of_all = (
            tuple(leaf.perturbed for leaf in leaves) for leaves in (*blocks, shared)
        )
        wanted = _Wanted((first, second), of_all)
        blocks, shared, streams, reads = jax.tree.map(
            lambda primal: primal.value, (blocks, shared, streams, reads)
        )
        found = self.forward(blocks, shared, streams, reads)
        return found, (blocks, shared, found.streams, reads, wanted)

    def backward(self, kept, cotangents: Coupled):
        blocks, shared, streams, reads, wanted = kept

        def half(k, i, x, y, d_x, d_y, d_blocks, d_shared):
            """Undoes y = x' + f(x): returns x', and d_x with f's share."""
            found = self._evaluate(k, i, blocks, shared, x)
            d_block, d_all = found.pull(d_y)
            d_blocks = [
                lax.dynamic_update_index_in_dim(stacked, new, i, 0)
                for stacked, new in zip(
                    d_blocks, _chosen(d_block, wanted.blocks[k]), strict=True
                )
            ]
            d_all = _chosen(d_all, wanted.shared)
            d_shared = [a + b for a, b in zip(d_shared, d_all, strict=True)]
            after = _once(i, [*(_at(leaf, i) for leaf in d_blocks), *d_shared])
            d_x = d_x + found.pull_input(d_y, after)
            return y - found.value, d_x, d_blocks, d_shared

        def step(carry, i):
            streams, gradients, (of_first, of_second), d_shared = carry
            y1, y2 = self._read(reads, i, 1, streams)
            d1, d2 = self._read(reads, i, 2, gradients, is_gradient=True)
            x1, d2, of_second, d_shared = half(
                1, i, y2, y1, d2, d1, of_second, d_shared
            )
            i = _once(i, [x1, d2, *(_at(leaf, i) for leaf in of_second), *d_shared])
            x2, d1, of_first, d_shared = half(0, i, x1, y2, d1, d2, of_first, d_shared)
            return (
                Streams(x1, x2),
                Streams(d1, d2),
                (of_first, of_second),
                d_shared,
            ), None

        d_streams = Streams(*map(_instantiated, cotangents.streams))
        # Zeros on the mesh of each leaf, which `zeros_like` may forget.
        zeros = tuple(
            [jnp.where(False, leaf, 0) for leaf in _chosen(leaves, flags)]
            for leaves, flags in zip(blocks, wanted.blocks, strict=True)
        )
        d_shared = [
            jnp.where(False, leaf, 0) for leaf in _chosen(shared, wanted.shared)
        ]
        (_, d_streams, d_blocks, d_shared), _ = lax.scan(
            step,
            (streams, d_streams, zeros, d_shared),
            jnp.arange(self.depth),
            reverse=True,
        )
        d_blocks = tuple(map(_spread, d_blocks, wanted.blocks))
        return d_blocks, _spread(d_shared, wanted.shared), d_streams, None

    def _read(self, reads, i, time: int, arrays, *, is_gradient: bool = False):
        """What a memory returns of two arrays after block i, for the `time`-th time."""
        if reads is None:
            return arrays
        words = _at(reads.words, i)[2 * time :]
        found = [
            uncounted(read, a, _at(reads.rate, i), word)
            for a, word in zip(arrays, words[:2], strict=True)
        ]
        bits = None if is_gradient else self.fraction_bits
        return [_nearest(a, bits) for a in found]

    def inverse(self, streams: Streams) -> Streams:
        def step(streams: Streams, i: Array):
            y1, y2 = streams
            second = self._evaluate(1, i, self.blocks, self.shared, y2)
            x1 = y1 - second.value
            i = _once(i, [x1])
            first = self._evaluate(0, i, self.blocks, self.shared, x1)
            return Streams(x1, y2 - first.value), second.used + first.used

        return lax.scan(step, streams, jnp.arange(self.depth), reverse=True)[0]

    def _evaluate(self, k: int, i: Array, blocks, shared, x: Array) -> _Value:
        """The value of f1 (k = 0) or f2 of block i.

        XLA fuses a value that is wanted alone otherwise than one whose derivative is
        wanted, too, which may change its last bit, and this its rounding to the lattice.
        On a lattice each evaluation, of the forward pass, the backward pass and the
        inverse, is the same computation apart, held so by a condition that XLA does not
        know to be true. What leaves it are results of products; all else between the
        value and its derivative is computed again.
        """
        block = [_at(leaf, i) for leaf in blocks[k]]
        is_float = [jnp.issubdtype(a.dtype, jnp.inexact) for a in (*block, *shared)]

        def evaluate(floats, x):
            def f(floats, x):
                leaves = _spread(floats, is_float, [*block, *shared])
                return self.functions[k](leaves[: len(block)], leaves[len(block) :], x)

            if self.fraction_bits is not None:
                policy = jax.checkpoint_policies.dots_saveable
                f = jax.checkpoint(f, prevent_cse=False, policy=policy)
            value, pull, aux = jax.vjp(f, floats, x, has_aux=True)
            return value, aux, pull

        floats = _chosen([*block, *shared], is_float)
        used: Array | int = 0
        if self.fraction_bits is None:
            value, aux, pull = evaluate(floats, x)
        else:
            value, aux, pull, used = _apart(evaluate, floats, x, i)

        def pull_leaves(cotangent: Array):
            d = _spread(pull(cotangent)[0], is_float)
            return d[: len(block)], d[len(block) :]

        def pull_input(cotangent: Array, i: Array) -> Array:
            residuals, tree = jax.tree.flatten(pull)
            places = {id(leaf): place for place, leaf in enumerate(block)}
            is_used = _needed(
                lambda residuals: tree.unflatten(residuals)(cotangent)[0], residuals
            )
            again = [
                _at(blocks[k][places[id(a)]], i) if id(a) in places and not used else a
                for a, used in zip(residuals, is_used, strict=True)
            ]
            return tree.unflatten(again)(cotangent)[1]

        value = _nearest(value, self.fraction_bits)
        return _Value(value, aux, pull_leaves, pull_input, used)


def _apart(evaluate: Callable, floats: list[Array], x: Array, i: Array):
    """`evaluate(floats, x)`, computed apart, and a 0 that needs all of its outcome."""
    made = []

    def run(floats, x):
        value, aux, pull = evaluate(floats, x)
        leaves, tree = jax.tree.flatten(pull)
        given = {id(a): place for place, a in enumerate((*floats, x))}
        made.append((tree, [given.get(id(leaf)) for leaf in leaves]))
        return value, aux, [leaf for leaf in leaves if id(leaf) not in given]

    value, aux, kept = apart(run, floats, x, after=[i])
    tree, places = made[-1]
    own = iter(kept)
    pull = tree.unflatten(
        [next(own) if place is None else (*floats, x)[place] for place in places]
    )
    return value, aux, pull, zero_after(kept)


def _nearest(x: Array, bits: int | None) -> Array:
    return uncounted(lattice.nearest, x, fraction_bits=bits)


def _once(i: Array, arrays: list[Array]) -> Array:
    """`i`, once `arrays` are there: what is sliced by it does not lie beside them."""
    return i + zero_after(arrays)


def _needed(fn: Callable[[list[Array]], PyTree], arrays: list[Array]) -> list[bool]:
    """Which of `arrays` the outcome of `fn(arrays)` depends on."""
    jaxpr = jax.make_jaxpr(fn)(arrays).jaxpr
    needed = {*map(id, jaxpr.outvars)}
    for equation in reversed(jaxpr.eqns):
        if not needed.isdisjoint(map(id, equation.outvars)):
            needed.update(map(id, equation.invars))
    return [id(variable) in needed for variable in jaxpr.invars]


def _at(leaf: Array, i: Array) -> Array:
    return lax.dynamic_index_in_dim(leaf, i, keepdims=False)


def _chosen(values: Sequence[Any], flags: Sequence[bool]) -> list[Any]:
    return [value for value, flag in zip(values, flags, strict=True) if flag]


def _spread(
    values: Sequence[Any], flags: Sequence[bool], others: Sequence[Any] = ()
) -> list[Any]:
    """`values` at the places of `flags`, `others` or None elsewhere."""
    rest, others = iter(values), others or [None] * len(flags)
    return [next(rest) if f else o for o, f in zip(others, flags, strict=True)]


def _instantiated(cotangent: Any) -> Array:
    shaped: Any = getattr(cotangent, "aval", None)
    is_zero = isinstance(cotangent, SymbolicZero)
    return jnp.zeros(shaped.shape, shaped.dtype) if is_zero else cotangent
