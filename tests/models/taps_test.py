"""Networks say their intermediate maps, and nothing else changes by it."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codesign import models, workload
from codesign.models.digest import digest
from codesign.models.formats import InFormats
from codesign.models.operand_formats import Formats

# Side and channels of each tap, for images of 32x32 at an eighth of the width.
_MAPS = {
    "vgg16": [
        *[(32, 8)] * 2,
        *[(16, 16)] * 2,
        *[(8, 32)] * 3,
        *[(4, 64)] * 3,
        *[(2, 64)] * 3,
    ],
    "resnet18": [*[(32, 8)] * 2, *[(16, 16)] * 2, *[(8, 32)] * 2, *[(4, 64)] * 2],
    "resnet50": [*[(8, 32)] * 3, *[(4, 64)] * 4, *[(2, 128)] * 6, *[(1, 256)] * 3],
}


def _network(name):
    return models.create(name, width=0.125)


def _taps(module, variables, *args):
    _, updated = module.apply(variables, *args, train=False, mutable=["intermediates"])
    assert list(updated) == ["intermediates"]
    return updated["intermediates"]["tap"]


@pytest.mark.parametrize("name", _MAPS)
def test_maps_come_in_the_order_of_the_calls(name):
    network = _network(name)
    variables = jax.eval_shape(network.init, jax.random.key(0))
    assert set(variables) == {"params", "batch_stats"}
    x, mask = jnp.zeros((2, 32, 32, 3)), jnp.ones(network.num_sites)
    for module in (network.module, InFormats(network.module, Formats.of("bfp5"))):
        taps = jax.eval_shape(lambda v, m=module: _taps(m, v, x, mask), variables)
        shapes = [tap.shape for tap in taps]
        assert shapes == [(2, side, side, width) for side, width in _MAPS[name]]


def test_values_stand_behind_the_relu():
    network = models.create("vgg11", width=0.1, image_shape=(8, 8, 3))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32) / 8,
        jax.eval_shape(network.init, jax.random.key(0)),
    )
    variables["batch_stats"] = jax.tree.map(np.abs, variables["batch_stats"])
    x, mask = rng.normal(size=(2, 8, 8, 3)).astype(np.float32), jnp.zeros(8)
    apply = functools.partial(network.module.apply, train=False)
    found, updated = jax.jit(functools.partial(apply, mutable=["intermediates"]))(
        variables, x, mask
    )
    taps = updated["intermediates"]["tap"]
    kernel, bias = (variables["params"]["conv1"][name] for name in ("kernel", "bias"))
    first = nn.Conv(6, (3, 3)).apply({"params": {"kernel": kernel, "bias": bias}}, x)
    np.testing.assert_allclose(taps[0], nn.relu(first), rtol=1e-4, atol=1e-5)
    assert len(taps) == 8
    head = variables["params"]["classifier"]
    logits = taps[-1][:, 0, 0] @ head["kernel"] + head["bias"][None]
    np.testing.assert_allclose(found, logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["vgg11", "resnet18"])
def test_who_asks_for_no_taps_sees_no_difference(name, monkeypatch):
    network = _network(name)
    found = digest(network), workload.trace(*network.trace_args())
    monkeypatch.setattr(nn.Module, "sow", lambda *_: False)
    bare = digest(network), workload.trace(*network.trace_args())
    assert found[0] == bare[0]
    assert found[1].ops == bare[1].ops
