"""Each rule by which a step joins a layer, by its own example."""

import jax.numpy as jnp
import pytest
from jax import lax

from codesign import workload
from codesign.workload.tracing import grouping, joins
from tests.workload.graphs import shape


def _norm(x, p):
    mean = x.mean((1, 2), keepdims=True)
    variance = jnp.square(x - mean).mean((1, 2), keepdims=True)
    return (x - mean) * lax.rsqrt(variance + 1e-5), 0.9 * p["running"] + 0.1 * mean


_EXAMPLES = {
    # Without the rule there is one op more: what would have joined.
    joins.updates_statistics: lambda p, x: _norm(x @ p["w"], p),
    joins.scales_a_product: lambda p, x: ((x @ p["w"]) / 8) @ p["w"],
    joins.scales_a_norm: lambda p, x: _norm(x @ p["w"], p)[0] * p["s"] + p["b"],
    joins.adds_a_bias: lambda p, x: x @ p["w"] + p["b"],
    joins.scales_a_layer: lambda p, x: (
        lax.reduce_window(x @ p["w"], 0.0, lax.add, (1, 3, 3, 1), (1, 1, 1, 1), "VALID")
        / 9
    ),
}


def test_every_rule_has_an_example():
    assert set(_EXAMPLES) == set(joins.JOINS)
    for rule in joins.JOINS:
        assert "`" in rule.__doc__


@pytest.mark.parametrize("rule", joins.JOINS)
def test_an_example_joins_by_its_rule_alone(rule, monkeypatch):
    row = shape(1, 1, 1, 4)
    p = {"w": shape(4, 4), "s": row, "b": row, "running": row}
    x = shape(1, 6, 6, 4)

    joined = workload.trace(_EXAMPLES[rule], p, x)
    rest = tuple(other for other in joins.JOINS if other is not rule)
    monkeypatch.setattr(grouping, "JOINS", rest)
    assert workload.trace(_EXAMPLES[rule], p, x).num_ops > joined.num_ops
