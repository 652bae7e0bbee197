"""Measures the search against its peers: python -m experiments.search_benchmark

Problems with a known optimum, many seeds, our study and four peers; then what an ask
takes. Needs `pip install -e ".[benchmark]"` for Optuna. On one core, quick (5 problems)
takes 1.5 min and full (14, up to 100 variables) 28 min; 10 seeds either way.
"""

from codesign.studies.search_benchmark import benchmark
from experiments import launch

if __name__ == "__main__":
    launch.run(benchmark.STUDY)
