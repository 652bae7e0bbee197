"""The product of a layer, its two gradients, and what a caller puts around them."""

import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import jax

from codesign.kernels.named_op import named_op
from codesign.types import Array

Pair = tuple[int, int]  # an axis of each of two operands


@dataclasses.dataclass(frozen=True)
class Axes:
    """Along which axes the three products of a layer add: y = x w, dx = g w, dw = x g.

    Where a product adds along several, it is the last one; of a convolution's weight
    gradient it is the batch, since its windows shift the others.
    """

    forward: Pair  # of x and of w
    input_gradient: Pair  # of g and of w
    weight_gradient: Pair  # of x and of g


@dataclasses.dataclass(frozen=True)
class Product:
    """A product that is linear in each of two operands: `fn(x, w, **static)`.

    Attributes:
        kind: Kind of the op in a workload, such as `conv`; empty for one that stays the
            equations that it is made of.
        fn: A function at module level.
        axes: Along which it and its gradients add.
        static: Hashable settings of `fn`, by name.
        has_weight: Whether the second operand is a weight.
        unshared: The same product in another way, for a gradient by w that shares
            nothing with the forward product; None for `fn` itself.
    """

    kind: str
    fn: Callable[..., Array]
    axes: Axes
    static: tuple[tuple[str, Any], ...] = ()
    has_weight: bool = True
    unshared: Callable[..., Array] | None = None

    def __call__(self, x: Array, w: Array) -> Array:
        """The product itself."""
        return self.fn(x, w, **dict(self.static))

    def alone(self, x: Array, w: Array) -> Array:
        """The product, in the way that is quickest for its gradient by w alone."""
        return (self.unshared or self.fn)(x, w, **dict(self.static))


Around = Callable[[Product, Array, Array], Array]
_around: contextvars.ContextVar[Around | None] = contextvars.ContextVar(
    "around", default=None
)
# What JAX compares, beside a function, before it takes a trace that it has kept.
_trace_key = jax.make_user_context(None)


def multiply(product: Product, x: Array, w: Array) -> Array:
    """The product, as one named op where it has a kind; or what the caller puts there."""
    around = _around.get()
    if around is not None:
        with _standing(None, None):  # so that its own ops are traced once for all
            return around(product, x, w)
    if not product.kind:
        return product(x, w)
    return named_op(product.kind, product.fn, x, w, **dict(product.static))


@contextlib.contextmanager
def around_products(around: Around, *, alike: Hashable = None) -> Iterator[None]:
    """Calls `around(product, x, w)` for each product of a layer while it is entered.

    It acts while a function is traced: enter it inside the function that is jitted. What
    is traced in it (by `jax.jit`, `jax.checkpoint`, a scan) JAX keeps apart from what is
    traced elsewhere. Within `around` itself products are plain.

    Args:
        around: What stands in the place of a product.
        alike: Equal for all that do the same, so that JAX may take for one what it has
            traced for another. None is like no other: leave it so where `around` holds an
            array, which may belong to a trace that has ended, or notes what it is given.
            Every entry then traces and compiles anew what stands in it.
    """
    with _standing(around, object() if alike is None else alike):
        yield


def traced_anew() -> contextlib.AbstractContextManager[None]:
    """While it is entered, JAX takes no trace that it has kept of outside."""
    return _trace_key(object())


@contextlib.contextmanager
def _standing(around: Around | None, trace_key: Hashable) -> Iterator[None]:
    token = _around.set(around)
    try:
        with _trace_key(trace_key):
            yield
    finally:
        _around.reset(token)
