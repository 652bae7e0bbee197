"""What a notebook shows of a cost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codesign.hardware import roofline
from codesign.hardware.cost import Cost
from tests.records.html_test import EVIL, Reader
from tests.workload import graphs


def _rows(cost):
    return Reader(cost._repr_html_()).rows


def test_fields_with_their_units_and_parts_with_their_sums():
    cost = Cost(
        latency_s=64e-6, energy_j=jnp.float32(2.5e-3), area_m2=3.4e-4,
        traffic_bytes=6.4e9, endurance_trainings=1.2e6, temperature_c=1085.4,
        feasible=jnp.array(True), violation=0.0,
        breakdown={"op_s": jnp.array([1e-6, 2e-6, 4e-6]), "crossbars_needed": 12,
                   "by_pair": jnp.ones((2, 3))},
    )  # fmt: skip
    assert _rows(cost) == [
        ["Cost", "Value"],
        ["latency_s", "64 µs"],
        ["energy_j", "2.5 mJ"],
        ["area_m2", "340 mm²"],
        ["traffic_bytes", "6.4 GB"],
        ["endurance_trainings", "1.2 M"],
        ["temperature_c", "1,090 °C"],  # no k°C
        ["feasible", "yes"],
        ["violation", "0"],
        ["power_w", "39.1 W"],
        ["Breakdown", "Sum", "Length"],
        ["op_s", "7 µs", "3"],
        ["crossbars_needed", "12", ""],
        ["by_pair", "6", "2×3"],
    ]


def test_vmapped_over_designs():
    def estimate(scale):
        return Cost(latency_s=scale * 1e-6, energy_j=1.0 * scale, feasible=scale < 2,
                    violation=0.0 * scale,
                    breakdown={"op_s": scale * jnp.array([1e-6, 2e-6]),
                               "num_stages": scale})  # fmt: skip

    assert _rows(jax.vmap(estimate)(jnp.array([1.0, 3.0, 2.0]))) == [
        ["Cost", "Value"],
        ["latency_s", "1 µs … 3 µs [3]"],
        ["energy_j", "1 J … 3 J [3]"],
        ["feasible", "1 of 3"],
        ["violation", "0 [3]"],
        ["power_w", "1 MW [3]"],
        ["Breakdown", "Sum", "Length"],
        ["num_stages", "1 … 3 [3]", ""],
        ["op_s", "3 µs … 9 µs [3]", "2"],
    ]


def test_traced():
    shown = []

    def look(chip):
        cost = roofline.estimate(chip, graphs.chain(), batch_size=2)
        shown.append(_rows(cost))
        return cost.latency_s

    jax.jit(jax.grad(look))(roofline.titan_xp())
    (rows,) = shown
    assert ["latency_s", "traced []"] in rows
    assert ["op_s", "traced [3]", ""] in rows


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (jax.ShapeDtypeStruct((2,), jnp.float32), "ShapeDtypeStruct [2]"),
        (np.zeros((), jax.dtypes.float0), "ndarray []"),
        (jnp.bfloat16(0.5), "500 ms"),
        (jnp.zeros((0, 3)), "none [0, 3]"),
        (float("nan"), "NaN s"),
        ("soon", "str"),
        ([1.0, 2.0], "1 s … 2 s [2]"),
        (jax.random.key(0), "PRNGKeyArray []"),
    ],
)
def test_whatever_a_tree_map_may_leave_there(value, text):
    cost = Cost(latency_s=value, energy_j=1.0, breakdown={"op_s": value})
    rows = _rows(cost)
    assert rows[1] == ["latency_s", text]
    assert rows[-1][0] == "op_s"


def test_a_donated_array_is_no_error():
    value = jnp.ones(3)
    value.delete()
    assert "latency_s" in Cost(latency_s=value, energy_j=1.0)._repr_html_()


def test_names_are_only_text():
    page = Cost(
        latency_s=1.0, energy_j=1.0, breakdown={EVIL: jnp.ones(2)}
    )._repr_html_()
    assert "&lt;script&gt;" in page
    assert "script" not in Reader(page).tags
    assert _rows(Cost(latency_s=1.0, energy_j=1.0))[2:] == [
        ["energy_j", "1 J"],
        ["power_w", "1 W"],
    ]
    assert _rows(Cost(latency_s=1.0, energy_j=1.0, breakdown=None))  # of a tree map
