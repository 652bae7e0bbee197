"""The products of Flax's own layers, as those of this package."""

import contextlib
import dataclasses
import inspect
import math
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from codesign.kernels.convolution import AXES as CONVOLUTION
from codesign.kernels.dense import dense
from codesign.kernels.einsum import einsum
from codesign.kernels.product import Axes, Product, multiply

# Layers of Flax that multiply where nobody can reach in, by the method that does.
_CLOSED = {
    "__call__": (nn.ConvTranspose, nn.ConvLocal, nn.Einsum, nn.OptimizedLSTMCell),
    "attend": (nn.Embed,),
}


@contextlib.contextmanager
def our_products(module: nn.Module, method: str) -> Iterator[None]:
    """Lets a layer multiply by `kernels.product` while one of its methods is called.

    Args:
        module: Bound; a layer of Flax, what derives from one, or any other, to which it
            does nothing.
        method: Name of the method.

    Raises:
        ValueError: If the layer has a product of its own.

    Warns:
        UserWarning: If the method multiplies where nobody can reach in.
    """
    name, path = type(module).__name__, "/".join(module.path)
    hooks = next(
        (ours for kind, ours in _HOOKS.items() if isinstance(module, kind)), {}
    )
    closed = _CLOSED.get(method, ())
    if isinstance(module, closed) or not _takes_ours(module):
        warnings.warn(
            f"{path!r} ({name}) multiplies where no format can reach; its product stays "
            "float32.",
            stacklevel=_level_of_caller(),
        )
    own = {hook: getattr(module, hook) for hook in hooks}
    for hook, ours in hooks.items():
        # A method of the same module that calls another one has ours already.
        has_own = own[hook] not in (None, ours) and ours is not None
        if has_own or getattr(module, f"{hook}_cls", None) is not None:
            raise ValueError(
                f"{path!r} ({name}) has a `{hook}` or `{hook}_cls` of its own; leave it "
                "out where formats are given."
            )
    try:
        for hook, ours in hooks.items():
            object.__setattr__(module, hook, ours)
        yield
    finally:
        for hook, value in own.items():
            object.__setattr__(module, hook, value)


def _level_of_caller() -> int:
    """How many calls above `our_products` the line stands that called the layer."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and _is_between(frame.f_globals["__name__"]):
        frame, level = frame.f_back, level + 1
    return level


def _is_between(module: str) -> bool:
    ours = (__name__, "codesign.models.formats")
    return module in ours or module.split(".")[0] in ("contextlib", "flax", "jax")


def _takes_ours(module: nn.Module) -> bool:
    """Whether a layer lets products be given; not every function of an attention does."""
    if not isinstance(module, nn.MultiHeadDotProductAttention):
        return True
    taken = inspect.signature(module.attention_fn).parameters
    return _QUERY_KEY.removesuffix("_cls") in taken


def _dot_general(x, w, dimension_numbers, **_):
    """`lax.dot_general` of Flax's dense layers: [..., C] x [C, K], or many of them."""
    (x_axes, w_axes), (x_batch, w_batch) = dimension_numbers
    kind = jnp.result_type(x, w)
    x_free = [axis for axis in range(x.ndim) if axis not in (*x_axes, *x_batch)]
    w_free = [axis for axis in range(w.ndim) if axis not in (*w_axes, *w_batch)]
    batch = [x.shape[axis] for axis in x_batch]
    shape = [x.shape[axis] for axis in x_free]
    outputs = [w.shape[axis] for axis in w_free]
    width = math.prod(x.shape[axis] for axis in x_axes)
    x = jnp.transpose(x, (*x_batch, *x_free, *x_axes))
    w = jnp.transpose(w, (*w_batch, *w_axes, *w_free))
    w = w.reshape(*batch, width, math.prod(outputs))
    if batch:
        y = multiply(_BATCHED, x.reshape(*batch, math.prod(shape), width), w)
    else:
        y = dense(x.reshape(*shape, width), w)
    return y.reshape(*batch, *shape, *outputs).astype(kind)


_BATCHED = Product("", jnp.matmul, Axes((-1, -2), (-1, -1), (-2, -2)))


def _attention(axes: Axes) -> Callable:
    """A factory of one of the two products of an attention, as Flax takes them."""

    def factory():
        return lambda spec, x, y: einsum(spec, x, y, axes)

    return factory


def _convolution(x, w, window_strides, padding, *, dimension_numbers, **settings):
    """`lax.conv_general_dilated` of Flax's convolutions."""
    settings.pop("precision", None)
    static = {
        "window_strides": tuple(window_strides),
        "padding": padding if isinstance(padding, str) else tuple(map(tuple, padding)),
        "dimension_numbers": dimension_numbers,
        **settings,
    }
    is_plain = x.ndim == 4 and set(settings.get("lhs_dilation") or (1,)) == {1}
    axes = CONVOLUTION
    if not is_plain:
        axes = dataclasses.replace(
            axes, forward=(-1, w.ndim - 2), input_gradient=(-1, w.ndim - 1)
        )
    kind = "conv" if is_plain else ""
    return multiply(Product(kind, _conv, axes, tuple(sorted(static.items()))), x, w)


def _conv(x, w, **static):
    return lax.conv_general_dilated(x, w, **static)


# By the kind of a layer, what stands in the place of its attributes. Keys and values are
# [..., length, head, width] there, scores [..., head, query, key].
_QUERY_KEY, _SCORE_VALUE = "qk_attn_weights_einsum_cls", "attn_weights_value_einsum_cls"
_HOOKS: dict[type[nn.Module], dict[str, Any]] = {
    nn.Dense: {"dot_general": _dot_general},
    nn.DenseGeneral: {"dot_general": _dot_general},
    nn.Conv: {"conv_general_dilated": _convolution},
    nn.MultiHeadDotProductAttention: {
        _QUERY_KEY: _attention(Axes((-1, -1), (-1, -3), (-3, -2))),
        _SCORE_VALUE: _attention(Axes((-1, -3), (-1, -1), (-2, -3))),
        "precision": None,  # Flax takes no precision beside them
    },
}
