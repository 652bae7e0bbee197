"""How fast the memory simulator sweeps, beside plain Python, and its surrogate."""

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np

from codesign import units
from codesign.hardware import memory
from codesign.hardware.memory import SYSTEMS
from codesign.hardware.memory.surrogate import calibrate, time_s
from codesign.numerics.relax import smooth
from codesign.report import Quantity
from codesign.studies.memory import paper_networks
from codesign.studies.speed import plain_simulator
from codesign.studies.speed.timing import interleaved, row
from codesign.workload.iteration import training_iteration

# Asked of 489 capacities in seconds: a hundredth of what the same rules took in plain
# Python by another hand, on one core.
_ASKED_S = {"resnet50": 0.025, "mobilenetv2": 0.02, "transformer": 0.053, "gnmt": 1.66}


def capacities(name: str, repeats: int, seed: int) -> list[Quantity]:
    """Times 489 capacities; plain Python must give the same times, to the last bit."""
    del seed  # Nothing is random.
    program = training_iteration(paper_networks.load(name))
    machine, batch_size = SYSTEMS["RTX 2080 Ti"], paper_networks.batch_size(name)
    caches = memory.capacities(np.arange(24, 1001, 2))

    def swept():
        return memory.sweep([machine], program, caches, batch_size=batch_size)

    compiled_s = np.median(interleaved(repeats, swept))
    few = np.linspace(0, len(caches) - 1, 7).astype(int)[1:-1]
    found_s = swept().total_s[0, few]
    start = time.perf_counter()
    for i, total_s in zip(few, found_s, strict=True):
        spec = dataclasses.replace(machine, capacity_bytes=int(caches[i]))
        slow = plain_simulator.simulate(spec, program, batch_size=batch_size)
        if slow.total_s != total_s:
            raise AssertionError(f"{name}: the compiled simulator breaks its rules.")
    plain_s = (time.perf_counter() - start) * len(caches) / len(few)
    title = f"489 capacities, {name}, {program.num_steps} steps"
    more = {"asked": _ASKED_S[name], "peer": ("plain Python", plain_s)}
    return [row("capacity_sweep_s", compiled_s, title, {"network": name}, **more)]


def surrogate_design(name: str, repeats: int, seed: int) -> list[Quantity]:
    """Times 2^17 designs at 64 segments, each with three gradients, for one."""
    fitted = calibrate(training_iteration(paper_networks.load(name)), num_segments=64)
    low = np.array([24 * units.MIB, 94e9, 2e12])
    high = np.array([1000 * units.MIB, 3350e9, 67e12])
    part = np.random.default_rng(seed).random((2**17, 3))
    designs = jnp.asarray(low * (high / low) ** part, jnp.float32)
    each = jax.value_and_grad(lambda d: time_s(fitted, *d, relax=smooth(0.1)))
    # 1024 designs at a time: what a core's cache holds.
    every = jax.jit(lambda designs: jax.lax.map(each, designs, batch_size=1024))
    each_s = np.median(interleaved(repeats, lambda: every(designs))) / len(designs)
    title = f"one design of the surrogate with 3 gradients, {name}"
    return [row("surrogate_design_s", each_s, title, {"network": name}, asked=1e-6)]


PIECES = {
    "capacities": (capacities, tuple(_ASKED_S)),
    "surrogate": (surrogate_design, ("resnet50",)),
}
