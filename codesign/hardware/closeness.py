"""How close a chip's smooth model stays to its exact one: values, slopes, secants."""

import dataclasses
import math
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from codesign.hardware import reram_gpu
from codesign.hardware.cost import Cost
from codesign.hardware.spec import knobs
from codesign.numerics.relax import smooth
from codesign.workload.graph import Workload

TEMPERATURES = (1.0, 0.1, 0.01, 0.001)
_STEP = 1e-6  # of logarithms, of finite differences in 64 bits
# Elasticities that differ by more up and down: two stages are the longest at once.
_TIE = 0.02


@dataclasses.dataclass(frozen=True)
class Move:
    """How far a knob moves for a secant, where not by its factor."""

    knob: str
    ends: Callable[[float], tuple[float, float]]  # its value -> above, below


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Closeness:
    """Errors at one temperature over all cases, of latency and of energy.

    Slopes are elasticities, d log cost / d log knob: dimensionless, whatever the unit.
    """

    value_error: np.ndarray  # [cases, 2] relative to the exact latency and energy
    slope_error: float  # largest, of gradients beside differences of the smooth value
    pairs: dict[str, np.ndarray]  # by move: [P, 2] gradient, and secant of the exact
    num_ties: int  # pairs left out, as the exact cost has a corner there

    def off(self, move: str) -> np.ndarray:
        """[P] distances of the gradients from the secants."""
        return np.abs(np.subtract(*self.pairs[move].T))

    def wrong_signs(self, move: str) -> float:
        """Fraction of gradients against their secant; one of 0 has no sign."""
        return float(np.mean(self.pairs[move].prod(axis=1) < -1e-9))


def measure(
    estimate: Callable[..., Cost],
    cases: Iterable[tuple[Any, Workload]],
    *,
    moves: Mapping[str, Move] = types.MappingProxyType({}),
    jitted: bool = True,
) -> dict[float, Closeness]:
    """Holds the smooth model of one chip against the exact one.

    Knobs that no move names go by their factor: counts as the move "counts", whose
    slopes are declared straight-through, and the others as "smooth". Of these a secant
    is left out where the elasticities up and down differ by more than 0.02: at a tie a
    slope is a matter of taste.

    Args:
        estimate: The chip's door.
        cases: Specs, and workloads of one example.
        moves: By name; a knob may be moved in several ways.
        jitted: Whether the exact model can be; a simulator on the host cannot.

    Returns:
        By temperature, of `TEMPERATURES`.
    """

    def logs(spec, ops, **relax):
        cost = estimate(spec, ops, **relax)
        return jnp.log(jnp.stack([cost.latency_s, cost.energy_j]))

    def relaxed(spec, ops, t):
        value = logs(spec, ops, relax=smooth(t))
        return value, value

    exact = jax.jit(logs) if jitted else logs
    value = jax.jit(lambda *args: relaxed(*args)[0])
    slopes = jax.jit(jax.jacrev(relaxed, has_aux=True))
    errors = {t: [] for t in TEMPERATURES}
    differences = {t: [] for t in TEMPERATURES}
    kinds = ("smooth", "counts", *moves)
    pairs = {t: {name: [] for name in kinds} for t in TEMPERATURES}
    num_ties = 0
    for spec, ops in cases:
        here = np.array(exact(spec, ops), float)
        found = {t: slopes(spec, ops, jnp.float32(t)) for t in TEMPERATURES}
        for t, (_, value_here) in found.items():
            errors[t].append(np.abs(np.expm1(np.array(value_here, float) - here)))
        with jax.enable_x64(True):
            wide, wide_ops = jax.tree.map(jnp.float64, (spec, ops))
        for knob in knobs(spec):
            at = (slice(None), *knob.index)
            slope = {
                t: np.array(jax.tree.leaves(by_spec)[knob.leaf])[at] * knob.value
                for t, (by_spec, _) in found.items()
            }
            own = {n: move for n, move in moves.items() if move.knob == knob.name}
            usual = Move(knob.name, lambda x, by=knob.factor: (x * by, x / by))
            default = {"counts" if knob.is_count else "smooth": usual}
            for kind, move in (own or default).items():
                ends = move.ends(knob.value)
                logs_at = [np.array(exact(knob.set(spec, x), ops)) for x in ends]
                up, down = np.diff([logs_at[1], here, logs_at[0]], axis=0)[::-1]
                ways = math.log(ends[0] / knob.value), math.log(knob.value / ends[1])
                secant = (up + down) / sum(ways)
                corner = np.abs(up / ways[0] - down / ways[1]) > _TIE
                tie = corner & (kind == "smooth")
                num_ties += tie.sum()
                for t in TEMPERATURES:
                    pairs[t][kind].append(np.stack([slope[t], secant], 1)[~tie])
            if "counts" in default and not own:
                continue
            with jax.enable_x64(True):
                near = [knob.value * math.exp(s) for s in (_STEP, -_STEP)]
                ends = [knob.set(wide, x) for x in near]
                for t in TEMPERATURES:
                    up, down = (value(end, wide_ops, jnp.float64(t)) for end in ends)
                    difference = np.array(up - down) / (2 * _STEP)
                    differences[t].append(np.max(np.abs(slope[t] - difference)))
    return {
        t: Closeness(
            value_error=np.array(errors[t]),
            slope_error=float(np.max(differences[t])),
            pairs={n: np.concatenate(p) for n, p in pairs[t].items() if p},
            num_ties=int(num_ties),
        )
        for t in TEMPERATURES
    }


def stacks(network, ops: Workload, seed: int = 0) -> list[tuple[Any, Workload]]:
    """Four placements on DeepTrain's 3R1G and 2R2G: all norms, none, two at random."""
    rng, sites = np.random.default_rng(seed), network.num_sites
    masks = [np.ones(sites), np.zeros(sites), *rng.integers(0, 2, (2, sites))]
    return [
        (reram_gpu.deeptrain(*tiers), ops.masked(jnp.float32(mask)))
        for tiers in ((3, 1), (2, 2))
        for mask in masks
    ]
