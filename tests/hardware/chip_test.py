"""Every chip keeps to one door: what goes in and what comes out is checked alike."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from codesign import models, workload
from codesign.hardware import Chip, Cost, chips, door
from codesign.hardware.spec import count, knobs
from codesign.numerics.relax import EXACT, smooth
from tests.workload import graphs

_NAMES = ("deeptrain:3R1G", "roofline:Titan Xp", "memory:A100")


@struct.dataclass
class Lanes:
    """A chip of a user's own: nothing of ours but `Cost`."""

    num_lanes: float = count()
    rate_hz: float = 1e9
    area_m2: tuple = (1e-6, 2e-6)


def _lanes(spec, ops, *, batch_size, relax):
    latency_s = batch_size * relax.ceil(ops.macs / spec.num_lanes).sum() / spec.rate_hz
    return Cost(latency_s=latency_s, energy_j=latency_s * 2.0)


@pytest.fixture(scope="module")
def ops():
    """VGG-11 for 8x8 images at an eighth of its width."""
    network = models.create("vgg11", width=0.125, image_shape=(8, 8, 3))
    return workload.trace(*network.trace_args())


@pytest.mark.slow
@pytest.mark.parametrize("name", _NAMES)
def test_chips_by_name(name, ops):
    chip = chips.by_name(name)
    assert chip.name == name.partition(":")[2]
    cost = chip.cost(ops, batch_size=4)
    np.testing.assert_allclose(cost.power_w, cost.energy_j / cost.latency_s)
    assert 1e-5 < cost.area_m2 < 3e-3  # between 10 and 3,000 mm2
    relaxed = chip.estimate(chip.spec, ops, batch_size=4, relax=smooth(0.1))
    np.testing.assert_allclose(relaxed.area_m2, cost.area_m2, rtol=1e-6)


def test_areas_by_hand():
    # 3 tiers of 144 tiles of 0.372 mm2, and 16 tiles of 16 mm2: 160.7 + 256 mm2.
    stack = chips.by_name("deeptrain:3R1G").cost(graphs.chain(), batch_size=1)
    np.testing.assert_allclose(stack.area_m2, 416.7e-6, rtol=1e-3)
    # 826 mm2 with its 40 MB; 2^20 bytes more take 2^23 cells of 0.027 um2 over 0.5.
    chip = chips.by_name("memory:A100")
    np.testing.assert_allclose(
        chip.cost(graphs.chain(), batch_size=1).area_m2, 826e-6, rtol=1e-6
    )
    more = chip.spec.replace(capacity_bytes=chip.spec.capacity_bytes + 2**20)
    larger = chip.estimate(more, graphs.chain(), batch_size=1)
    np.testing.assert_allclose(larger.area_m2 - 826e-6, 0.453e-6, rtol=1e-2)


@pytest.mark.parametrize("name", _NAMES)
@pytest.mark.parametrize("batch_size", [0, -3, float("nan"), float("inf"), [1, 2]])
def test_a_batch_out_of_range_is_refused(name, batch_size, ops):
    chip = chips.by_name(name)
    for relax in (EXACT, smooth(0.1)):
        with pytest.raises(ValueError, match=r"`batch_size` must be at least 1"):
            chip.estimate(chip.spec, ops, batch_size=batch_size, relax=relax)


@pytest.mark.parametrize("name", _NAMES)
def test_only_a_smooth_model_takes_half_an_image(name, ops):
    chip = chips.by_name(name)
    with pytest.raises(
        ValueError, match="`batch_size` must be a whole number, got 2.5"
    ):
        chip.estimate(chip.spec, ops, batch_size=2.5)
    one, two, three = (
        float(chip.estimate(chip.spec, ops, batch_size=b, relax=smooth(0.01)).latency_s)
        for b in (32, 48.5, 64)
    )
    assert one < two < three


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("deeptrain:3R1G", "gpu_clock_hz"),
        ("roofline:Titan Xp", "peak_macs_per_s"),
        ("memory:A100", "bandwidth_bytes_per_s"),
    ],
)
@pytest.mark.parametrize("value", [-1.0, 0.0, float("nan"), float("inf"), "fast"])
def test_a_rate_out_of_range_is_refused_by_every_chip(name, field, value, ops):
    chip = chips.by_name(name)
    spec = chip.spec.replace(**{field: value})
    for relax in (EXACT, smooth(0.1)):
        with pytest.raises(ValueError, match=rf"`spec\.{field}` must be"):
            chip.estimate(spec, ops, batch_size=4, relax=relax)
    with pytest.raises(ValueError, match=rf"`spec\.{field}` must be"):
        Chip(spec, chip.estimate)


