"""Memory and time of reversible stacks: python -m experiments.reversible_memory

Against the same blocks scanned, unrolled and under jax.checkpoint, at four depths.
"""

from codesign.studies.camel import reversible_memory
from experiments import launch

if __name__ == "__main__":
    launch.run(reversible_memory.STUDY)
