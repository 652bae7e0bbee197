"""One call with a network, data and a chip of one's own, and what it refuses."""

import dataclasses
import json
import pathlib
import re
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from codesign import models, workload
from codesign.data import Dataset
from codesign.hardware import Chip, Cost, chips
from codesign.numerics.relax import smooth
from codesign.report import Results
from codesign.studies import brought
from codesign.studies.deeptrain import placement
from codesign.training import TrainConfig

_ROOT = pathlib.Path(__file__).parents[3]
_CONFIG = dataclasses.replace(
    placement.PRESETS["smoke"],
    preset="own",
    train=TrainConfig(epochs=1, batch_size=16, learning_rate=0.1),
    num_evaluations=4,
    num_seeds=1,
    max_seeds=1,
)


class Net(nn.Module):
    """Two sites and dropout."""

    features: int = 8
    RATE = 0.1  # no field, as a literal is none

    @nn.compact
    def __call__(self, x, bn_mask, *, train):
        for site in range(2):
            x = nn.Conv(self.features, (3, 3), strides=2)(x)
            x = nn.relu(models.MaskedBatchNorm(site)(x, bn_mask, train=train))
        x = nn.Dropout(self.RATE, deterministic=not train)(x)
        return nn.Dense(3)(x.mean((1, 2)))


@struct.dataclass
class Lanes:
    """MACs and norms one after another."""

    macs_per_s: float
    norms_per_s: float


def _lanes(spec, ops, *, batch_size, relax):
    norms = ops.select("norm").elements.sum() / spec.norms_per_s
    latency_s = batch_size * (3 * ops.macs.sum() / spec.macs_per_s + norms)
    return Cost(latency_s=latency_s, energy_j=latency_s * 2.0)


def _given(**changes):
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    images = rng.normal(labels[:, None, None, None] - 1.0, 0.3, (120, 8, 8, 1))
    given = dict(
        network=models.Network(Net(), image_shape=(8, 8, 1), num_classes=3),
        dataset=Dataset.from_arrays(images, labels),
        chip=Chip(Lanes(1e9, 1e7), _lanes),
    )
    return given | changes


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with everything of one's own."""
    workdir = tmp_path_factory.mktemp("own")
    return workdir, placement.run(_CONFIG, workdir=workdir, **_given())


def test_one_call_with_everything_of_ones_own(finished):
    workdir, result = finished
    assert result.found.shape == (2,)
    assert set(result.found.tolist()) <= {0, 1}
    assert result.num_step_traces == 1
    rows = result.rows
    assert set(rows) == {"all_bn", "no_bn", "bo_n"}
    # 5 x 5... maps of 4x4x8 and 2x2x8: 160 elements through norms at 1e7 a second.
    gap_s = rows["all_bn"].period_s - rows["no_bn"].period_s
    assert gap_s == pytest.approx(160 / 1e7, rel=1e-4)
    assert rows["all_bn"].energy_j == pytest.approx(2 * rows["all_bn"].period_s)
    slope = rows["all_bn"].metrics.cost_gradients["energy_j"]
    assert slope.chip.norms_per_s < 0
    # Joules of a batch of 16 by the first norm, and by the second.
    np.testing.assert_allclose(
        slope.bn_mask, [2 * 16 * 128e-7, 2 * 16 * 32e-7], rtol=1e-4
    )
    page = (workdir / "report.html").read_text()
    for text in ("Net on arrays, Lanes", "What 1 % more of each knob of Lanes changes"):
        assert text in page
    for text in ("DeepTrain", "ReRAM", "The published placements", "vgg"):
        assert text not in page
    results = json.loads((workdir / "results.json").read_text())
    (knobs,) = results["sensitivities"].values()
    assert {k["knob"] for k in knobs} == {"macs_per_s", "norms_per_s"}
    assert not any(q["paper"] for q in results["quantities"])


def test_the_same_call_again_finds_the_same(finished):
    workdir, result = finished
    again = placement.run(_CONFIG, workdir=workdir, **_given())
    np.testing.assert_array_equal(again.found, result.found)
    assert again.rows["bo_n"].test == result.rows["bo_n"].test


@pytest.mark.parametrize(
    "changes",
    [
        {"network": models.Network(Net(9), image_shape=(8, 8, 1), num_classes=3)},
        {"chip": Chip(Lanes(2e9, 1e7), _lanes)},
        {"chip": chips.by_name("roofline:Titan Xp")},
        {"dataset": None},
    ],
)
def test_a_workdir_of_something_else_is_refused(finished, changes):
    given = _given(**changes)
    if given["dataset"] is None:
        images, labels = (
            np.random.default_rng(1).random((120, 8, 8, 1)),
            np.arange(120) % 3,
        )
        given["dataset"] = Dataset.from_arrays(images, labels)
    with pytest.raises(ValueError, match=r"made with other settings:[\s\S]*brought"):
        placement.run(_CONFIG, workdir=finished[0], **given)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["roofline:Titan Xp", "memory:A100"])
