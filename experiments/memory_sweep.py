"""Sweeps the cache behind a training iteration: python -m experiments.memory_sweep

Networks on chips over capacities: `sweep.csv`, every figure and number of the
memory paper beside ours, timelines, reuse by scope and policies. On one core, quick
(the paper's four networks) takes 16 s and full (eight networks, nine chips, the
surrogate held against the simulator) 40 s. Both knees are met exactly.
"""

from codesign.studies.memory import capacity
from experiments import launch

if __name__ == "__main__":
    launch.run(capacity.STUDY)
