"""Texts as numbers of tokens."""

import jax.numpy as jnp

from codesign.types import Array


def check_tokens(x: Array) -> None:
    """Raises ValueError unless `x` is [B, T] of whole numbers."""
    if x.ndim != 2 or not jnp.issubdtype(x.dtype, jnp.integer):
        raise ValueError(
            f"`x` is {x.dtype} {x.shape}, but must be tokens [B, T] int32; look words up "
            "in the vocabulary."
        )
