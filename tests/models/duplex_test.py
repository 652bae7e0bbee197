"""Duplex networks against their blocks written out, and what they refuse."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codesign import data, models, workload
from codesign.hardware import roofline
from codesign.kernels.pooling import area_pool, max_pool
from codesign.models import backbone
from codesign.models.branch import AttentionResidual, ConvResidual
from codesign.models.duplex import ALGORITHMS, Duplex
from codesign.models.formats import Formats, InFormats
from codesign.models.layers import Conv, Dense
from codesign.models.norm import MaskedBatchNorm
from codesign.numerics import formats
from codesign.numerics.read_errors import ReadErrors
from codesign.numerics.relax import smooth
from codesign.objective import Design, chip_costs
from codesign.training import TrainConfig, Trainer
from tests.models.arrays import assert_same, normal

_DEPTH, _CLASSES = 2, 3


class Backbone(nn.Module):
    """Three convolutions with norms, of 4, 4 and 8 channels and maps of 8, 8 and 4."""

    num_classes: int = 5

    @nn.compact
    def __call__(self, x, bn_mask, *, train):
        for site, features in enumerate((4, 4, 8)):
            x = Conv(features, name=f"conv{site}")(x)
            x = MaskedBatchNorm(site, name=f"norm{site}")(x, bn_mask, train=train)
            x = nn.relu(x)
            x = max_pool(x) if site == 1 else x
            self.sow("intermediates", "tap", x)
        return Dense(self.num_classes, name="classifier")(x.mean((1, 2)))


@pytest.fixture(scope="module")
def before():
    """A backbone with statistics that are not those of its initialisation."""
    network = models.Network(Backbone(), 3, (8, 8, 3), 5, label="small")
    variables = jax.jit(network.init)(jax.random.key(0))
    images = normal(16, 8, 8, 3)

    @jax.jit
    def train(stats):
        found = {**variables, "batch_stats": stats}
        return network.apply(found, images, jnp.ones(3), train=True)[1]

    stats = variables["batch_stats"]
    for _ in range(5):
        stats = train(stats)
    variables = {**variables, "batch_stats": stats}
    return network, variables, backbone.frozen(network, variables)


def _network(before, algorithm="duplex", residual=ConvResidual, **settings):
    network, _, frozen = before
    f1, f2 = residual(0), residual(1)
    module = Duplex(
        network.module, f1, f2, _DEPTH, _CLASSES, algorithm, side=4, **settings
    )
    sites = 2 * _DEPTH
    return models.Network(module, sites, (8, 8, 3), _CLASSES, frozen=frozen)


def _taps(before, images):
    """Of the unfolded backbone in evaluation."""
    network, variables, _ = before
    _, found = network.module.apply(
        variables, images, jnp.ones(3), train=False, mutable=["intermediates"]
    )
    return found["intermediates"]["tap"]


def _wide(x, channels=8):
    x = area_pool(x, 4)
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, channels - x.shape[-1])))


def _by_hand(before, variables, images, masks, algorithm):
    """Logits in evaluation, block by block."""
    taps = [_wide(tap) for tap in _taps(before, images)]
    seen = [taps[1], taps[2]] if ALGORITHMS[algorithm].has_taps else [None, None]
    branch = {
        name: found["branch"] for name, found in variables.items() if "branch" in found
    }

    def run(place, site, i, x):
        of = {
            name: jax.tree.map(lambda leaf: leaf[i], found[place])
            for name, found in branch.items()
        }
        return ConvResidual(site).apply(of, x, seen[i], masks[i], train=False)

    start = taps[-1] if algorithm == "chain" else _wide(jnp.asarray(images))
    x1 = x2 = x = start
    for i in range(_DEPTH):
        y2 = x2 + run("residual1", 0, i, x1)
        y1 = x1 + run("residual2", 1, i, y2)
        x1, x2 = y1, y2
        x = x + run("residual1", 0, i, x)
        x = x + run("residual2", 1, i, x)
    y = x if algorithm == "irreversible" else (x1 + x2) / 2
    head = variables["params"]["classifier"]
    return y.mean((1, 2)) @ head["kernel"] + head["bias"][None]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_branch_is_its_blocks_one_by_one(before, algorithm):
    network = _network(before, algorithm, fraction_bits=None)
    variables = jax.jit(network.init)(jax.random.key(1))
    images, mask = normal(2, 8, 8, 3, seed=4), jnp.array([1.0, 0.0, 0.5, 1.0])
    found, _ = jax.jit(lambda v: network.apply(v, images, mask, train=False))(variables)
    masks = mask.reshape(_DEPTH, 2)
    expected = _by_hand(before, variables, images, masks, algorithm)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)


def test_all_algorithms_have_layers_of_the_same_sizes(before):
    drawn = {
        name: jax.eval_shape(_network(before, name).init, jax.random.key(0))
        for name in ALGORITHMS
    }
    shapes = {name: jax.tree.map(jnp.shape, found) for name, found in drawn.items()}
    assert all(found == shapes["duplex"] for found in shapes.values())
    assert shapes["duplex"]["params"]["branch"]["residual1"]["conv"]["kernel"] == (
        *(_DEPTH, 3, 3, 8, 8),
    )


def _gradient(network, **settings):
    images, key = normal(4, 8, 8, 3, seed=5), jax.random.key(2)
    variables = jax.jit(network.init)(jax.random.key(1))

    def loss(variables):
        given = {"params": variables["params"], "batch_stats": variables["batch_stats"]}
        logits, stats = network.apply(
            given, images, jnp.zeros(network.num_sites), train=True, key=key, **settings
        )
        return jnp.sum(logits**2), stats

    return jax.jit(jax.grad(loss, has_aux=True, allow_int=True))(variables)


@pytest.mark.slow
def test_taps_made_again_give_what_kept_ones_do(before):
    kept = _gradient(_network(before))
    again = _gradient(_network(before, recompute_taps=True))
    assert_same(again, kept, rtol=1e-5, atol=1e-6)


def test_statistics_of_norms_are_recorded_once_in_spite_of_the_recomputation(before):
    network = _network(before)
    _, stats = _gradient(network)
    means = stats["branch"]["residual1"]["norm"]["mean"]
    images = normal(4, 8, 8, 3, seed=5)
    variables = jax.jit(network.init)(jax.random.key(1))
    conv = jax.tree.map(
        lambda leaf: leaf[0], variables["params"]["branch"]["residual1"]["conv"]
    )
    x = _wide(jnp.round(jnp.asarray(images) * 4096) / 4096) + _wide(
        _taps(before, images)[1]
    )
    y = jnp.asarray(Conv(8).apply({"params": conv}, x))
    np.testing.assert_allclose(means[0], 0.1 * y.mean((0, 1, 2)), rtol=1e-2, atol=1e-4)


def test_nothing_flows_back_into_the_backbone_and_no_norm_of_it_runs(before):
    network = _network(before)
    ops = workload.trace(*network.trace_args(), unroll_scans=True)
    norms = ops.select("norm")
    assert norms.sites == (0, 1, 2, 3)  # those of the branch alone, block by block
    masked = norms.masked(jnp.array([0.0, 0.25, 0.5, 1.0]))
    np.testing.assert_allclose(
        masked.elements, norms.elements * jnp.array([0, 0.25, 0.5, 1])
    )
    looped = workload.trace(*network.trace_args())
    with pytest.raises(ValueError, match=r"\(4,\).*2 batch-norm sites.*unroll_scans"):
        looped.masked(jnp.ones(4))
    frozen = network.frozen

    def loss(frozen):
        other = network.with_frozen(frozen)
        variables = other.init(jax.random.key(1))
        return jnp.sum(
            other.apply(variables, normal(2, 8, 8, 3), jnp.zeros(4), train=False)[0]
        )

    gradient = jax.jit(jax.grad(loss))(frozen)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_costs_of_a_branch_are_those_of_its_layers(before):
    counts = {}
    for name in ALGORITHMS:
        ops = workload.trace(*_network(before, name).trace_args())
        counts[name] = int(ops.macs.sum())
    branch = 2 * _DEPTH * 16 * 9 * 8 * 8 + 8 * _CLASSES
    # Three convolutions; their classifier and what lies behind the last tap do not count.
    convs = 64 * 9 * (3 * 4 + 4 * 4) + 16 * 9 * 4 * 8
    assert counts["branch_only"] == branch
    assert counts["duplex"] == counts["irreversible"] == branch + convs
    assert counts["chain"] == branch + convs


@pytest.mark.slow
def test_errors_of_streams_harm_more_than_those_that_spare_them(before):
    network = _network(before)
    right = _gradient(network)[0]["params"]

    def off(errors):
        found = _gradient(network, read_errors=errors)[0]["params"]
        pairs = zip(jax.tree.leaves(found), jax.tree.leaves(right), strict=True)
        return float(sum(jnp.sum((a - b) ** 2) for a, b in pairs)) ** 0.5

    none, spared = off(ReadErrors(0.0)), off(ReadErrors(0.02, of_streams=False))
    assert none < 1e-5 < spared < off(ReadErrors(0.02))


def test_a_rate_of_errors_may_be_traced(before):
    network = _network(before)
    variables = jax.jit(network.init)(jax.random.key(1))

    traced = []

    @jax.jit
    def logits(rate):
        traced.append(rate)
        return network.apply(
            *(variables, normal(4, 8, 8, 3), jnp.zeros(4)),
            train=True,
            key=jax.random.key(0),
            read_errors=ReadErrors(rate),
        )[0]

    assert np.any(logits(0.0) != logits(0.2))
    assert len(traced) == 1


@pytest.mark.slow
def test_branches_of_attention_and_taps_beside_the_stream(before):
    def residual(site):
        return AttentionResidual(site, join="concatenate", num_heads=2)

    gradient, _ = _gradient(_network(before, residual=residual))
    for leaf in jax.tree.leaves(gradient["params"]):
        assert np.all(np.isfinite(leaf))
    assert np.any(
        gradient["params"]["branch"]["residual2"]["attention"]["query"]["kernel"]
    )


@pytest.mark.slow
def test_one_model_holds_norms_a_reversible_branch_and_formats(before):
    plain = _network(before)
    module = InFormats(plain.module, Formats.of("bfp5"))
    network = dataclasses.replace(plain, module=module)
    variables = jax.jit(network.init)(jax.random.key(1))

    def loss(mask, bits):
        logits, _ = network.apply(
            *(variables, normal(4, 8, 8, 3), mask),
            train=True,
            key=jax.random.key(0),
            mantissa_bits=bits,
        )
        return jnp.sum(logits**2)

    slopes = jax.jit(jax.grad(loss, (0, 1)))(jnp.full(4, 0.5), jnp.array([4.5, 4.5]))
    for slope in slopes:
        assert np.all(np.isfinite(slope))
        assert np.all(slope != 0)


@pytest.mark.slow
def test_one_step_holds_norms_branch_formats_and_a_chip(before):
    """Gradients of the loss and of costs, by the mask and by the mantissas' widths."""
    plain = _network(before)
    fmt = formats.by_name("bfp5")
    module = InFormats(plain.module, Formats.of(fmt))
    network = dataclasses.replace(plain, module=module)
    ops = workload.trace(*network.trace_args(), unroll_scans=True)
    chip = roofline.titan_xp()
    costs = chip_costs(ops, roofline.estimate, batch_size=8, relax=smooth(0.1), fmt=fmt)
    digits = np.random.default_rng(0)
    images = digits.integers(0, 255, (40, 8, 8, 3)).astype(np.uint8)
    labels = np.arange(40) % _CLASSES
    dataset = data.Dataset.from_arrays(images, labels)
    trainer = Trainer(
        network, dataset, TrainConfig(epochs=1, batch_size=8), chip_costs=costs
    )
    design = Design(
        bn_mask=jnp.full(4, 0.5), chip=chip, mantissa_bits=jnp.array([5.0, 4.5])
    )
    seen = trainer.train(design, seed=0).last_epoch
    assert trainer.num_step_traces == 1
    by_design = seen.cost_gradients["latency_s"]
    slopes = [
        seen.loss_mask_gradient,
        seen.loss_bits_gradient,
        by_design.bn_mask,
        by_design.mantissa_bits,
    ]
    for slope in slopes:
        assert np.all(np.isfinite(slope))
        assert np.all(slope != 0)
    assert np.all(by_design.mantissa_bits > 0)  # wider numbers take longer to move
    # The exact model over 1 % more of the first width: traffic binds every op here.
    wider = dataclasses.replace(design, mantissa_bits=jnp.array([5.05, 4.5]))
    exact = chip_costs(ops, roofline.estimate, batch_size=8, fmt=fmt)
    secant = (exact(wider)["latency_s"] - exact(design)["latency_s"]) / 0.05
    np.testing.assert_allclose(by_design.mantissa_bits[0], secant, rtol=0.02)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"algorithm": "duplexx"}, "`algorithm`.*did you mean `duplex`"),
        ({"taps": (0, 3)}, r"`taps` \(=\(0, 3\)\) must be 2 of the numbers 0 to 2"),
        ({"taps": (0,)}, "one for each block"),
        ({"channels": 0}, r"`channels` \(=0\)"),
        ({"channels": 3}, r"`channels` \(=3\) must divide the (4|8)"),
        ({"side": 0}, r"`side` \(=0\)"),
    ],
)
def test_settings_that_do_not_fit_are_refused(before, settings, match):
    network = _network(before)
    module = network.module.clone(**settings)
    network = dataclasses.replace(network, module=module)
    with pytest.raises(ValueError, match=match):
        jax.eval_shape(network.init, jax.random.key(0))


