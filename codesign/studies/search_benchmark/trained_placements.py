"""The placement problem itself, from a table of trained runs: no training, exact regret."""

import dataclasses
import functools

import numpy as np

from codesign.studies.deeptrain import placement_table as table
from codesign.studies.deeptrain.placement_settings import PlacementConfig

LAMBDAS = (0.001, 0.002, 0.005, 0.01, 0.02)
LEAST_HEALTH = PlacementConfig.least_health
CHANCE = 0.1  # what a run that diverged is worth


@functools.cache
def published() -> table.PlacementTable:
    """The table that comes with the package: VGG-11 on digits."""
    return table.load()


@dataclasses.dataclass(frozen=True)
class TrainedPlacements:
    """Validation accuracy of VGG-11 on digits, by the placement of its batch norms.

    All 2^8 placements were trained from several seeds; `seed` picks one of these. The
    optimum is read off.

    Attributes:
        screened: Whether placements whose gradients vanish before training are not
            trained, by any optimiser.
    """

    seed: int
    sparsity_penalty: float = 0.005
    screened: bool = False

    @property
    def title(self) -> str:
        if self.screened:
            return "Placements of VGG-11, screened"
        return f"Placements of VGG-11, lambda = {self.sparsity_penalty:g}"

    @property
    def num_variables(self) -> int:
        return published().num_variables

    @property
    def column(self) -> int:
        """Of the table's seeds."""
        return self.seed % len(published().seeds)

    def value(self, x: np.ndarray) -> float:
        accuracy = published().accuracy[published().row(x), self.column]
        return CHANCE if np.isnan(accuracy) else float(accuracy)

    def is_hopeless(self, x: np.ndarray) -> bool:
        """Whether a placement need not be trained; All-BN and No-BN are always."""
        if not self.screened or x.all() or not x.any():
            return False
        health = published().health[published().row(x), self.column]
        return bool(health.min() < LEAST_HEALTH)

    @property
    def optimum(self) -> float:
        return float(published().objective(self.sparsity_penalty)[:, self.column].max())


def placement_name(sparsity_penalty: float) -> str:
    """Of the problem with that lambda."""
    return f"placement_{sparsity_penalty:g}"
