"""Mutated network files: a clear error, or a network that can be expanded."""

import pathlib

import pytest

from codesign.workload import Workload, darknet
from codesign.workload import onnx as importer
from codesign.workload.iteration import training_iteration
from tests import fuzzing

_DATA = pathlib.Path(__file__).parent / "data"
pytestmark = pytest.mark.slow


def _is_network(found):
    """A changed number may give another network; it is as sound as the first."""
    assert isinstance(found, Workload)
    if any(op.trained for op in found.ops):
        try:
            training_iteration(found).sizes(32)
        except ValueError as error:  # only for want of bits
            return "too large to count" in str(error)
    return True


@pytest.mark.parametrize("name", ["tiny_yolo", "darknet53_start"])
def test_cfg(tmp_path, name):
    path = tmp_path / "net.cfg"
    path.write_bytes((_DATA / f"{name}.cfg").read_bytes())
    assert 0 < fuzzing.check(darknet.from_cfg, path, accepts=_is_network) < 300


@pytest.mark.parametrize("name", ["small_cnn", "computed_shapes", "functions"])
def test_onnx(tmp_path, name):
    pytest.importorskip("onnx")
    from tests.workload.data import onnx_models

    path = tmp_path / "net.onnx"
    path.write_bytes(getattr(onnx_models, name)().SerializeToString())
    assert 0 < fuzzing.check(importer.from_file, path, accepts=_is_network) < 300
