"""Stacks of blocks of two residual functions, each block with variables of its own."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import core
from flax.core.scope import subtract_filters

from codesign.kernels.named_op import uncounted
from codesign.numerics.read_errors import read, read_gradient
from codesign.types import Array, PyTree, is_whole

PLACES = {"f1": "residual1", "f2": "residual2"}  # of their variables


class Parts(NamedTuple):
    """Two functions `f(block, shared, x) -> (value, updates)`, and all their blocks."""

    f1: Callable
    f2: Callable
    blocks: tuple[PyTree, PyTree]


class BlockStack(nn.Module):
    """`depth` blocks of `f1` and `f2`; a subclass says how they are joined.

    A block has parameters and other variables of its own, stacked [depth, ...] under
    `residual1` and `residual2`: all kinds of stacks have the same variables.

    Attributes:
        f1, f2: Residual functions, any modules `f(x, *each, **settings)` whose output has
            the input's shape and type; one and the same may stand in both places.
        depth: Number of blocks.
    """

    f1: nn.Module
    f2: nn.Module
    depth: int

    def check(self) -> None:
        """Refuses fields that are none.

        Raises:
            TypeError: If `f1` or `f2` is no Flax module.
            ValueError: If `depth` is no positive whole number.
        """
        for name in PLACES:
            if not isinstance(getattr(self, name), nn.Module):
                raise TypeError(
                    f"`{name}` (={getattr(self, name)!r}) must be an instance of a "
                    "`flax.linen.Module`."
                )
        if not is_whole(self.depth) or self.depth < 1:
            raise ValueError(
                f"`depth` (={self.depth!r}) must be a positive whole number."
            )

    def draw(
        self,
        x: Array,
        each: PyTree,
        settings: Mapping[str, Any],
        fetch: Callable[..., tuple] | None = None,
    ) -> None:
        """Draws the variables of each block; called while initialising."""
        first = jax.tree.map(lambda leaf: leaf[0], each)
        if fetch is not None:
            first = fetch(*first)
        for name, place in PLACES.items():
            function = getattr(self, name)
            keys = jax.random.split(self.make_rng("params"), self.depth)

            def init(key: Array, function: nn.Module = function) -> PyTree:
                return function.copy(parent=None).init(key, x, *first, **settings)

            made = jax.vmap(init)(keys)
            self.param(place, lambda _, made=made: made.pop("params", {}))
            for collection, values in made.items():
                self.variable(collection, place, lambda values=values: values)

    def parts(
        self,
        each: PyTree,
        settings: Mapping[str, Any],
        rate: Array | None = None,
        fetch: Callable[..., tuple] | None = None,
    ) -> Parts:
        """The residual functions and their blocks.

        Args:
            each: Further arguments, one for each block, [depth, ...].
            settings: Likewise, the same for all.
            rate: [depth] of reads of inputs and gradients that are wrong.
            fetch: Turns the slices of `each` into the arguments of F1 and F2, wherever
                one of them runs, so that what it makes is not kept.
        """
        blocks = []
        for place in PLACES.values():
            variables = {
                collection: found[place]
                for collection, found in self.variables.items()
                if place in found
            }
            keys = {
                stream: jax.random.split(self.make_rng(stream), self.depth)
                for stream in (self.scope.rngs if self.scope else {})
            }
            wrong = None if rate is None else (rate, self.keys(2))
            blocks.append((variables, keys, each, wrong, jnp.arange(self.depth)))
        f1, f2 = (self._function(name, settings, fetch) for name in PLACES)
        return Parts(f1, f2, (blocks[0], blocks[1]))

    def keys(self, count: int) -> Array:
        """[depth, count, 2] words of random keys of read errors."""
        keys = jax.random.split(self.make_rng("errors"), (self.depth, count))
        return jax.random.key_data(keys)

    def _function(
        self, name: str, settings: Mapping[str, Any], fetch: Callable | None
    ) -> Callable:
        """F1 or F2 of a block's own variables, under its place's path."""
        scope = self.scope
        mutable = False
        if scope is not None:
            mutable = subtract_filters(scope.mutable, "params")
        path = (*self.path, PLACES[name])

        def run(block: PyTree, shared: PyTree, x: Array) -> tuple[Array, PyTree]:
            del shared
            variables, keys, each, wrong, _ = block
            if wrong is not None:
                x = uncounted(read, x, wrong[0], wrong[1][0])
            arguments = each if fetch is None else fetch(*each)
            root = core.bind(variables, rngs=keys or None, mutable=mutable)
            root.path = path
            with root.temporary():
                function = getattr(self, name).copy(parent=root)
                value = function(x, *arguments, **settings)
            if wrong is not None:
                value = uncounted(read_gradient, value, wrong[0], wrong[1][1])
            return value, root.mutable_variables() if mutable else {}

        return run

    def record(self, updates: tuple[PyTree, PyTree]) -> None:
        """Keeps what F1 and F2 of all blocks changed of their variables, [depth, ...]."""
        if self.is_initializing():
            return
        for place, found in zip(PLACES.values(), updates, strict=True):
            for collection, values in found.items():
                self.put_variable(collection, place, values)
