"""The product of a layer, its two gradients, and what a caller puts around them."""

import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

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


def multiply(product: Product, x: Array, w: Array) -> Array:
    """The product, as one named op where it has a kind; or what the caller puts there."""
    around = _around.get()
    if around is not None:
        return around(product, x, w)
    if not product.kind:
        return product(x, w)
    return named_op(product.kind, product.fn, x, w, **dict(product.static))


@contextlib.contextmanager
def around_products(around: Around) -> Iterator[None]:
    """Calls `around(product, x, w)` for each product of a layer while it is entered.

    It acts while a function is traced: enter it inside the function that is jitted.
    """
    token = _around.set(around)
    try:
        yield
    finally:
        _around.reset(token)
