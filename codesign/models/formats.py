"""Number formats in training: one for weights, activations and gradients each."""

import contextlib
import dataclasses
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.core.scope import LazyRng
from jax.core import Tracer

from codesign.kernels.cast_product import CLASSES, Casts, cast_product
from codesign.kernels.product import Product, around_products, traced_anew
from codesign.models.flax_layers import our_products
from codesign.numerics import bfp, formats
from codesign.numerics.formats import NumberFormat
from codesign.records.named import nearest
from codesign.types import Array, PyTree, Scalar, is_whole


@dataclasses.dataclass(frozen=True, kw_only=True)
class Formats:
    """Formats of a network in training; names are read by `numerics.formats.by_name`.

    Attributes:
        weights, activations, gradients: Of the operands of every product, forward and
            backward. What is between products (biases, norms, activation functions,
            sums) stays float32, as do the results of products.
        tile: (rows, columns) of a block over the last two axes, such as (3, 3): one cast
            serves the forward product and both gradients, transposed in place (CAMEL,
            V-B). None lays blocks along the axis that each product adds along, so that
            each operand is cast twice.
        master: Of the weights between steps: of all parameters named `kernel`, in blocks
            along the last axis but one, or in tiles. A format that truncates swallows
            small updates; `stochastic` keeps their mean.
    """

    weights: NumberFormat = "float32"
    activations: NumberFormat = "float32"
    gradients: NumberFormat = "float32"
    tile: tuple[int, int] | None = None
    master: NumberFormat = "float32"

    def __post_init__(self):
        """Reads names.

        Raises:
            ValueError: If a name is none, `tile` is no pair of whole numbers, or it does
                not fit a format: one without blocks of its size, such as an MX format.
        """
        if self.tile is not None:
            object.__setattr__(self, "tile", _checked_tile(self.tile))
        for name in (*CLASSES, "master"):
            fmt = formats.checked(getattr(self, name), name)
            object.__setattr__(self, name, fmt)
            if self.tile is None or fmt in formats.PLAIN:
                continue
            size = math.prod(self.tile)
            if not isinstance(fmt, bfp.Format) or fmt.block_size != size:
                raise ValueError(
                    f"`tile` (={self.tile}) needs blocks of {size} numbers, but "
                    f"`{name}` is {formats.label(fmt)}; leave `tile` out, or give it a "
                    "`bfp.Format` of that `block_size`."
                )

    @classmethod
    def of(
        cls, given: "NumberFormat | Mapping[str, NumberFormat]", **settings
    ) -> "Formats":
        """One format for all three classes, or a format by class.

        Formats.of("bfp5")
        Formats.of({"weights": "mxfp4_e2m1", "gradients": "mxfp8_e5m2"})

        Raises:
            ValueError: For an unknown class or name.
        """
        if not isinstance(given, Mapping):
            return cls(**dict.fromkeys(CLASSES, given), **settings)
        for name in given:
            if name not in CLASSES:
                raise ValueError(
                    f"`{name}` is no class of tensors; {nearest(name, CLASSES)}"
                )
        return cls(**given, **settings)

    def casts(self, product: Product, *, at_random: bool) -> Casts:
        """Of one product; without `at_random` rounding is to the nearest instead."""
        w = self.weights if product.has_weight else self.activations
        found = (self.activations, w, self.gradients)
        if not at_random:
            found = tuple(map(formats.without_chance, found))
        return Casts(*found, tile=self.tile)

    @property
    def is_random(self) -> bool:
        """Whether an operand is rounded at random."""
        return any(formats.is_random(getattr(self, name)) for name in CLASSES)


