"""Measures speed, smoothness and counts against targets: python -m experiments.bench

Medians of interleaved runs after warm-up, each with its target and, where a
peer is installed (`pip install -e ".[benchmark]"`), the peer's figure in the
same run. `--only=smooth` holds each chip's smooth model against its exact one, in
2 minutes; `--only=tracing` holds everyone's counts of MACs against counts by hand, in
another two. About 9 minutes on 2 cores; `--preset=smoke` takes four or five. A workdir
keeps what it has measured; name a fresh one to measure again.
"""

from codesign.studies.speed import bench
from experiments import launch

if __name__ == "__main__":
    launch.run(bench.STUDY)
