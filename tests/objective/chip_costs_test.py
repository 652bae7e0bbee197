"""The co-jitted step: task loss, hardware costs and all their gradients in one call."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codesign import workload
from codesign.hardware import reram_gpu, roofline
from codesign.hardware.spec import knobs
from codesign.numerics.relax import EXACT, smooth
from codesign.objective import Design, chip_costs
from codesign.training.config import TrainConfig, make_optimizer
from codesign.training.state import init_state
from codesign.training.step import make_step

_SMOOTH = smooth(0.3)


def _normalise(key, images):
    del key
    return images.astype(jnp.float32) / 255 - 0.5


@functools.cache
def _pieces(network, relax):
    ops = workload.trace(*network.trace_args())
    optimizer = make_optimizer(TrainConfig(), 10)
    costs = _costs(ops, relax)
    step = make_step(network, optimizer, _normalise, chip_costs=costs)
    state = init_state(network, optimizer, 0)
    return jax.jit(step), state


def _costs(ops, relax=_SMOOTH):
    return chip_costs(ops, reram_gpu.estimate, batch_size=8, relax=relax)


def _batch():
    key = jax.random.key(1)
    images = jax.random.randint(key, (8, 8, 8, 1), 0, 256).astype(jnp.uint8)
    return images, jnp.arange(8, dtype=jnp.int32)


@pytest.mark.slow
def test_gradients_of_the_task_loss_with_respect_to_the_mask(tiny_network):
    # Float64 throughout, so that differences of the loss have digits to compare.
    with jax.enable_x64(True):
        variables = tiny_network.init(jax.random.key(0))
        variables = jax.tree.map(jnp.float64, variables)
        images = jax.random.normal(jax.random.key(1), (32, 8, 8, 1), jnp.float64)

        @jax.jit
        def loss(mask):
            logits, _ = tiny_network.apply(variables, images, mask, train=True)
            return -jnp.mean(jax.nn.log_softmax(logits)[:, 3])

        mask = jnp.array([0.1, 0.5, 0.9])
        gradient = jax.jit(jax.grad(loss))(mask)
        for site in range(3):
            step = jnp.zeros(3).at[site].set(1e-6)
            numeric = (loss(mask + step) - loss(mask - step)) / 2e-6
            np.testing.assert_allclose(gradient[site], numeric, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("relax", [EXACT, smooth(0.3)], ids=["exact", "smooth"])
@pytest.mark.slow
def test_the_step_returns_what_its_parts_return(relax, tiny_network):
    network = tiny_network
    step, state = _pieces(network, relax)
    ops = workload.trace(*network.trace_args())
    design = Design(bn_mask=network.mask((1, 2)), chip=reram_gpu.deeptrain(3, 1))
    _, metrics = step(state, _batch(), design)
    cost = reram_gpu.estimate(
        design.chip, ops.masked(design.bn_mask), batch_size=8, relax=relax
    )
    for name in ("period_s", "energy_j", "latency_s"):
        np.testing.assert_allclose(
            metrics["costs"][name], getattr(cost, name), rtol=1e-5
        )

    def loss(mask):
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        images, labels = _batch()
        x = _normalise(None, images)
        logits, _ = network.apply(variables, x, mask, train=True)
        picked = jax.nn.log_softmax(logits)[jnp.arange(8), labels]
        return -jnp.mean(picked)

    value, gradient = jax.jit(jax.value_and_grad(loss))(design.bn_mask)
    gradients = jax.jit(jax.jacrev(_costs(ops, relax)))(design)
    for name, found in metrics["cost_gradients"].items():
        for a, b in zip(
            jax.tree.leaves(found), jax.tree.leaves(gradients[name]), strict=True
        ):
            np.testing.assert_allclose(a, b, rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-5)
    np.testing.assert_allclose(
        metrics["loss_mask_gradient"], gradient, rtol=1e-3, atol=1e-6
    )


def test_cost_gradients_against_finite_differences(tiny_network):
    ops = workload.trace(*tiny_network.trace_args())
    mask = 0.2 + 0.6 * tiny_network.mask((1, 2))
    design = Design(bn_mask=mask, chip=reram_gpu.deeptrain(2, 2))
    # In 32 bits, as the step has them.
    found = jax.jit(jax.jacrev(_costs(ops)))(design)
    with jax.enable_x64(True):
        wide, ops = jax.tree.map(jnp.float64, (design, ops))
        costs = jax.jit(_costs(ops))
        leaves, treedef = jax.tree.flatten(wide)
        straight_through = {knob.leaf for knob in knobs(wide) if knob.is_count}
        for name in ("period_s", "energy_j"):
            gradients = jax.tree.leaves(found[name])
            for i, leaf in enumerate(leaves):
                if i in straight_through:
                    continue
                for entry in np.ndindex(leaf.shape):
                    by = 1e-5 * abs(float(leaf[entry]))
                    values = []
                    for sign in (1, -1):
                        moved = list(leaves)
                        moved[i] = leaf.at[entry].add(sign * by)
                        values.append(float(costs(treedef.unflatten(moved))[name]))
                    numeric = (values[0] - values[1]) / (2 * by)
                    scale = abs(values[0]) / abs(float(leaf[entry]))
                    np.testing.assert_allclose(
                        gradients[i][entry], numeric, rtol=5e-3, atol=1e-4 * scale
                    )


def test_a_design_never_recompiles(tiny_network):
    network = tiny_network
    _, state = _pieces(network, EXACT)
    ops = workload.trace(*network.trace_args())
    traces = 0
    inner = make_step(
        network,
        make_optimizer(TrainConfig(), 10),
        _normalise,
        chip_costs=chip_costs(ops, reram_gpu.estimate, batch_size=8),
    )

    @jax.jit
    def step(state, batch, design):
        nonlocal traces
        traces += 1
        return inner(state, batch, design)

    for sites in ((), (0,), (1, 2)):
        for r, g in ((3, 1), (2, 2)):
            design = Design(bn_mask=network.mask(sites), chip=reram_gpu.deeptrain(r, g))
            step(state, _batch(), design)
    assert traces == 1


def test_without_a_chip_the_step_says_nothing_of_it(tiny_network):
    network = tiny_network
    _, state = _pieces(network, EXACT)
    step = make_step(network, make_optimizer(TrainConfig(), 10), _normalise)
    _, metrics = jax.jit(step)(state, _batch(), Design(bn_mask=network.mask(())))
    assert set(metrics) == {"loss"}


def test_any_chip_fits_behind_the_same_door(tiny_network):
    network = tiny_network
    ops = workload.trace(*network.trace_args())
    costs = chip_costs(ops, roofline.estimate, batch_size=8)
    design = Design(bn_mask=network.mask((0,)), chip=roofline.titan_xp())
    assert set(costs(design)) == {
        *("latency_s", "energy_j", "power_w"),
        *("period_s", "area_m2", "traffic_bytes"),
    }
