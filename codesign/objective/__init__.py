"""Task loss and hardware cost of one design, in one differentiable step."""

from codesign.objective.chip_costs import chip_costs
from codesign.objective.design import Design
from codesign.objective.sensitivity import Sensitivity, sensitivities, toggled

__all__ = ["Design", "Sensitivity", "chip_costs", "sensitivities", "toggled"]
