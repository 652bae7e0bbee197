"""A frozen backbone beside a reversible branch that learns: CAMEL's duplex networks."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from codesign.kernels.named_op import uncounted
from codesign.kernels.pooling import area_pool
from codesign.models import backbone as backbones
from codesign.models.backbone import Maps
from codesign.models.layers import Dense
from codesign.models.residual import ResidualStack
from codesign.models.reversible import ReversibleStack
from codesign.numerics.read_errors import ReadErrors, read
from codesign.records.named import nearest
from codesign.types import Array, PyTree, is_whole


@dataclasses.dataclass(frozen=True)
class Algorithm:
    """How a branch and its backbone go together (CAMEL, Fig. 16).

    Attributes:
        title: As the paper's tables have it.
        is_reversible: Whether the branch is; else it is residual and keeps activations.
        has_taps: Whether its blocks see the backbone's maps.
        starts_from: What the branch's streams start from: `input`, the pooled image, or
            `backbone`, its last map.
    """

    title: str
    is_reversible: bool = True
    has_taps: bool = True
    starts_from: str = "input"


ALGORITHMS = {
    "duplex": Algorithm("DuDNN"),
    "irreversible": Algorithm("FI", is_reversible=False),
    "chain": Algorithm("CA", has_taps=False, starts_from="backbone"),
    "branch_only": Algorithm("BO", has_taps=False),
}


class Duplex(nn.Module):
    """A branch of `depth` blocks, each with a pooled map of a frozen backbone (CAMEL, III).

        before = models.create("resnet18", num_classes=100)  # and pre-trained, variables
        module = Duplex(before.module, ConvResidual(0), ConvResidual(1), depth=4)
        network = models.Network(module, 8, frozen=backbone.frozen(before, variables))

    Both streams start as the pooled input, its channels filled up with zeros, and their
    mean goes to the classifier, so that all `ALGORITHMS` have layers of the same sizes:
    FI runs the same blocks as plain residual ones, CA starts from the backbone's last map
    and BO from the input, both without taps. Nothing but the blocks and the classifier
    learns. The backbone runs in evaluation without its batch norms, which `fold` has put
    into its weights; its variables are in the collection `frozen`.

    Attributes:
        backbone: Called as `backbone(x, bn_mask, train=False)`. It says its maps by
            `self.sow("intermediates", "tap", x)`, x [B, h, w, C], or [B, T, C] of texts,
            and what a text's branch starts from, [B, T, C], likewise by `"input"`.
        f1, f2: Residual functions, called as `f(x, tap, bn_mask, train=...)` with the tap
            None where there is none, and `bn_mask` [2] of the block; see `models.branch`.
        depth: Number of blocks, with sites 2 i and 2 i + 1 in block i.
        num_classes: Width of the logits.
        algorithm: One of `ALGORITHMS`.
        side: Maps and images are pooled to `side` x `side`; of no use to texts.
        channels: Width of a stream; None for that of the backbone's widest map. A map
            that is wider is averaged over neighbouring channels.
        taps: Which of the backbone's maps the blocks see, from 0; None for `depth` of
            them, evenly spaced, the last among them.
        recompute_taps: Whether the backbone is run again, up to a block's map, wherever
            a residual function needs it; else the pooled maps are kept, `depth` of them.
            Memory is then that of one block and one backbone at any depth.
        fraction_bits: As of `ReversibleStack`.
        read_errors: In training, of the memory that the branch's values are read from.
    """

    backbone: nn.Module
    f1: nn.Module
    f2: nn.Module
    depth: int
    num_classes: int = 10
    algorithm: str = "duplex"
    side: int = 4
    channels: int | None = None
    taps: Sequence[int] | None = None
    recompute_taps: bool = False
    fraction_bits: int | None = 12
    read_errors: ReadErrors | None = None

    @nn.compact
    def __call__(
        self,
        x: Array,
        bn_mask: Array,
        *,
        train: bool,
        read_errors: ReadErrors | None = None,
    ) -> Array:
        """Images [B, H, W, C] or texts [B, T], a mask [2 depth] -> [B, num_classes].

        `read_errors` are in place of the module's own, and may be traced.

        Raises:
            ValueError: If the algorithm is none, the mask has another shape, the backbone
                says no map or too few, or a setting is out of its range.
        """
        algorithm = self._checked(bn_mask)
        is_token = x != 0 if x.ndim == 2 else None
        width, which = self._plan(x)
        held = self.variable(
            "frozen",
            "pretrained",
            lambda: backbones.draw(self.backbone, self.make_rng("params"), x),
        ).value

        def run() -> Maps:
            return backbones.run(self.backbone, held, x, (*self.path, "backbone"))

        def tap(i: int) -> Array:
            return self._fitted(run().taps[which[i]], width)

        from_backbone = algorithm.starts_from == "backbone"
        is_kept = algorithm.has_taps and not self.recompute_taps
        start, taps = x, None
        if from_backbone or is_kept or x.ndim == 2:
            maps = run()
            start = maps.taps[-1] if from_backbone else maps.start
            if is_kept:
                taps = jnp.stack([self._fitted(maps.taps[i], width) for i in which])
        start = self._fitted(start, width)
        errors = self.read_errors if read_errors is None else read_errors
        if not train or self.is_initializing():
            errors = None
        if errors is not None and taps is not None:
            rate, _ = errors.rates(self.depth)
            keys = jax.random.split(self.make_rng("errors"), self.depth)
            taps = uncounted(_read_each, taps, rate, keys)
        settings: dict[str, Any] = {"train": train}
        if is_token is not None:
            settings["is_token"] = is_token
        settings["read_errors"] = errors
        if algorithm.has_taps and not is_kept:
            taps, settings["fetch"] = jnp.arange(self.depth), _fetch(tap, self.depth)
        each = taps, bn_mask.reshape(self.depth, 2)
        names: dict[str, Any] = dict(
            f1=self.f1, f2=self.f2, depth=self.depth, name="branch"
        )
        if algorithm.is_reversible:
            stack = ReversibleStack(fraction_bits=self.fraction_bits, **names)
            first, second = stack(start, start, *each, **settings)
            y = (first + second) / 2
        else:
            y = ResidualStack(**names)(start, *each, **settings)
        return Dense(self.num_classes, name="classifier")(_mean(y, is_token))

    def _checked(self, bn_mask: Array) -> Algorithm:
        if self.algorithm not in ALGORITHMS:
            raise ValueError(
                f"`algorithm` (={self.algorithm!r}): {nearest(self.algorithm, ALGORITHMS)}"
            )
        if not is_whole(self.depth) or self.depth < 1:
            raise ValueError(
                f"`depth` (={self.depth!r}) must be a positive whole number."
            )
        if bn_mask.ndim != 1 or bn_mask.shape[0] != 2 * self.depth:
            raise ValueError(
                f"`bn_mask` has shape {bn_mask.shape}, but {self.depth} blocks have two "
                f"sites each; pass {2 * self.depth} entries, and `num_sites` to `Network`."
            )
        return ALGORITHMS[self.algorithm]

    def _plan(self, x: Array) -> tuple[int, list[int]]:
        """Width of a stream, and the numbers of the maps that the blocks see."""
        found = backbones.shapes(self.backbone, x).taps
        which = self.taps
        if which is None:
            if self.depth > len(found):
                raise ValueError(
                    f"The backbone {type(self.backbone).__name__} says {len(found)} maps, "
                    f"fewer than `depth` (={self.depth}); pass `taps`, in which one may "
                    "stand twice, or take a deeper backbone."
                )
            ends = np.arange(1, self.depth + 1) * len(found) / self.depth
            which = np.ceil(ends - 1e-9).astype(int) - 1
        which = [int(i) for i in which]
        if len(which) != self.depth or not all(0 <= i < len(found) for i in which):
            raise ValueError(
                f"`taps` (={self.taps}) must be {self.depth} of the numbers 0 to "
                f"{len(found) - 1} of the backbone's maps, one for each block."
            )
        width = self.channels
        if width is None:
            width = max(tap.shape[-1] for tap in found)
        if not is_whole(width) or width < 1:
            raise ValueError(
                f"`channels` (={width!r}) must be a positive whole number, or None."
            )
        return int(width), which

    def _fitted(self, x: Array, width: int) -> Array:
        """Pooled to `side`, with `width` channels."""
        if x.ndim == 4:
            x = area_pool(x, self.side)
        channels = x.shape[-1]
        if channels <= width:
            return jnp.pad(x, (*((0, 0),) * (x.ndim - 1), (0, width - channels)))
        if channels % width:
            raise ValueError(
                f"`channels` (={width}) must divide the {channels} of a map that is wider, "
                "whose neighbouring channels are averaged."
            )
        return jnp.mean(x.reshape(*x.shape[:-1], width, channels // width), -1)


def _read_each(taps, rates, keys):
    return jax.vmap(read)(taps, rates, keys)


def _fetch(tap: Callable[[int], Array], depth: int) -> Callable[..., tuple]:
    """Turns the number of a block into its tap, whenever it is asked."""

    def fetch(number: Array, *others: PyTree) -> tuple:
        branches = [lambda i=i: tap(i) for i in range(depth)]
        return lax.switch(number, branches), *others

    return fetch


def _mean(y: Array, is_token: Array | None) -> Array:
    """[B, ..., C] -> [B, C], over all positions that are no padding."""
    if is_token is None:
        return jnp.mean(y.reshape(len(y), -1, y.shape[-1]), 1)
    weights = is_token.astype(y.dtype)[..., None]
    return jnp.sum(y * weights, 1) / jnp.maximum(jnp.sum(weights, 1), 1)
