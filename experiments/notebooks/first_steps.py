# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # First steps: your network, your data, your chip
#
# This notebook traces a CNN, costs its training on two chips, differentiates the cost,
# and searches where the CNN needs its batch norms. Every cell may be run twice.
# It takes one to two minutes on two cores.

# %%
import importlib.util
import pathlib
import subprocess
import sys

# Installs codesign, unless it is there, from the clone that this notebook lies in.
if importlib.util.find_spec("codesign") is None:
    here = pathlib.Path.cwd()
    found = [d for d in (here, *here.parents) if (d / "codesign/py.typed").exists()]
    if not found:
        raise ImportError("Open this notebook in a clone of codesign's repository.")
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", found[0]], check=True)
    importlib.invalidate_caches()

# %%
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from sklearn.datasets import load_digits

from codesign import models, report, units, workload
from codesign.data import Dataset
from codesign.hardware import Chip, Cost, chips
from codesign.hardware.spec import knobs
from codesign.numerics.relax import smooth
from codesign.report import plots
from codesign.studies.deeptrain import placement
from codesign.training import TrainConfig

# %% [markdown]
# ## A network of one's own
#
# Any Flax module will do. `MaskedBatchNorm` marks a *site*, a place where a batch norm
# may stand; `bn_mask` says for each site whether it does: 1 keeps the norm, 0 leaves it
# out, and between them lies what a gradient can follow.


# %%
class DigitNet(nn.Module):
    @nn.compact
    def __call__(self, x, bn_mask, *, train):  # x [B, 8, 8, 1], bn_mask [4]
        for site, channels in enumerate((16, 16, 32, 32)):
            x = nn.Conv(channels, (3, 3), name=f"conv{site + 1}")(x)
            norm = models.MaskedBatchNorm(site, name=f"norm{site + 1}")
            x = nn.relu(norm(x, bn_mask, train=train))
            if site % 2:
                x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.Dropout(0.2, deterministic=not train)(x.reshape(len(x), -1))
        return nn.Dense(10, name="classifier")(x)


network = models.Network(DigitNet(), image_shape=(8, 8, 1), num_classes=10)
network.num_sites  # found from the module

# %% [markdown]
# ## Trace it
#
# A trace runs nothing. It lists what one image asks of any hardware, op by op.

# %%
ops = workload.trace(*network.trace_args())
ops

# %% [markdown]
# ## What does a chip charge?
#
# `chips.by_name` has chips with sources. This one is DeepTrain's stack of three tiers of
# ReRAM crossbars and one GPU tier. A cost is that of one training step on a batch.

# %%
BATCH_SIZE = 64
stack = chips.by_name("deeptrain:3R1G")
stack.cost(ops, batch_size=BATCH_SIZE)

# %% [markdown]
# A chip of one's own is a spec, whose numbers are the knobs, and one function. Here an
# array of PEs (each one MAC a cycle) works beside a few lanes that normalise. Voltage
# follows the clock, so energy grows with its square, and whatever is built leaks. The
# numbers are made up.


# %%
@struct.dataclass
class AcceleratorSpec:
    clock_hz: float
    num_pes: float
    num_norm_lanes: float


def estimate(spec, workload, *, batch_size, relax):
    macs = 3 * batch_size * workload.macs.sum()  # one product forward, two backward
    visits = 4 * batch_size * workload.select("norm").elements.sum()  # of an element
    cycles = relax.max(macs / spec.num_pes, visits / spec.num_norm_lanes)
    latency_s = (cycles + 20_000) / spec.clock_hz  # the rest has no faster hardware
    switched_j = (macs + 8 * visits) * units.PJ * (spec.clock_hz / units.GHZ) ** 2
    leakage_w = 0.2 * units.MW * (spec.num_pes + 16 * spec.num_norm_lanes)
    return Cost(latency_s=latency_s, energy_j=switched_j + leakage_w * latency_s)


chip = Chip(AcceleratorSpec(2e9, 512.0, 2.0), estimate, name="my accelerator")
chip.cost(ops, batch_size=BATCH_SIZE)

# %% [markdown]
# ## Differentiate
#
# A cost is a JAX function of the knobs and of the mask, so `jax.grad` goes through both.
# `smooth(0.1)` makes the same model differentiable: its `max` has no corner.


# %%
def smooth_cost(spec, bn_mask, estimate, name):
    masked = ops.masked(bn_mask)
    cost = estimate(spec, masked, batch_size=BATCH_SIZE, relax=smooth(0.1))
    return getattr(cost, name)


slopes = jax.jit(
    jax.value_and_grad(smooth_cost, (0, 1)), static_argnames=("estimate", "name")
)
all_bn = jnp.ones(network.num_sites)
energy_j, (by_chip, by_mask) = slopes(chip.spec, all_bn, chip.estimate, "energy_j")
jax.tree.map(lambda slope: f"{slope:.3g}", by_chip)  # J per Hz, J per PE, J per lane

# %%
by_mask  # J that the batch norm at each site costs, [4]

# %% [markdown]
# The same function serves the stack. As elasticities its knobs can be compared: by how
# many percent does a cost change where a knob grows by 1 %?

