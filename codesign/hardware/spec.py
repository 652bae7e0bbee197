"""What every chip's description must keep to, and the knobs that it has."""

import dataclasses
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.core import Tracer

from codesign import units
from codesign.numerics.relax import WINDOW

_Spec = TypeVar("_Spec")
_SHARES = ("utilisation", "efficiency")  # fields with such an ending are at most 1


def count(**field: Any) -> Any:
    """Marks a field of a spec as the number of something.

    For example `num_tiers: Scalar = count()`. It is real-valued while a search moves it.
    Costs are a staircase over it, so slopes are held against secants over a factor of
    1.5 instead of 1 %.
    """
    return struct.field(metadata={"count": True}, **field)


@dataclasses.dataclass(frozen=True)
class Knob:
    """A number of a spec that a designer may turn.

    Attributes:
        name: `crossbar.read_time_s`; with the index of an array's entry.
        leaf: Number of its leaf in the flattened spec.
        index: Of its entry, () of a scalar.
        value: What it stands at.
        unit: SI unit, by the ending of its name.
        is_count: Whether it is declared as a `count`.
    """

    name: str
    leaf: int
    index: tuple[int, ...]
    value: float
    unit: str
    is_count: bool

    @property
    def factor(self) -> float:
        """How far up and down the exact model is looked at for a slope by it."""
        return WINDOW if self.is_count else 1.01

    def set(self, spec: _Spec, value: float) -> _Spec:
        """The same spec with another `value` of this knob."""
        leaves, structure = jax.tree.flatten(spec)
        leaves[self.leaf] = jnp.asarray(leaves[self.leaf]).at[self.index].set(value)
        return structure.unflatten(leaves)


def knobs(spec: Any) -> list[Knob]:
    """Every number of a spec, in the order of its leaves."""
    found = []
    for leaf, (path, value) in enumerate(jax.tree_util.tree_leaves_with_path(spec)):
        name = jax.tree_util.keystr(path).lstrip(".")
        for index in np.ndindex(np.shape(value)):
            where = f"[{', '.join(map(str, index))}]" if index else ""
            found.append(
                Knob(
                    name=name + where,
                    leaf=leaf,
                    index=index,
                    value=float(np.asarray(value)[index]),
                    unit=units.of_name(name.partition("[")[0]),
                    is_count=_is_count(spec, path),
                )
            )
    return found


def _is_count(spec: Any, path: tuple[Any, ...]) -> bool:
    """Whether the field that `path` ends at, or passes through, is a `count`."""
    for key in path:
        name = getattr(key, "name", None)
        if name is None or not dataclasses.is_dataclass(spec):
            return False
        field = type(spec).__dataclass_fields__[name]
        if field.metadata.get("count"):
            return True
        spec = getattr(spec, name)
    return False


def checked_leaves(spec: _Spec) -> _Spec:
    """Validates the concrete leaves of a spec; returns it with float32 leaves.

    Raises:
        ValueError: If a leaf is no number, not positive or not finite, as float32 holds
            it, or a utilisation or efficiency exceeds 1.
    """
    leaves = jax.tree_util.tree_leaves_with_path(
        spec, is_leaf=lambda leaf: leaf is None
    )
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path)
        if isinstance(leaf, Tracer):
            continue
        if not _is_positive(leaf):
            raise ValueError(
                f"`spec{name}` must be a positive and finite number, also in float32, "
                f"got {leaf!r}."
            )
        if name.endswith(_SHARES) and np.any(np.asarray(leaf) > 1):
            raise ValueError(f"`spec{name}` must be at most 1, got {leaf}.")
    return jax.tree.map(jnp.float32, spec)


def _is_positive(leaf: Any) -> bool:
    """Whether all of a leaf are numbers that float32 holds as positive and finite."""
    try:
        values = np.asarray(leaf)
        if not jnp.issubdtype(values.dtype, np.number):
            return False
        with np.errstate(over="ignore", under="ignore"):
            values = values.astype(np.float32)
    except (TypeError, ValueError):
        return False
    return bool(np.all((values >= np.finfo(np.float32).tiny) & np.isfinite(values)))
