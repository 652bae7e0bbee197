"""Our search and its peers on problems whose optimum is known."""

from codesign.search.benchmark.config import PRESETS, BenchmarkConfig, Task, preset
from codesign.search.benchmark.outcome import Outcome, Run
from codesign.search.benchmark.run import Benchmark, run

__all__ = [
    "PRESETS",
    "Benchmark",
    "BenchmarkConfig",
    "Outcome",
    "Run",
    "Task",
    "preset",
    "run",
]
