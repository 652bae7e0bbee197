"""What every chip's description must keep to."""

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

_Spec = TypeVar("_Spec")
_SHARES = ("utilisation", "efficiency")  # fields with such an ending are at most 1


def checked_leaves(spec: _Spec) -> _Spec:
    """Validates the concrete leaves of a spec; returns it with float32 leaves.

    Raises:
        ValueError: If a leaf is not positive, or a utilisation or efficiency exceeds 1.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(spec):
        name = jax.tree_util.keystr(path)
        if isinstance(leaf, Tracer):
            continue
        if not np.all((np.asarray(leaf) > 0) & np.isfinite(leaf)):
            raise ValueError(f"`spec{name}` must be positive and finite, got {leaf}.")
        if name.endswith(_SHARES) and np.any(np.asarray(leaf) > 1):
            raise ValueError(f"`spec{name}` must be at most 1, got {leaf}.")
    return jax.tree.map(jnp.float32, spec)
