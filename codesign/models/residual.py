"""Stacks of residual functions in turn, which keep activations for the backward pass."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from jax import lax

from codesign.models.block_stack import BlockStack
from codesign.numerics.read_errors import ReadErrors, read
from codesign.types import Array, PyTree


class ResidualStack(BlockStack):
    """`depth` blocks x <- x + F1(x), x <- x + F2(x): the plain way of `ReversibleStack`.

    The variables are the same, so that either takes those of the other.
    """

    @nn.compact
    def __call__(
        self,
        x: Array,
        *each: PyTree,
        read_errors: ReadErrors | None = None,
        fetch: Callable[..., tuple] | None = None,
        **settings: Any,
    ) -> Array:
        """Runs the stack.

        Args:
            x: The stream.
            *each: Further arguments of F1 and F2, one for each block, [depth, ...].
            read_errors: Of the memory that holds inputs, gradients and what is kept for
                the backward pass; needs a random key named `errors`.
            fetch: Turns the slices of `each` of a block into the arguments of F1 and F2,
                wherever one of them runs, so that what it makes is not kept.
            **settings: Of F1 and F2, the same for all blocks, such as `train`.

        Raises:
            TypeError: If `f1` or `f2` is no Flax module.
            ValueError: If `depth` is no positive whole number.
        """
        self.check()
        if self.is_initializing():
            self.draw(x, each, settings, fetch)
        rate, kept = None, None
        if read_errors is not None:
            rate, kept_rate = read_errors.rates(self.depth)
            kept = kept_rate, self.keys(2)
        f1, f2, blocks = self.parts(each, settings, rate, fetch)

        def step(x: Array, block: PyTree) -> tuple[Array, tuple[PyTree, PyTree]]:
            (first, second), wrong = block
            value, of_first = _from_memory(f1, first, x, wrong, 0)
            x = x + value
            value, of_second = _from_memory(f2, second, x, wrong, 1)
            return x + value, (of_first, of_second)

        x, updates = lax.scan(step, x, (blocks, kept))
        self.record(updates)
        return x


def _from_memory(
    f, block: PyTree, x: Array, wrong: Any, k: int
) -> tuple[Array, PyTree]:
    """`f` of x, its derivative at what a memory returns of x when going back.

    The value of f at x alone stands in the result; the derivative at the other point is
    that of a difference whose value is zero.
    """
    value, updates = f(block, (), x)
    if wrong is None:
        return value, updates
    rate, words = wrong
    again, _ = f(block, (), read(x, rate, words[k]))
    value, updates = jax.tree.map(lax.stop_gradient, (value, updates))
    return value + (again - lax.stop_gradient(again)), updates
