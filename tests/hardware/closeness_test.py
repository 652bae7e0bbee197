"""Errors of a smooth model, of toys whose errors are known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from codesign.hardware import closeness
from codesign.hardware.closeness import Closeness, Move
from codesign.hardware.cost import Cost
from codesign.hardware.spec import count
from codesign.numerics.relax import EXACT
from codesign.workload.graph import Op, build


@struct.dataclass(kw_only=True)
class _Toy:
    clock_hz: float
    num_tiers: float = count()
    energy_j: float


def _estimate(spec, ops, *, relax=EXACT):
    """Stages of 6 / clock and of 4 / tiers; the smooth energy is 2 % too large."""
    del ops
    return Cost(
        latency_s=relax.max(6 / spec.clock_hz, 4 / spec.num_tiers),
        energy_j=spec.energy_j * (1 if relax.is_exact else 1.02),
    )


def _ops():
    op = Op(name="a", kind="activation", operands=(-1,), output_shape=(1,))
    return build([op], inputs=[(1,)], parameters={})


def _toy(**changes):
    toy = dataclasses.replace(
        _Toy(clock_hz=3.0, num_tiers=4.0, energy_j=7.0), **changes
    )
    return jax.tree.map(jnp.float32, toy)


def _measure(estimate=_estimate, **changes):
    return closeness.measure(estimate, [(_toy(**changes), _ops())])


def test_values_and_slopes_by_hand():
    # Stages of 2 s and 1 s. At T = 1 the 4-norm is 17^(1/4) = 2.0305, 1.52 % too long,
    # with the elasticity 16 / 17 by the clock instead of 1, and 1 / 17 by tiers. Of
    # tiers two thirds make the other stage 1.5 s, so nothing changes.
    found = _measure()
    np.testing.assert_allclose(found[1.0].value_error, [[0.01527, 0.02]], rtol=1e-3)
    np.testing.assert_allclose(found[0.01].value_error, [[0, 0.02]], atol=1e-5)
    for name, pairs in {
        "smooth": [
            (-16 / 17, -1),
            (0, 0),
            (0, 0),
            (1, 1),
        ],  # clock, energy; each of both
        "counts": [(-1 / 17, 0), (0, 0)],
    }.items():
        np.testing.assert_allclose(found[1.0].pairs[name], pairs, atol=2e-4)
        assert found[1.0].wrong_signs(name) == 0
    assert found[1.0].off("counts") == pytest.approx([1 / 17, 0], abs=1e-4)
    assert found[1.0].num_ties == 0
    for close in found.values():  # not of tiers, which are declared straight-through
        assert close.slope_error < 1e-4


def test_a_tie_is_left_out_but_not_of_counts():
    # Two stages of 2 s: a faster clock leaves 2 s, a slower one does not.
    found = _measure(num_tiers=2.0)
    for close in found.values():
        assert close.num_ties == 1
        assert len(close.pairs["smooth"]) == 3
        assert len(close.pairs["counts"]) == 2


def test_a_wrong_derivative_is_found():
    @jax.custom_jvp
    def forged(x):
        return x

    forged.defjvp(lambda primals, tangents: (primals[0], -tangents[0]))

    def estimate(spec, ops, *, relax=EXACT):
        return _estimate(spec.replace(energy_j=forged(spec.energy_j)), ops, relax=relax)

    close = _measure(estimate)[0.1]
    assert close.slope_error == pytest.approx(2, rel=1e-4)
    assert close.wrong_signs("smooth") == 0.25
    assert np.max(close.off("smooth")) == pytest.approx(2, rel=1e-3)


def test_one_leaf_moved_in_several_ways():
    def by(hz):
        return Move("clock_hz", lambda clock: (clock + hz, clock - hz))

    case = (_toy(), _ops())
    moves = {"near": by(0.5), "far": by(2.0)}
    found = closeness.measure(_estimate, [case], moves=moves)[0.001].pairs
    # 6 / 2.5 and 6 / 3.5 s; 6 / 1 and 6 / 5 s.
    np.testing.assert_allclose(found["near"][0], [-1, -1], rtol=1e-3)
    np.testing.assert_allclose(found["far"][0], [-1, -1], rtol=1e-3)
    assert len(found["smooth"]) == len(found["counts"]) == 2


def test_a_slope_of_0_has_no_sign():
    close = Closeness(
        value_error=np.zeros((1, 2)),
        slope_error=0.0,
        pairs={"counts": np.array([(1, 2), (0, -1), (-1, 1), (1, 0.0)])},
        num_ties=0,
    )
    assert close.wrong_signs("counts") == 0.25
    np.testing.assert_array_equal(close.off("counts"), [1, 1, 2, 1])
