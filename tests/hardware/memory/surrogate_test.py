import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign import models, units, workload
from codesign.hardware import memory
from codesign.hardware.memory import MemorySpec
from codesign.hardware.memory import surrogate as memory_surrogate
from codesign.hardware.memory import validation as memory_validation
from codesign.numerics.relax import EXACT, smooth
from codesign.workload.graph import Op, build
from codesign.workload.iteration import training_iteration

_RESOURCES = ("capacity_bytes", "bandwidth_bytes_per_s", "throughput_ops_per_s")


def _spec(capacity=24 * units.MIB, bandwidth=616e9, throughput=13.45e12):
    return MemorySpec(
        capacity_bytes=capacity,
        bandwidth_bytes_per_s=bandwidth,
        throughput_ops_per_s=throughput,
    )


def _dense():
    """One layer of 3 x 4 weights."""
    op = Op(
        name="dense",
        kind="dense",
        operands=(-1,),
        input_shape=(3,),
        output_shape=(4,),
        weight_shape=(3, 4),
        parameters=("kernel",),
        macs=12,
    )
    return build([op], inputs=[(3,)], parameters={"kernel": 12})


def _recurrent(length=50, layers=4, width=64):
    """Layers h(t) = tanh(W h(t - 1) + x(t)), unrolled; time steps share weights."""
    ops: list[Op] = []

    def add(name, kind, *operands, **fields):
        fields.setdefault("output_shape", (width,))
        ops.append(Op(name=name, kind=kind, operands=operands, **fields))
        return len(ops) - 1

    inputs = [
        add(f"x{t}", "slice", -1, input_shape=(length, width)) for t in range(length)
    ]
    for layer in range(layers):
        state, outputs = inputs[0], []
        for t in range(length):
            name = f"layer{layer}.{t}"
            product = add(
                f"{name}.dense",
                "dense",
                state,
                input_shape=(width,),
                weight_shape=(width, width),
                parameters=(f"kernel{layer}",),
                macs=width * width,
            )
            total = add(f"{name}.add", "add", product, inputs[t])
            state = add(f"{name}.tanh", "activation", total, variant="tanh")
            outputs.append(state)
        inputs = outputs
    parameters = {f"kernel{layer}": width * width for layer in range(layers)}
    return build(ops, inputs=[(length, width)], parameters=parameters)


def _traced(name, **settings):
    return workload.trace(*models.create(name, **settings).trace_args())


@pytest.fixture(scope="module")
def vgg():
    return _traced("vgg11")


@pytest.fixture(scope="module")
def surrogate(vgg):
    program = training_iteration(vgg)
    return memory_surrogate.calibrate(program, batch_sizes=(1, 8, 32, 128))


def _seconds(surrogate, design, temperature=0.1):
    """Of a design [capacity, bandwidth, throughput, batch size]."""
    capacity, bandwidth, throughput, batch_size = design
    return memory_surrogate.time_s(
        surrogate,
        capacity,
        bandwidth,
        throughput,
        batch_size=batch_size,
        relax=smooth(temperature),
    )


_jitted = jax.jit(_seconds)
_value_and_grad = jax.jit(jax.value_and_grad(_seconds, argnums=1))


def test_exact_cost_by_hand():
    # Batch 2, fp32, 1 byte and 1 operation a second. X 24, W 48, A 32, G 32, D 48 bytes;
    # forward 24 operations, backward 24 (no input gradient). The prefetch of G goes
    # first, 0..32; X and W 32..104; forward ..128, backward ..152; D is written ..200.
    # A is never read again. Traffic 32 + 24 + 48 + 48 = 152 bytes.
    spec = _spec(1e6, 1.0, 1.0)
    cost = memory.estimate(spec, _dense(), batch_size=2)
    assert cost.latency_s == 200.0
    assert cost.period_s == 100.0
    assert cost.traffic_bytes == 152.0
    assert cost.energy_j == pytest.approx(48 * 4.6e-12 + 152 * 48e-12)
    assert cost.feasible
    assert cost.violation == 0.0
    np.testing.assert_allclose(cost.breakdown["op_s"], [152.0])
    np.testing.assert_allclose(cost.breakdown["op_bytes"], [152.0])


