"""A sequence network, as every other package knows it."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from codesign.types import Array, PyTree


@dataclasses.dataclass(frozen=True)
class SequenceNetwork:
    """A Flax module from two embedded sequences to one, without batch norms.

    The module is called as `module(source, target, train=...)` and holds `params` only.
    """

    module: Any
    input_shapes: tuple[tuple[int, int], tuple[int, int]]  # (S, H) and (T, H)

    def init(self, key: Array) -> PyTree:
        """Variables `{"params"}` drawn from `key`."""
        source, target = (
            jnp.zeros((1, *shape), jnp.float32) for shape in self.input_shapes
        )
        return self.module.init(key, source, target, train=False)

    def apply(
        self,
        variables: PyTree,
        source: Array,
        target: Array,
        key: Array | None = None,
        *,
        train: bool,
    ) -> Array:
        """Outputs [B, T, H] of a source [B, S, H] and a target [B, T, H].

        Output t sees the whole source and the targets 0..t: shift the target by one.
        Lengths may differ from `input_shapes`.

        Args:
            variables: From `init`.
            source, target: Embedded sequences.
            key: Random key of dropout, in training.
            train: Whether dropout acts.

        Raises:
            ValueError: If sequences are not [B, length, H] of one batch and the network's
                width, or the key is missing.
        """
        hidden = self.input_shapes[0][-1]
        shapes = jnp.shape(source), jnp.shape(target)
        if any(len(s) != 3 or s[-1] != hidden for s in shapes) or (
            shapes[0][0] != shapes[1][0]
        ):
            raise ValueError(
                f"`source` {shapes[0]} and `target` {shapes[1]} must be [B, length, H] "
                f"with one batch B and H = {hidden}; embed the sequences."
            )
        if not train:
            return self.module.apply(variables, source, target, train=False)
        if key is None:
            raise ValueError(
                "`key` is None; pass a random key, since dropout acts in training."
            )
        return self.module.apply(
            variables, source, target, train=True, rngs={"dropout": key}
        )

    def trace_args(self, *, train: bool = True) -> tuple[Any, ...]:
        """`(fn, *shapes)` for `workload.trace`: one pair of sequences.

        With `train` dropout acts, and its random key is the last argument.
        """

        def forward(variables, source, target, key=None):
            return self.apply(variables, source, target, key, train=train)

        key = jax.eval_shape(lambda: jax.random.key(0))
        variables = jax.eval_shape(self.init, key)
        source, target = (
            jax.ShapeDtypeStruct((1, *shape), jnp.float32)
            for shape in self.input_shapes
        )
        shapes = (variables, source, target)
        return (forward, *shapes, key) if train else (forward, *shapes)
