"""What a reversible stack refuses, before it computes anything."""

from typing import Any

import jax
import jax.numpy as jnp

from codesign.types import Array, PyTree, is_whole


def check_streams(streams: tuple[Array, Array], fraction_bits: int | None) -> None:
    """Two of one shape and type, float32 with a lattice.

    Raises:
        ValueError: Says what to do.
    """
    of_first, of_second = ((jnp.shape(a), jnp.result_type(a)) for a in streams)
    if of_first != of_second:
        raise ValueError(
            f"`streams` are {of_first[1]}{[*of_first[0]]} and {of_second[1]}"
            f"{[*of_second[0]]}; a reversible stack needs two of one shape and type, such "
            "as halves of an even number of channels."
        )
    if fraction_bits is None:
        return
    if not is_whole(fraction_bits) or not 0 <= fraction_bits <= 23:
        raise ValueError(
            f"`fraction_bits` (={fraction_bits!r}) must be a whole number from 0 to 23, "
            "or None for float streams."
        )
    if of_first[1] != jnp.float32:
        raise ValueError(
            f"`streams` are {of_first[1]}, but a lattice of `fraction_bits` "
            f"(={fraction_bits}) is float32; convert them, or pass None."
        )


def check_value(name: str, found: Any, x: jax.ShapeDtypeStruct) -> None:
    """The value of function `name` is of the shape and type of its input.

    Raises:
        ValueError: Says what to do.
    """
    value, _ = found
    if (value.shape, value.dtype) != (x.shape, x.dtype):
        raise ValueError(
            f"`{name}` makes {value.dtype}{[*value.shape]} of {x.dtype}{[*x.shape]}; a "
            "block of a reversible stack may change neither shape nor type, so do strides "
            "and pools outside of it."
        )


def depth_of(blocks: tuple[PyTree, PyTree]) -> int:
    """Number of blocks.

    Raises:
        ValueError: If leaves disagree about it, or there is none.
    """
    shapes = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(blocks)}
    if len(shapes) != 1 or shapes in ({()}, {(0,)}):
        raise ValueError(
            f"`blocks` has leaves of {sorted(shapes)} slices; all need the same number, "
            "one for each block."
        )
    return shapes.pop()[0]
