"""Task loss and hardware cost of one design, in one differentiable step."""

from codesign.objective.chip_costs import chip_costs
from codesign.objective.design import Design

__all__ = ["Design", "chip_costs"]
