"""A trained network as a frozen backbone: folded, run for the maps that it says."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import core
from jax import lax

from codesign.models.fold import fold, without_norms
from codesign.models.network import MAX_SITES, Network
from codesign.types import Array, PyTree


class Maps(NamedTuple):
    """What a backbone says while it runs.

    Attributes:
        start: What a branch starts from: the images, or a text's embedding.
        taps: Its maps in the order in which they are made, [B, h, w, C] or [B, T, C].
    """

    start: Array
    taps: list[Array]


def frozen(network: Network, variables: PyTree, bn_mask: Array | None = None) -> PyTree:
    """`frozen` of a `Network` of a `Duplex` around a trained one, its norms folded.

    Args:
        network: The backbone, as it was trained.
        variables: Its `params` and `batch_stats`.
        bn_mask: That it was trained with; None for all norms.

    Returns:
        `{"frozen": {"pretrained": {"params": ...}}}`.

    Raises:
        ValueError: If a norm cannot be folded, see `fold`; or the folded network makes
            other logits than the network itself.
    """
    mask = jnp.ones(network.num_sites) if bn_mask is None else bn_mask
    variables = {**network.frozen, **variables}
    folded = fold(network.module, variables, mask, network.batch(1))
    folded = {name: found for name, found in folded.items() if name != "batch_stats"}
    if network.num_sites:  # else nothing was folded
        _check_same(network, variables, folded, mask)
    return {"frozen": {"pretrained": folded}}


def untrained(network: Network) -> PyTree:
    """Shapes and types of what `frozen` makes."""
    key, x = jax.random.key(0), network.batch(1)
    drawn = jax.eval_shape(lambda x: draw(network.module, key, x), x)
    return {"frozen": {"pretrained": drawn}}


def run(
    module: nn.Module, variables: PyTree, x: Array, path: tuple[str, ...] = ()
) -> Maps:
    """Runs a folded backbone in evaluation, without gradients.

    Args:
        module: The backbone.
        variables: As `frozen` has them.
        x: Images or texts.
        path: Of modules that hold it, for the names of its ops.

    Raises:
        ValueError: If it says no map.
    """
    root = core.bind(lax.stop_gradient(variables), mutable=["intermediates"])
    root.path = path
    with root.temporary(), without_norms():
        module.clone(parent=root)(x, jnp.zeros(MAX_SITES), train=False)
        return _said(root.mutable_variables(), x, module)


def draw(module: nn.Module, key: Array, x: Array) -> PyTree:
    """Variables of a folded backbone, at random."""
    with without_norms():
        found = module.init(key, x, jnp.zeros(MAX_SITES), train=False)
    return {name: values for name, values in found.items() if name != "intermediates"}


def shapes(module: nn.Module, x: Array) -> Maps:
    """Shapes and types of what `run` returns."""
    key = jax.random.key(0)
    return jax.eval_shape(lambda x: run(module, draw(module, key, x), x), x)


def _check_same(
    network: Network, variables: PyTree, folded: PyTree, mask: Array
) -> None:
    """That a folded network is the same function, on inputs at random."""
    key, batch = jax.random.key(0), network.batch(4)
    if batch.dtype == jnp.int32:
        x = jax.random.randint(key, batch.shape, 1, 5)
    else:
        x = jax.random.normal(key, batch.shape)

    def compare(variables: PyTree, folded: PyTree) -> tuple[Array, Array]:
        expected, _ = network.apply(variables, x, mask, train=False)
        with without_norms():
            found = network.module.apply(folded, x, mask, train=False)
        return jnp.max(jnp.abs(found - expected)), jnp.max(jnp.abs(expected))

    error, most = jax.jit(compare)(variables, folded)
    if not error <= 1e-3 * most:
        raise ValueError(
            f"The network {network.label!r} makes logits up to {most:.3g}, but with its "
            f"batch norms folded they are off by {error:.3g}; train it again, its "
            "variances are too small or its weights not finite."
        )


def _said(variables: PyTree, x: Array, module: nn.Module) -> Maps:
    """Of all modules inside, in the order of their calls, which dictionaries keep."""
    found: dict[str, list[Array]] = {"input": [], "tap": []}

    def collect(values: PyTree) -> None:
        for name, value in values.items():
            if name in found and isinstance(value, tuple):
                found[name] += value
            elif hasattr(value, "items"):
                collect(value)

    collect(variables.get("intermediates", {}))
    if not found["tap"]:
        raise ValueError(
            f"The backbone {type(module).__name__} says no map; where one is made write "
            '`self.sow("intermediates", "tap", x)`.'
        )
    return Maps((found["input"] or [x])[0], found["tap"])
