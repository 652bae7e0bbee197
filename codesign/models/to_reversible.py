"""A trained residual network, x <- x + G(x) again and again, made reversible."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from codesign.models.reversible import ReversibleStack
from codesign.types import Array, PyTree, is_whole

WIRINGS = ("pairs", "leapfrog", "copies")


class ReversibleResidual(nn.Module):
    """The functions G of a trained residual stack, wired so that nothing need be kept.

        made = ReversibleResidual(G(), depth=8)
        variables = made.from_trained({"params": trained})  # leaves [8, ...]
        y = made.apply(variables, x)  # near to what the trained stack makes

    Both streams start as x, and the result is their mean. `wiring` says where the
    functions stand (CAMEL, II-B: "a scaled version of F"):

        copies    each G is F1 and F2 of a block of its own: two copies, trained apart
        pairs     two in turn are F1 and F2 of a block, each twice as large: as many
                  variables and products as before
        leapfrog  pairs, but the first G of all is not doubled, and the result is the
                  first stream: x_(n + 1) = x_(n - 1) + 2 G_n(x_n)

    With `copies` the first block's second stream is exactly the trained network's, and
    each stream adds up every G once. With `pairs` only the mean does, and a function sees
    half of those before it, doubled. `studies/camel/to_reversible.py` compares them: right
    after, gather running statistics anew (a few passes with `train`, no gradient), which
    restores most of the accuracy, then fine-tune.

    Attributes:
        function: G, a module as `ReversibleStack` takes it.
        depth: Number of trained functions; even for `pairs` and `leapfrog`.
        wiring: One of `WIRINGS`.
        fraction_bits: Of the lattice; see `ReversibleStack`.
    """

    function: nn.Module
    depth: int
    wiring: str = "pairs"
    fraction_bits: int | None = 12

    @nn.compact
    def __call__(self, x: Array, **settings: Any) -> Array:
        """[...] -> [...]; `settings` are G's, such as `train`.

        Raises:
            ValueError: As `from_trained` and `ReversibleStack`.
        """
        scales = self._scales()
        function = self.function.clone(parent=None)
        f1, f2 = (_Scaled(function, place, parent=None) for place in (0, 1))
        stack = ReversibleStack(f1, f2, len(scales), self.fraction_bits, name="stack")
        first, second = stack(x, x, scales, **settings)
        return first if self.wiring == "leapfrog" else (first + second) / 2

    def from_trained(self, variables: Mapping[str, PyTree]) -> dict[str, PyTree]:
        """Variables of this module, made of those of the trained functions.

        Args:
            variables: Of G, by collection, all leaves [depth, ...], as `nn.scan` has
                them; `jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)` makes them
                of separate ones.

        Raises:
            ValueError: If `depth` is no positive whole number or odd in pairs, `wiring`
                is none of `WIRINGS`, or a leaf is not [depth, ...].
        """
        self._scales()
        for path, leaf in jax.tree.leaves_with_path(variables):
            if jnp.shape(leaf)[:1] != (self.depth,):
                raise ValueError(
                    f"`variables`{jax.tree_util.keystr(path)} is {jnp.shape(leaf)}; its "
                    f"first axis must be the `depth` (={self.depth}) functions."
                )
        step = 1 if self.wiring == "copies" else 2

        def placed(tree: PyTree) -> PyTree:
            first, second = (
                jax.tree.map(lambda leaf, start=start: leaf[start::step], tree)
                for start in (0, step - 1)
            )
            places = {"residual1": first, "residual2": second}
            return {"stack": {name: {"function": at} for name, at in places.items()}}

        return {collection: placed(tree) for collection, tree in variables.items()}

    def _scales(self) -> Array:
        """[blocks, 2] of F1 and F2."""
        if self.wiring not in WIRINGS:
            raise ValueError(f"`wiring` (={self.wiring!r}) must be one of {WIRINGS}.")
        if not is_whole(self.depth) or self.depth < 1:
            raise ValueError(
                f"`depth` (={self.depth!r}) must be a positive whole number."
            )
        if self.wiring == "copies":
            return jnp.ones((self.depth, 2))
        if self.depth % 2:
            raise ValueError(
                f"`depth` (={self.depth}) must be even, as two functions make a block; "
                "take the wiring 'copies', or leave one function outside."
            )
        scales = jnp.full((self.depth // 2, 2), 2.0)
        return scales.at[0, 0].set(1.0) if self.wiring == "leapfrog" else scales


class _Scaled(nn.Module):
    """`scales[place]` times a function."""

    function: nn.Module
    place: int

    def __call__(self, x: Array, scales: Array, **settings: Any) -> Array:
        return scales[self.place] * self.function(x, **settings)
