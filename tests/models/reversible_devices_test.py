"""A reversible stack whose batch lies on four devices."""

import functools
import json
import os
import pathlib
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).parents[2]


@functools.cache
def _found():
    """What `four_devices.py` prints: a process has one device or four, not both."""
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, "-W", "error", "-m", "tests.models.four_devices"]
    done = subprocess.run(
        command, cwd=_ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "case", ["float", "lattice", "lattice, checkpoint", "lattice, explicit"]
)
def test_four_devices_make_what_one_makes(case):
    found = _found()[case]
    assert found["pieces"] == 4
    assert found["gradients"] < 1e-5
    if case == "float":
        assert found["streams"] < 1e-6
        assert found["inverse"] < 1e-5
    else:
        assert found["streams"] == 0
        assert found["inverse"] == 0


@pytest.mark.parametrize(
    "case", ["float", "lattice", "lattice, checkpoint", "lattice, explicit"]
)
def test_devices_meet_for_sums_of_gradients_alone(case):
    found = _found()[case]
    assert found["inverse_collectives"] == []
    sums = []
    for kind, shapes in found["step_collectives"]:
        assert kind == "all-reduce"
        sums += shapes
    # Of each block's parameters; on a lattice also of how many values have left it.
    counts = [shape for shape in sums if shape not in found["parameters"]]
    assert all(shape == [] for shape in counts)
    assert not counts or case != "float"
    assert sorted(s for s in sums if s) == sorted(found["parameters"])
