"""Number formats in training: one for weights, activations and gradients each."""

import contextlib
import dataclasses
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from codesign.kernels.cast_product import CLASSES, Casts, cast_product
from codesign.kernels.convolution import AXES as CONVOLUTION
from codesign.kernels.dense import dense
from codesign.kernels.product import Product, around_products, multiply
from codesign.numerics import bfp, formats
from codesign.numerics.formats import NumberFormat
from codesign.records.named import nearest
from codesign.types import Array, PyTree, Scalar

# Layers of Flax that multiply where nobody can reach in.
_CLOSED = (nn.ConvTranspose, nn.ConvLocal, nn.Einsum, nn.OptimizedLSTMCell)


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
        master: Of the weights between steps, of which an update changes the kernels. A
            format that truncates swallows small updates; `stochastic` keeps their mean.
    """

    weights: NumberFormat = "float32"
    activations: NumberFormat = "float32"
    gradients: NumberFormat = "float32"
    tile: tuple[int, int] | None = None
    master: NumberFormat = "float32"

    def __post_init__(self):
        """Reads names.

        Raises:
            ValueError: If a name is none, or a tile does not fit a format: one without
                blocks of its size, such as an MX format.
        """
        for name in (*CLASSES, "master"):
            fmt = formats.checked(getattr(self, name), name)
            object.__setattr__(self, name, fmt)
            if self.tile is None or name == "master" or fmt in formats.PLAIN:
                continue
            rows, columns = self.tile
            if not isinstance(fmt, bfp.Format) or fmt.block_size != rows * columns:
                raise ValueError(
                    f"`tile` (={self.tile}) needs blocks of {rows * columns} numbers, but "
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


class InFormats(nn.Module):
    """A module whose products are in number formats; called as the module itself is.

        network = models.Network(InFormats(Small(), Formats.of("bfp5")), ...)

    It has the module's own parameters, under the same names. What is cast are the
    products of `models.layers` and of `nn.Dense`, `nn.DenseGeneral`, `nn.Conv` and
    `kernels.einsum`, wherever they stand in the module. A product that a module writes
    itself (`x @ w`) stays float32; write `kernels.dense.dense(x, w)` in its place.

    Stochastic rounding draws of the key of the call, as dropout does; a call without one
    (evaluation) rounds to the nearest instead.

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
        nn.share_scope(self, self.module)

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
        """
        widths = None
        if mantissa_bits is not None:
            widths = jnp.broadcast_to(jnp.asarray(mantissa_bits, jnp.float32), (2,))
            if not formats.has_width(self.formats.weights) or not formats.has_width(
                self.formats.activations
            ):
                raise ValueError(
                    "`mantissa_bits` needs weights and activations in block floating "
                    f"point, got {self.formats.weights!r} and {self.formats.activations!r}."
                )
        key = None
        has_key = self.has_rng("rounding") or self.has_rng("params")
        if self.formats.is_random and kwargs.get("train") and not has_key:
            raise ValueError(
                "`key` is None, but the formats round at random in training; pass a key, "
                "such as `jax.random.key(step)`."
            )
        if self.formats.is_random and has_key and not self.is_initializing():
            key = jax.random.key_data(self.make_rng("rounding"))
        with _Casting(
            self.formats, key, widths, {} if taps is None else taps
        ).entered():
            return self.module(*args, **kwargs)

    def stored(self, params: PyTree, key: Array) -> PyTree:
        """Parameters as they are kept between steps: kernels in the master format.

        Args:
            params: Of the module.
            key: For stochastic rounding.
        """
        master = self.formats.master
        leaves, treedef = jax.tree.flatten(params)
        words = jax.random.key_data(key)
        kept = [
            formats.cast(leaf, master, -2, words + jnp.uint32(i))
            if jnp.ndim(leaf) > 1
            else leaf
            for i, leaf in enumerate(leaves)
        ]
        return jax.tree.unflatten(treedef, kept)


class _Casting:
    """Casts the products of a module's layers, each known by its path."""

    def __init__(
        self,
        chosen: Formats,
        key: Array | None,
        widths: Array | None,
        taps: Mapping[str, Array],
    ):
        self._formats, self._key, self._widths, self._taps = chosen, key, widths, taps
        self._path: list[str] = []
        self._seen: dict[str, int] = {}

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        with around_products(self._multiply), nn.intercept_methods(self._intercept):
            yield

    def _multiply(self, product: Product, x: Array, w: Array) -> Array:
        name = self.name()
        key = self._key
        if key is not None:
            key = key ^ jnp.uint32(zlib.crc32(name.encode()))
        widths = self._widths
        if widths is not None:
            # The product's own order: of its first operand, then of the second.
            widths = jnp.stack([widths[1], widths[0 if product.has_weight else 1]])
        casts = self._formats.casts(product, at_random=key is not None)
        tap = self._taps.get(name)
        return cast_product(product, casts, x, w, key=key, widths=widths, tap=tap)

    def name(self) -> str:
        """Of the product at hand: its module's path, numbered from the second on."""
        path = self._path[-1] if self._path else ""
        self._seen[path] = number = self._seen.get(path, 0) + 1
        return path if number == 1 else f"{path}#{number}"

    def _intercept(self, call: Callable, args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        self._path.append("/".join(module.path))
        try:
            with _hooked(module):
                return call(*args, **kwargs)
        finally:
            self._path.pop()


@contextlib.contextmanager
def _hooked(module: nn.Module) -> Iterator[None]:
    """Puts our products in the place of those of Flax's layers."""
    hooks = {nn.Dense: "dot_general", nn.DenseGeneral: "dot_general"}
    hooks[nn.Conv] = "conv_general_dilated"
    name = hooks.get(type(module))
    if isinstance(module, _CLOSED):
        warnings.warn(
            f"{'/'.join(module.path)!r} ({type(module).__name__}) multiplies where no "
            "format can reach; its product stays float32.",
            stacklevel=2,
        )
    if name is None:
        yield
        return
    if getattr(module, f"{name}_cls") is not None:
        raise ValueError(
            f"{'/'.join(module.path)!r} has a `{name}_cls` of its own; leave it out where "
            "formats are given."
        )
    own = getattr(module, name)
    ours = _dot_general if name == "dot_general" else _convolution
    object.__setattr__(module, name, ours)
    try:
        yield
    finally:
        object.__setattr__(module, name, own)


def _dot_general(x, w, dimension_numbers, precision=None, **_):
    """`lax.dot_general` of Flax's dense layers, as one [..., C] x [C, K]."""
    (x_axes, w_axes), (x_batch, w_batch) = dimension_numbers
    if x_batch or w_batch:
        return lax.dot_general(x, w, dimension_numbers, precision=precision)
    x_free = [axis for axis in range(x.ndim) if axis not in x_axes]
    w_free = [axis for axis in range(w.ndim) if axis not in w_axes]
    shape = [x.shape[axis] for axis in x_free]
    outputs = [w.shape[axis] for axis in w_free]
    x = jnp.transpose(x, (*x_free, *x_axes)).reshape(*shape, -1)
    w = jnp.transpose(w, (*w_axes, *w_free)).reshape(x.shape[-1], -1)
    return dense(x, w).reshape(*shape, *outputs)


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
    with _Casting(chosen, words, None, {}).entered():
        yield
