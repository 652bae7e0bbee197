"""A number format for each class of operands: weights, activations and gradients."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from codesign.kernels.cast_product import CLASSES, Casts
from codesign.kernels.product import Product
from codesign.numerics import bfp, formats
from codesign.numerics.formats import NumberFormat
from codesign.records.named import nearest
from codesign.types import is_whole


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
            small updates away from zero, and makes a whole step of each small one
            towards zero, so that weights decay. `stochastic` keeps the mean of both with
            `carry="renorm"`; with `carry="saturate"` the largest number of a block cannot
            pass a power of two.
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