def test_exact_refuses_tracers_and_names_the_way_out(vgg):
    def latency(capacity):
        return memory.estimate(_spec(capacity), vgg, relax=EXACT).latency_s

    with pytest.raises(ValueError, match=r"relax=smooth\(t\)"):
        jax.jit(latency)(2.4e7)
    with pytest.raises(ValueError, match=r"relax=smooth\(t\)"):
        jax.grad(latency)(2.4e7)


def test_a_cache_that_cannot_run(vgg):
    smallest, _ = memory.smallest_capacity(training_iteration(vgg))
    with pytest.raises(ValueError, match=f"at least {smallest} bytes"):
        memory.estimate(_spec(smallest / 2), vgg)
    cost = memory.estimate(_spec(smallest / 2), vgg, relax=smooth(0.01))
    assert not cost.feasible
    assert float(cost.violation) == pytest.approx(1.0, rel=1e-3)
    enough = memory.estimate(_spec(2 * smallest), vgg, relax=smooth(0.01))
    assert enough.feasible
    assert float(enough.violation) == pytest.approx(0.0, abs=1e-6)


def test_smooth_cost_is_near_the_exact_one_and_adds_up(vgg):
    exact = memory.estimate(_spec(), vgg)
    near = memory.estimate(_spec(), vgg, relax=smooth(0.05))
    for name in ("latency_s", "energy_j", "period_s", "traffic_bytes"):
        assert getattr(near, name) == pytest.approx(getattr(exact, name), rel=0.1), name
    op_s, op_bytes = near.breakdown["op_s"], near.breakdown["op_bytes"]
    assert op_s.shape == op_bytes.shape == (vgg.num_ops,)
    np.testing.assert_allclose(op_s.sum(), near.latency_s, rtol=1e-5)
    np.testing.assert_allclose(op_bytes.sum(), near.traffic_bytes, rtol=1e-5)
    # The ten most costly ops of the simulator are costly here, too.
    dearest = np.argsort(exact.breakdown["op_s"])[-10:]
    assert np.median(op_s[dearest]) > 2 * np.median(op_s)


def test_energy_beyond_what_32_bits_count(vgg):
    # Batch 4096 moves more than 2^31 bytes.
    spec, batch_size = _spec(24.0 * units.MIB), 4096
    cost = memory.estimate(spec, vgg, batch_size=batch_size)
    assert cost.traffic_bytes > 2**31
    operations = float(training_iteration(vgg).operations.sum()) * batch_size
    by_hand = operations * 4.6e-12 + cost.traffic_bytes * 48e-12
    assert float(cost.energy_j) == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize("relax", [EXACT, smooth(0.1)])
def test_resources_must_be_positive(vgg, relax):
    for name in _RESOURCES:
        for value in (0.0, -1e9, float("nan"), float("inf")):
            with pytest.raises(ValueError, match=name):
                memory.estimate(_spec().replace(**{name: value}), vgg, relax=relax)  # pyright: ignore[reportAttributeAccessIssue]


def test_traffic_grows_with_a_traced_batch_beyond_the_calibrated_ones(vgg):
    def traffic(batch_size):
        relax = smooth(0.05)
        return memory.estimate(_spec(), vgg, batch_size=batch_size, relax=relax)

    traced = jax.jit(lambda b: traffic(b).traffic_bytes)
    for batch_size in (2048, 16384):
        exact = memory.estimate(_spec(), vgg, batch_size=batch_size).traffic_bytes
        near = float(traced(jnp.float32(batch_size)))
        assert near == pytest.approx(exact, rel=0.1)


def test_gradients_through_the_spec_and_the_batch_under_jit_and_vmap(vgg):
    traces = []

    @jax.jit
    @jax.vmap
    def grad(spec, batch_size):
        traces.append(1)

        def period(spec, batch_size):
            return memory.estimate(
                spec, vgg, batch_size=batch_size, relax=smooth(0.1)
            ).period_s

        return jax.value_and_grad(period, argnums=(0, 1))(spec, batch_size)

    capacities = jnp.array([12.0, 24.0, 48.0]) * units.MIB
    specs = jax.tree.map(lambda leaf: jnp.full(3, leaf), _spec())
    specs = specs.replace(capacity_bytes=capacities)
    for batch_size in (20.5, 32.0):
        period, (by_spec, _) = grad(specs, jnp.full(3, batch_size))
        assert np.all(np.diff(period) < 0)
        for name in _RESOURCES:
            assert np.all(getattr(by_spec, name) < 0), name
    assert len(traces) == 1
    # The tables of a traced batch size agree with those of the same one, static.
    static = memory.estimate(_spec(), vgg, relax=smooth(0.1))
    assert float(period[1]) == pytest.approx(float(static.period_s), rel=0.05)


