"""The step compiles for accelerators that are not here."""

import jax
import jax.numpy as jnp
import pytest
from jax import export

from codesign import models, workload
from codesign.data import Augmentation, augment, normalise
from codesign.hardware import reram_gpu
from codesign.numerics.relax import smooth
from codesign.objective import Design, chip_costs
from codesign.training.config import TrainConfig, make_optimizer
from codesign.training.state import init_state
from codesign.training.step import make_step


@pytest.mark.parametrize("name", ["vgg11", "resnet18"])
def test_the_co_jitted_step_lowers_for_tpu_and_cuda(name, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")  # their convolution
    network = models.create(name, width=0.25)
    ops = workload.trace(*network.trace_args())
    optimizer = make_optimizer(TrainConfig(), 10)
    augmentation = Augmentation(crop_padding=4, flip=True)

    def preprocess(key, images):
        mean, std = (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)
        return normalise(augment(key, images, augmentation), mean, std)

    costs = chip_costs(ops, reram_gpu.estimate, batch_size=64, relax=smooth(0.1))
    step = jax.jit(make_step(network, optimizer, preprocess, chip_costs=costs))
    state = jax.eval_shape(lambda: init_state(network, optimizer, 0))
    batch = (
        jax.ShapeDtypeStruct((64, 32, 32, 3), jnp.uint8),
        jax.ShapeDtypeStruct((64,), jnp.int32),
    )
    design = Design(bn_mask=network.mask(()), chip=reram_gpu.deeptrain())
    design = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), design)
    exported = export.export(step, platforms=["tpu", "cuda"])(state, batch, design)
    assert exported.platforms == ("tpu", "cuda")
    assert "stablehlo.convolution" in exported.mlir_module()
