"""What is no number, no name or no path is refused by its argument's name, everywhere."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest

from codesign import models
from codesign.data import Dataset, Split, load
from codesign.hardware import chips, memory, reram_gpu
from codesign.numerics.relax import smooth
from codesign.report import Progress, Quantity, Results
from codesign.search import bqp
from codesign.training import CheckpointStore, TrainConfig
from codesign.training.config import make_optimizer
from codesign.types import is_number

_ARRAY = np.array([1.0, 2.0])
_NO_COUNTS = ("three", None, True, _ARRAY, [1], math.nan, math.inf, 2.5)
_NO_RATES = ("three", None, True, _ARRAY, [1], math.nan, math.inf, 10**400)
_NO_LEAVES = ("three", None, True, math.nan, math.inf, 10**400)  # arrays are of `vmap`
_NO_NAMES = (3, None, True, _ARRAY, ["name"], math.nan, b"name")
_MEMORY, _STACK = memory.SYSTEMS["A100"], reram_gpu.deeptrain()
_IMAGES, _LABELS = np.zeros((40, 4, 4, 1), np.uint8), np.arange(40, dtype=np.int32) % 2


def _refused(takers, values):
    for name, take in takers.items():
        for value in values:
            yield pytest.param(take, name, value, id=f"{name}-{str(value)[:20]}")


@pytest.mark.parametrize(
    ("take", "name", "value"),
    [
        *_refused(
            {
                "operation_energy_j": lambda v: dataclasses.replace(
                    _MEMORY, operation_energy_j=v
                ).checked(),
                "gpu_clock_hz": lambda v: dataclasses.replace(
                    _STACK, gpu_clock_hz=v
                ).checked(),
            },
            _NO_LEAVES,
        ),
        *_refused(
            {
                "value_bits": lambda v: dataclasses.replace(
                    _MEMORY, value_bits=v
                ).checked(),
                "keep": lambda v: CheckpointStore("unused", keep=v),
                "num_classes": lambda v: models.create("vgg11", num_classes=v),
                "image_shape": lambda v: models.create("vgg11", image_shape=v),
                "hidden": lambda v: models.create("gnmt", hidden=v),
                "image_size": lambda v: load("digits", image_size=v),
                "seed": lambda v: Dataset.from_arrays(_IMAGES, _LABELS, seed=v),
                "total_steps": lambda v: Progress(v, "work"),
            },
            _NO_COUNTS,
        ),
        *_refused(
            {
                "R": lambda v: reram_gpu.deeptrain(v, 1),
                "learning_rate": lambda v: make_optimizer(
                    TrainConfig(learning_rate=v), 10
                ),
                "momentum": lambda v: make_optimizer(TrainConfig(momentum=v), 10),
                "weight_decay": lambda v: make_optimizer(
                    TrainConfig(weight_decay=v), 10
                ),
                "temperature": smooth,
                "width": lambda v: models.create("vgg11", width=v),
                "wall_s": lambda v: Results(
                    experiment="a", preset="b", seed=0, environment={}, wall_s=v,
                    quantities=[],
                ),
            },
            _NO_RATES,
        ),
        *_refused(
            {
                "chip": chips.by_name,
                "stack": chips.parse_stack,
                "prefetch": lambda v: memory.Policy(prefetch=v),
                "network": models.create,
                "initialisation": lambda v: models.create("vgg11", initialisation=v),
                "name": load,
                "optimizer": lambda v: TrainConfig(optimizer=v).checked(),
                "kind": lambda v: Quantity("a", 1.0, kind=v),
                "method": lambda v: bqp.solve(np.eye(2), np.zeros(2), v),
                "images": lambda v: Split(images=v, labels=_LABELS),
                "labels": lambda v: Split(images=_IMAGES, labels=v),
            },
            _NO_NAMES,
        ),
        *_refused(
            {
                "quadratic": lambda v: bqp.solve(v, np.zeros(2)),
                "linear": lambda v: bqp.solve(np.eye(2), v),
            },
            ("three", None, 1j * _ARRAY, [10**400, 0], [[1], [1, 2]], math.nan),
        ),
        *_refused({"directory": CheckpointStore}, (3, None, True, _ARRAY, math.nan)),
        *_refused({"data_dir": lambda v: load("mnist", data_dir=v)}, (3, True, "", [])),
    ],
)  # fmt: skip
def test_what_is_of_another_kind_is_refused_by_name(take, name, value):
    if name == "image_size" and value is None:
        return  # the size of the set itself
    with pytest.raises(ValueError, match=rf"`(spec\.)?{name}`"):
        take(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((v, True) for v in (1, 0.5, np.int8(1), np.float32(1), jnp.ones(()))),
        *((v, True) for v in (np.array(2.0), jnp.bfloat16(1), math.nan)),
        *(
            (v, False)
            for v in (True, 10**400, np.bool_(1), None, "1", 1j, jnp.ones(1), [1])
        ),
    ],
)
def test_a_number_is_one_real_one(value, expected):
    assert is_number(value) == expected
