"""What number formats do to the operands of a network in training."""

import jax
import jax.numpy as jnp
import optax

from codesign.kernels.cast_product import CLASSES, TAP_SHAPE
from codesign.models.formats import InFormats
from codesign.models.network import Network
from codesign.numerics.formats import Statistics
from codesign.types import Array, PyTree


def product_names(network: Network) -> tuple[str, ...]:
    """Names of the products that are cast in training, in the order of the call.

    A name is the path of the product's module, such as `block/conv1`; further products of
    one module are numbered, `attention#2`. What a scan repeats has one name, and so has a
    function under `jax.jit` or `jax.checkpoint` that a module calls several times. In a
    module's own name `/`, `#` and `%` are written `%2F`, `%23` and `%25`.

    Raises:
        TypeError: If the network's module is not `InFormats`.
    """
    _check(network)
    listed = _Listed()

    def forward(key, x):
        variables, mask = network.init(key), jnp.ones(network.num_sites)
        return network.apply(variables, x, mask, train=True, key=key, taps=listed)[0]

    jax.eval_shape(forward, jax.random.key(0), network.batch(1))
    return tuple(listed)


class _Listed(dict):
    """Notes which taps were asked for, and has none."""

    def get(self, name, default=None):
        self[name] = None
        return default


def operand_statistics(
    network: Network,
    variables: PyTree,
    images: Array,
    labels: Array,
    bn_mask: Array,
    *,
    key: Array | None = None,
) -> dict[str, dict[str, Statistics]]:
    """What the formats did to every operand in one training step, by product and class.

    The loss is the mean cross-entropy, or of a regression the mean squared error.
    Gradients are known in the backward pass only: one such pass brings all of it.

    Args:
        network: Of a module in `InFormats`.
        variables: `params` and `batch_stats`.
        images: [B, H, W, C], or texts [B, T], as the network takes them.
        labels: [B] int32, or float32 of a regression.
        bn_mask: [C].
        key: For dropout and stochastic rounding.

    Returns:
        `found["conv1"]["gradients"].flushed`, and so on. Without tiles each operand is
        cast twice, along another axis; these are of one cast: of weights and activations
        for the forward product, of gradients for the gradient by the input. The `weights`
        of a product of two maps, as in attention, are its second operand. Of a product
        that a scan repeats it is the mean of all runs; of one that the loss does not
        depend on, NaN.

    Raises:
        TypeError: If the network's module is not `InFormats`.
    """
    names = product_names(network)

    def loss(taps, variables, images, key):
        logits, _ = network.apply(
            variables, images, bn_mask, train=True, key=key, taps=taps
        )
        if jnp.issubdtype(labels.dtype, jnp.floating):
            return jnp.mean(jnp.square(logits[:, 0] - labels))
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))

    taps = {name: jnp.zeros(TAP_SHAPE) for name in names}
    found = jax.jit(jax.grad(loss))(taps, variables, images, key)
    return {
        name: {
            kind: Statistics(*row[:-1] / row[-1])
            for kind, row in zip(CLASSES, found[name], strict=True)
        }
        for name in names
    }


def _check(network: Network) -> None:
    if not isinstance(network.module, InFormats):
        raise TypeError(
            f"`network` ({network.label}) must be of a module in `InFormats`, such as "
            '`Network(InFormats(module, Formats.of("bfp5")))`.'
        )
