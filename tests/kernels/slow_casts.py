"""Blocks that truncate, one at a time in NumPy, in float64."""

import itertools

import numpy as np


def along(x, fmt, axis):
    """`bfp.quantize(x, fmt, axis)` of a format that truncates, with `bias=None`."""
    x = np.array(x, np.float64)
    rows = np.moveaxis(x, axis, -1)  # a view
    for at in np.ndindex(rows.shape[:-1]):
        for start in range(0, rows.shape[-1], fmt.block_size):
            part = slice(start, start + fmt.block_size)
            rows[at][part] = _truncated(rows[at][part], fmt.mantissa_bits)
    return x


def tiled(x, fmt, tile):
    """`bfp.quantize(x, fmt, tile=tile)` of two axes, likewise."""
    x = np.array(x, np.float64)
    for i, j in itertools.product(*(range(0, x.shape[k], tile[k]) for k in (0, 1))):
        part = np.s_[i : i + tile[0], j : j + tile[1]]
        x[part] = _truncated(x[part], fmt.mantissa_bits)
    return x


def _truncated(block, bits):
    """Numbers of one block: m bits below the exponent of the largest, cut."""
    top = np.abs(block).max()
    if top == 0:
        return block
    step = 2.0 ** (np.frexp(top)[1] - bits)  # frexp's exponent is one more
    return np.trunc(block / step) * step
