"""Trains all 256 placements of a small VGG-11: python -m experiments.placement_table

Writes `table.csv`, on which any optimiser can be run with exact regret and no training;
`placement_table.load()` of `codesign.studies.deeptrain` reads the published one. About 8
minutes a seed on one core; more seeds extend a table.
"""

from codesign.studies.deeptrain import exhaustive
from experiments import launch

if __name__ == "__main__":
    launch.run(exhaustive.STUDY)