def test_gradient_agrees_with_finite_differences(surrogate):
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        low, high = np.log([1e7, 1e11, 1e12, 1.5]), np.log([2e8, 3e12, 6e13, 100.0])
        for temperature in (1.0, 0.1):
            for _ in range(5):
                design = np.exp(rng.uniform(low, high))
                _, grad = _value_and_grad(surrogate, design, temperature)
                for i in range(4):
                    step = np.zeros(4)
                    step[i] = 1e-5 * design[i]
                    above = _jitted(surrogate, design + step, temperature)
                    below = _jitted(surrogate, design - step, temperature)
                    slope = (above - below) / (2 * step[i])
                    scale = abs(float(above)) / design[i]
                    np.testing.assert_allclose(grad[i], slope, 1e-5, 1e-7 * scale)
                assert grad.dtype == jnp.float64


def test_gradients_are_finite_at_the_extremes(surrogate):
    smallest = float(surrogate.smallest_bytes)
    full = float(surrogate.full_bytes[-1])
    for capacity in (0.0, 1.0, smallest / 2, smallest, full, 10 * full, 1e18):
        for bandwidth, throughput in ((1e6, 1e18), (1e15, 1e9), (616e9, 13.45e12)):
            for batch_size in (1.0, 32.0, 128.0, 1024.0):
                design = jnp.array([capacity, bandwidth, throughput, batch_size])
                seconds, grad = _value_and_grad(surrogate, design)
                assert np.isfinite(seconds)
                assert np.all(np.isfinite(grad)), (design, grad)


def test_segments_without_traffic_or_operations_have_finite_gradients():
    # Slices neither compute nor, once everything is cached, move.
    net = _recurrent(length=40, layers=1)
    plan = memory_surrogate.calibrate(training_iteration(net), num_segments=40)
    design = jnp.array([1e9, 1e9, 1e9, 32.0])
    assert np.any(plan.moved[0, -1] == 0)
    assert np.all(np.isfinite(_value_and_grad(plan, design)[1]))


@settings(max_examples=200, deadline=None)
@given(
    st.tuples(*[st.floats(0, 1)] * 4),
    st.tuples(*[st.floats(0, 1)] * 4),
    st.sampled_from([0.02, 0.1, 1.0]),
)
def test_more_of_any_resource_never_costs_time(surrogate, place, step, temperature):
    low = np.log([1e5, 1e10, 1e11, 1.0])
    high = np.log([1e10, 1e13, 1e14, 128.0])
    few = low + (high - low) * np.array(place)
    more = few + np.array(step) * [1, 1, 1, -1]
    more[3] = max(more[3], 0.0)
    slow = _jitted(surrogate, np.exp(few).astype(np.float32), temperature)
    fast = _jitted(surrogate, np.exp(more).astype(np.float32), temperature)
    assert float(fast) <= float(slow) * (1 + 1e-5)


def test_tends_to_linear_tables_and_the_longer_time(vgg):
    program = training_iteration(vgg)
    plan = memory_surrogate.calibrate(program, batch_sizes=(32,))
    smallest = float(plan.smallest_bytes)
    full = float(plan.full_bytes[0])
    knots = np.linspace(np.log(smallest), np.log(full), plan.moved.shape[1])
    rng = np.random.default_rng(0)
    for capacity in np.exp(rng.uniform(knots[0] - 1, knots[-1] + 1, 8)):
        moved, exposed = (
            [np.interp(np.log(capacity), knots, column) for column in table[0].T]
            for table in (np.array(plan.moved), np.array(plan.exposed))
        )
        compute_s = np.array(plan.operations) * 32 / 9e12
        exact = np.maximum(
            compute_s + np.array(exposed) / 512e9, np.array(moved) / 512e9
        ).sum()
        design = jnp.array([capacity, 512e9, 9e12, 32.0])
        errors = [
            abs(float(_seconds(plan, design, t)) / exact - 1) for t in (0.3, 1e-3)
        ]
        assert errors[1] < 1e-4
        assert errors[1] < errors[0]