def _shapes(network):
    return jax.eval_shape(network.init, jax.random.key(0))


def test_a_backbone_that_is_too_short_or_silent_is_refused(before):
    network = _network(before)
    deep = network.module.clone(depth=4)
    with pytest.raises(ValueError, match=r"says 3 maps, fewer than `depth` \(=4\)"):
        _shapes(models.Network(deep, 8, (8, 8, 3), _CLASSES))
    with pytest.raises(ValueError, match=r"`bn_mask` has shape \(3,\).*pass 4 entries"):
        _shapes(models.Network(network.module, 3, (8, 8, 3), _CLASSES))

    class Silent(nn.Module):
        @nn.compact
        def __call__(self, x, bn_mask, *, train):
            return Dense(2)(x.mean((1, 2)))

    silent = network.module.clone(backbone=Silent())
    with pytest.raises(ValueError, match=r'Silent says no map.*self.sow\("interm'):
        _shapes(models.Network(silent, 4, (8, 8, 3), _CLASSES))


def test_variables_that_nobody_gave_are_named(before):
    network = models.Network(_network(before).module, 4, (8, 8, 3), _CLASSES)
    with pytest.raises(ValueError, match=r"variables in \['frozen'\].*pass them"):
        jax.eval_shape(network.init, jax.random.key(0))


def test_area_pooling_is_the_mean_over_areas():
    x = np.arange(36, dtype=np.float32).reshape(1, 6, 6, 1)
    np.testing.assert_allclose(
        area_pool(x, 2)[0, :, :, 0], x[0, :, :, 0].reshape(2, 3, 2, 3).mean((1, 3))
    )
    # Along one axis [0, 1, 2] in two halves: (0 + .5 * 1) / 1.5 and (.5 * 1 + 2) / 1.5.
    row = np.broadcast_to(np.arange(3, dtype=np.float32), (1, 3, 3))[..., None]
    np.testing.assert_allclose(area_pool(row, 2)[0, 0, :, 0], [1 / 3, 5 / 3], rtol=1e-6)
    np.testing.assert_allclose(area_pool(row, 6)[0, 0, :, 0], [0, 0, 1, 1, 2, 2])
    with pytest.raises(ValueError, match=r"`side` \(=0\)"):
        area_pool(row, 0)
