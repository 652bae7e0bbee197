"""How fast the simulator sweeps, beside plain Python, and the surrogate evaluates."""

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from codesign import units
from codesign.hardware import memory
from codesign.hardware.memory import SYSTEMS
from codesign.hardware.memory.surrogate import calibrate, time_s
from codesign.numerics.relax import smooth
from codesign.studies.memory import paper_networks as networks
from codesign.studies.speed import plain_simulator as reference
from codesign.workload.iteration import training_iteration

# Seconds of the 489-point sweep with the same rules in plain Python, by another hand, on
# one core: the bar that a compiled simulator is held to is a hundredth.
PROTOTYPE_S = {"resnet50": 2.5, "mobilenetv2": 2.0, "transformer": 5.3, "gnmt": 166.0}
_MACHINE = SYSTEMS["RTX 2080 Ti"]
_CHUNK = 1024  # designs at a time: what a core's cache holds


@dataclasses.dataclass(frozen=True)
class SweepSpeed:
    """Seconds of 489 capacities, 24 to 1000 MB."""

    num_steps: int
    compiled_s: float  # median of warm runs
    python_s: float  # from some of the capacities, in proportion


def capacity_sweep(name: str, *, repeats: int = 7, num_python: int = 5) -> SweepSpeed:
    """Times one network; plain Python must give the same times, to the last bit."""
    program = training_iteration(networks.load(name))
    batch_size = networks.batch_size(name)
    caches = memory.capacities(np.arange(24, 1001, 2))

    def swept():
        return memory.sweep([_MACHINE], program, caches, batch_size=batch_size)

    found = swept()
    compiled_s = _median(swept, repeats)
    few = np.linspace(0, len(caches) - 1, num_python + 2).astype(int)[1:-1]
    start = time.perf_counter()
    slow = [
        reference.simulate(
            dataclasses.replace(_MACHINE, capacity_bytes=int(caches[i])),
            program,
            batch_size=batch_size,
        )
        for i in few
    ]
    python_s = (time.perf_counter() - start) * len(caches) / num_python
    if [one.total_s for one in slow] != found.total_s[0, few].tolist():
        raise AssertionError(f"{name}: the compiled simulator differs from its rules.")
    return SweepSpeed(program.num_steps, compiled_s, python_s)


def surrogate_design(*, num_designs: int = 2**17, repeats: int = 9) -> float:
    """Seconds of one design, time and three gradients, of ResNet-50 at 64 segments."""
    program = training_iteration(networks.load("resnet50"))
    fitted = calibrate(program, num_segments=64)
    low = np.array([24 * units.MIB, 94e9, 2e12])
    high = np.array([1000 * units.MIB, 3350e9, 67e12])
    part = np.random.default_rng(0).random((num_designs, 3))
    designs = jnp.asarray(low * (high / low) ** part, jnp.float32)

    def seconds(design):
        return time_s(fitted, *design, relax=smooth(0.1))

    each = jax.value_and_grad(seconds)
    every = jax.jit(lambda designs: jax.lax.map(each, designs, batch_size=_CHUNK))
    return _median(lambda: every(designs), repeats) / num_designs


def _median(fn: Callable[[], Any], repeats: int) -> float:
    jax.block_until_ready(fn())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(fn())
        times.append(time.perf_counter() - start)
    return statistics.median(times)
