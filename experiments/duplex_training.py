"""Adapts duplex networks beside their baselines: python -m experiments.duplex_training

A reversible branch beside a frozen backbone, after CAMEL: DuDNN, FI, CA and BO at equal
learnable parameters; number formats, norms, pooling and read errors; curves.json.
"""

from codesign.studies.camel import duplex_training
from experiments import launch

if __name__ == "__main__":
    launch.run(duplex_training.STUDY)
