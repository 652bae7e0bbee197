"""The stack against cases worked by hand, and against what must always hold."""

import dataclasses
import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign import models, workload
from codesign.hardware import closeness, reram_gpu
from codesign.hardware.parts import replication
from codesign.hardware.parts.crossbar import num_crossbars
from codesign.hardware.spec import knobs
from codesign.numerics.relax import EXACT, smooth

# Crossbars of one copy of each layer, forward and transposed, in execution order:
# ceil(9 C_in / 128) ceil(C_out / 16), and ceil(9 C_out / 128) ceil(C_in / 16).
_FORWARD = {
    #         3>64 64>128  128>256   256>256   256>512   512>512           512>10
    "vgg11": [4, 5 * 8, 9 * 16, 18 * 16, 18 * 32, *[36 * 32] * 3, 4],
    "vgg16": [
        *(4, 5 * 4, 5 * 8, 9 * 8, 9 * 16, 18 * 16, 18 * 16),
        *(18 * 32, *[36 * 32] * 5, 4),
    ],
    "vgg19": [
        *(4, 5 * 4, 5 * 8, 9 * 8, 9 * 16, *[18 * 16] * 3),
        *(18 * 32, *[36 * 32] * 7, 4),
    ],
    "resnet18": [
        *(4, *[5 * 4] * 4),
        *(5 * 8, 9 * 8, 1 * 8, 9 * 8, 9 * 8),  # the third of five is the 1x1 projection
        *(9 * 16, 18 * 16, 1 * 16, 18 * 16, 18 * 16),
        *(18 * 32, 36 * 32, 2 * 32, 36 * 32, 36 * 32, 4),
    ],
}
_BACKWARD = {
    "vgg11": [0, 9 * 4, 18 * 8, 18 * 16, 36 * 16, *[36 * 32] * 3, 1 * 32],
    "vgg16": [
        *(0, 5 * 4, 9 * 4, 9 * 8, 18 * 8, 18 * 16, 18 * 16),
        *(36 * 16, *[36 * 32] * 5, 1 * 32),
    ],
    "vgg19": [
        *(0, 5 * 4, 9 * 4, 9 * 8, 18 * 8, *[18 * 16] * 3),
        *(36 * 16, *[36 * 32] * 7, 1 * 32),
    ],
    "resnet18": [
        *(0, *[5 * 4] * 4),
        *(9 * 4, 9 * 8, 1 * 4, 9 * 8, 9 * 8),
        *(18 * 8, 18 * 16, 2 * 8, 18 * 16, 18 * 16),
        *(36 * 16, 36 * 32, 4 * 16, 36 * 32, 36 * 32, 1 * 32),
    ],
}
# Activations: (2 (L - l) + 1) buffers of each map, 8 cells a value, 16384 cells.
#   VGG-11, L = 9: 17 x 65536 + 15 x 32768 + (13 + 11) x 16384 + (9 + 7) x 8192
#       + (5 + 3) x 2048 + 10 = 2,146,314 values / 2048 = 1048.01
#   VGG-16, L = 14: (27 + 25) x 65536 + (23 + 21) x 32768 + (19 + 17 + 15) x 16384
#       + (13 + 11 + 9) x 8192 + (7 + 5 + 3) x 2048 + 10 = 5,986,314 -> 2923.01
#   VGG-19, L = 17: (33 + 31) x 65536 + (29 + 27) x 32768 + (25 + ... + 19) x 16384
#       + (17 + ... + 11) x 8192 + (9 + ... + 3) x 2048 + 10 = 7,979,018 -> 3896.01
#   ResNet-18, L = 21: (41 + ... + 33) x 65536 + (31 + ... + 23) x 32768
#       + (21 + ... + 13) x 16384 + (11 + ... + 3) x 8192 + 10 = 18,227,210 -> 8900.01
_ACTIVATIONS = {"vgg11": 1049, "vgg16": 2924, "vgg19": 3897, "resnet18": 8901}
# Sums of the two tables above.
_WEIGHTS = {
    "vgg11": 4512 + 4532,
    "vgg16": 7196 + 7216,
    "vgg19": 9788 + 9808,
    "resnet18": 5472 + 5488,
}
# Steps of the slowest stage on 3R1G, 41472 crossbars. One copy costs forward + backward;
# a stage with w windows takes ceil(w / n) copies to finish in n steps.
#   VGG-11, 40423 spare after activations: n = 4 takes 256 x 4 + 64 x 76 + 16 x 288
#       + 16 x 576 + 4 x 1152 + 4 x 2304 + 2304 + 2304 + 36 = 38180, n = 3 56900.
#   VGG-16, 38548: n = 11 takes 94 x (4 + 40) + 24 x (76 + 144) + 6 x (288 + 576 + 576)
#       + 2 x (1152 + 2304 + 2304) + 3 x 2304 + 36 = 36524, n = 10 38800.
#   VGG-19, 37575: n = 16 takes 64 x 44 + 16 x 220 + 4 x (288 + 3 x 576)
#       + 1152 + 7 x 2304 + 36 = 31716, n = 15 42456.
#   ResNet-18, 32571: n = 29 takes 36 x (4 + 4 x 40 + 76 + 12) + 9 x (3 x 144 + 288 + 32)
#       + 3 x (3 x 576 + 1152 + 128) + 3 x 2304 + 36 = 31812, n = 28 32816.
_STEPS = {"vgg11": 4, "vgg16": 11, "vgg19": 16, "resnet18": 29}
_COPIES_COST = {"vgg11": 38180, "vgg16": 36524, "vgg19": 31716, "resnet18": 31812}


