"""A pure optimisation library: ask, evaluate, tell, over points of 0 and 1."""

import warnings

with warnings.catch_warnings():
    # In a notebook without ipywidgets numpyro's bars, which nothing here shows, warn.
    warnings.filterwarnings("ignore", "IProgress not found")
    import numpyro.util  # noqa: F401

from codesign.search import bqp
from codesign.search.study import SearchSpaceExhausted, Study
from codesign.search.trials import Trial

__all__ = ["SearchSpaceExhausted", "Study", "Trial", "bqp"]
