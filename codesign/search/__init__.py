"""A pure optimisation library: ask, evaluate, tell, over points of 0 and 1."""

from codesign.search import bqp
from codesign.search.study import SearchSpaceExhausted, Study
from codesign.search.trials import Trial

__all__ = ["SearchSpaceExhausted", "Study", "Trial", "bqp"]