@functools.cache
def _ops(name, width=1.0):
    network = models.create(name, width=width)
    return network, workload.trace(*network.trace_args())


@pytest.mark.parametrize("name", tuple(_FORWARD))
def test_crossbars_by_hand(name):
    _, ops = _ops(name)
    cost = reram_gpu.estimate(reram_gpu.deeptrain(3, 1), ops)
    expected = np.array(_FORWARD[name]) + np.array(_BACKWARD[name])
    np.testing.assert_array_equal(cost.breakdown["crossbars"], expected)
    assert expected.sum() == _WEIGHTS[name]
    needed = _WEIGHTS[name] + _ACTIVATIONS[name]
    assert float(cost.breakdown["crossbars_needed"]) == needed


@pytest.mark.parametrize("name", tuple(_FORWARD))
def test_replication_by_hand(name):
    _, ops = _ops(name)
    cost = reram_gpu.estimate(reram_gpu.deeptrain(3, 1), ops)
    steps = _STEPS[name]
    # Each read of the slowest stage takes 16 x 100 ns.
    assert float(cost.breakdown["slowest_conv_s"]) == pytest.approx(steps * 1.6e-6)
    used = _COPIES_COST[name] + _ACTIVATIONS[name]
    assert float(cost.breakdown["crossbars_used"]) == used
    assert used <= 36 * 4 * 96 * 3
    matrix = ops.select("conv", "dense")
    windows = np.maximum(matrix.num_windows, matrix.num_input_windows)
    np.testing.assert_array_equal(
        cost.breakdown["copies"], [math.ceil(w / steps) for w in windows]
    )


def test_which_stacks_hold_which_networks():
    # One tier has 13824 crossbars: VGG-19 needs 23493, VGG-11 10093.
    feasible = {
        (name, r): bool(
            reram_gpu.estimate(reram_gpu.deeptrain(r, 4 - r), _ops(name)[1]).feasible
        )
        for name in tuple(_FORWARD)
        for r in (1, 2, 3)
    }
    assert not feasible["vgg19", 1]
    assert feasible["vgg11", 1]
    assert all(feasible[name, r] for name in tuple(_FORWARD) for r in (2, 3))


