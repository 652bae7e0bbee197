"""A product whose operands are cast to number formats, forward and backward."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from codesign.kernels.boundary import apart
from codesign.kernels.named_op import named_op
from codesign.kernels.product import Product
from codesign.numerics import formats
from codesign.numerics.formats import NumberFormat
from codesign.types import Array

CLASSES = ("weights", "activations", "gradients")
# Of a tap: a row for each class, and a number more than `formats.Statistics` has.
TAP_SHAPE = (len(CLASSES), len(formats.Statistics._fields) + 1)
_STREAM = 0x9E3779B9
# A key's stream each.
_USES = ("forward x", "forward w", "dx g", "dx w", "dw x", "dw g")


@dataclasses.dataclass(frozen=True)
class Casts:
    """Formats of the operands of one product, and how their blocks lie.

    Attributes:
        x, w, g: Of the first operand, of the second, and of the gradient of the result.
        tile: (rows, columns) of a block over the last two axes of each operand, which
            serves all three products; None for blocks along the axis that each of them
            adds along, so that each operand is cast twice.
    """

    x: NumberFormat = "float32"
    w: NumberFormat = "float32"
    g: NumberFormat = "float32"
    tile: tuple[int, int] | None = None


def cast_product(
    product: Product,
    casts: Casts,
    x: Array,
    w: Array,
    *,
    key: Array | None = None,
    widths: Array | None = None,
    tap: Array | None = None,
) -> Array:
    """`product(x, w)` of cast operands; its gradients are products of cast operands too.

        y = P(cast x, cast w),  dx = P'(cast g, cast w),  dw = P'(cast x, cast g)

    Casting has the derivative 1. It is one named op, so that a tracer counts the product.

    Args:
        product: The product.
        casts: Formats of its operands.
        x, w: float32.
        key: [2] uint32, for stochastic rounding.
        widths: [2] real widths of x and of w in place of their formats' own, or None;
            their derivative is that of y, with g as it is: of `bfp.quantize` in the
            forward product. It costs two more products.
        tap: [3, 7] of any numbers, or None. Its gradient is no derivative but a row of
            `formats.Statistics` of w, x and g each, in this order, and behind them a 1: a
            way out for what is known in the backward pass only. They are of one cast
            each: of w and x for the forward product, of g for dx. Of a product that runs
            several times, as in a scan, rows add; the last number tells how often.
    """
    extra = {"key": key, "widths": widths, "tap": tap}
    given = {name: part for name, part in extra.items() if part is not None}
    static = {"product": product, "casts": casts, "names": tuple(given)}
    if not product.kind:
        return _named(x, w, *given.values(), **static)
    return named_op(product.kind, _named, x, w, *given.values(), **static)


def _named(x, w, *extra, product, casts, names):
    given = dict(zip(names, extra, strict=True))
    parts = [given.get(name) for name in ("key", "widths", "tap")]
    return _product(product, casts, x, w, *parts)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _product(product, casts, x, w, key, widths, tap):
    return _forward(product, casts, x, w, key, widths, tap)[0]


def _forward(product, casts, x, w, key, widths, tap):
    to = _Casting(product, casts, key, widths)
    cast_x = to("forward x", x, product.axes.forward[0])
    cast_w = to("forward w", w, product.axes.forward[1])
    # With tiles one cast serves all three, unless the values themselves are asked for.
    is_kept = casts.tile and widths is None and tap is None
    kept = (cast_x, cast_w) if is_kept else (x, w)
    return product(cast_x, cast_w), (*kept, key, widths, tap)


def _backward(product, casts, residuals, g):
    x, w, key, widths, tap = residuals
    axes, to = product.axes, _Casting(product, casts, key, widths)
    g_x = to("dx g", g, axes.input_gradient[0])
    if not casts.tile:
        g_w = to("dw g", g, axes.weight_gradient[1])
        back_x = to("dw x", x, axes.weight_gradient[0])
        back_w = to("dx w", w, axes.input_gradient[1])
    elif widths is None and tap is None:
        g_w, back_x, back_w = g_x, x, w
    else:
        back_x = to("forward x", x, axes.forward[0])
        g_w, back_w = g_x, to("forward w", w, axes.forward[1])
    (dx,) = jax.linear_transpose(lambda x: product(x, back_w), x)(g_x)
    (dw,) = jax.linear_transpose(lambda w: product.alone(back_x, w), w)(g_w)
    d_key = None if key is None else np.zeros(key.shape, jax.dtypes.float0)
    d_widths = d_tap = None
    if widths is not None:
        # Of the forward product as it was computed: g is not cast, blocks lie as there.
        cast_x = to("forward x", x, axes.forward[0])
        cast_w = to("forward w", w, axes.forward[1])
        (pull_x,) = jax.linear_transpose(lambda x: product(x, cast_w), x)(g)
        (pull_w,) = jax.linear_transpose(lambda w: product.alone(cast_x, w), w)(g)
        by_x = to.width_gradient(pull_x, x, "forward x", axes.forward[0])
        by_w = to.width_gradient(pull_w, w, "forward w", axes.forward[1])
        d_widths = jnp.stack([by_x, by_w])
    if tap is not None:
        of_w = to.statistics("forward w", w, axes.forward[1])
        of_x = to.statistics("forward x", x, axes.forward[0])
        of_g = to.statistics("dx g", g, axes.input_gradient[0])
        d_tap = jnp.stack([of_w, of_x, of_g])
    return dx, dw, d_key, d_widths, d_tap


_product.defvjp(_forward, _backward)


class _Casting:
    """Casts the operands of one product, each with random bits of its own."""

    def __init__(self, product: Product, casts: Casts, key, widths):
        self._casts, self._key, self._widths = casts, key, widths
        # XLA:CPU would compute the cast once for each tap of an unfolded convolution.
        self._is_unfolded = product.unshared is not None

    def __call__(self, use: str, value: Array, axis: int) -> Array:
        fmt, settings = self._settings(use, value)
        axis = axis if -value.ndim <= axis < value.ndim else -1  # of a single example
        key = self._bits(use, fmt)

        def cast(value):
            return formats.cast(value, fmt, axis, key, **settings)

        if self._is_unfolded and value.ndim == 4 and use[-1] != "w":
            return apart(cast, value, after=[value])
        return cast(value)

    def statistics(self, use: str, value: Array, axis: int) -> Array:
        fmt, settings = self._settings(use, value)
        settings.pop("mantissa_bits", None)
        found = formats.statistics(value, fmt, axis, self._bits(use, fmt), **settings)
        return jnp.stack([*found, jnp.ones(())])

    def width_gradient(self, pull: Array, value: Array, use: str, axis: int) -> Array:
        """Of the loss by a width, from the gradient by the cast operand."""
        fmt, settings = self._settings(use, value)
        width = settings.pop("mantissa_bits", None)
        if width is None:
            return jnp.zeros(())
        key = self._bits(use, fmt)

        def cast(width):
            return formats.cast(value, fmt, axis, key, mantissa_bits=width, **settings)

        _, slope = jax.jvp(cast, (width,), (jnp.ones_like(width),))
        return jnp.vdot(pull, slope)

    def _settings(self, use: str, value: Array) -> tuple[NumberFormat, dict[str, Any]]:
        operand = use[-1]
        fmt, settings = getattr(self._casts, operand), {}
        if self._casts.tile and value.ndim > 1 and formats.has_width(fmt):
            settings["tile"] = self._casts.tile
        if self._widths is not None and operand in "xw" and formats.has_width(fmt):
            settings["mantissa_bits"] = self._widths["xw".index(operand)]
        return fmt, settings

    def _bits(self, use: str, fmt: NumberFormat) -> Array | None:
        if self._key is None or not formats.is_random(fmt):
            return None
        return self._key ^ np.uint32(_STREAM * (1 + _USES.index(use)) % 2**32)
