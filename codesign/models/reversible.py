"""Reversible stacks of residual functions, which keep no activation to go back."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.core import Tracer

from codesign.kernels.coupling import Coupled, Reads, Streams, couple, invert
from codesign.kernels.named_op import uncounted
from codesign.models.block_stack import BlockStack
from codesign.numerics.lattice import largest, to_lattice
from codesign.numerics.read_errors import ReadErrors
from codesign.types import Array, PyTree


class ReversibleStack(BlockStack):
    """`depth` blocks y2 = x2 + F1(x1), y1 = x1 + F2(y2), whose inputs follow from outputs.

        class F(nn.Module):
            @nn.compact
            def __call__(self, x):
                return nn.Dense(x.shape[-1])(nn.gelu(nn.LayerNorm()(x)))

        stack = ReversibleStack(F(), F(), depth=8)
        variables = stack.init(key, x1, x2)
        y1, y2 = stack.apply(variables, x1, x2)
        x1, x2 = stack.apply(variables, y1, y2, method="inverse")

    Dropout and whatever else is random draws the same again in the recomputation;
    statistics are recorded once. Memory, gradients and the lattice are those of
    `kernels.coupling.couple`. Variables are those of a `BlockStack`.

    Attributes:
        fraction_bits: Of the lattice of both streams: the inverse is exact, bit for bit,
            while no value is beyond 2^(24 - fraction_bits). Beyond it the outputs are NaN
            where values are traced. None for plain float streams, inexact but free.
    """

    fraction_bits: int | None = 12

    @nn.compact
    def __call__(
        self,
        x1: Array,
        x2: Array,
        *each: PyTree,
        read_errors: ReadErrors | None = None,
        fetch: Callable[..., tuple] | None = None,
        **settings: Any,
    ) -> Streams:
        """Runs the stack.

        Args:
            x1, x2: The streams, of one shape and type.
            *each: Further arguments of F1 and F2, one for each block: pytrees
                [depth, ...], such as taps of a backbone or masks.
            read_errors: Of the memory that holds the streams, inputs and gradients; needs
                a random key named `errors`.
            fetch: Turns the slices of `each` of a block into the arguments of F1 and F2,
                wherever one of them runs, so that what it makes is not kept.
            **settings: Of F1 and F2, the same for all blocks, such as `train`.

        Returns:
            y1, y2.

        Raises:
            TypeError: If `f1` or `f2` is no Flax module.
            ValueError: If `depth` is no positive whole number, shapes do not fit, or
                values leave the lattice.
        """
        self.check()
        streams = Streams(x1, x2)
        if self.fraction_bits is not None:
            bits = self.fraction_bits
            streams = Streams(
                *(uncounted(to_lattice, x, fraction_bits=bits) for x in streams)
            )
        if self.is_initializing():
            self.draw(streams.first, each, settings, fetch)
        rate, reads = None, None
        if read_errors is not None:
            rate, _ = read_errors.rates(self.depth)
            reads = Reads(rate, self.keys(6)) if read_errors.of_streams else None
        found = couple(
            *self.parts(each, settings, rate, fetch),
            (),
            streams,
            fraction_bits=self.fraction_bits,
            reads=reads,
        )
        self.record(found.aux)
        return self._in_range(found)

    def inverse(self, y1: Array, y2: Array, *each: PyTree, **settings: Any) -> Streams:
        """x1, x2 of what `__call__` made; on a lattice exactly.

        Random draws are those of a `__call__` with the same `rngs`.
        """
        self.check()
        parts = self.parts(each, settings)
        return invert(*parts, (), Streams(y1, y2), fraction_bits=self.fraction_bits)

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
        return Streams(*(uncounted(_or_nan, y, count) for y in found.streams))


def _or_nan(y, count):
    return y + jnp.where(count > 0, jnp.nan, 0.0)
