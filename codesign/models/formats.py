"""Networks in number formats: every product of their layers is one of cast operands."""

import contextlib
import inspect
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.core.scope import LazyRng
from jax.core import Tracer

from codesign.kernels.cast_product import TAP_SHAPE, cast_product
from codesign.kernels.product import Product, around_products, traced_anew
from codesign.models.flax_layers import our_products
from codesign.models.norm import TRACED_TRAIN
from codesign.models.operand_formats import Formats
from codesign.numerics import bfp, formats
from codesign.records.named import nearest
from codesign.types import Array, PyTree, Scalar


class InFormats(nn.Module):
    """A module whose products are in number formats; called as the module itself is.

        network = models.Network(InFormats(Small(), Formats.of("bfp5")), ...)

    It has the module's own parameters, under the same names. What is cast are the
    products of `models.layers`, of `nn.Dense`, `nn.DenseGeneral`, `nn.Conv` and
    `nn.MultiHeadDotProductAttention` and what derives from them, and of `kernels.einsum`,
    wherever they stand in the module. A product that a module writes itself (`x @ w`)
    stays float32; write `kernels.dense.dense(x, w)` in its place.

    Stochastic rounding draws of the key of the call (of the stream `rounding`, or else of
    `params` or `dropout`) without changing what dropout draws; a call without one
    (evaluation) rounds to the nearest instead. All steps of a scan have the same bits.
    Outside of `jax.jit` a call that rounds at random, or is given widths or taps,
    compiles all of its ops anew: jit it.

    A module that another holds already, such as `InFormats(self.layer, ...)`, keeps its
    parameters there. For another method than `__call__`, such as `encode`:

        with casting(Formats.of("bfp5")):
            code = module.apply(variables, x, method="encode")

    The backward pass is one of its own, so that JAX has no forward-mode derivative
    (`jax.jvp`, `jax.hessian`) of what is cast.

    Attributes:
        module: Any Flax module whose `__call__` has no argument `mantissa_bits` or `taps`.
        formats: Of its products.
    """

    module: nn.Module
    formats: Formats

    @property
    def label(self) -> str:
        """What tables call the network."""
        return type(self.module).__name__

    def setup(self):
        _check(self.formats)
        if not isinstance(self.module, nn.Module):
            raise TypeError(
                f"`module` (={self.module!r}) must be an instance of a "
                "`flax.linen.Module`."
            )
        if not isinstance(self.module, InFormats):
            taken = inspect.signature(self.module).parameters
            for name in ("mantissa_bits", "taps"):
                if name in taken:
                    raise TypeError(
                        f"`{name}` is an argument of {self.label}, but `InFormats` takes "
                        "it for its own; call it otherwise in the module."
                    )
        bound = self.module
        if bound.parent is self:
            # Bound in the place of this module, with its parameters, draws and names;
            # under `nn.share_scope` the modules in its fields would draw others.
            bound = bound.copy(parent=self.scope.rewound() if self.scope else None)
        object.__setattr__(self, "_bound", bound)

    def __call__(
        self,
        *args,
        mantissa_bits: Scalar | None = None,
        taps: Mapping[str, Array] | None = None,
        **kwargs,
    ):
        """Calls the module.

        Args:
            mantissa_bits: [] or [2], of weights and of activations: real widths in place
                of their formats' own, with a derivative. Block floating point only.
            taps: [3, 7] each, by the name of a product: see `cast_product` and
                `operands.product_names`.
            *args, **kwargs: Of the module.

        Raises:
            TypeError: If `formats` or `module` is none, the module has an argument
                `mantissa_bits` or `taps`, or JAX traces `train` where a format is random
                and there is no key.
            ValueError: If a format is random, `train` is set and there is no key; or
                `mantissa_bits` has another shape, is out of range (a traced one makes
                NaN), or has no block floating point to act on; or a tap has another
                shape, or the name of no product.
        """
        widths = None if mantissa_bits is None else self._widths(mantissa_bits)
        key = self._key(args, kwargs)
        caster = _Casting(self.formats, key, widths, taps)
        with caster.entered():
            found = self._bound(*args, **kwargs)
        caster.check_names()
        return found

    def _widths(self, bits: Any) -> Array:
        """[2] of weights and of activations."""
        for name in ("weights", "activations"):
            fmt = getattr(self.formats, name)
            if not formats.has_width(fmt):
                raise ValueError(
                    "`mantissa_bits` needs weights and activations in block floating "
                    f"point, but `{name}` is {formats.label(fmt)}."
                )
        widths, most = _real(bits), bfp.MAX_MANTISSA_BITS
        fits = (
            widths is not None
            and widths.shape in ((), (2,))
            and (
                isinstance(widths, Tracer)
                or bool(np.all((widths >= 1) & (widths <= most)))
            )
        )
        if not fits:
            raise ValueError(
                f"`mantissa_bits` (={bits!r}) must be one number, or one for weights and "
                f"one for activations, from 1 to {most}."
            )
        return jnp.broadcast_to(jnp.asarray(widths, jnp.float32), (2,))

    def _key(self, args: tuple, kwargs: dict[str, Any]) -> Array | None:
        """Words of the call's key; no counter moves, so that other draws stay."""
        if not self.formats.is_random or self.is_initializing():
            return None
        streams = {} if self.scope is None else self.scope.rngs
        for stream in ("rounding", "params", "dropout"):
            if stream in streams:
                rng = LazyRng.create(streams[stream], "formats")
                return jax.random.key_data(rng.as_jax_rng())
        if self._is_training(args, kwargs):
            raise ValueError(
                "`key` is None, but the formats round at random in training; pass a key, "
                "such as `jax.random.key(step)`."
            )
        return None

    def _is_training(self, args: tuple, kwargs: dict[str, Any]) -> bool:
        """What `train` says, by name, by position or by default."""
        try:
            given = inspect.signature(self.module).bind(*args, **kwargs)
        except TypeError:  # of the module, which says it itself when it is called
            return False
        given.apply_defaults()
        train = kwargs.get("train", given.arguments.get("train"))
        if isinstance(train, Tracer):
            raise TypeError(
                f"{TRACED_TRAIN} Or pass a key, since the formats round at random."
            )
        return bool(train)

    def stored(self, params: PyTree, key: Array) -> PyTree:
        """Parameters as they are kept between steps: kernels in the master format.

        Args:
            params: Of the module.
            key: For stochastic rounding.

        Raises:
            TypeError: If `key` is none.
        """
        master, words = self.formats.master, _words(key)
        tile = self.formats.tile if formats.has_width(master) else None

        def kept(path: tuple, leaf: Array) -> Array:
            name = jax.tree_util.keystr(path[-1:], simple=True)
            if name != "kernel" or jnp.ndim(leaf) < 2:
                return leaf
            bits = words ^ _number(jax.tree_util.keystr(path))
            return formats.cast(leaf, master, -2, bits, tile=tile)

        return jax.tree_util.tree_map_with_path(kept, params)


