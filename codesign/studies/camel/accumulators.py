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

# Bits, and how many of them stand above the largest result (assumed; the paper gives
# neither): narrow registers lose low bits, low ones lose sums at their ends.
REGISTERS = (
    *((bits, 1) for bits in (10, 12, 14, 16, 20, 24, 32)),
    *((24, guard) for guard in (-1, -2, -3)),
)
_ROWS = 64  # of each product


@dataclasses.dataclass(frozen=True)
class AccumulatorRow:
    """One product under one accumulator.

    Attributes:
        product: Its number in the network, from 1.
        bits: Of the accumulator.
        guard_bits: Of these, how many stand above the largest result.
        error: Root of the mean squared error of its results over that of the results.
        saturated: Fraction of its additions that reached an end.
    """

    product: int
    bits: int
    guard_bits: int
    error: float
    saturated: float


def measure(
    network: Network,
    variables: PyTree,
    images: Array,
    bn_mask: Array,
    fmt: bfp.Format,
    registers: Sequence[tuple[int, int]] = REGISTERS,
) -> list[AccumulatorRow]:
    """Runs 64 rows of every product of a forward pass through accumulators.

    What is below a register's lowest bit is cut; sums beyond its top stay there.

    Args:
        network: In float32.
        variables: `params` and `batch_stats`.
        images: [B, H, W, C], a few.
        bn_mask: [C].
        fmt: Of both operands; must not round at random.
        registers: Bits of each accumulator, and its guard bits.
    """
    operands = _operands(network, variables, images, bn_mask, fmt.block_size)
    rows = []
    for number, (x, w) in enumerate(operands, 1):
        exact = np.asarray(_dot(x, w, fmt, None).value)
        largest = float(np.abs(exact).max())
        if not largest:
            continue
        power = int(np.frexp(largest)[1])
        additions = exact.size * -(-w.shape[0] // fmt.block_size)
        accumulators = tuple(
            bfp_dot.Accumulator(bits=bits, lowest_exponent=power + guard - bits + 1)
            for bits, guard in registers
        )
        found = map(np.asarray, _dot(x, w, fmt, accumulators))
        for (bits, guard), value, count in zip(registers, *found, strict=True):
            error = float(np.sqrt(np.sum((value - exact) ** 2) / np.sum(exact**2)))
            share = int(count) / additions
            rows.append(AccumulatorRow(number, bits, guard, error, share))
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
