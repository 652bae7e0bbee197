"""Measures speed against targets and peers: python -m experiments.bench

Medians of interleaved runs after warm-up, each with its target and, where a
peer is installed (`pip install -e ".[benchmark]"`), the peer's figure in the
same run. About 5 minutes on 2 cores; `--preset=smoke` takes one or two. A workdir
keeps what it has measured; name a fresh one to measure again.
"""

from codesign.studies.speed import bench
from experiments import launch

if __name__ == "__main__":
    launch.run(bench.STUDY)
