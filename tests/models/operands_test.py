"""What formats do to operands, against NumPy on a network of one layer."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codesign import models
from codesign.models.formats import Formats, InFormats
from codesign.models.operands import operand_statistics, product_names
from codesign.numerics import bfp
from tests.kernels.slow_casts import along


class _One(nn.Module):
    """One layer of four classes, behind a norm that the mask leaves out."""

    @nn.compact
    def __call__(self, x, bn_mask, *, train):
        x = models.MaskedBatchNorm(0)(x, bn_mask, train=train)
        return nn.Dense(4, use_bias=False)(x.reshape(len(x), -1))


def _network(chosen, module=None):
    module = InFormats(_One() if module is None else module, chosen)
    return models.Network(module, image_shape=(2, 3, 2), num_classes=4)


def _drawn(network):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(5, 2, 3, 2)).astype(np.float32)
    images[:, 0, 0] = 0
    images[1] = 0
    images[2, 1, 1] *= 1e-3
    labels = jnp.array([0, 1, 2, 3, 1])
    return jax.jit(network.init)(jax.random.key(0)), images, labels, jnp.zeros(1)


def _slow(x, fmt, axis):
    """zero, zero_mantissa, zero_block, flushed and error."""
    q = along(x, fmt, axis)
    rows = np.moveaxis(q, axis, -1)
    starts = range(0, rows.shape[-1], fmt.block_size)
    blocks = [~np.any(rows[..., i : i + fmt.block_size], -1) for i in starts]
    x = np.float64(x)
    error = np.sqrt(np.sum((q - x) ** 2) / np.sum(x**2))
    flushed = np.mean((q == 0) & (x != 0))
    return np.mean(x == 0), np.mean(q == 0), np.mean(blocks), flushed, error


def _compare(found, expected):
    ours = (found.zero, found.zero_mantissa, found.zero_block, found.flushed)
    np.testing.assert_allclose((*ours, found.error), expected, rtol=1e-4, atol=1e-6)


def test_every_class_against_numpy():
    fmts = dict(
        weights=bfp.Format(block_size=4, mantissa_bits=2, bias=None),
        activations=bfp.Format(block_size=3, mantissa_bits=3, bias=None),
        gradients=bfp.Format(block_size=2, mantissa_bits=1, bias=None),
    )
    network = _network(Formats(**fmts))
    variables, images, labels, mask = _drawn(network)
    assert product_names(network) == ("Dense_0",)
    (found,) = operand_statistics(network, variables, images, labels, mask).values()
    kernel = np.asarray(variables["params"]["Dense_0"]["kernel"])
    flat = images.reshape(5, -1)
    # The gradient of a mean cross-entropy: (softmax - one hot) / batch.
    logits = along(flat, fmts["activations"], 1) @ along(kernel, fmts["weights"], 0)
    odds = np.exp(logits - logits.max(1, keepdims=True))
    slopes = (odds / odds.sum(1, keepdims=True) - np.eye(4)[labels]) / 5
    operands = {
        "weights": (kernel, 0),
        "activations": (flat, 1),
        "gradients": (slopes, 1),
    }
    for name, (values, axis) in operands.items():
        assert found[name].saturated == 0
        _compare(found[name], _slow(values, fmts[name], axis))
    assert found["activations"].zero_block >= 0.2  # one image of five is zeros


def test_saturated_and_flushed_values_by_hand():
    # Exponents 0 and 1 of one bit: 1 and 2 are the numbers, what is from 4 on is cut to
    # 2, and what is below 1 becomes 0. Of each image's 12 values one is 4 and one is 1/2.
    fmt = bfp.Format(block_size=1, mantissa_bits=1, exponent_bits=1, bias=0)
    network = _network(Formats.of({"activations": fmt}))
    variables, _, labels, mask = _drawn(network)
    image = jnp.array([4.0, 0.5, *[1.0] * 10]).reshape(1, 2, 3, 2)
    images = jnp.tile(image, (5, 1, 1, 1))
    found = operand_statistics(network, variables, images, labels, mask)["Dense_0"]
    of_images = found["activations"]
    np.testing.assert_allclose(of_images.saturated, 1 / 12, rtol=1e-5)
    np.testing.assert_allclose(of_images.flushed, 1 / 12, rtol=1e-5)
    np.testing.assert_allclose(of_images.zero, 0)
    error = np.sqrt((2**2 + 0.5**2) / (4**2 + 0.5**2 + 10))
    np.testing.assert_allclose(of_images.error, error, rtol=1e-5)
    assert found["weights"].error == found["gradients"].error == 0  # float32


class _Repeating(nn.Module):
    """A layer twice in a scan, and one that the loss does not see."""

    @nn.compact
    def __call__(self, x, bn_mask, *, train):
        x = models.MaskedBatchNorm(0)(x, bn_mask, train=train).reshape(len(x), -1)

        class Step(nn.Module):
            @nn.compact
            def __call__(self, x, _):
                return nn.Dense(12, use_bias=False)(x), None

        scan = nn.scan(Step, {"params": 0}, split_rngs={"params": True}, length=2)
        x, _ = scan(name="steps")(x, None)
        jax.lax.stop_gradient(nn.Dense(3, name="unseen")(x))
        return nn.Dense(4, use_bias=False, name="head")(x)


def test_a_scan_has_its_mean_and_what_the_loss_does_not_see_has_none():
    fmt = bfp.Format(mantissa_bits=2, bias=None)
    network = _network(Formats.of(fmt), _Repeating())
    variables, images, labels, mask = _drawn(network)
    names = ("steps/Dense_0", "unseen", "head")
    assert product_names(network) == names
    found = operand_statistics(network, variables, images, labels, mask)
    assert tuple(found) == names
    assert all(np.isnan(found["unseen"]["weights"]))
    kernels = variables["params"]["steps"]["Dense_0"]["kernel"]  # [2, 12, 12]
    casts = [along(kernel, fmt, 0) for kernel in kernels]
    steps = found["steps/Dense_0"]
    zeros = np.mean(np.stack(casts) == 0)
    np.testing.assert_allclose(steps["weights"].zero_mantissa, zeros, rtol=1e-5)
    second = along(images.reshape(5, -1), fmt, 1) @ casts[0]  # exact in float32 too
    zeros = (np.mean(images == 0) + np.mean(second == 0)) / 2
    np.testing.assert_allclose(steps["activations"].zero, zeros, rtol=1e-5)


def test_a_network_without_formats_is_refused():
    network = models.Network(_One(), image_shape=(2, 3, 2), num_classes=4)
    with pytest.raises(TypeError, match=r"`network` \(_One\) must be.*InFormats"):
        product_names(network)
    with pytest.raises(TypeError, match="InFormats"):
        operand_statistics(network, *_drawn(network))


def test_random_formats_ask_for_a_key():
    network = _network(Formats.of(bfp.Format(rounding="stochastic")))
    with pytest.raises(ValueError, match="`key` is None"):
        operand_statistics(network, *_drawn(network))


class _Text(nn.Module):
    """A number of each text: a layer of the mean of its embedded tokens."""

    @nn.compact
    def __call__(self, x, bn_mask, *, train):
        return nn.Dense(1, use_bias=False)(nn.Embed(6, 4)(x).mean(1))


def test_gradients_of_texts_in_a_regression():
    module = InFormats(_Text(), Formats.of("bfp5"))
    network = models.Network(module, image_shape=(3,), num_classes=1)
    tokens = jnp.array([[1, 2, 3], [4, 5, 0]], jnp.int32)
    variables, mask = network.init(jax.random.key(0)), jnp.zeros(0)
    answers = network.apply(variables, tokens, mask, train=False)[0][:, 0]
    # Of answers that are right nothing is left to learn; of others something is.
    for error, zero in ((0.0, 1.0), (1.0, 0.0)):
        found = operand_statistics(network, variables, tokens, answers + error, mask)
        assert found["Dense_0"]["gradients"].zero == zero
