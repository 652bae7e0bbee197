"""Low-rank adapters around the dense layers of a network that stays as it is."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import lax

from codesign.kernels.dense import dense
from codesign.models import layers
from codesign.records.named import nearest
from codesign.types import PyTree, is_number, is_whole

_A, _B = "lora_a", "lora_b"
_DENSE = (layers.Dense, nn.Dense)


class LoRA(nn.Module):
    """A module whose dense layers learn a correction of low rank; called as the module is.

        adapted = LoRA(Decoder(), ("query", "value"), rank=8)
        variables = adapted.init(key, tokens)
        variables["frozen"] = trained["params"]  # of the module, such as of `load_weights`
        logits = adapted.apply(variables, tokens)

    A layer y = x W + b becomes y = x W + b + (alpha / rank) x A B (Hu et al., ICLR 2022),
    with A drawn at random and B = 0, so that nothing changes at the start. `params` holds
    A and B alone, named `lora_a` and `lora_b` beside the layer's kernel; all parameters of
    the module are in the collection `frozen`, under their own names and without gradient.

    Attributes:
        module: Any Flax module without a collection `frozen` of its own.
        layers: Of the layers to adapt: names, such as `query`, or whole paths, such as
            `layer1/attention/query`. `Dense` of `models.layers` or of Flax.
        rank: Columns of A, and rows of B.
        alpha: Scales the correction, which rank divides.
    """

    module: nn.Module
    layers: tuple[str, ...]
    rank: int = 8
    alpha: float = 16.0

    @property
    def label(self) -> str:
        """What tables call the network."""
        return type(self.module).__name__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the module.

        Raises:
            TypeError: If `module` is no Flax module.
            ValueError: If `rank` is no positive whole number, `alpha` no finite number, or
                one of `layers` names no dense layer that is called.
        """
        self._check()

        def call(scoped: Any, *args: Any, **kwargs: Any) -> Any:
            # Modules in fields of the module, too: these are bound where they stand now.
            bound = self.module.clone(parent=scoped.scope.rewound(), _deep_clone=True)
            adapter = _Adapter(self.layers, self.rank, self.alpha, len(scoped.path))
            with nn.intercept_methods(adapter.intercept):
                y = bound(*args, **kwargs)
            adapter.check_names()
            return y

        lifted = nn.map_variables(
            call,
            ["params", "frozen"],
            trans_in_fn=_joined,
            trans_out_fn=_split,
            init=self.is_initializing(),
        )
        return lifted(self, *args, **kwargs)

    def merge(self, variables: PyTree) -> PyTree:
        """Variables of the module itself: its kernels are W + (alpha / rank) A B.

        Args:
            variables: Of this module; collections beside `params` and `frozen` stay.
        """
        leaves: dict[tuple[str, ...], Any] = dict(flatten_dict(variables["frozen"]))
        adapters: dict[tuple[str, ...], Any] = dict(flatten_dict(variables["params"]))
        for (*place, name), a in adapters.items():
            if name != _A:
                continue
            a, b = (np.asarray(x, np.float64) for x in (a, adapters[(*place, _B)]))
            kernel = leaves[(*place, "kernel")]
            merged = np.asarray(kernel, np.float64) + self.alpha / self.rank * (a @ b)
            leaves[(*place, "kernel")] = jnp.asarray(merged.astype(kernel.dtype))
        others = {k: v for k, v in variables.items() if k not in ("params", "frozen")}
        return {"params": unflatten_dict(leaves), **others}

    def _check(self) -> None:
        if not isinstance(self.module, nn.Module):
            raise TypeError(
                f"`module` (={self.module!r}) must be an instance of a "
                "`flax.linen.Module`."
            )
        if not is_whole(self.rank) or self.rank < 1:
            raise ValueError(
                f"`rank` (={self.rank!r}) must be a positive whole number."
            )
        if not is_number(self.alpha) or not np.isfinite(self.alpha):
            raise ValueError(f"`alpha` (={self.alpha!r}) must be a finite number.")


def _joined(variables: Mapping[str, PyTree]) -> PyTree:
    """What the module sees: its own parameters, fixed, and the adapters beside them."""
    frozen = lax.stop_gradient(dict(flatten_dict(variables.get("frozen", {}))))
    adapters = flatten_dict(variables.get("params", {}))
    return {"params": unflatten_dict({**frozen, **adapters})}


def _split(variables: Mapping[str, PyTree]) -> PyTree:
    found: dict[str, dict] = {"params": {}, "frozen": {}}
    for path, leaf in flatten_dict(variables.get("params", {})).items():
        found["params" if path[-1] in (_A, _B) else "frozen"][path] = leaf
    return {name: unflatten_dict(leaves) for name, leaves in found.items()}


class _Adapter:
    """Adds the correction to the layers that are named."""

    def __init__(self, names: tuple[str, ...], rank: int, alpha: float, depth: int):
        self._names, self._rank, self._alpha, self._depth = names, rank, alpha, depth
        self._seen: dict[str, None] = {}  # names and paths of dense layers, in order

    def intercept(self, call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        layer = context.module
        y = call(*args, **kwargs)
        if context.method_name != "__call__" or type(layer) not in _DENSE:
            return y
        own = layer.path[self._depth :]
        known = (*own[-1:], "/".join(own))
        self._seen |= dict.fromkeys(known)
        if not any(name in self._names for name in known):
            return y
        (x,) = (*args, *kwargs.values())
        shapes = (x.shape[-1], self._rank), (self._rank, y.shape[-1])
        a = layer.scope.param(_A, nn.initializers.lecun_normal(), shapes[0])
        b = layer.scope.param(_B, nn.initializers.zeros, shapes[1])
        with jax.named_scope(_A):
            inner = dense(x, a)
        with jax.named_scope(_B):
            correction = dense(inner, b)
        return y + self._alpha / self._rank * correction

    def check_names(self) -> None:
        for name in self._names:
            if name not in self._seen:
                known = nearest(name, self._seen) if self._seen else "it has none."
                raise ValueError(f"`layers` names {name!r}, no dense layer; {known}")
