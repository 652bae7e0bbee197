import numpy as np
import pytest

from codesign import models, workload
from codesign.hardware import reram_gpu
from codesign.studies.deeptrain import stack_fit


def test_one_value_for_all_networks_reaches_the_published_means():
    pairs = []
    for name in ("resnet18", "vgg11", "vgg16", "vgg19"):  # the paper's
        network = models.create(name)
        ops = workload.trace(*network.trace_args())
        pairs.append((ops, ops.masked(network.mask(network.paper_sites))))
    prior = reram_gpu.deeptrain(3, 1)
    fitted = stack_fit.fit(prior, pairs, period_cut=0.671, energy_cut=0.166)
    period, energy = stack_fit.cuts(fitted, pairs)
    assert np.mean(period) == pytest.approx(0.671, abs=2e-3)
    assert np.mean(energy) == pytest.approx(0.166, abs=2e-3)
    # Both stay within the ranges that the catalogue assumes for them.
    assert 0.1 <= fitted.gpu_utilisation <= 1
    assert 50e-12 <= fitted.gpu_instruction_energy_j <= 400e-12
    with pytest.raises(ValueError, match="cannot cut the mean period"):
        stack_fit.fit(prior, [(ops, ops)], period_cut=0.671, energy_cut=0.166)