def test_published_placements_cut_gpu_work_by_four_fifths():
    # Elements kept / all: VGG-11 10240 / 151552, VGG-16 (16384 + 16384 + 8192 + 2048)
    # / 276480, VGG-19 (16384 + 16384 + 8192 + 2048) / 303104, ResNet-18 262144 / 614400.
    expected = {
        "vgg11": 1 - 10240 / 151552,
        "vgg16": 1 - 43008 / 276480,
        "vgg19": 1 - 43008 / 303104,
        "resnet18": 1 - 262144 / 614400,
    }
    spec, cuts = reram_gpu.deeptrain(), {}
    for name in tuple(_FORWARD):
        network, ops = _ops(name)
        kept = ops.masked(network.mask(network.paper_sites))
        kept, full = reram_gpu.estimate(spec, kept), reram_gpu.estimate(spec, ops)
        work = [float(cost.breakdown["bn_elements"].sum()) for cost in (kept, full)]
        cuts[name] = 1 - work[0] / work[1]
    assert cuts == pytest.approx(expected)
    assert abs(np.mean(list(cuts.values())) - 0.82) < 0.03


def test_batch_norm_time_energy_and_latency_by_hand():
    # VGG-11, 3R1G. 151552 elements x 33 instructions over 16 tiles x 64 x 0.5 x 700 MHz
    # = 13.954 us, longer than 4 x 1.6 us. 19 conv stages (2 x 9 + 1) and 16 of batch
    # norm: a batch of 64 takes (64 + 35 - 1) x 13.954 us = 1.3675 ms.
    spec = reram_gpu.deeptrain(3, 1)
    cost = reram_gpu.estimate(spec, _ops("vgg11")[1], batch_size=64)
    period_s = 151552 * 33 / (16 * 64 * 0.5 * 700e6)
    assert float(cost.period_s) == pytest.approx(period_s)
    assert float(cost.breakdown["num_stages"]) == 35
    assert float(cost.latency_s) == pytest.approx(98 * period_s)
    # First layer: 1024 windows on 4 crossbars forward, none back, and 64 error columns
    # on ceil(1024 / 128) ceil(8 x 27 / 128) = 16 crossbars: 5120 MVMs of
    # 330 mW / 96 x 1.6 us = 5.5 nJ.
    assert float(cost.breakdown["mvm_energy_j"][0]) == pytest.approx(5120 * 5.5e-9)
    gpu_j = 151552 * 33 * 200e-12
    mvm_j = float(cost.breakdown["mvm_energy_j"].sum())
    assert float(cost.energy_j) == pytest.approx(64 * (mvm_j + gpu_j))


def test_dedicated_tiles_by_hand():
    # VGG-11 on 16 tiles. With 5 tiles for the first norm (65536 / 5 = 13107.2 elements a
    # tile) the others take ceil(32768 / 13107.2) = 3, 2, 2, 1, 1, 1, 1 tiles: 16 in all.
    # A share below 13107.2 would take a 17th.
    spec = reram_gpu.deeptrain(3, 1).replace(dedicated_tiles=True)  # pyright: ignore[reportAttributeAccessIssue]
    cost = reram_gpu.estimate(spec, _ops("vgg11")[1])
    expected = 65536 / 5 * 33 / (64 * 0.5 * 700e6)
    assert float(cost.breakdown["slowest_bn_s"]) == pytest.approx(expected, rel=1e-5)
    pooled = reram_gpu.estimate(reram_gpu.deeptrain(3, 1), _ops("vgg11")[1])
    assert cost.breakdown["slowest_bn_s"] > pooled.breakdown["slowest_bn_s"]
    # ResNet-18 has 20 norms for 16 tiles.
    assert not reram_gpu.estimate(spec, _ops("resnet18")[1]).feasible