def test_tables_hold_the_traffic_of_calibrated_capacities(vgg):
    # Less what a segment moves more than in a smaller cache: that is clipped.
    program = training_iteration(vgg)
    plan = memory_surrogate.calibrate(program)
    full = float(plan.full_bytes[0])
    smallest = float(plan.smallest_bytes)
    for i in (0, 13, 30, 47):
        capacity = np.ceil(smallest * (full / smallest) ** (i / 47))
        run = memory.simulate(_spec(capacity), program)
        exact = run.traffic_in_bytes + run.traffic_out_bytes
        assert 0.95 * exact < float(plan.moved[0, i].sum()) < exact * (1 + 1e-6)


@pytest.mark.parametrize(
    ("name", "settings", "batch_size", "capacities"),
    [
        ("resnet18", {}, 32, tuple(range(12, 136, 2))),
        pytest.param(
            "resnet50",
            dict(image_shape=(224, 224, 3), num_classes=1000),
            32,
            memory_validation.CAPACITIES_MB,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_stands_for_the_simulator(name, settings, batch_size, capacities):
    result = memory_validation.validate(
        _traced(name, **settings),
        batch_size=batch_size,
        capacities_mb=capacities,
        num_designs=1024,
    )
    assert result.num_points == 62 * 4 * 6
    assert result.spearman >= 0.99
    assert result.median_error <= 0.05
    assert result.p90_error <= 0.15
    assert result.slower_pairs == result.wrong_signs == 0


@pytest.mark.parametrize(
    "batch_sizes",
    [(32,), pytest.param((1, 2, 4, 8, 16, 24, 32, 48), marks=pytest.mark.slow)],
)
def test_stands_for_the_simulator_where_weights_recur(batch_sizes):
    # 4 weights of 16 kB, 50 time steps: caches from one weight to everything. What
    # captures the weights does not grow with the batch.
    result = memory_validation.validate(
        _recurrent(),
        batch_size=32,
        batch_sizes=batch_sizes,
        capacities_mb=tuple(np.geomspace(0.08, 8, 62)),
        num_designs=1024,
    )
    assert result.spearman >= 0.99
    assert result.median_error <= 0.05
    assert result.slower_pairs == result.wrong_signs == 0


def test_interpolates_between_batch_sizes(vgg):
    result = memory_validation.validate(
        vgg,
        batch_size=48,
        batch_sizes=(16, 32, 64, 128),
        capacities_mb=tuple(range(12, 136, 2)),
        num_designs=1024,
    )
    assert result.spearman >= 0.985
    assert result.median_error <= 0.05
    assert result.slower_pairs == result.wrong_signs == 0


def test_lowers_for_tpu(surrogate):
    design = jax.ShapeDtypeStruct((1024, 4), jnp.float32)
    fn = jax.jit(jax.vmap(jax.grad(lambda x: _seconds(surrogate, x))))
    assert jax.export.export(fn, platforms=["tpu"])(design)


def test_rejects(vgg, surrogate):
    program = training_iteration(vgg)
    with pytest.raises(ValueError, match="num_plans"):
        memory_surrogate.calibrate(program, num_plans=1)
    with pytest.raises(ValueError, match="batch_sizes"):
        memory_surrogate.calibrate(program, batch_sizes=(4, 2))
    with pytest.raises(ValueError, match="batch_size"):
        memory_surrogate.time_s(surrogate, 1e8, 1e12, 1e13, relax=smooth(0.1))
    with pytest.raises(ValueError, match="smooth"):
        memory_surrogate.time_s(surrogate, 1e8, 1e12, 1e13, batch_size=4, relax=EXACT)
    for batch_size, relax in ((0.5, smooth(0.1)), (2.5, EXACT), (0, EXACT)):
        with pytest.raises(ValueError, match="batch_size"):
            memory.estimate(_spec(), vgg, batch_size=batch_size, relax=relax)
