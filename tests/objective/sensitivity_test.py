"""Elasticities against hand-worked chips, and what they say on the stack."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from codesign import models, workload
from codesign.hardware import Chip, Cost, chips
from codesign.hardware.spec import count
from codesign.numerics.relax import smooth
from codesign.objective import Design, chip_costs, sensitivities, toggled


@struct.dataclass
class Line:
    """Latency ceil(100 / n) / rate, energy 3 J whatever happens."""

    num_lanes: float = count()
    rate_hz: float = 2.0


def _estimate(spec, ops, *, batch_size, relax):
    def steps(relax, lanes):
        return relax.ceil(100.0 / lanes)

    latency_s = relax.secant(steps, spec.num_lanes) / spec.rate_hz
    return Cost(latency_s=latency_s * batch_size, energy_j=3.0 + 0 * latency_s)


@pytest.fixture(scope="module")
def ops():
    network = models.create("vgg11", width=0.125, image_shape=(8, 8, 3))
    return workload.trace(*network.trace_args())


def _found(chip, ops, mask, names):
    costs = chip_costs(ops, chip.estimate, batch_size=4, relax=smooth(0.1))
    design = jax.tree.map(jnp.float32, Design(bn_mask=mask, chip=chip.spec))
    values, gradients = costs(design), jax.jacrev(costs)(design)
    return {
        each.knob.name: each
        for each in sensitivities(
            chip, ops.masked(mask), values, gradients, batch_size=4, names=names
        )
    }


def test_elasticities_by_hand(ops):
    chip = Chip(Line(10.0, 2.0), _estimate)
    found = _found(chip, ops, jnp.ones(8), ["latency_s", "energy_j", "power_w"])
    lanes, rate = found["num_lanes"], found["rate_hz"]
    # ceil(100 / 15) = 7 and ceil(100 / 6.67) = 15: ln(7 / 15) / (2 ln 1.5) = -0.94.
    assert lanes.exact["latency_s"] == pytest.approx(-0.9398, abs=1e-3)
    assert lanes.smooth["latency_s"] == pytest.approx(-0.9398, abs=1e-3)
    assert lanes.exact["power_w"] == pytest.approx(0.9398, abs=1e-3)
    for kind in (rate.smooth, rate.exact):
        assert kind["latency_s"] == pytest.approx(-1.0, abs=1e-4)
        assert kind["energy_j"] == pytest.approx(0.0, abs=1e-6)
        assert kind["power_w"] == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(
    "name",
    [pytest.param("deeptrain:3R1G", marks=pytest.mark.slow), "roofline:Titan Xp"],
)
def test_smooth_and_exact_agree(name, ops):
    chip = chips.by_name(name)
    names = ["period_s", "energy_j", "area_m2"]
    for each in _found(chip, ops, jnp.ones(8), names).values():
        for cost in names:
            assert each.smooth[cost] == pytest.approx(each.exact[cost], abs=0.02)


def test_a_host_model_has_secants_too(ops):
    chip = chips.by_name("memory:A100")
    found = _found(chip, ops, jnp.ones(8), ["latency_s", "area_m2"])
    slower = found["bandwidth_bytes_per_s"]
    assert slower.exact["latency_s"] < 0
    share = float(chip.spec.capacity_bytes * chip.spec.cache_area_m2_per_byte) / 826e-6
    larger = found["capacity_bytes"]
    assert larger.exact["area_m2"] == pytest.approx(share, rel=0.1)


def test_toggling_changes_one_site(ops):
    chip, mask = chips.by_name("deeptrain:3R1G"), np.array([1, 0, 1, 0, 0, 0, 0, 1])
    base = float(chip.cost(ops.masked(mask), batch_size=4).energy_j)
    for site, cost in enumerate(toggled(chip, ops, jnp.array(mask), batch_size=4)):
        assert (float(cost.energy_j) > base) == (not mask[site])
