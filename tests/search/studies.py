"""A small study, and what it searches."""

import numpy as np

from codesign.search.study import Study


def f(x):
    """An accuracy-like function of six or more sites: two carry it, two clash."""
    x = np.asarray(x, float)
    return float(0.1 + 0.5 * x[1] + 0.3 * x[4] - 0.2 * x[0] * x[2] + 0.02 * x[5])


def study(journal=None, **kwargs):
    settings = {"num_variables": 6, "seed": 3, "num_initial": 4, **kwargs}
    return Study(journal=journal, **settings)
