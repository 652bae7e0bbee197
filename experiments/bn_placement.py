"""Finds the few batch norms a CNN needs: python -m experiments.bn_placement

Trains placements on real images, proposes the next by a sparse Bayesian surrogate, and
costs each on a chip, by default a stack of ReRAM and GPU tiers. 4.5 minutes on 2 cores.
"""

from codesign.studies.deeptrain import placement
from experiments import launch

if __name__ == "__main__":
    launch.run(placement.STUDY)