def test_more_tiers_than_stay_cool_are_refused(ops):
    chip = chips.by_name("deeptrain:3R1G")
    for changes, match in (
        ({"num_reram_tiers": 4.0}, r"4 \+ 1\) must not exceed 4"),
        ({"num_gpu_tiers": 0.5}, r"`G` \(=0.5\) must be at least 1"),
    ):
        with pytest.raises(ValueError, match=match):
            chip.estimate(chip.spec.replace(**changes), ops)
    between = chip.spec.replace(num_reram_tiers=2.5)  # as a search goes through
    assert chip.estimate(between, ops).area_m2 < chip.estimate(chip.spec, ops).area_m2


@pytest.mark.parametrize(
    ("entry", "shown"), [(-3.0, "-3"), (1.5, "1.5"), (float("nan"), "nan")]
)
def test_a_mask_out_of_range_is_refused(entry, shown, ops):
    mask = jnp.ones(8).at[2].set(entry)
    with pytest.raises(ValueError, match=rf"\[0, 1\], got {shown}.* at site 2"):
        ops.masked(mask)


def test_what_jax_traces_passes(ops):
    chip = chips.by_name("deeptrain:3R1G")

    @jax.jit
    def energy(spec, mask, batch_size):
        masked = ops.masked(mask)
        return chip.estimate(
            spec, masked, batch_size=batch_size, relax=smooth(0.1)
        ).energy_j

    assert energy(chip.spec, jnp.ones(8), 4.0) > 0
    assert jax.grad(energy, 1)(chip.spec, jnp.ones(8), 4.0).shape == (8,)


def test_a_chip_of_ones_own(ops):
    chip = Chip(Lanes(64.0), _lanes)
    assert chip.name == "Lanes"
    cost = chip.cost(ops, batch_size=2)
    expected = 2 * np.ceil(np.asarray(ops.macs) / 64).sum() / 1e9
    np.testing.assert_allclose(cost.latency_s, expected, rtol=1e-6)
    np.testing.assert_allclose(cost.power_w, 2.0, rtol=1e-6)
    with pytest.raises(
        ValueError, match="`batch_size` must be at least 1 and finite, got 0"
    ):
        chip.cost(ops, batch_size=0)
    again = dataclasses.replace(chip, spec=Lanes(128.0))
    assert again.estimate is chip.estimate
    assert again.cost(ops, batch_size=2).latency_s < cost.latency_s


@pytest.mark.parametrize(
    ("returned", "error", "match"),
    [
        ((1.0, 2.0), TypeError, r"returned tuple; return a `codesign.hardware.Cost"),
        (
            Cost(latency_s=jnp.ones(3), energy_j=1.0),
            ValueError,
            r"`latency_s` of shape \(3,\)",
        ),
        (Cost(latency_s=1.0, energy_j=jnp.nan), ValueError, "`energy_j` of nan"),
        (Cost(latency_s=-1.0, energy_j=1.0), ValueError, "`latency_s` of -1.0"),
        (
            Cost(latency_s=1.0, energy_j=1.0, area_m2=jnp.inf),
            ValueError,
            "`area_m2` of inf",
        ),
    ],
)
def test_what_a_chip_returns_is_checked(returned, error, match, ops):
    chip = Chip(Lanes(1.0), lambda spec, ops, *, batch_size, relax: returned)
    with pytest.raises(error, match=match):
        chip.estimate(chip.spec, ops, batch_size=1)


@dataclasses.dataclass
class Unhashable:
    """A chip's model with settings of its own; dataclasses compare, so have no hash."""

    share: float = 0.5

    def __call__(self, spec, ops, *, batch_size, relax):
        return _lanes(spec, ops, batch_size=batch_size, relax=relax)