def test_a_chip_by_name_costs_ones_own_network(name, tmp_path):
    given = _given(chip=chips.by_name(name))
    placement.run(_CONFIG, workdir=tmp_path, **given)
    values = {
        q.key: q.value for q in Results.read(tmp_path / "results.json").quantities
    }
    assert values["train_step_traces"] == 1
    assert values["energy_j[all_bn]"] >= values["energy_j[no_bn]"] > 0
    page = (tmp_path / "report.html").read_text()
    says_so = "the same with all batch norms and with none" in re.sub(r"\s+", " ", page)
    assert says_so == (name == "memory:A100")


def _tiny_chip(spec, ops, *, batch_size, relax):
    cost = _lanes(spec, ops, batch_size=batch_size, relax=relax)
    return dataclasses.replace(
        cost, feasible=jnp.array(False), violation=jnp.array(0.5)
    )


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"network": Net()}, TypeError, r"`network` must be made by `models.Network\("),
        ({"dataset": (1, 2)}, TypeError, r"`dataset` must be made by `Dataset.from_ar"),
        ({"chip": "deeptrain:3R1G"}, TypeError, r"`chip` must be made by `Chip\("),
        (
            {"network": models.Network(Net(), image_shape=(9, 8, 1), num_classes=3)},
            ValueError,
            r"\(8, 8, 1\) images of 3 classes, but `network` takes \(9, 8, 1\)",
        ),
        (
            {
                "chip": Chip(
                    Lanes(1e9, 1e7), lambda spec, ops, *, batch_size, relax: 3.0
                )
            },
            TypeError,
            "returned float; return a `codesign.hardware.Cost",
        ),
        (
            {"chip": Chip(Lanes(1e9, 1e7), _tiny_chip)},
            ValueError,
            "`chip` .=Lanes. cannot run 'Net' even without batch norms.* by 50%",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(changes, error, match, tmp_path):
    with pytest.raises(error, match=match):
        placement.run(_CONFIG, workdir=tmp_path / "run", **_given(**changes))
    assert not (tmp_path / "run").exists()


def test_labels_beyond_the_networks_classes_are_refused(tmp_path):
    images, labels = np.random.default_rng(0).random((120, 8, 8, 1)), np.arange(120) % 4
    given = _given(dataset=Dataset.from_arrays(images, labels))
    with pytest.raises(ValueError, match=r"of 4 classes, but `network` takes .* and 3"):
        placement.run(_CONFIG, workdir=tmp_path / "run", **given)


def test_several_networks_have_another_door(tmp_path):
    config = dataclasses.replace(_CONFIG, networks=("vgg11", "vgg16"))
    with pytest.raises(ValueError, match=r"must name one network here; `STUDY.run"):
        placement.run(config, workdir=tmp_path / "run")


def test_a_joint_descent_by_hand():
    network = models.create("vgg11", width=0.25, image_shape=(32, 32, 1))
    ops = workload.trace(*network.trace_args())
    chip = chips.by_name("deeptrain:3R1G")

    def objective(logs, logits):
        spec = jax.tree.map(jnp.exp, logs)
        masked = ops.masked(jax.nn.sigmoid(logits))
        cost = chip.estimate(spec, masked, batch_size=64, relax=smooth(0.1))
        return sum(map(jnp.log, (cost.latency_s, cost.energy_j, cost.area_m2)))

    step = jax.jit(jax.value_and_grad(objective, (0, 1)))
    logs, logits = jax.tree.map(jnp.log, chip.spec), jnp.zeros(8)
    values = []
    for _ in range(10):
        value, (by_chip, by_mask) = step(logs, logits)
        for leaf in jax.tree.leaves((by_chip, by_mask)):
            assert np.all(np.isfinite(leaf))
            assert np.all(leaf != 0)
        logs = jax.tree.map(lambda x, g: x - 0.02 * jnp.sign(g), logs, by_chip)
        logits -= 0.1 * jnp.sign(by_mask)
        values.append(float(value))
    assert np.all(np.diff(values) < 0)


class Loud(Net):
    """The same fields, another rate."""

    RATE = 0.2


def test_digests_see_what_training_sees():
    given = _given()
    base = brought.digests(**given, batch_size=64)
    assert base == brought.digests(**_given(), batch_size=64)
    Loud.__name__ = Loud.__qualname__ = "Net"
    louder = models.Network(Loud(), image_shape=(8, 8, 1), num_classes=3)

    def _lanes(spec, ops, *, batch_size, relax):  # of the same name
        cost = globals()["_lanes"](spec, ops, batch_size=batch_size, relax=relax)
        return dataclasses.replace(cost, energy_j=cost.latency_s * 3.0)

    _lanes.__qualname__ = "_lanes"
    data = given["dataset"]
    for change in (
        {"network": louder},
        {"chip": Chip(Lanes(1e9, 1e7), _lanes)},
        {"dataset": dataclasses.replace(data, std=(2.0,))},
    ):
        assert brought.digests(**(given | change), batch_size=64) != base


class Turned(Net):
    """As it is trained, but evaluated otherwise."""

    @nn.compact
    def __call__(self, x, bn_mask, *, train):
        logits = super().__call__(x, bn_mask, train=train)
        return logits if train else -logits


def test_digests_see_what_evaluation_sees_and_the_runs_own_batch():
    Turned.__name__ = Turned.__qualname__ = "Net"
    network = models.Network(Turned(), image_shape=(8, 8, 1), num_classes=3)
    given = _given()
    base = brought.digests(network=given["network"], batch_size=64)
    assert brought.digests(network=network, batch_size=64) != base

    def estimate(spec, ops, *, batch_size, relax):
        cost = _lanes(spec, ops, batch_size=batch_size, relax=relax)
        factor = 5.0 if batch_size < 64 else 1.0
        return dataclasses.replace(cost, energy_j=cost.energy_j * factor)

    chip = Chip(Lanes(1e9, 1e7), estimate)
    found = {brought.digests(chip=chip, batch_size=size) for size in (32, 64)}
    assert len(found) == 2


def test_a_preset_is_no_name():
    with pytest.raises(TypeError, match="`config` must be a `PlacementConfig`.*smoke"):
        placement.run("smoke", workdir="nowhere")  # pyright: ignore[reportArgumentType]


@struct.dataclass
class Odd:
    """Array and integer leaves."""

    rates: tuple = (1e9, 2e9)
    lanes: int = 4


@pytest.mark.slow
def test_any_pytree_and_a_chip_that_models_no_energy(tmp_path):
    def estimate(spec, ops, *, batch_size):
        latency_s = batch_size * ops.macs.sum() / (sum(spec.rates) * spec.lanes)
        return Cost(latency_s=latency_s, energy_j=0.0)

    chip = Chip(Odd((np.array([1e9, 2e9]), 1e9)), estimate)
    with pytest.raises(ValueError, match=r"`latency_s` of shape \(2,\)"):
        placement.run(_CONFIG, workdir=tmp_path, **_given(chip=chip))
    result = placement.run(
        _CONFIG, workdir=tmp_path, **_given(chip=Chip(Odd(), estimate))
    )
    assert result.rows["bo_n"].energy_j == 0


def test_a_chip_that_is_not_finite_where_a_search_goes_is_refused(tmp_path):
    def estimate(spec, ops, *, batch_size, relax):
        norms = jnp.sqrt(ops.select("norm").elements.sum())  # endless slope at 0
        return Cost(latency_s=batch_size * (1e-3 + norms), energy_j=1.0)

    chip = Chip(Lanes(1e9, 1e7), estimate)
    with pytest.raises(
        ValueError, match=r"`chip` \(=Lanes\): with no batch norm the sm"
    ):
        placement.run(_CONFIG, workdir=tmp_path / "run", **_given(chip=chip))

    def only_smooth(spec, ops, *, batch_size, relax):
        cost = _lanes(spec, ops, batch_size=batch_size, relax=relax)
        return cost if relax.is_exact else dataclasses.replace(cost, area_m2=1.0)

    chip = Chip(Lanes(1e9, 1e7), only_smooth)
    with pytest.raises(
        ValueError, match=r"only its smooth model returns \['area_m2'\]"
    ):
        placement.run(_CONFIG, workdir=tmp_path / "run", **_given(chip=chip))
    assert not (tmp_path / "run").exists()


def test_the_frames_door_knows_nothing_of_ones_own(tmp_path):
    with pytest.raises(ValueError, match=r"goes to `placement.run`"):
        placement.STUDY.run(_CONFIG, workdir=tmp_path / "run", **_given())


@pytest.mark.slow
def test_the_readmes_example_runs(tmp_path):
    example = re.findall(
        r"```python\n(.*?)```", (_ROOT / "README.md").read_text(), re.S
    )[0]
    lines = [line for line in example.splitlines() if line.strip()]
    assert len(lines) <= 30
    assert not re.search(r"codesign[\w.]*\._|import _", example)  # nothing private
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", example],
        cwd=tmp_path, env=None, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    found, slopes = run.stdout.splitlines()[-2:]
    assert re.match(r"\[[01] [01] [01]\] 0\.0", found)
    assert "macs_per_s=" in slopes
    assert "nan" not in slopes