def test_a_strided_first_layer_counts_its_own_windows_only():
    # 16x16 images, stride 2: 64 windows forward, and no error to send back to the 256
    # positions of the image. Its 1 x 1 crossbars fit 13824 times, so one step is left.
    def net(x, kernel, w):
        numbers = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(
            x, kernel, (2, 2), "SAME", dimension_numbers=numbers
        )
        return x.reshape(1, -1) @ w

    shapes = ((1, 16, 16, 3), (3, 3, 3, 16), (1024, 10))
    ops = workload.trace(net, *(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes))
    cost = reram_gpu.estimate(reram_gpu.deeptrain(1, 1), ops)
    np.testing.assert_array_equal(cost.breakdown["copies"], [64, 1])
    assert float(cost.breakdown["slowest_conv_s"]) == pytest.approx(1.6e-6)


def test_grouped_convolutions_are_block_diagonal():
    # Depthwise 3x3 over 32 channels: blocks of 9 x 1, each 9 wordlines and 8 bitlines of
    # 128: min(14, 16) = 14 a crossbar, so 3; back, the same. Two groups of 16 to 16
    # channels: blocks of 144 x 16 take 2 x 1 crossbars each, 4. The first layer sends no
    # error; a dense one of 512 to 4, 4 x 1, and 1 x 32 back.
    def net(x, stem, depthwise, grouped, head):
        def conv(x, kernel, groups):
            return jax.lax.conv_general_dilated(
                x, kernel, (1, 1), "SAME", feature_group_count=groups,
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )  # fmt: skip

        x = conv(conv(conv(x, stem, 1), depthwise, 32), grouped, 2)
        return x.reshape(1, -1) @ head

    shapes = ((1, 4, 4, 3), (1, 1, 3, 32), (3, 3, 1, 32), (3, 3, 16, 32), (512, 4))
    args = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    ops = workload.trace(net, *args, inputs=(0,))
    cost = reram_gpu.estimate(reram_gpu.deeptrain(3, 1), ops)
    np.testing.assert_array_equal(
        cost.breakdown["crossbars"], [2, 3 + 3, 4 + 4, 4 + 32]
    )


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_replication_is_the_best_there_is(data):
    num_stages = data.draw(st.integers(1, 6))
    ints = functools.partial(st.lists, min_size=num_stages, max_size=num_stages)
    windows = np.array(data.draw(ints(st.integers(1, 1500))))
    unit_cost = np.array(data.draw(ints(st.integers(1, 50))))
    budget = int(unit_cost.sum() * data.draw(st.floats(1.0, 40.0)))
    copies, steps = jax.jit(replication.copies)(
        jnp.float32(windows), jnp.float32(unit_cost), jnp.float32(budget)
    )

    def cost(n):
        return int((unit_cost * -(-windows // n)).sum())

    best = next(n for n in range(1, 1501) if cost(n) <= budget)
    assert int(steps) == best
    assert int((np.array(copies) * unit_cost).sum()) <= budget
    assert max(-(-windows // np.array(copies, int))) == best


def test_no_room_for_copies_leaves_one_each():
    copies, steps = replication.copies(
        jnp.array([64.0, 16.0]), jnp.array([3.0, 3.0]), jnp.float32(5.0)
    )
    np.testing.assert_array_equal(copies, [1, 1])
    assert float(steps) == 64


@pytest.mark.parametrize("name", tuple(_FORWARD))
def test_more_tiers_never_slow_the_stack(name):
    network, ops = _ops(name)
    ops = ops.masked(network.mask(network.paper_sites))
    estimate = jax.jit(reram_gpu.estimate)

    def period(r, g):
        spec = reram_gpu.deeptrain(3, 1)
        spec = spec.replace(  # pyright: ignore[reportAttributeAccessIssue]
            num_reram_tiers=jnp.float32(r), num_gpu_tiers=jnp.float32(g)
        )
        return float(estimate(spec, ops).period_s)

    for r in (1, 2, 3):
        for g in (1, 2, 3):
            assert period(r + 1, g) <= period(r, g)
            assert period(r, g + 1) <= period(r, g)


def test_time_saved_is_at_most_the_work_saved_when_batch_norm_is_slowest():
    network, ops = _ops("vgg11")
    spec = reram_gpu.deeptrain(3, 1)
    full = reram_gpu.estimate(spec, ops)
    assert full.breakdown["slowest_bn_s"] > full.breakdown["slowest_conv_s"]
    for sites in ((0,), (4, 6), (1, 2, 3), (7,)):
        kept = reram_gpu.estimate(spec, ops.masked(network.mask(sites)))
        work = kept.breakdown["bn_elements"].sum() / full.breakdown["bn_elements"].sum()
        assert 1 - kept.period_s / full.period_s <= 1 - work + 1e-6
        assert kept.energy_j < full.energy_j


def _assert_close(name, width):
    """Of four placements on two stacks; see `closeness.measure`."""
    network, ops = _ops(name, width)
    found = closeness.measure(reram_gpu.estimate, closeness.stacks(network, ops))
    # The largest value error is that of a maximum of two equal stages, 2^(T / 4) - 1.
    for t, close in found.items():
        assert np.max(close.value_error) <= 1.001 * (2 ** (t / 4) - 1) + 2e-4
        assert close.slope_error <= 1e-3
        assert np.max(close.off("counts")) <= 0.01
        assert len(close.pairs["counts"]) == 2 * 4 * 4 * 2
        assert not any(map(close.wrong_signs, close.pairs))
        if t <= 0.1:
            assert np.median(close.value_error) <= 0.001
            assert np.median(close.off("smooth")) <= 1e-3
            assert np.max(close.off("smooth")) <= 0.1


def test_relaxed_model_is_close_to_the_exact_one():
    _assert_close("vgg11", 0.25)


@pytest.mark.slow
@pytest.mark.parametrize("width", [1.0, 0.25])
@pytest.mark.parametrize("name", ["vgg11", "vgg16", "vgg19", "resnet18"])
def test_relaxed_models_are_close_to_the_exact_ones(name, width):
    _assert_close(name, width)


def test_slopes_by_counts_are_secants_of_the_exact_model_by_hand():
    # VGG-11 without norms. At 41472 x 1.5 = 62208 crossbars 61159 are spare: n = 3 takes
    # 56900, n = 2 512 x 4 + 128 x 76 + 32 x 864 + 8 x 3456 + 2 x 4608 + 36 = 76324. At
    # 27648 26599 are spare: n = 7 takes 147 x 4 + 37 x 76 + 10 x 864 + 3 x 3456 + 4644
    # = 27052, n = 8 128 x 4 + 32 x 76 + 8 x 864 + 2 x 3456 + 4644 = 21412. So
    # d log T / d log R is log(3 / 8) / log(2.25).
    network, ops = _ops("vgg11")
    ops = ops.masked(network.mask(()))

    def log_latency(spec):
        return jnp.log(reram_gpu.estimate(spec, ops, relax=smooth(0.1)).latency_s)

    spec = reram_gpu.deeptrain(3, 1)
    slope = jax.jit(jax.grad(log_latency))(spec)
    expected = math.log(3 / 8) / math.log(2.25)
    for name in ("num_reram_tiers", "crossbars_per_tier"):
        found = getattr(slope, name) * getattr(spec, name)
        assert float(found) == pytest.approx(expected, rel=1e-4)
    assert float(slope.num_gpu_tiers) == 0


@pytest.mark.parametrize("temperature", [0.5, 0.1])
def test_relaxed_gradients_are_those_of_finite_differences(temperature):
    network, ops = _ops("vgg16", 0.5)
    mask = 0.2 + 0.6 * network.mask(network.paper_sites)
    with jax.enable_x64(True):
        relax = smooth(temperature)
        spec = jax.tree.map(jnp.float64, reram_gpu.deeptrain(3, 1))
        ops = jax.tree.map(jnp.float64, ops)
        mask = jnp.float64(mask)

        @jax.jit
        def scalars(spec, mask):
            cost = reram_gpu.estimate(spec, ops.masked(mask), relax=relax)
            return jnp.stack([jnp.log(cost.period_s), jnp.log(cost.energy_j)])

        gradients = jax.jacrev(scalars, (0, 1))(spec, mask)
        leaves, treedef = jax.tree.flatten((spec, mask))
        counts = {knob.leaf for knob in knobs(spec) if knob.is_count}
        for leaf, gradient in enumerate(jax.tree.leaves(gradients)):
            if leaf in counts:
                continue  # straight-through, see above
            for entry in np.ndindex(leaves[leaf].shape):
                step = 1e-4 * max(1e-3, abs(float(leaves[leaf][entry])))
                if abs(float(leaves[leaf][entry])) < 1e-3:
                    step = 1e-4 * abs(float(leaves[leaf][entry]))

                def moved(by, leaf=leaf, entry=entry):
                    changed = list(leaves)
                    changed[leaf] = leaves[leaf].at[entry].add(by)
                    return scalars(*jax.tree.unflatten(treedef, changed))

                numeric = (moved(step) - moved(-step)) / (2 * step)
                exact = gradient[(slice(None), *entry)]
                np.testing.assert_allclose(exact, numeric, rtol=2e-3, atol=1e-9)


def test_one_program_for_all_placements_and_chips():
    network, ops = _ops("vgg11")
    chex.clear_trace_counter()

    @jax.jit
    @functools.partial(chex.assert_max_traces, n=1)
    def run(spec, mask):
        return reram_gpu.estimate(spec, ops.masked(mask)).period_s

    periods = {
        float(run(reram_gpu.deeptrain(r, g), network.mask(tuple(sites))))
        for r, g in ((3, 1), (2, 2), (1, 3))
        for sites in (range(3), range(5), range(8))
    }
    assert len(periods) > 4


def test_crossbars_of_partly_filled_tiles():
    xbar = reram_gpu.deeptrain().crossbar
    rows, cols = jnp.array([1.0, 128.0, 129.0]), jnp.array([16.0, 17.0, 1.0])
    np.testing.assert_array_equal(num_crossbars(xbar, rows, cols), [1, 2, 2])
    relaxed = num_crossbars(xbar, rows, cols, relax=smooth(1e-4))
    np.testing.assert_allclose(relaxed, [1, 2, 2], rtol=1e-3)


@pytest.mark.parametrize(
    ("r", "g", "match"),
    [
        (0, 1, "`R`.*=0.*at least 1"),
        (3, 0, "`G`.*=0.*at least 1"),
        (3, 2, r"3 \+ 2.*must not exceed 4"),
        (1.5, 1, "`R`.*whole number"),
    ],
)
def test_refuses_stacks(r, g, match):
    with pytest.raises(ValueError, match=match):
        reram_gpu.deeptrain(r, g)


def test_refuses_rates_that_are_not_positive():
    with pytest.raises(ValueError, match="gpu_clock_hz.*positive"):
        reram_gpu.deeptrain().replace(gpu_clock_hz=0.0).checked()  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ValueError, match="gpu_utilisation"):
        reram_gpu.deeptrain().replace(gpu_utilisation=1.5).checked()  # pyright: ignore[reportAttributeAccessIssue]


def test_exact_is_the_default():
    assert EXACT.is_exact
    _, ops = _ops("vgg11")
    a = reram_gpu.estimate(reram_gpu.deeptrain(), ops)
    b = reram_gpu.estimate(reram_gpu.deeptrain(), ops, relax=EXACT)
    chex.assert_trees_all_equal(a, b)


def test_dedicated_tiles_without_a_norm_have_finite_slopes():
    network, ops = _ops("vgg11", 0.25)
    spec = dataclasses.replace(reram_gpu.deeptrain(3, 1), dedicated_tiles=True)

    def energy(spec, mask):
        cost = reram_gpu.estimate(spec, ops.masked(mask), relax=smooth(0.1))
        return jnp.log(cost.latency_s * cost.energy_j)

    slopes = jax.jit(jax.grad(energy, (0, 1)))(spec, jnp.zeros(network.num_sites))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(slopes))
