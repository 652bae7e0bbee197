"""What a fixed-point accumulator of few bits costs, on the products of a network."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from codesign.kernels.convolution import patches
from codesign.kernels.product import Product, around_products
from codesign.models.network import Network
from codesign.numerics import bfp, bfp_dot
from codesign.types import Array, PyTree

WIDTHS = (10, 12, 14, 16, 20, 24, 32)  # bits
_ROWS = 64  # of each product
_GUARD_BITS = 1  # assumed: above the largest result, for sums on the way; range 0 to 4


@dataclasses.dataclass(frozen=True)
class AccumulatorRow:
    """One product under an accumulator of one width.

    Attributes:
        product: Its number in the network, from 1.
        bits: Of the accumulator.
        error: Root of the mean squared error of its results over that of the results.
        saturated: Fraction of its additions that reached an end.
    """

    product: int
    bits: int
    error: float
    saturated: float


def measure(
    network: Network,
    variables: PyTree,
    images: Array,
    bn_mask: Array,
    fmt: bfp.Format,
    widths: Sequence[int] = WIDTHS,
) -> list[AccumulatorRow]:
    """Runs 64 rows of every product of a forward pass through accumulators.

    Each has its largest result's power of two and one guard bit on top; what is below its
    lowest bit is cut.

    Args:
        network: In float32.
        variables: `params` and `batch_stats`.
        images: [B, H, W, C], a few.
        bn_mask: [C].
        fmt: Of both operands; must not round at random.
        widths: Bits of the accumulators.
    """
    operands = _operands(network, variables, images, bn_mask, fmt.block_size)
    rows = []
    for number, (x, w) in enumerate(operands, 1):
        exact = np.asarray(_dot(x, w, fmt, None).value)
        largest = float(np.abs(exact).max())
        if not largest:
            continue
        top = int(np.frexp(largest)[1]) + _GUARD_BITS
        additions = exact.size * -(-w.shape[0] // fmt.block_size)
        registers = tuple(
            bfp_dot.Accumulator(bits=bits, lowest_exponent=top - bits + 1)
            for bits in widths
        )
        found = _dot(x, w, fmt, registers)
        for bits, value, count in zip(widths, *map(np.asarray, found), strict=True):
            error = float(np.sqrt(np.sum((value - exact) ** 2) / np.sum(exact**2)))
            rows.append(AccumulatorRow(number, bits, error, int(count) / additions))
    return rows


@functools.partial(jax.jit, static_argnums=(2, 3))
def _dot(x, w, fmt, registers):
    return bfp_dot.dot(x, w, fmt, accumulator=registers)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _operands(network, variables, images, bn_mask, size) -> list[tuple[Array, Array]]:
    """Rows [R, K] and weights [K, N] of every product; blocks lie within a tap."""
    found = []

    def keep(product: Product, x: Array, w: Array) -> Array:
        if product.kind == "conv":
            found.append(_unfolded(product, x, w, size))
        elif product.kind == "dense":
            found.append((x.reshape(-1, x.shape[-1])[:_ROWS], w))
        return product(x, w)

    with around_products(keep):
        network.apply(variables, images, bn_mask, train=False)
    return found


def _unfolded(product: Product, x: Array, w: Array, size: int) -> tuple[Array, Array]:
    static = dict(product.static)
    missing = -x.shape[-1] % size  # so that no block holds channels of two taps
    x = jnp.pad(x, (*((0, 0),) * 3, (0, missing)))
    w = jnp.pad(w, (*((0, 0),) * 2, (0, missing), (0, 0)))
    taps = patches(x, w, static["strides"], static["padding"])
    rows = jnp.concatenate(taps, -1)
    return rows.reshape(-1, rows.shape[-1])[:_ROWS], w.reshape(-1, w.shape[-1])
