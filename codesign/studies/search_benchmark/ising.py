"""Which edges of an Ising model can go, and the exact optimum of that."""

import dataclasses
import functools

import numpy as np

from codesign.search import points
from codesign.search.draws import Draws


@dataclasses.dataclass(frozen=True)
class IsingSparsification:
    """BOCS, section 4.2: which edges of an Ising model can go. value(x) = -KL(p || q_x).

    A zero-field model on a grid of side * side spins z in {-1, 1}, with the matrix J
    symmetric, so that each edge counts twice, and q_x keeping the edges e with x_e = 1:

        p(z) = exp(z'Jz) / Z_p,   |J_e| ~ U[0.05, 5], its sign a fair coin           (1)
        KL(p || q_x) = sum_e (1 - x_e) 2 J_e E_p[z_i z_j] + log Z_q - log Z_p         (2)

    The expectations and both Z are sums over all 2^(side^2) states. For the optimum, the
    grid is cut between two rows. With the spins of those rows fixed, Z_q is a product of
    sums over what lies above and below, each needed only once for each set of its own
    edges; so all 2^24 values for side = 4 are 16 products of a 1024 x 16 by a 16 x 1024
    matrix.
    """

    seed: int
    side: int = 4
    sparsity_penalty: float = 1e-2

    @property
    def title(self) -> str:
        return f"Ising sparsification, {self.side}×{self.side}"

    @property
    def num_variables(self) -> int:
        return 2 * self.side * (self.side - 1)

    @functools.cached_property
    def couplings(self) -> np.ndarray:
        """J_e, `[C]`, in the order of `_grid_edges`."""
        draws = Draws("ising", self.seed)
        signs = draws.signs(self.num_variables)
        return signs * (0.05 + 4.95 * draws.uniform(self.num_variables))

    @functools.cached_property
    def log_z(self) -> float:
        """The log of Z_p."""
        return _log_sum_exp(self._products @ (2 * self.couplings))

    @functools.cached_property
    def moments(self) -> np.ndarray:
        """E_p[z_i z_j] of each edge, `[C]`."""
        logits = self._products @ (2 * self.couplings)
        return np.exp(logits - self.log_z) @ self._products

    def value(self, x: np.ndarray) -> float:
        log_z_q = _log_sum_exp(self._products @ (2 * self.couplings * x))
        dropped = (1 - x) @ (2 * self.couplings * self.moments)
        return -float(dropped + log_z_q - self.log_z)

    @property
    @functools.cache  # noqa: B019, problems are settings: few and small
    def optimum(self) -> float:
        side, num_above = self.side, self.side // 2
        cut = num_above * (2 * side - 1) - side  # edges above the cut
        parts = np.split(np.arange(self.num_variables), [cut, cut + side])
        masks = [points.all_points(len(part)).astype(float) for part in parts]
        weights = [2 * self.couplings[part] for part in parts]
        gains = [
            mask @ (weight * self.moments[part] - self.sparsity_penalty)
            for mask, weight, part in zip(masks, weights, parts, strict=True)
        ]
        above = _boundary_sums(masks[0] * weights[0], num_above, side, row=-1)
        below = _boundary_sums(masks[2] * weights[2], side - num_above, side, row=0)
        spins = _spins(side)
        best = -np.inf
        for mask, gain in zip(masks[1] * weights[1], gains[1], strict=True):
            joint = above @ np.exp((spins * mask) @ spins.T) @ below.T
            values = gains[0][:, None] + gains[2][None, :] + gain - np.log(joint)
            best = max(best, values.max())
        kept = 2 * self.couplings @ self.moments
        return float(best + self.log_z - kept)

    @property
    def _products(self) -> np.ndarray:
        return _edge_products(self.side, self.side)


@functools.cache
def _edge_products(rows: int, side: int) -> np.ndarray:
    """z_i z_j of each state and edge of a grid, `[2^(rows * side), E]`."""
    first, second = _grid_edges(rows, side).T
    spins = _spins(rows * side)
    return spins[:, first] * spins[:, second]


def _grid_edges(rows: int, side: int) -> np.ndarray:
    """Pairs of spins, `[E, 2]`: those within row 0, from row 0 to row 1, within 1, ..."""
    edges = []
    for row in range(rows):
        spins = range(row * side, (row + 1) * side)
        edges += [(spin, spin + 1) for spin in spins[:-1]]
        edges += [(spin, spin + side) for spin in spins if row < rows - 1]
    return np.array(edges).reshape(-1, 2)


def _spins(count: int) -> np.ndarray:
    """All states of so many spins, `[2^count, count]`, in the order of their bits."""
    return 1.0 - 2.0 * points.all_points(count)


def _log_sum_exp(logits: np.ndarray) -> float:
    largest = logits.max()
    return float(largest + np.log(np.sum(np.exp(logits - largest))))


def _boundary_sums(
    weights: np.ndarray, rows: int, side: int, *, row: int
) -> np.ndarray:
    """Sums of exp(weights . products) over all rows of a grid but one.

    Args:
        weights: `[K, E]`.
        rows, side: Of the grid.
        row: The one whose spins are fixed: 0 or -1.

    Returns:
        `[K, 2^side]`.
    """
    terms = np.exp(weights @ _edge_products(rows, side).T)  # [K, 2^(rows * side)]
    if row == 0:
        return terms.reshape(len(weights), 2**side, -1).sum(2)
    return terms.reshape(len(weights), -1, 2**side).sum(1)