# %%
table = report.Table(
    f"What 1 % more of each knob of {stack.name} changes",
    [
        "Knob",
        report.Column("Value", justify="right"),
        report.Column("Latency", "%", "+z.2f"),
        report.Column("Energy", "%", "+z.2f"),
    ],
)
elasticities = []
for name in ("latency_s", "energy_j"):
    value, (by_stack, _) = slopes(stack.spec, all_bn, stack.estimate, name)
    by_log = jax.tree.map(lambda d, x, y=value: float(d * x / y), by_stack, stack.spec)
    elasticities.append(jax.tree.leaves(by_log))
for knob, *changes in zip(knobs(stack.spec), *elasticities, strict=True):
    table.add(knob.name, units.quantity(knob.value, knob.unit), *changes)
table

# %% [markdown]
# ## Descend on network and chip together
#
# One loss holds the task and the logarithm of energy times latency. Its gradient moves the
# weights, the mask (a sigmoid of free numbers) and the chip (the exponential of free
# numbers, so that knobs stay positive). Each has its own rate.

# %%
images, labels = load_digits(return_X_y=True)  # [1797, 64], [1797]
images = np.reshape(images, (-1, 8, 8, 1)).astype("float32") / 16
RATES = {"weights": 0.1, "mask": 20.0, "chip": 0.4}
COST_WEIGHT = 0.1  # of a nat of task loss, for a factor of e in energy times latency


def loss(free, batch_stats, x, y, key):
    bn_mask = jax.nn.sigmoid(free["mask"])
    spec = jax.tree.map(jnp.exp, free["chip"])
    variables = {"params": free["weights"], "batch_stats": batch_stats}
    logits, batch_stats = network.apply(variables, x, bn_mask, train=True, key=key)
    task = optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
    masked = ops.masked(bn_mask)
    cost = chip.estimate(spec, masked, batch_size=BATCH_SIZE, relax=smooth(0.1))
    product = cost.energy_j * cost.latency_s
    seen = {"loss": task, "product": product, "mask": bn_mask, "chip": spec}
    return task + COST_WEIGHT * jnp.log(product), (batch_stats, seen)


@jax.jit
def step(free, batch_stats, key):
    chosen, dropout = jax.random.split(key)
    batch = jax.random.randint(chosen, (BATCH_SIZE,), 0, len(images))
    x, y = jnp.asarray(images)[batch], jnp.asarray(labels)[batch]
    slope, (batch_stats, seen) = jax.grad(loss, has_aux=True)(
        free, batch_stats, x, y, dropout
    )
    for name, rate in RATES.items():
        moved = jax.tree.map(lambda a, b, r=rate: a - r * b, free[name], slope[name])
        free = free | {name: moved}
    return free, batch_stats, seen


variables = jax.jit(network.init)(jax.random.key(0))
batch_stats = variables["batch_stats"]
free = {
    "weights": variables["params"],
    "mask": jnp.full(network.num_sites, 2.0),  # all norms are there, to 88 %
    "chip": jax.tree.map(jnp.log, chip.spec),
}
steps = []
for key in jax.random.split(jax.random.key(1), 100):
    free, batch_stats, seen = step(free, batch_stats, key)
    steps.append(seen)
path = jax.tree.map(lambda *each: np.stack(each), *steps)  # [100, ...]
jax.tree.map(lambda knob: f"{knob[-1]:.4g}", path["chip"])  # where the chip arrived

# %%
number = range(1, len(steps) + 1)
falling = plots.curves(
    {
        "training loss (nats)": (number, path["loss"]),
        "energy × latency, start = 1": (number, path["product"] / path["product"][0]),
    },
    x_label="Step",
    y_label="Loss, and energy × latency",
)
report.Figure("descent", falling, "Both parts of the loss.")

# %%
masks = plots.curves(
    {f"C{site + 1}": (number, path["mask"][:, site]) for site in range(4)},
    x_label="Step",
    y_label="Relaxed mask",
)
report.Figure("masks", masks, "Batch norms between left out, 0, and kept, 1.")

# %% [markdown]
# ## Search
#
# Descent follows one path from one start. `placement.run` trains whole networks instead,
# proposes the next mask by a Bayesian surrogate, and confirms the best from other seeds.
# It takes the same network, arrays and chip. The settings here are tiny: 6 of 16 masks.

# %%
config = placement.PlacementConfig(
    train=TrainConfig(epochs=3, learning_rate=0.1),
    num_evaluations=6,
    num_initial=2,
    num_seeds=2,
    max_seeds=2,
)
dataset = Dataset.from_arrays(images, labels, name="my digits")
searched = {"network": network, "dataset": dataset, "chip": chip}
result = placement.run(config, workdir="runs/first_steps", **searched)
result.found  # [4] 1 where a batch norm is kept

# %%
result

# %% [markdown]
# Figures are handles: they show themselves, and `drawn` is Matplotlib's own figure.

# %%
figure = result.figures["pareto_energy"]
figure.drawn.axes[0].set_xlabel("Energy per image on my accelerator (µJ)")
figure

# %% [markdown]
# The same cell again goes on from what the folder holds. A finished search trains nothing
# and returns in seconds; more evaluations would extend it. After a change of network, data
# or chip, name another folder.

# %%
again = placement.run(config, workdir="runs/first_steps", **searched)
again.found