def _check(chosen: Any) -> None:
    if not isinstance(chosen, Formats):
        raise TypeError(
            f'`formats` (={chosen!r}) must be `Formats`, such as `Formats.of("bfp5")`.'
        )


def _real(given: Any) -> np.ndarray | Array | None:
    """An array of real numbers; None if it is none."""
    is_traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(given))
    try:
        found = (jnp if is_traced else np).asarray(given)
    except (TypeError, ValueError):
        return None
    kinds = np.floating, np.integer
    return found if any(jnp.issubdtype(found.dtype, kind) for kind in kinds) else None


def _words(key: Any) -> Array:
    """[2] uint32 of a key."""
    try:
        return jax.random.key_data(key)
    except TypeError:
        raise TypeError(
            f"`key` (={key!r}) must be a key, such as `jax.random.key(0)`."
        ) from None


def _number(name: str) -> Array:
    """Of a product or a parameter, for its key."""
    return jnp.uint32(zlib.crc32(name.encode()))


class _Casting:
    """Casts the products of a module's layers, each known by its path."""

    def __init__(
        self,
        chosen: Formats,
        key: Array | None,
        widths: Array | None,
        taps: Mapping[str, Array] | None,
    ):
        self._formats, self._key, self._widths, self._taps = chosen, key, widths, taps
        # Whether one trace serves all calls: it holds no array, and needs no name.
        self._is_shared = key is None and widths is None and taps is None
        if taps is not None:
            _check_taps(taps)
        self._calls: list[nn.Module] = []  # the outermost first
        self._multiplied: list[nn.Module | None] = []  # once for each product
        self._names: set[str] = set()

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        alike = ("formats", self._formats) if self._is_shared else None
        with (
            around_products(self._multiply, alike=alike),
            nn.intercept_methods(self._intercept),
        ):
            yield

    def check_names(self) -> None:
        """Once all is called: that every tap had a product."""
        for name in self._taps or ():
            if name not in self._names:
                known = nearest(name, self._names) if self._names else "it has none."
                raise ValueError(f"`taps` names {name!r}, no product; {known}")

    def _multiply(self, product: Product, x: Array, w: Array) -> Array:
        name = self._name()
        self._names.add(name)
        key = self._key
        if key is not None:
            key = key ^ _number(name)
        widths = self._widths
        if widths is not None:
            # The product's own order: of its first operand, then of the second.
            widths = jnp.stack([widths[1], widths[0 if product.has_weight else 1]])
        casts = self._formats.casts(product, at_random=key is not None)
        tap = None if self._taps is None else self._taps.get(name)
        return cast_product(product, casts, x, w, key=key, widths=widths, tap=tap)

    def _name(self) -> str:
        """Of the product at hand: its module's path, numbered from the second on.

        What counts are products of one object: Flax may trace the body of a scan twice,
        each time with objects of its own.
        """
        module = self._calls[-1] if self._calls else None  # outside of any module
        self._multiplied.append(module)
        number = sum(each is module for each in self._multiplied)
        path = "#"  # that no module has
        if module is not None:
            path = "/".join(
                re.sub("[%/#]", lambda found: f"%{ord(found[0]):X}", part)
                for part in module.path
            )
        return path if number == 1 else f"{path}#{number}"

    def _intercept(self, call: Callable, args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        self._calls.append(module)
        try:
            anew = contextlib.nullcontext() if self._is_shared else traced_anew()
            with our_products(module, context.method_name), anew:
                return call(*args, **kwargs)
        finally:
            self._calls.pop()


def _check_taps(taps: Any) -> None:
    if not isinstance(taps, Mapping):
        raise ValueError(
            f"`taps` (={taps!r}) must be arrays {TAP_SHAPE} by the names of products, as "
            "`operands.product_names` gives them."
        )
    for name, tap in taps.items():
        if np.shape(tap) != TAP_SHAPE:
            raise ValueError(
                f"`taps[{name!r}]` has shape {np.shape(tap)}, but must be {TAP_SHAPE}: a "
                "row for each class of operands."
            )


@contextlib.contextmanager
def casting(chosen: Formats, *, key: Array | None = None) -> Iterator[None]:
    """Casts the products of a function while it is traced, of kernels and Flax's layers.

    def loss(params, x, key):
        with casting(Formats.of("bfp5"), key=key):
            return jnp.mean(kernels.dense.dense(x, params["kernel"]) ** 2)

    Args:
        chosen: Formats.
        key: For stochastic rounding; without one it rounds to the nearest.

    Raises:
        TypeError: If `chosen` is no `Formats`, or `key` no key.
    """
    _check(chosen)
    words = None if key is None else _words(key)
    with _Casting(chosen, words, None, None).entered():
        yield