def _checked_tile(tile: Any) -> tuple[int, int]:
    sizes = tuple(tile) if isinstance(tile, Sequence) else ()
    if len(sizes) != 2 or not all(is_whole(n) and n > 0 for n in sizes):
        raise ValueError(f"`tile` (={tile!r}) must be (rows, columns), such as (3, 3).")
    return int(sizes[0]), int(sizes[1])


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

    Attributes:
        module: Any Flax module.
        formats: Of its products.
    """

    module: nn.Module
    formats: Formats

    @property
    def label(self) -> str:
        """What tables call the network."""
        return type(self.module).__name__

    def setup(self):
        if not isinstance(self.formats, Formats):
            raise TypeError(
                f"`formats` (={self.formats!r}) must be `Formats`, such as "
                '`Formats.of("bfp5")`.'
            )
        # Bound in the place of this module, with its parameters, draws and names; under
        # `nn.share_scope` the modules in its fields would draw others.
        place = self.scope.rewound() if self.scope else None
        object.__setattr__(self, "_bound", self.module.copy(parent=place))

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
            taps: By the name of a product, see `cast_product`.
            *args, **kwargs: Of the module.

        Raises:
            ValueError: If a format is random, `train` is set and there is no key; or
                `mantissa_bits` has another shape, is out of range (a traced one makes
                NaN), or has no block floating point to act on.
        """
        widths = None if mantissa_bits is None else self._widths(mantissa_bits)
        key = self._key(is_training=kwargs.get("train"))
        with _Casting(self.formats, key, widths, taps).entered():
            return self._bound(*args, **kwargs)

    def _widths(self, bits: Any) -> Array:
        """[2] of weights and of activations."""
        for name in ("weights", "activations"):
            fmt = getattr(self.formats, name)
            if not formats.has_width(fmt):
                raise ValueError(
                    "`mantissa_bits` needs weights and activations in block floating "
                    f"point, but `{name}` is {formats.label(fmt)}."
                )
        is_traced = isinstance(bits, Tracer)
        most = bfp.MAX_MANTISSA_BITS
        fits = np.shape(bits) in ((), (2,))
        if not is_traced:
            fits &= bool(np.all((np.asarray(bits) >= 1) & (np.asarray(bits) <= most)))
        if not fits:
            raise ValueError(
                f"`mantissa_bits` (={bits!r}) must be one number, or one for weights and "
                f"one for activations, from 1 to {most}."
            )
        return jnp.broadcast_to(jnp.asarray(bits, jnp.float32), (2,))

    def _key(self, *, is_training: Any) -> Array | None:
        """Words of the call's key; no counter moves, so that other draws stay."""
        if not self.formats.is_random or self.is_initializing():
            return None
        streams = {} if self.scope is None else self.scope.rngs
        for stream in ("rounding", "params", "dropout"):
            if stream in streams:
                rng = LazyRng.create(streams[stream], "formats")
                return jax.random.key_data(rng.as_jax_rng())
        if is_training:
            raise ValueError(
                "`key` is None, but the formats round at random in training; pass a key, "
                "such as `jax.random.key(step)`."
            )
        return None

    def stored(self, params: PyTree, key: Array) -> PyTree:
        """Parameters as they are kept between steps: kernels in the master format.

        Args:
            params: Of the module.
            key: For stochastic rounding.
        """
        master, words = self.formats.master, jax.random.key_data(key)
        tile = self.formats.tile if formats.has_width(master) else None

        def kept(path: tuple, leaf: Array) -> Array:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            if name.split("/")[-1] != "kernel" or jnp.ndim(leaf) < 2:
                return leaf
            return formats.cast(leaf, master, -2, words ^ _number(name), tile=tile)

        return jax.tree_util.tree_map_with_path(kept, params)


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
        self._calls: list[nn.Module] = []  # the outermost first
        self._multiplied: list[nn.Module | None] = []  # once for each product

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        alike = ("formats", self._formats) if self._is_shared else None
        with (
            around_products(self._multiply, alike=alike),
            nn.intercept_methods(self._intercept),
        ):
            yield

    def _multiply(self, product: Product, x: Array, w: Array) -> Array:
        name = self.name()
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

    def name(self) -> str:
        """Of the product at hand: its module's path, numbered from the second on.

        What counts are products of one object: Flax may trace the body of a scan twice,
        each time with objects of its own.
        """
        module = self._calls[-1] if self._calls else None  # outside of any module
        self._multiplied.append(module)
        number = sum(each is module for each in self._multiplied)
        path = "" if module is None else "/".join(module.path)
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


@contextlib.contextmanager
def casting(chosen: Formats, *, key: Array | None = None) -> Iterator[None]:
    """Casts the products of a function while it is traced, of kernels and Flax's layers.

    def loss(params, x, key):
        with casting(Formats.of("bfp5"), key=key):
            return jnp.mean(kernels.dense.dense(x, params["kernel"]) ** 2)

    Args:
        chosen: Formats.
        key: For stochastic rounding; without one it rounds to the nearest.
    """
    words = None if key is None else jax.random.key_data(key)
    with _Casting(chosen, words, None, None).entered():
        yield
