"""A classifier, with batch-norm sites or without, as every other package knows it."""

import copy
import dataclasses
import re
from collections.abc import Iterable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from codesign.models.norm import TRACED_TRAIN, MaskedBatchNorm
from codesign.types import Array, PyTree, is_whole

MAX_SITES = 128  # that a search takes


@dataclasses.dataclass(frozen=True)
class Network:
    """A Flax module, its BN sites, and the shapes it works on.

        class Small(nn.Module):
            @nn.compact
            def __call__(self, x, bn_mask, *, train):
                x = nn.Conv(16, (3, 3))(x)
                x = models.MaskedBatchNorm(site=0)(x, bn_mask, train=train)
                x = nn.Dropout(0.1, deterministic=not train)(nn.relu(x))
                return nn.Dense(10)(x.mean((1, 2)))

        network = models.Network(Small(), image_shape=(28, 28, 1))

    Attributes:
        module: Called as `module(x, bn_mask, train=...)`, x [B, H, W, C] and bn_mask
            [num_sites]; returns logits [B, num_classes]. It holds `params`,
            `batch_stats`, and whatever `frozen` has.
        num_sites: Length C of `bn_mask`; left out, it is found from the module.
        image_shape: (H, W, C) of one input; (T,) of texts, x [B, T] int32.
        num_classes: Width of the logits.
        paper_sites: Of the published placement, as `mask` takes them.
        label: What tables call the network; by default the name of the module's class.
        frozen: Variables that no training changes, by collection, such as those of a
            pre-trained backbone.
    """

    module: Any
    num_sites: int = 0
    image_shape: tuple[int, ...] = (32, 32, 3)
    num_classes: int = 10
    paper_sites: tuple[str, ...] = ()
    label: str = ""
    frozen: PyTree = dataclasses.field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self):
        """Finds what was left out.

        Raises:
            TypeError: If `module` is no Flax module.
            ValueError: If the module misses a site, or its logits are not
                [B, num_classes]; or `num_sites` is no number of sites.
        """
        if not self.label:
            label = getattr(self.module, "label", None)
            label = label if isinstance(label, str) else type(self.module).__name__
            object.__setattr__(self, "label", label)
        if not is_whole(self.num_sites) or not 0 <= self.num_sites <= MAX_SITES:
            raise ValueError(
                f"`num_sites` (={self.num_sites!r}) must be a whole number up to "
                f"{MAX_SITES}; left out, it is found from the module."
            )
        if not self.num_sites:
            object.__setattr__(self, "num_sites", self.count_sites())
        for site in self.paper_sites:
            self._number(site)

    def count_sites(self) -> int:
        """Number of sites that the module has, from its shapes alone.

        Raises:
            TypeError, ValueError: As the class says.
        """
        if not isinstance(self.module, nn.Module):
            raise TypeError(
                f"`module` (={self.module!r}) must be an instance of a "
                "`flax.linen.Module`."
            )
        shape = self.image_shape
        is_shape = isinstance(shape, Sequence) and all(map(is_whole, shape))
        if not is_shape or len(shape) not in (1, 3) or min(shape) < 1:
            raise ValueError(
                f"`image_shape` (={shape!r}) must be (H, W, C), or (T,) of texts."
            )
        sites = set()

        def note(call, args, kwargs, context):
            if isinstance(context.module, MaskedBatchNorm):
                sites.add(context.module.site)
            return call(*args, **kwargs)

        def forward(key):
            mask = jnp.ones(MAX_SITES)
            return self.module.init_with_output(key, self._zeros(), mask, train=True)[0]

        try:
            with nn.intercept_methods(note):
                logits = jax.eval_shape(forward, jax.random.key(0))
        except jax.errors.TracerBoolConversionError as error:
            error.add_note(f"{self.label} branches on what is no bool. {TRACED_TRAIN}")
            raise
        except TypeError as error:
            if "'train'" in str(error):
                error.add_note(
                    f"{self.label} is called as `module(x, bn_mask, train=...)`."
                )
            raise
        if missing := set(range(len(sites))) - sites:
            raise ValueError(
                f"The network {self.label!r} has sites {sorted(sites)}, but none of "
                f"{sorted(missing)}; number them from 0 without a gap."
            )
        if jnp.shape(logits) != (1, self.num_classes):
            raise ValueError(
                f"The network {self.label!r} makes {jnp.shape(logits)} of one image, but "
                f"`num_classes` (={self.num_classes}) asks for (1, {self.num_classes})."
            )
        return len(sites)

    def batch(self, size: int) -> jax.ShapeDtypeStruct:
        """Shape and type of `size` images, or texts."""
        dtype = jnp.int32 if len(self.image_shape) == 1 else jnp.float32
        return jax.ShapeDtypeStruct((size, *self.image_shape), dtype)

    def init(self, key: Array) -> PyTree:
        """Variables `{"params", "batch_stats"}` drawn from `key`.

        Raises:
            ValueError: If the module has others, and `frozen` has them not.
        """
        drawn = self.module.init(
            key, self._zeros(), jnp.ones(self.num_sites, jnp.float32), train=True
        )
        found = {name: drawn.pop(name, {}) for name in ("params", "batch_stats")}
        if drawn.keys() - self.frozen.keys():
            raise ValueError(
                f"The network {self.label!r} has variables in {sorted(drawn)}, which no "
                f"training changes; pass them as `frozen` (={sorted(self.frozen)})."
            )
        return found

    def _zeros(self) -> Array:
        return jnp.zeros_like(self.batch(1))

    def apply(
        self,
        variables: PyTree,
        images: Array,
        bn_mask: Array,
        *,
        train: bool,
        key: Array | None = None,
        **settings: Any,
    ) -> tuple[Array, PyTree]:
        """Logits [B, num_classes] of images or texts, and the batch statistics.

        With `train` the statistics are updated, otherwise they come back unchanged.
        `variables` are `params`, `batch_stats` and, in place of the network's own, what
        is frozen.
        `key` feeds dropout, and whatever else of the module draws at random. `settings`
        are further arguments of the module, such as `mantissa_bits` of `InFormats`.

        Raises:
            ValueError: If `bn_mask` is not [num_sites].
        """
        if jnp.shape(bn_mask) != (self.num_sites,):
            raise ValueError(
                f"`bn_mask` has shape {jnp.shape(bn_mask)}; this network has "
                f"{self.num_sites} batch-norm sites, so pass ({self.num_sites},)."
            )
        variables = {**self.frozen, **variables}
        if not train:
            logits = self.module.apply(
                variables, images, bn_mask, train=False, **settings
            )
            return logits, variables.get("batch_stats", {})
        logits, updates = self.module.apply(
            *(variables, images, bn_mask),
            **settings,
            train=True,
            mutable=["batch_stats"],
            rngs=key,
        )
        return logits, updates.get("batch_stats", {})

    def stored(self, params: PyTree, key: Array) -> PyTree:
        """What is kept of new parameters between steps: all of them, exactly.

        A module that keeps less, such as `InFormats`, has a `stored(params, key)` itself.
        """
        keep = getattr(self.module, "stored", None)
        return params if keep is None else keep(params, key)

    def with_frozen(self, frozen: PyTree) -> "Network":
        """The same network, its frozen variables in other arrays, as `jax.jit` needs."""
        other = copy.copy(self)
        object.__setattr__(other, "frozen", frozen)
        return other

    def trace_args(self) -> tuple[Any, ...]:
        """`(fn, *shapes)` for `workload.trace`: one image through the whole network."""

        def forward(variables, images, bn_mask):
            return self.apply(variables, images, bn_mask, train=False)[0]

        def init(key):
            return {**self.frozen, **self.init(key)}

        variables = jax.eval_shape(init, jax.random.key(0))
        bn_mask = jax.ShapeDtypeStruct((self.num_sites,), jnp.float32)
        return forward, variables, self.batch(1), bn_mask

    def mask(self, sites: Iterable[int | str]) -> Array:
        """Mask [num_sites] with ones at `sites`.

        Args:
            sites: Numbers from 0, or printed names: site 0 is "C1".

        Raises:
            ValueError: If there is no such site, or one is there twice, as where a mask
                is taken for sites.
        """
        if isinstance(sites, str) or not isinstance(sites, Iterable):
            raise ValueError(f"`sites` (={sites!r}) must be several, such as (4, 6).")
        found = [self._number(site) for site in sites]
        if len({*found}) < len(found):
            raise ValueError(
                f"`sites` (={[*sites]}) holds a site twice; if it is a mask, it needs no "
                "`mask`."
            )
        kept = jnp.zeros(self.num_sites, jnp.float32)
        return kept.at[jnp.array(found, int)].set(1.0)

    def _number(self, site: Any) -> int:
        """Of a site, from 0."""
        number: Any = site
        if isinstance(site, str) and re.fullmatch(r"C[1-9]\d{0,5}", site):
            number = int(site[1:]) - 1
        if not is_whole(number) or not 0 <= int(number) < self.num_sites:
            raise ValueError(
                f"`sites` holds {site!r}; this network has sites 0 to "
                f"{self.num_sites - 1}, or C1 to C{self.num_sites} by name."
            )
        return int(number)
