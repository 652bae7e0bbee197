"""Measures speed against its targets: python -m experiments.bench

Prints one table: each figure with its target and the ratio it is judged by. Times are
medians of interleaved runs after warm-up; the machine is named, since absolute times are
its own and ratios travel better. About 3 minutes on 2 cores.
"""

import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import rich.console
from absl import app, flags

from codesign import models, workload
from codesign.hardware import catalogue, reram_gpu
from codesign.kernels.convolution import convolution
from codesign.numerics.relax import smooth
from codesign.objective import Design, chip_costs
from codesign.report import Column, Table
from codesign.training.config import TrainConfig, make_optimizer
from codesign.training.state import init_state
from codesign.training.step import make_step

_REPEATS = flags.DEFINE_integer(
    "repeats", 30, "Runs of each timed piece.", lower_bound=3
)


def interleaved(functions: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Seconds of each function, run in turn so that noise falls on all alike."""
    for fn in functions.values():
        jax.block_until_ready(fn())
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(_REPEATS.value):
        for name, fn in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(fn())
            times[name].append(time.perf_counter() - start)
    return times


def co_jit_overhead(table: Table) -> None:
    """A training step that also returns the chip's costs and all gradients."""
    network = models.create("vgg11", width=0.25)
    ops = workload.trace(*network.trace_args())
    optimizer = make_optimizer(TrainConfig(), 100)
    state = jax.jit(lambda: init_state(network, optimizer, jnp.uint32(0)))()
    images = jax.random.randint(jax.random.key(0), (64, 32, 32, 3), 0, 256)
    batch = (images.astype(jnp.uint8), jnp.arange(64, dtype=jnp.int32) % 10)
    design = Design(bn_mask=network.mask((5, 7)), chip=catalogue.deeptrain(3, 1))

    def preprocess(key, images):
        del key
        return images.astype(jnp.float32) / 255 - 0.5

    def compiled(relax):
        costs = relax and chip_costs(
            ops, reram_gpu.estimate, batch_size=64, relax=relax
        )
        step = jax.jit(make_step(network, optimizer, preprocess, chip_costs=costs))
        return lambda: step(state, batch, design)

    times = interleaved(
        {
            "plain": compiled(None),
            "smooth": compiled(smooth(0.1)),
        }
    )
    plain = statistics.median(times["plain"])
    ratio = statistics.median(
        b / a for a, b in zip(times["plain"], times["smooth"], strict=True)
    )
    table.add("training step, VGG-11 width 0.25, batch 64", plain, None, None, "")
    table.add(
        "the same with costs and gradients of the chip",
        statistics.median(times["smooth"]),
        ratio,
        1.01,
        "of the plain step",
    )
    costs = chip_costs(ops, reram_gpu.estimate, batch_size=64, relax=smooth(0.1))
    alone = jax.jit(lambda d: (costs(d), jax.jacrev(costs)(d)))
    cost_s = statistics.median(interleaved({"cost": lambda: alone(design)})["cost"])
    table.add("the chip's costs and gradients alone", cost_s, cost_s / plain, 0.01, "")


def convolutions(table: Table) -> None:
    """Gradient of each VGG-11 convolution, unfolded against XLA's own."""
    channels = (3, 64, 128, 256, 256, 512, 512, 512, 512)
    sizes = (32, 16, 8, 8, 4, 4, 2, 2)
    for width in (0.25, 1.0):
        totals = {"unfold": 0.0, "xla": 0.0}
        for site, size in enumerate(sizes):
            c_in = channels[site] if site == 0 else int(channels[site] * width)
            c_out = int(channels[site + 1] * width)
            rng = np.random.default_rng(site)
            x = jnp.asarray(rng.normal(size=(64, size, size, c_in)), jnp.float32)
            kernel = jnp.asarray(rng.normal(size=(3, 3, c_in, c_out)), jnp.float32)

            def gradient(name, x=x, kernel=kernel):
                def loss(x, kernel):
                    y = convolution(x, kernel, implementation=name)
                    return jnp.sum(jnp.maximum(y, 0))

                grad = jax.jit(jax.grad(loss, (0, 1)))
                return lambda: grad(x, kernel)

            times = interleaved({name: gradient(name) for name in totals})
            for name, seconds in times.items():
                totals[name] += statistics.median(seconds)
        table.add(
            f"8 convolutions of VGG-11 with gradients, width {width:g}",
            totals["unfold"],
            totals["unfold"] / totals["xla"],
            1.0,
            f"of XLA's own, {totals['xla'] * 1e3:.1f} ms",
        )


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    device = jax.devices()[0]
    table = Table(
        f"Speed on {device.device_kind} ({device.platform})",
        [
            "Figure",
            Column("Time", "s", "si"),
            Column("Ratio", format=".3f"),
            Column("Target, at most", format=".2f"),
            "Of what",
        ],
        footnotes=[f"Medians of {_REPEATS.value} interleaved runs, one process."],
    )
    co_jit_overhead(table)
    convolutions(table)
    rich.console.Console(width=120).print(table.to_rich())


if __name__ == "__main__":
    jax.config.config_with_absl()
    app.run(main)
