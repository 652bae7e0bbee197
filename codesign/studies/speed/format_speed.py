"""How fast arrays are cast to number formats, and what training in them takes."""

import contextlib
import dataclasses
import importlib
import importlib.util
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from codesign import models
from codesign.kernels.dense import dense
from codesign.models.formats import Formats, InFormats, casting
from codesign.models.network import Network
from codesign.numerics import bfp, mx
from codesign.objective import Design
from codesign.report import Quantity
from codesign.studies.speed.timing import interleaved, row
from codesign.training import TrainConfig, init_state, make_optimizer, make_step

_ASKED_SPEED = 0.3  # of x * c
_TRUNCATE = bfp.Format(bias="tensor")
_STOCHASTIC = bfp.Format(bias="tensor", rounding="stochastic")
_UNBIASED = dataclasses.replace(_STOCHASTIC, carry="renorm")
_BLOCKS = {"bfp5": 9, "mxfp8_e4m3": mx.BLOCK_SIZE}
# Of a step over the plain one: what is asked with truncation, and with random rounding.
_ASKED_STEP = {"dense": (1.2, 1.3), "vgg11": (1.15, 1.25)}


def throughput(name: str, repeats: int, seed: int) -> list[Quantity]:
    """Times a cast of 4096 x 1024 numbers along the last axis, beside x * c."""
    x = jax.random.normal(jax.random.key(seed), (4096, 1024))
    cast: Callable = {
        "bfp5": lambda x: bfp.quantize(x, _TRUNCATE),
        "bfp5, bias 7": lambda x: bfp.quantize(x, bfp.Format()),
        "bfp5 stochastic": lambda x: bfp.quantize(
            x, _STOCHASTIC, key=jax.random.key(seed)
        ),
        "bfp5 tiles": lambda x: bfp.quantize(x, _TRUNCATE, tile=(3, 3)),
        "mxfp8_e4m3": lambda x: mx.quantize(x, "mxfp8_e4m3"),
        "mxfp4_e2m1": lambda x: mx.quantize(x, "mxfp4_e2m1"),
    }[name]
    ours, scale = jax.jit(cast), jax.jit(lambda x: x * 1.7)
    scale_s, ours_s = np.median(
        interleaved(repeats, lambda: scale(x), lambda: ours(x)), axis=1
    ).tolist()
    peer = None
    if other := _peer(name):
        few = x[:4]  # it takes 10 us for each number
        other_s = float(np.median(interleaved(3, lambda: other(few))))
        peer = ("pychop", scale_s / (other_s * x.size / few.size))
    asked = {"asked": _ASKED_SPEED, "at_least": True} if name in _BLOCKS else {}
    return [
        row(
            "cast_speed",
            scale_s / ours_s,
            f"{name}: speed of a cast of 4096 x 1024 over x * c",
            {"format": name},
            peer=peer,
            **asked,
        )
    ]


def _peer(name: str) -> Callable | None:
    """The same cast by pychop, where it is installed (`pip install pychop`) and has it."""
    if name not in _BLOCKS or not importlib.util.find_spec("pychop"):
        return None
    if name.startswith("mx"):
        peer = importlib.import_module("pychop.jx.mx_formats")
        return lambda x: peer.mx_quantize(x, name)
    peer = importlib.import_module("pychop.jx.bfp_formats")
    return lambda x: peer.bfp_quantize(x, (5, _BLOCKS[name]))


def _dense_step(chosen: Formats | None, seed: int) -> Callable[[], object]:
    """A step of momentum SGD at batch 512 of three layers with ReLU."""
    keys = jax.random.split(jax.random.key(seed), 4)
    x = jax.random.normal(keys[3], (512, 1024))
    params = [jax.random.normal(key, (1024, 1024)) / 32 for key in keys[:3]]
    optimizer = optax.sgd(0.01, 0.9)
    state = optimizer.init(params)

    def loss(params, x):
        for kernel in params:
            x = jax.nn.relu(dense(x, kernel))
        return jnp.mean(x**2)

    @jax.jit
    def step(params, state, x, key):
        with casting(chosen, key=key) if chosen else contextlib.nullcontext():
            gradients = jax.grad(loss)(params, x)
        updates, new = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), new

    return lambda: step(params, state, x, keys[0])


def _vgg_step(chosen: Formats | None, seed: int) -> Callable[[], object]:
    """A step of VGG-11 at width 0.25 and batch 64, batch norms kept."""
    network = models.create("vgg11", width=0.25)
    if chosen is not None:
        network = Network(InFormats(network.module, chosen))
    optimizer = make_optimizer(TrainConfig(), 100)
    state = jax.jit(lambda: init_state(network, optimizer, jnp.uint32(seed)))()
    images = jax.random.normal(jax.random.key(seed), (64, 32, 32, 3))
    batch = images, jnp.arange(64, dtype=jnp.int32) % 10
    step = jax.jit(make_step(network, optimizer, lambda key, images: images))
    design = Design(bn_mask=jnp.ones(network.num_sites))
    return lambda: step(state, batch, design)


def steps(name: str, repeats: int, seed: int) -> list[Quantity]:
    """Times a training step plain, with truncation, at random and in tiles."""
    build = {"dense": _dense_step, "vgg11": _vgg_step}[name]
    chosen = {
        "truncated": Formats.of(_TRUNCATE),
        "stochastic": Formats.of(_STOCHASTIC),
        "truncated, tiles": Formats.of(_TRUNCATE, tile=(3, 3)),
        "stochastic, renorm": Formats.of(_UNBIASED),
    }
    runs = [build(None, seed), *(build(each, seed) for each in chosen.values())]
    times = interleaved(repeats, *runs)
    title = {"dense": "3 dense layers of 1024", "vgg11": "VGG-11, width 0.25"}[name]
    asked = (*_ASKED_STEP[name], None, None)
    return [
        row(
            "step_ratio",
            float(np.median(each / times[0])),  # paired: noise falls on both
            f"{title}: step in bfp5, {how}, over the plain step",
            {"network": name, "rounding": how},
            asked=most,
        )
        for how, each, most in zip(chosen, times[1:], asked, strict=True)
    ]


PIECES = {
    "cast": (
        throughput,
        ("bfp5", "mxfp8_e4m3", "bfp5, bias 7", "bfp5 stochastic", "bfp5 tiles"),
    ),
    "step in bfp5": (steps, ("dense", "vgg11")),
}
