"""How close a chip's smooth model stays to its exact one: values, slopes, secants."""

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from codesign.hardware import reram_gpu
from codesign.hardware.cost import Cost
from codesign.numerics.relax import WINDOW, smooth
from codesign.workload.graph import Workload

TEMPERATURES = (1.0, 0.1, 0.01, 0.001)
_FACTOR = 1.01  # up and down, of clocks, times and energies
_STEP = 1e-6  # of logarithms, of finite differences in 64 bits
# Elasticities that differ by more up and down: two stages are the longest at once.
_TIE = 0.02


@dataclasses.dataclass(frozen=True)
class Move:
    """How far the leaves of a spec move whose path `pattern` is found in."""

    pattern: str
    ends: Callable[[float], tuple[float, float]]  # a leaf's value -> above, below
    straight_through: bool = False  # its derivative is not that of the smooth value


COUNTS = Move(
    "tiers|per_tier", lambda n: (n * WINDOW, n / WINDOW), straight_through=True
)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Closeness:
    """Errors at one temperature over all cases, of latency and of energy.

    Slopes are elasticities, d log cost / d log leaf: dimensionless, whatever the unit.
    """

    value_error: np.ndarray  # [cases, 2] relative to the exact latency and energy
    slope_error: float  # largest, of gradients beside differences of the smooth value
    pairs: dict[str, np.ndarray]  # by move: [P, 2] gradient, and secant of the exact
    num_ties: int  # pairs left out, as the exact cost has a corner there

    def off(self, move: str) -> np.ndarray:
        """[P] distances of the gradients from the secants."""
        return np.abs(np.subtract(*self.pairs[move].T))

    def wrong_signs(self, move: str) -> float:
        """Fraction of gradients against the secant; one of 0 has no sign."""
        return float(np.mean(self.pairs[move].prod(axis=1) < 0))


def measure(
    estimate: Callable[..., Cost],
    cases: Iterable[tuple[Any, Workload]],
    *,
    moves: Mapping[str, Move],
    jitted: bool = True,
) -> dict[float, Closeness]:
    """Holds the smooth model of one chip against the exact one.

    Leaves that no move names go 1 % up and down, as the move "smooth". Those secants
    are left out where the elasticities up and down differ by more than 0.02: at a tie a
    slope is a matter of taste.

    Args:
        estimate: The chip's door.
        cases: Specs, whose leaves are scalars, and workloads of one example.
        moves: By name; a leaf may be moved in several ways.
        jitted: Whether the exact model can be; a simulator on the host cannot.

    Returns:
        By temperature, of `TEMPERATURES`.
    """

    def logs(cost):
        return jnp.log(jnp.stack([cost.latency_s, cost.energy_j]))

    def exact(spec, ops):
        return logs(estimate(spec, ops))

    def relaxed(spec, ops, t):
        return logs(estimate(spec, ops, relax=smooth(t)))

    exact = jax.jit(exact) if jitted else exact
    value, slopes = jax.jit(relaxed), jax.jit(jax.jacrev(relaxed))
    values = {t: [] for t in TEMPERATURES}
    differences = {t: [] for t in TEMPERATURES}
    pairs = {t: {name: [] for name in ("smooth", *moves)} for t in TEMPERATURES}
    num_ties = 0
    for spec, ops in cases:
        here = np.array(exact(spec, ops), float)
        by_leaf = {
            t: jax.tree.leaves(slopes(spec, ops, jnp.float32(t))) for t in values
        }
        for t, found in values.items():
            now = np.array(value(spec, ops, jnp.float32(t)), float)
            found.append(np.expm1(now - here))
        for i, (path, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(spec)):
            leaf = float(leaf)
            elasticity = {t: np.array(found[i]) * leaf for t, found in by_leaf.items()}
            named = {
                n: m for n, m in moves.items() if re.search(m.pattern, _name(path))
            }
            for name, move in (named or {"smooth": _SMOOTH}).items():
                high, low = move.ends(leaf)
                up, down = (
                    np.array(exact(_moved(spec, i, x), ops), float) for x in (high, low)
                )
                secant = (up - down) / math.log(high / low)
                sides = (
                    (up - here) / math.log(high / leaf),
                    (here - down) / math.log(leaf / low),
                )
                tie = (name == "smooth") & (abs(sides[0] - sides[1]) > _TIE)
                num_ties += tie.sum()
                for t, found in elasticity.items():
                    pairs[t][name].append(np.stack([found, secant], 1)[~tie])
            if any(move.straight_through for move in named.values()):
                continue
            with jax.enable_x64(True):
                wide, wide_ops = jax.tree.map(jnp.float64, (spec, ops))
                ends = [_moved(wide, i, leaf * math.exp(s * _STEP)) for s in (1, -1)]
                for t, found in differences.items():
                    up, down = (value(x, wide_ops, jnp.float64(t)) for x in ends)
                    slope = np.array(up - down) / (2 * _STEP)
                    found.append(np.max(np.abs(elasticity[t] - slope)))
    return {
        t: Closeness(
            value_error=np.abs(values[t]),
            slope_error=float(np.max(differences[t])),
            pairs={
                name: np.concatenate(p or [np.empty((0, 2))])
                for name, p in pairs[t].items()
            },
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


_SMOOTH = Move("", lambda x: (x * _FACTOR, x / _FACTOR))


def _name(path) -> str:
    return jax.tree_util.keystr(path)


def _moved(spec, leaf: int, value: float):
    """The same spec with another value of one leaf, in its type."""
    leaves, treedef = jax.tree.flatten(spec)
    leaves[leaf] = jnp.asarray(value, jnp.asarray(leaves[leaf]).dtype)
    return treedef.unflatten(leaves)
