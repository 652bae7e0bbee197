import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codesign import models
from codesign.training.health import make_gradient_health


@pytest.mark.slow
def test_ratio_by_finite_differences(tiny_network):
    # The classifier's kernel is the first by name; its loss along one random direction.
    network = tiny_network
    variables = network.init(jax.random.key(0))
    images = jax.random.normal(jax.random.key(1), (8, *network.image_shape))
    labels = jnp.arange(8) % network.num_classes
    mask = jnp.ones(network.num_sites)
    ratios = jax.jit(make_gradient_health(network))(variables, images, labels, mask)
    kernels = [
        path
        for path, _ in jax.tree_util.tree_flatten_with_path(variables["params"])[0]
        if path[-1].key == "kernel"
    ]
    assert ratios.shape == (len(kernels),)

    def loss(kernel):
        params = jax.tree_util.tree_map_with_path(
            lambda path, leaf: kernel if path == kernels[0] else leaf,
            variables["params"],
        )
        logits, _ = network.apply(
            {**variables, "params": params}, images, mask, train=True
        )
        log_p = jax.nn.log_softmax(logits)
        return -jnp.mean(log_p[jnp.arange(8), labels])

    first = variables["params"]
    for entry in kernels[0]:
        first = first[entry.key]
    flat = np.asarray(first).ravel()
    step, gradient = 1e-2, []
    for i in range(0, flat.size, max(flat.size // 40, 1)):
        move = np.zeros_like(flat)
        move[i] = step
        move = move.reshape(first.shape)
        gradient.append((loss(first + move) - loss(first - move)) / (2 * step))
    expected = np.mean(np.abs(gradient)) / np.mean(np.abs(flat))
    full = np.asarray(jax.grad(loss)(first))
    sampled = np.abs(full.ravel()[:: max(flat.size // 40, 1)]).mean()
    np.testing.assert_allclose(expected, sampled / np.abs(flat).mean(), rtol=0.02)
    # Jitted and not, float32 gradients are rounded in another order.
    ratio = np.abs(full).mean() / np.abs(flat).mean()
    np.testing.assert_allclose(ratios[0], ratio, rtol=1e-6)


@pytest.mark.slow
def test_gradients_vanish_without_batch_norm():
    # DeepTrain, Fig. 1: 0.02 to 0.04 % of the weights in VGG-11's first layers without
    # batch norms, and about 30 % with all of them.
    network = models.create("vgg11", width=0.125, image_shape=(16, 16, 1))
    variables = network.init(jax.random.key(0))
    images = jax.random.normal(jax.random.key(1), (32, 16, 16, 1))
    labels = jnp.arange(32) % 10
    health = jax.jit(make_gradient_health(network))
    none = health(variables, images, labels, jnp.zeros(8))
    every = health(variables, images, labels, jnp.ones(8))
    assert none[1:].max() < 4e-4
    assert every.min() > 0.01