def test_what_is_no_chip_is_refused(ops):
    with pytest.raises(TypeError, match="`estimate` must be a function"):
        Chip(Lanes(1.0), 3.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="holds no numbers; make its class a pytree"):
        Chip((), _lanes)
    with pytest.raises(TypeError, match="cannot be hashed.*its class frozen"):
        Chip(Lanes(1.0), Unhashable())
    with pytest.raises(ValueError, match="must be a finite number, got <object"):
        Chip(object(), _lanes)
    plain = dataclasses.make_dataclass("Plain", [("rate_hz", float)])
    with pytest.raises(ValueError, match="make its class a pytree"):
        Chip(plain(1e9), _lanes)
    chip = Chip(Lanes(1.0), _lanes)
    with pytest.raises(TypeError, match="`workload` must be a Workload, got str"):
        chip.estimate(chip.spec, "vgg11", batch_size=1)
    with pytest.raises(TypeError, match="`relax` must be `EXACT`"):
        chip.estimate(chip.spec, ops, batch_size=1, relax=0.1)
    with pytest.raises(TypeError, match="`batch_size` is missing"):
        chip.estimate(chip.spec, ops)


def test_a_door_is_put_up_once_and_keeps_defaults(ops):
    assert door(_lanes) is door(_lanes) is door(door(_lanes))
    memory = chips.by_name("memory:A100")  # 32 examples, where the others take 64
    assert memory.estimate(memory.spec, ops).latency_s == pytest.approx(
        memory.cost(ops, batch_size=32).latency_s
    )


def test_a_cost_without_time_has_no_power():
    assert Cost(latency_s=0.0, energy_j=0.0).power_w == 0
    slope = jax.grad(lambda s: Cost(latency_s=s, energy_j=1.0).power_w)(0.0)
    assert np.isfinite(slope)


def test_knobs():
    found = {knob.name: knob for knob in knobs(Lanes(64.0))}
    assert [(k.value, k.unit, k.is_count) for k in found.values()] == [
        (64.0, "", True), (1e9, "Hz", False), (1e-6, "m2", False), (2e-6, "m2", False),
    ]  # fmt: skip
    stack = {k.name: k for k in knobs(chips.by_name("deeptrain:3R1G").spec)}
    assert stack["crossbar.read_time_s"].unit == "s"
    assert {name for name, knob in stack.items() if knob.is_count} == {
        *("num_reram_tiers", "num_gpu_tiers"),
        *("crossbars_per_tier", "gpu_tiles_per_tier"),
    }


def test_concrete_values_under_jit_are_no_error(ops):
    for name in _NAMES:
        chip = chips.by_name(name)

        @jax.jit
        def latency(scale, chip=chip):
            cost = chip.estimate(
                chip.spec, ops.masked(jnp.ones(8)), batch_size=4, relax=smooth(0.1)
            )
            return scale * cost.latency_s

        assert latency(2.0) > 0


@struct.dataclass
class Share:
    """A spec that says for itself what holds."""

    share: float

    def checked(self):
        if not 0 < self.share <= 1:
            raise ValueError(f"`share` must lie in (0, 1], got {self.share}.")
        return self


def test_a_specs_own_rules_hold_where_it_is_concrete(ops):
    def estimate(spec, ops, *, batch_size):  # smooth as it is
        latency_s = batch_size * ops.macs.sum() / spec.share
        return Cost(latency_s=latency_s, energy_j=latency_s)

    chip = Chip(Share(1.0), estimate)
    slope = jax.grad(lambda spec: chip.estimate(spec, ops, batch_size=1).energy_j)
    assert jax.jit(slope)(chip.spec).share < 0
    with pytest.raises(ValueError, match=r"`share` must lie in \(0, 1\], got 2"):
        Chip(Share(2.0), estimate)


def test_counts_may_be_integers(ops):
    chip = Chip(Lanes(64, 10**10), _lanes)
    assert chip.spec.num_lanes.dtype == jnp.float32
    assert chip.cost(ops, batch_size=np.int64(2)).latency_s > 0
