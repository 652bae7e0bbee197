"""Rounding to whole numbers, and the cheap random bits that stochastic rounding takes."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from codesign.records.named import nearest
from codesign.types import Array, is_whole

MODES = ("truncate", "nearest_even", "nearest_away", "stochastic")


def round_to_whole(x: Array, mode: str, key: Array | None = None) -> Array:
    """Whole numbers beside `x`: [...] float32 -> [...] float32, symmetric about 0.

    `truncate` takes the one nearer to zero; `nearest_even` and `nearest_away` the nearest
    one, of a tie the even one or the one farther from zero; `stochastic` the one farther
    from zero with the probability of the fraction, so that the mean is x to 2^-24:

        q = t + sign(x) [u < |x - t|],    t = trunc(x),    u uniform on {k 2^-24}

    The sum x + u would be rounded before it is cut; the comparison is exact.

    Args:
        x: Numbers below 2^23, where float32 has no fractions left.
        mode: One of `MODES`.
        key: For `stochastic` only.

    Raises:
        ValueError: As `check_mode`.
    """
    check_mode(mode, key, name="mode")
    if mode == "nearest_even":
        return jnp.round(x)
    whole = jnp.trunc(x)
    if mode == "truncate":
        return whole
    key = None if mode == "nearest_away" else key
    fraction = jnp.abs(x - whole)
    up = fraction >= 0.5 if key is None else uniform(key, x.shape) < fraction
    return whole + jnp.copysign(up.astype(x.dtype), x)


def check_mode(
    mode: str,
    key: Array | None = None,
    *,
    needs_key: bool = True,
    name: str = "rounding",
) -> None:
    """Refuses what is no way of rounding, an argument of `name`.

    Raises:
        ValueError: If `mode` is not one of `MODES`; or it is `stochastic`, a key is
            needed, and there is none.
    """
    if mode not in MODES:
        raise ValueError(f"`{name}` (={mode!r}): {nearest(mode, MODES)}")
    if mode == "stochastic" and key is None and needs_key:
        raise ValueError(
            f'`{name}="stochastic"` needs `key`, such as `jax.random.key(0)`; fold the '
            "step into it, so that no two steps round alike."
        )


def uniform(key: Array, shape: tuple[int, ...]) -> Array:
    """Multiples of 2^-24 in [0, 1), float32 of `shape`, of `random_bits`."""
    return (random_bits(key, shape) >> 8).astype(jnp.float32) * 2.0**-24


def random_bits(key: Array, shape: tuple[int, ...]) -> Array:
    """Random uint32 of `shape`: a hash of each position, 10 integer operations.

    Two words are mixed of the key first. One is added to the position, and the bits of
    the other are flipped between the rounds: were they added there, the streams of any
    two keys would be one stream, shifted, plus a constant. The rounds are those of
    `lowbias32` (Wellons, "Prospecting for hash functions", 2018). For rounding and noise,
    not for cryptography: threefry would cost a fifth of a training step, this a fiftieth.

    Args:
        key: One key of `jax.random`, its words, or a whole number below 2^32.
        shape: Of fewer than 2^32 values.

    Raises:
        TypeError: If `key` is none of these, or an array of whole numbers of 64 bits.
        ValueError: If `key` holds several or nothing, or is a whole number out of range;
            or `shape` holds 2^32 values or more.
    """
    size = math.prod(shape)
    if size >= 2**32:
        raise ValueError(f"`shape` (={shape}) must hold fewer than 2^32 values.")
    words = _words_of(key)
    offset, inner = jnp.uint32(0x9E3779B9), jnp.uint32(0x85EBCA6B)
    for i in range(words.size):
        offset = _mix(offset ^ words[i])
        inner = _mix(inner + offset)
    x = offset
    for axis, length in enumerate(shape):  # position in row-major order
        step = jnp.uint32(math.prod(shape[axis + 1 :]))
        x = jnp.expand_dims(x, -1) + _along(length, axis) * step
    x = x.reshape(shape)
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = ((x ^ (x >> 15)) ^ inner) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def _words_of(key: Any) -> Array:
    if is_whole(key):
        if not 0 <= key < 2**32:
            raise ValueError(
                f"`key` (={key}) must be from 0 to 2^32 - 1; `jax.random.key({key})` "
                "takes any whole number of 64 bits."
            )
        return jnp.full(1, key, jnp.uint32)
    kind = key.dtype if isinstance(key, jax.Array | np.ndarray) else np.dtype(object)
    is_key = jnp.issubdtype(kind, jax.dtypes.prng_key)
    if not is_key and not (jnp.issubdtype(kind, jnp.integer) and kind.itemsize <= 4):
        raise TypeError(
            f"`key` (={key!r}) must be a key, such as `jax.random.key(0)`, or words of "
            "32 bits, such as `jax.random.key_data` gives."
        )
    if key.ndim > (0 if is_key else 1) or key.size == 0:
        raise ValueError(
            f"`key` is of the shape {key.shape}, which is no single key; pass one of "
            "several, or map over them by `jax.vmap`."
        )
    return jnp.ravel(jax.random.key_data(key) if is_key else key).astype(jnp.uint32)


def _along(length: int, axis: int) -> Array:
    return lax.iota(jnp.uint32, length).reshape((1,) * axis + (length,))


def _mix(x: Array) -> Array:
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


@jax.custom_jvp
def straight_through(x: Array, rounded: Array) -> Array:
    """Returns `rounded`, with the derivative of `x` and that of `rounded` itself.

    Bengio et al., arXiv:1308.3432. `rounded` is made of `lax.stop_gradient(x)`; what else
    it depends on, such as a width between two formats, keeps its own derivative.
    """
    del x
    return rounded


@straight_through.defjvp
def _straight_through_jvp(primals, tangents):
    return straight_through(*primals), tangents[0] + tangents[1]
