"""Reversible stacks of residual functions, which keep no activation to go back."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import core
from flax.core.scope import subtract_filters
from jax.core import Tracer

from codesign.kernels.coupling import Coupled, Streams, couple, invert
from codesign.numerics.lattice import largest, to_lattice
from codesign.types import Array, PyTree, is_whole

_PLACES = {"f1": "residual1", "f2": "residual2"}  # of their variables


class ReversibleStack(nn.Module):
    """`depth` blocks y2 = x2 + F1(x1), y1 = x1 + F2(y2), whose inputs follow from outputs.

        class F(nn.Module):
            @nn.compact
            def __call__(self, x):
                return nn.Dense(x.shape[-1])(nn.gelu(nn.LayerNorm()(x)))

        stack = ReversibleStack(F(), F(), depth=8)
        variables = stack.init(key, x1, x2)
        y1, y2 = stack.apply(variables, x1, x2)
        x1, x2 = stack.apply(variables, y1, y2, method="inverse")

    A block has parameters and other variables of its own, stacked [depth, ...] under
    `residual1` and `residual2`. Dropout and whatever else is random draws the same again
    in the recomputation; statistics are recorded once. Memory, gradients and the lattice
    are those of `kernels.coupling.couple`.

    Attributes:
        f1, f2: Residual functions, any modules `f(x, *each, **settings)` whose output has
            the input's shape and type; one and the same may stand in both places.
        depth: Number of blocks.
        fraction_bits: Of the lattice of both streams: the inverse is exact, bit for bit,
            while no value is beyond 2^(24 - fraction_bits). Beyond it the outputs are NaN
            where values are traced. None for plain float streams, inexact but free.
    """

    f1: nn.Module
    f2: nn.Module
    depth: int
    fraction_bits: int | None = 12

    @nn.compact
    def __call__(self, x1: Array, x2: Array, *each: PyTree, **settings: Any) -> Streams:
        """Runs the stack.

        Args:
            x1, x2: The streams, of one shape and type.
            *each: Further arguments of F1 and F2, one for each block: pytrees
                [depth, ...], such as taps of a backbone or masks.
            **settings: Of F1 and F2, the same for all blocks, such as `train`.

        Returns:
            y1, y2.

        Raises:
            TypeError: If `f1` or `f2` is no Flax module.
            ValueError: If `depth` is no positive whole number, shapes do not fit, or
                values leave the lattice.
        """
        self._check()
        streams = Streams(x1, x2)
        if self.fraction_bits is not None:
            streams = Streams(*(to_lattice(x, self.fraction_bits) for x in streams))
        if self.is_initializing():
            for name, place in _PLACES.items():
                self._init(place, getattr(self, name), streams.first, each, settings)
        found = couple(
            *self._parts(each, settings), streams, fraction_bits=self.fraction_bits
        )
        self._record(found)
        return self._in_range(found)

    def inverse(self, y1: Array, y2: Array, *each: PyTree, **settings: Any) -> Streams:
        """x1, x2 of what `__call__` made; on a lattice exactly.

        Random draws are those of a `__call__` with the same `rngs`.
        """
        self._check()
        parts = self._parts(each, settings)
        return invert(*parts, Streams(y1, y2), fraction_bits=self.fraction_bits)

    def _check(self) -> None:
        for name in _PLACES:
            if not isinstance(getattr(self, name), nn.Module):
                raise TypeError(
                    f"`{name}` (={getattr(self, name)!r}) must be an instance of a "
                    "`flax.linen.Module`."
                )
        if not is_whole(self.depth) or self.depth < 1:
            raise ValueError(
                f"`depth` (={self.depth!r}) must be a positive whole number."
            )

    def _init(self, place: str, function: nn.Module, x: Array, each, settings) -> None:
        """Draws the variables of F1 or of F2 of each block."""
        keys = jax.random.split(self.make_rng("params"), self.depth)
        first = jax.tree.map(lambda leaf: leaf[0], each)

        def init(key: Array) -> PyTree:
            return function.copy(parent=None).init(key, x, *first, **settings)

        made = jax.vmap(init)(keys)
        self.param(place, lambda _: made.pop("params", {}))
        for collection, values in made.items():
            self.variable(collection, place, lambda values=values: values)

    def _parts(
        self, each: PyTree, settings: Mapping[str, Any]
    ) -> tuple[Callable, Callable, tuple[PyTree, PyTree], tuple[()]]:
        """Arguments of `couple`, but for the streams."""
        blocks = []
        for place in _PLACES.values():
            variables = {
                collection: found[place]
                for collection, found in self.variables.items()
                if place in found
            }
            keys = {
                stream: jax.random.split(self.make_rng(stream), self.depth)
                for stream in (self.scope.rngs if self.scope else {})
            }
            blocks.append((variables, keys, each, jnp.arange(self.depth)))
        f1, f2 = (self._function(name, settings) for name in _PLACES)
        return f1, f2, (blocks[0], blocks[1]), ()

    def _function(self, name: str, settings: Mapping[str, Any]) -> Callable:
        """F1 or F2 of a block's own variables, under its place's path."""
        scope = self.scope
        mutable = False
        if scope is not None:
            mutable = subtract_filters(scope.mutable, "params")
        path = (*self.path, _PLACES[name])

        def run(block: PyTree, shared: PyTree, x: Array) -> tuple[Array, PyTree]:
            del shared
            variables, keys, each, _ = block
            root = core.bind(variables, rngs=keys or None, mutable=mutable)
            root.path = path
            with root.temporary():
                function = getattr(self, name).copy(parent=root)
                value = function(x, *each, **settings)
            return value, root.mutable_variables() if mutable else {}

        return run

    def _record(self, found: Coupled) -> None:
        if self.is_initializing():
            return
        for place, updates in zip(_PLACES.values(), found.aux, strict=True):
            for collection, values in updates.items():
                self.put_variable(collection, place, values)

    def _in_range(self, found: Coupled) -> Streams:
        if self.fraction_bits is None:
            return found.streams
        count = found.num_overflows
        if not isinstance(count, Tracer):
            if count:
                raise ValueError(
                    f"{count} values of the streams left the lattice's range of "
                    f"{largest(self.fraction_bits):g}, so that the inverse is not "
                    f"exact; lower `fraction_bits` (={self.fraction_bits}), scale the "
                    "residual functions down, or pass None for float streams."
                )
            return found.streams
        nothing = jnp.where(count > 0, jnp.nan, 0.0)
        return Streams(*(y + nothing for y in found.streams))
