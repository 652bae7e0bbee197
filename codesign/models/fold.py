"""Batch norms folded into the weights of the layers right before them."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from codesign.kernels import equations
from codesign.kernels.named_op import named_op, parse_name
from codesign.models import layers
from codesign.models.norm import MaskedBatchNorm
from codesign.types import Array, PyTree

_NORMS = (MaskedBatchNorm, nn.BatchNorm)
# y = product(x, kernel) + bias, with the outputs along the last axis of each.
_LAYERS = (layers.Conv, layers.Dense, nn.Conv, nn.Dense, nn.DenseGeneral)
_Path = tuple[str, ...]


def fold(module: nn.Module, variables: PyTree, bn_mask: Array, x: Any) -> PyTree:
    """Variables under which a network without its batch norms computes as before.

        folded = fold(module, variables, bn_mask, images[:1])
        with without_norms():
            logits = module.apply(folded, images, bn_mask, train=False)

    Each norm of mask m stands right behind a layer, and both become that layer alone:

        kernel <- a kernel,  bias <- a bias + b,
        a = m s + 1 - m,  b = m (shift - mean s),  s = scale / sqrt(var + epsilon)

    with m = 1 of `flax.linen.BatchNorm`. A site of mask 0 is the identity: it may stand
    anywhere, and its layer stays. Layers are `Conv` and `Dense` of `models.layers`, and
    Flax's `Conv`, `Dense` and `DenseGeneral`.

    Args:
        module: Any network, called as `module(x, bn_mask, train=False)`; it is run once on
            shapes.
        variables: Its `params`, `batch_stats`, and others that it may have.
        bn_mask: [num_sites] in [0, 1].
        x: An input of the network, or its shape and type.

    Returns:
        The variables without those of the norms.

    Raises:
        ValueError: If a norm follows no such layer, or one without a bias, whose output
            something else reads, too; if two norms share a layer; or if parameters or
            statistics of a norm are missing, not finite, or of another shape.
    """
    norms, pairs = _find(module, variables, bn_mask, x)
    leaves: dict[tuple[str, ...], Any] = dict(flatten_dict(variables))
    folded = {}
    for path, norm in norms.items():
        m = _mask(norm, path, bn_mask)
        if m == 0:
            continue
        a, b = _affine(norm, path, leaves, m)
        for place in _layers_before(path, pairs):
            kernel, bias = (("params", *place, name) for name in ("kernel", "bias"))
            _check_layer(place, path, a, leaves)
            if kernel in folded:
                raise ValueError(
                    f"The layer {_name(place)} is shared by several batch norms, one of "
                    f"them {_name(path)}; give each norm a layer of its own."
                )
            folded[kernel] = a * np.asarray(leaves[kernel], np.float64)
            folded[bias] = a * np.asarray(leaves[bias], np.float64) + b
    for key, leaf in folded.items():
        leaves[key] = jax.numpy.asarray(leaf.astype(leaves[key].dtype))
    kept = {key: leaf for key, leaf in leaves.items() if key[1:-1] not in norms}
    return {name: {} for name in variables} | unflatten_dict(kept)


@contextlib.contextmanager
def without_norms() -> Iterator[None]:
    """Lets batch norms of any module return their input; they draw no variables."""
    with nn.intercept_methods(_pass_norms):
        yield


def _pass_norms(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
    if isinstance(context.module, _NORMS) and context.method_name == "__call__":
        return args[0] if args else kwargs["x"]
    return call(*args, **kwargs)


def _find(
    module: nn.Module, variables: PyTree, bn_mask: Array, x: Any
) -> tuple[dict[_Path, Any], list[tuple[_Path | None, _Path | None]]]:
    """All batch norms by path, and which layer's output is whose input.

    Outputs of layers and inputs of norms are marked in the jaxpr, so that what reads an
    output is known, wherever it stands.

    Returns:
        Norms by path, and pairs of a layer and what reads it: a norm, or None for
        anything else. The layer of a norm that follows none is None.
    """
    norms: dict[_Path, Any] = {}
    marked: list[_Path] = []

    def mark(variant: str, path: _Path, x: Array) -> Array:
        marked.append(path)
        return named_op("fold", _same, x, variant=variant, site=len(marked) - 1)

    def note(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        layer, is_call = context.module, context.method_name == "__call__"
        if is_call and isinstance(layer, _NORMS):
            _check_is_evaluating(layer, kwargs)
            norms[layer.path] = layer
            return mark("norm", layer.path, _pass_norms(call, args, kwargs, context))
        y = call(*args, **kwargs)
        return mark("layer", layer.path, y) if is_call and _is_layer(layer) else y

    def forward(variables: PyTree, x: Array, bn_mask: Array) -> Any:
        taps = ["intermediates"]  # which read outputs, too
        return module.apply(variables, x, bn_mask, train=False, mutable=taps)

    with nn.intercept_methods(note):
        closed = jax.make_jaxpr(forward)(variables, x, bn_mask)
    return norms, [
        (
            None if layer is None else marked[layer],
            None if norm is None else marked[norm],
        )
        for layer, norm in _pairs(closed.jaxpr)
    ]


def _check_is_evaluating(norm: Any, kwargs: Any) -> None:
    if _is_masked(norm):
        is_evaluating = not kwargs["train"]
    else:
        given = kwargs.get("use_running_average")
        is_evaluating = norm.use_running_average if given is None else given
    if not is_evaluating:
        raise ValueError(
            f"The batch norm {_name(norm.path)} normalises by the batch although `train` "
            "is False; only running statistics can be folded."
        )


def _is_layer(module: nn.Module) -> bool:
    return type(module) in _LAYERS


def _is_masked(norm: nn.Module) -> bool:
    return isinstance(norm, MaskedBatchNorm)


def _same(x: Array) -> Array:
    return x * 1


def _pairs(jaxpr: Any) -> Iterator[tuple[int | None, int | None]]:
    """Numbers of the marks of layers and of their readers, as `_find` returns paths."""
    jaxpr = equations.opened(jaxpr)
    made: dict[Any, int] = {}
    for eqn in jaxpr.eqns:
        if not eqn.outvars:  # what Flax leaves of a body that it traced before
            continue
        name = parse_name(equations.call_name(eqn))
        mark = name if name is not None and name.kind == "fold" else None
        reads = [made.get(v) for v in eqn.invars if not equations.is_literal(v)]
        if mark is not None and mark.variant == "norm":
            yield reads[0], mark.site
        else:
            yield from ((layer, None) for layer in reads if layer is not None)
        if mark is not None and mark.variant == "layer":
            made[eqn.outvars[0]] = mark.site
        elif mark is None:
            for inner in equations.inner_jaxprs(eqn):
                yield from _pairs(inner)
    results = [made.get(v) for v in jaxpr.outvars if not equations.is_literal(v)]
    yield from ((layer, None) for layer in results if layer is not None)


def _layers_before(path: _Path, pairs: list) -> list[_Path]:
    """Of a norm; refuses one that has none, and a layer that something else reads."""
    before = [layer for layer, norm in pairs if norm == path]
    for layer in before:
        if layer is None:
            raise ValueError(
                f"The batch norm {_name(path)} follows no convolution or dense layer "
                "directly; only such a layer takes it in. Keep the norm's mask at 0, or "
                "the norm behind its layer."
            )
        readers = {norm for each, norm in pairs if each == layer}
        if readers != {path}:
            others = [
                _name(norm) if norm else "another op" for norm in readers - {path}
            ]
            raise ValueError(
                f"The output of {_name(layer)} goes to the batch norm {_name(path)} and "
                f"to {', '.join(others)}, which would see it scaled; give each a layer of "
                "its own."
            )
    return sorted({*before})


def _check_layer(place: _Path, norm: _Path, a: np.ndarray, leaves: Mapping) -> None:
    """That a layer has a kernel and a bias, and the norm's channels."""
    if ("params", *place, "kernel") not in leaves:
        raise ValueError(
            f"`variables` has no `kernel` of the layer {_name(place)} in `params`; pass "
            "all variables of the network, with adapters merged."
        )
    kernel = leaves["params", *place, "kernel"]
    if ("params", *place, "bias") not in leaves:
        raise ValueError(
            f"The layer {_name(place)} in front of the batch norm {_name(norm)} has no "
            "bias to take the shift of the norm; build it with `use_bias=True`, where a "
            "bias of zeros changes nothing."
        )
    if kernel.shape[-1:] != a.shape:
        raise ValueError(
            f"The kernel of {_name(place)} has shape {kernel.shape}, but the batch norm "
            f"{_name(norm)} has {a.shape}; fold layers one by one, outside of `nn.scan` "
            "and `nn.vmap`."
        )


