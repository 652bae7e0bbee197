"""Runs of a tiny network on real digits."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codesign import data, models, workload
from codesign.hardware import reram_gpu
from codesign.numerics.relax import smooth
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


@pytest.fixture(scope="module")
def chip_trainer(tiny_network):
    """A trainer whose steps cost a stack, smoothly."""
    ops = workload.trace(*tiny_network.trace_args())
    costs = chip_costs(ops, reram_gpu.estimate, batch_size=32, relax=smooth(0.1))
    config = TrainConfig(epochs=2, batch_size=32, learning_rate=0.1)
    return Trainer(tiny_network, _digits(), config, chip_costs=costs)


def _on_stack(*sites):
    return Design(bn_mask=_design(*sites).bn_mask, chip=reram_gpu.deeptrain(3, 1))


def test_a_run_returns_what_its_steps_said_of_the_design(chip_trainer, tiny_network):
    design = _on_stack(2, 3)
    result = chip_trainer.train(design, seed=0)
    ops = workload.trace(*tiny_network.trace_args())
    costs = chip_costs(ops, reram_gpu.estimate, batch_size=32, relax=smooth(0.1))
    for said in (result.last_step, result.last_epoch):
        chex.assert_trees_all_close(dict(said.costs), dict(costs(design)), rtol=1e-5)
        wanted = jax.jacrev(costs)(jax.tree.map(jnp.float32, design))
        chex.assert_trees_all_close(said.cost_gradients, wanted, rtol=1e-4)
        assert said.loss_mask_gradient.shape == (3,)
    assert float(result.last_epoch.loss) == pytest.approx(result.history[-1]["loss"])
    # Of the last ten steps the loss and its gradient vary, and their mean is another.
    assert result.last_step.loss != result.last_epoch.loss
    assert np.any(result.last_step.loss_mask_gradient)
    assert result.design is not None


def test_the_mean_is_over_the_steps_of_the_last_epoch(chip_trainer):
    seen = []

    def look(design, metrics, taken):
        seen.append((taken, np.asarray(metrics.loss_mask_gradient)))
        return design

    result = chip_trainer.train(_on_stack(1, 2, 3), seed=1, on_step=look)
    assert [taken for taken, _ in seen] == list(range(1, 21))
    mean = np.mean([gradient for _, gradient in seen[10:]], axis=0)
    np.testing.assert_allclose(result.last_epoch.loss_mask_gradient, mean, rtol=1e-4)
    np.testing.assert_allclose(
        result.last_step.loss_mask_gradient, seen[-1][1], rtol=1e-6
    )


def _descend(design, metrics, taken):
    """A step down the loss by the mask, and down the energy by the clock."""
    mask = design.bn_mask - 0.1 * metrics.loss_mask_gradient
    slope = metrics.cost_gradients["energy_j"].chip.crossbar.read_time_s
    time_s = design.chip.crossbar.read_time_s
    crossbar = design.chip.crossbar.replace(
        read_time_s=time_s * jnp.exp(-0.01 * jnp.sign(slope))
    )
    chip = design.chip.replace(crossbar=crossbar)
    return Design(bn_mask=jnp.clip(mask, 0, 1), chip=chip)


def test_a_hook_moves_the_design_without_a_trace(chip_trainer):
    before = chip_trainer.num_step_traces
    result = chip_trainer.train(_on_stack(1, 2, 3), seed=2, on_step=_descend)
    assert chip_trainer.num_step_traces == max(before, 1)
    # 20 steps of 1 % each: the read takes exp(-0.2) of 100 ns.
    time_s = float(result.design.chip.crossbar.read_time_s)
    assert time_s == pytest.approx(1e-7 * np.exp(-0.2), rel=1e-4)
    first, last = (
        float(m.costs["energy_j"]) for m in (result.last_epoch, result.last_step)
    )
    assert last < first


def test_a_moved_design_resumes_where_it_was(chip_trainer, tmp_path):
    whole = chip_trainer.train(_on_stack(1, 2, 3), seed=3, on_step=_descend)
    store = CheckpointStore(tmp_path)

    class Killed(Exception):
        pass

    def die(design, metrics, taken):
        if taken == 14:
            raise Killed
        return _descend(design, metrics, taken)

    settings = dict(seed=3, store=store, checkpoint_every_s=0.0)
    with pytest.raises(Killed):
        chip_trainer.train(_on_stack(1, 2, 3), on_step=die, **settings)
    again = chip_trainer.train(_on_stack(1, 2, 3), on_step=_descend, **settings)
    chex.assert_trees_all_equal(again.state, whole.state)
    chex.assert_trees_all_equal(again.design, whole.design)
    chex.assert_trees_all_equal(again.last_epoch, whole.last_epoch)
    with pytest.raises(ValueError, match="`store` .* another run, of `placement`"):
        chip_trainer.train(_on_stack(1), **settings)


def test_a_hook_must_return_such_a_design(chip_trainer):
    with pytest.raises(ValueError, match="`on_step` must return a design like"):
        chip_trainer.train(
            _on_stack(1),
            seed=0,
            on_step=lambda design, *_: _design(1),
        )


def test_without_a_chip_a_step_says_its_loss(make_trainer):
    result = _train(make_trainer(), _design(*_ALL))
    assert result.last_epoch.costs == {}
    assert result.last_epoch.loss_mask_gradient is None
    assert float(result.last_epoch.loss) == pytest.approx(result.history[-1]["loss"])


def test_a_store_is_of_one_seed_and_one_start(chip_trainer, tmp_path):
    store = CheckpointStore(tmp_path)
    chip_trainer.train(_on_stack(1), seed=0, store=store)
    for design, seed, differs in (
        (_on_stack(1), 1, "`seed` 0, not 1;"),
        (_on_stack(2), 0, r"`placement` \[1.0, 0.0, 0.0\], not \[0.0, 1.0, 0.0\]"),
    ):
        for hook in (None, _descend):
            with pytest.raises(ValueError, match=f"holds another run, of {differs}"):
                chip_trainer.train(design, seed=seed, store=store, on_step=hook)


def test_nor_is_it_of_other_settings_or_data(make_trainer, tmp_path):
    store = CheckpointStore(tmp_path)
    _train(make_trainer(), _design(1), store=store)
    with pytest.raises(ValueError, match="of `settings` .*'learning_rate': 0.25"):
        _train(make_trainer(learning_rate=0.25), _design(1), store=store)


@pytest.mark.parametrize("mask", [[0.0, 1.5, 0.0], [0.0, -1.0, 0.0], [np.nan] * 3])
def test_a_mask_out_of_range_is_refused(chip_trainer, mask):
    design = Design(bn_mask=jnp.array(mask), chip=reram_gpu.deeptrain())
    with pytest.raises(ValueError, match=r"`design.bn_mask` must be \[C\] within"):
        chip_trainer.train(design, seed=0)
    with pytest.raises(ValueError, match="a hook that moves it must clip it"):
        chip_trainer.train(_on_stack(1), seed=0, on_step=lambda *_: design)
