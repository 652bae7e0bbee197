"""Runs of a tiny network on real digits."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codesign import data, models, workload
from codesign.hardware import reram_gpu
from codesign.objective import Design, chip_costs
from codesign.training import CheckpointStore, TrainConfig, Trainer


@functools.cache
def _digits():
    return data.load("digits", image_size=8, num_train=320)


@pytest.fixture(scope="module")
def make_trainer(tiny_network):
    """Trainers by their settings; the same settings share one compiled step."""

    @functools.cache
    def make(**settings):
        settings = dict(epochs=4, batch_size=32, learning_rate=0.1) | settings
        return Trainer(tiny_network, _digits(), TrainConfig(**settings))

    return make


def _design(*sites):
    return Design(bn_mask=jnp.zeros(3).at[jnp.array(sites, int) - 1].set(1.0))


_ALL = (1, 2, 3)


def _train(trainer, design, **settings):
    return trainer.train(design, seed=0, **settings)


def test_a_run_learns(make_trainer):
    result = _train(make_trainer(), _design(*_ALL))
    assert result.status == "trained"
    assert result.validation_accuracy > 0.8
    assert [entry["epoch"] for entry in result.history] == [1, 2, 3, 4]


@pytest.mark.slow
def test_a_run_that_stays_at_chance_is_stopped(make_trainer):
    result = _train(make_trainer(learning_rate=1e-9), _design())
    assert result.status == "at_chance"
    assert len(result.history) == 2
    assert "after epoch 2 of 4, chance being 0.1" in result.reason
    patient = _train(make_trainer(learning_rate=1e-9, stop_at_chance=None), _design())
    assert patient.status == "trained"
    assert len(patient.history) == 4


def test_one_trace_serves_placements_and_seeds(make_trainer):
    trainer = make_trainer()
    for sites in (_ALL, (2, 3), (1,)):
        trainer.train(_design(*sites), seed=3)
    assert trainer.num_step_traces == 1


def test_the_same_seed_gives_the_same_bits_and_another_does_not(make_trainer):
    trainer = make_trainer()
    first, again = (_train(trainer, _design(*_ALL)) for _ in range(2))
    for a, b in zip(
        jax.tree.leaves(first.state), jax.tree.leaves(again.state), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    other = trainer.train(_design(*_ALL), seed=1)
    assert not np.array_equal(
        first.state.params["conv1"]["kernel"], other.state.params["conv1"]["kernel"]
    )


class _KilledError(Exception):
    pass


@pytest.mark.parametrize("saves_before_kill", [1, 5, 12, 23])
def test_resuming_anywhere_gives_the_same_bits(
    tmp_path, saves_before_kill, monkeypatch, make_trainer
):
    trainer = make_trainer()
    expected = _train(trainer, _design(2, 3))

    store = CheckpointStore(tmp_path)
    save, count = store.save, 0

    def killing_save(*args):
        nonlocal count
        save(*args)
        count += 1
        if count == saves_before_kill:
            raise _KilledError

    monkeypatch.setattr(store, "save", killing_save)
    # A checkpoint after every step: kills land within epochs and at their ends.
    with pytest.raises(_KilledError):
        _train(trainer, _design(2, 3), store=store, checkpoint_every_s=0.0)
    resumed = _train(trainer, _design(2, 3), store=CheckpointStore(tmp_path))
    assert resumed.history == expected.history
    assert resumed.test_accuracy == expected.test_accuracy
    for a, b in zip(
        jax.tree.leaves(resumed.state), jax.tree.leaves(expected.state), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_a_complete_run_is_not_trained_again(tmp_path, make_trainer):
    trainer = make_trainer()
    store = CheckpointStore(tmp_path)
    first = _train(trainer, _design(1), store=store)
    seen = []
    again = _train(trainer, _design(1), store=store, on_epoch=lambda *a: seen.append(a))
    assert again.history == first.history
    assert seen == [(entry, False) for entry in first.history]


@pytest.fixture
def begin_scaled(monkeypatch, make_trainer):
    """The shared trainer, with initial kernels that are `scale` times too large."""

    def begin(scale):
        trainer = make_trainer()
        init = trainer._init

        def scaled(seed):
            state = init(seed)
            params = jax.tree.map(lambda x: x * scale, state.params)
            return dataclasses.replace(state, params=params)

        monkeypatch.setattr(trainer, "_init", scaled)
        return trainer

    return begin


def test_a_loss_that_is_not_finite_ends_the_run(begin_scaled):
    result = _train(begin_scaled(1e20), _design(2, 3))
    assert result.status == "diverged"
    assert "not finite at step 0" in result.reason
    assert np.isnan(result.validation_accuracy)
    finite = jax.tree.map(lambda x: bool(jnp.all(jnp.isfinite(x))), result.state.params)
    assert all(jax.tree.leaves(finite))  # the bad update was not applied


def test_a_loss_that_explodes_but_stays_finite_ends_the_run(begin_scaled):
    # Without norms four layers of kernels ten times too large: logits of the order 1e3.
    result = _train(begin_scaled(10.0), _design())
    assert result.status == "diverged"
    assert "more than 10 times that of guessing (2.30)" in result.reason
    assert len(result.history) == 1


@pytest.mark.parametrize(
    ("optimizer", "schedule"),
    [("sgd", "constant"), ("sgd", "step"), ("adam", "cosine")],
)
@pytest.mark.slow
def test_optimizers_and_schedules_learn(optimizer, schedule, make_trainer):
    rate = {"sgd": 0.1, "adam": 0.01}[optimizer]
    trainer = make_trainer(optimizer=optimizer, schedule=schedule, learning_rate=rate)
    result = _train(trainer, _design(*_ALL))
    assert result.history[-1]["loss"] < 0.75 * result.history[0]["loss"]


@pytest.mark.slow
def test_scanning_the_steps_gives_the_same_run(monkeypatch, make_trainer, tiny_network):
    expected = _train(make_trainer(), _design(*_ALL))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    config = TrainConfig(epochs=4, batch_size=32, learning_rate=0.1)
    scanning = Trainer(tiny_network, _digits(), config)
    scanned = _train(scanning, _design(*_ALL))
    assert scanning.num_step_traces == 1
    loss = expected.history[0]["loss"]
    np.testing.assert_allclose(scanned.history[0]["loss"], loss, rtol=1e-3)


def test_the_chip_is_part_of_the_step(tiny_network):
    ops = workload.trace(*tiny_network.trace_args())
    costs = chip_costs(ops, reram_gpu.estimate, batch_size=32)
    config = TrainConfig(epochs=1, batch_size=32, learning_rate=0.1)
    trainer, phases = Trainer(tiny_network, _digits(), config, chip_costs=costs), []
    for sites, r, g in ((_ALL, 3, 1), ((1,), 2, 2)):
        design = _design(*sites).replace(chip=reram_gpu.deeptrain(r, g))  # pyright: ignore[reportAttributeAccessIssue]
        result = trainer.train(design, seed=0, on_phase=phases.append)
        assert result.status in ("trained", "at_chance")
    assert trainer.num_step_traces == 1
    assert phases == ["compiling", "training"]  # the second run finds it compiled


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"epochs": 0}, "`epochs` must be >= 1, got 0"),
        ({"epochs": 2.5}, "`epochs` must be a whole number, got 2.5"),
        ({"batch_size": 0}, "`batch_size`"),
        ({"batch_size": 10_000}, "`batch_size` .=10000. exceeds the 320 training"),
        ({"learning_rate": 0.0}, "`learning_rate` must be > 0"),
        ({"learning_rate": float("nan")}, "`learning_rate` must be a finite number"),
        ({"momentum": 1.0}, "`momentum` must be < 1, got 1.0"),
        ({"optimizer": "lion"}, "`optimizer` .='lion'. must be one of"),
        ({"schedule": "linear"}, "`schedule` .='linear'. must be one of"),
        ({"stop_at_chance": 0.0}, "`stop_at_chance`"),
    ],
)
def test_refuses(settings, match, tiny_network):
    settings = dict(epochs=1, batch_size=32) | settings
    with pytest.raises(ValueError, match=match):
        Trainer(tiny_network, _digits(), TrainConfig(**settings))


def test_refuses_a_data_set_of_another_shape():
    other = models.create("vgg11", width=0.0625, image_shape=(32, 32, 1))
    with pytest.raises(ValueError, match=r"\(8, 8, 1\).*\(32, 32, 1\)"):
        Trainer(other, _digits(), TrainConfig())
