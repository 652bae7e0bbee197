"""Counts activations over weights: python -m experiments.activation_share

CAMEL's Fig. 1(b) in 24 ways of counting: 10 s on one core.
"""

from codesign.studies.camel import activation_share
from experiments import launch

if __name__ == "__main__":
    launch.run(activation_share.STUDY)
