"""What a chip's costs and their gradients add to a training step."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from codesign import models, workload
from codesign.hardware import reram_gpu
from codesign.numerics.relax import smooth
from codesign.objective import Design, chip_costs
from codesign.report import Quantity
from codesign.studies.speed.timing import interleaved, row
from codesign.training import TrainConfig, init_state, make_optimizer, make_step
from codesign.training.metrics import flat


def co_jitted_step(width: float, repeats: int, seed: int) -> list[Quantity]:
    """Times a step of VGG-11 alone, with the chip's costs, and the costs alone."""
    network = models.create("vgg11", width=width)
    ops = workload.trace(*network.trace_args())
    optimizer = make_optimizer(TrainConfig(), 100)
    state = jax.jit(lambda: init_state(network, optimizer, jnp.uint32(seed)))()
    images = jax.random.randint(jax.random.key(seed), (64, 32, 32, 3), 0, 256)
    batch = (images.astype(jnp.uint8), jnp.arange(64, dtype=jnp.int32) % 10)
    design = Design(bn_mask=network.mask(("C5", "C7")), chip=reram_gpu.deeptrain(3, 1))
    costs = chip_costs(ops, reram_gpu.estimate, batch_size=64, relax=smooth(0.1))
    alone = jax.jit(
        lambda design: ravel_pytree((costs(design), jax.jacrev(costs)(design)))[0]
    )

    def compiled(costs):
        def scaled(key, images):
            return images.astype(jnp.float32) / 255 - 0.5

        step = make_step(network, optimizer, scaled, chip_costs=costs)

        @jax.jit
        def run(state, batch, design):  # as a run's dispatch does
            state, metrics = step(state, batch, design)
            return state, flat(metrics)

        return lambda: run(state, batch, design)

    plain, both = interleaved(repeats, compiled(None), compiled(costs))
    costs_s = np.median(interleaved(repeats, lambda: alone(design)))
    both_s = np.median(both)
    plain_s = float(both_s / np.median(both / plain))  # paired: noise falls on both
    of, peer = {"network": "vgg11", "width": width}, ("plain step", plain_s)
    return [
        row("step_s", plain_s, f"VGG-11 step, width {width:g}, batch 64", of),
        row(
            "co_jitted_step_s", both_s, "VGG-11 step with the chip's costs and gradients",
            of, asked=1.01 * plain_s, peer=peer,
        ),
        row(
            "chip_costs_s", costs_s, "the chip's costs and gradients alone",
            of, asked=0.01 * plain_s, peer=peer,
        ),
    ]  # fmt: skip


PIECES = {"training step": (co_jitted_step, (0.25,))}