def _mask(norm: Any, path: _Path, bn_mask: Array) -> float:
    """Returns m of a norm."""
    if not _is_masked(norm):
        return 1.0
    mask = np.asarray(bn_mask, np.float64)
    if mask.ndim != 1 or norm.site >= len(mask) or not 0 <= mask[norm.site] <= 1:
        raise ValueError(
            f"`bn_mask` (={mask}) has no entry from 0 to 1 for the batch norm "
            f"{_name(path)} of `site` {norm.site}; pass one for each site."
        )
    return float(mask[norm.site])


def _affine(
    norm: Any, path: _Path, leaves: Mapping, m: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns a and b [C] of a norm in evaluation."""
    flax_only = dict(axis=-1, use_scale=True, use_bias=True)
    fields = {} if _is_masked(norm) else {k: getattr(norm, k) for k in flax_only}
    if fields.get("axis", -1) != -1:
        raise ValueError(
            f"The batch norm {_name(path)} has `axis` {fields['axis']}; only channels "
            "along the last axis, -1, can be folded."
        )

    def leaf(collection: str, name: str) -> np.ndarray:
        key = (collection, *path, name)
        if key not in leaves:
            raise ValueError(
                f"`variables` has no `{name}` of the batch norm {_name(path)} in "
                f"`{collection}`; pass all variables of the network, with adapters "
                "merged."
            )
        value = np.asarray(leaves[key], np.float64)
        if not np.all(np.isfinite(value)) or (name == "var" and np.any(value < 0)):
            raise ValueError(
                f"`{name}` of the batch norm {_name(path)} in `{collection}` is not "
                "finite, or is a negative variance; train the network anew, or keep the "
                "norm's mask at 0."
            )
        return value

    mean, var = leaf("batch_stats", "mean"), leaf("batch_stats", "var")
    scale = leaf("params", "scale") if fields.get("use_scale", True) else 1.0
    shift = leaf("params", "bias") if fields.get("use_bias", True) else 0.0
    s = scale / np.sqrt(var + norm.epsilon)
    return m * s + 1 - m, m * (shift - mean * s)


def _name(path: _Path) -> str:
    return repr("/".join(path))
