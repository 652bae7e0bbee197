"""Training in number formats: master weights, widths that move, runs that resume."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codesign import data, models
from codesign.models.formats import Formats, InFormats
from codesign.numerics import bfp, formats
from codesign.objective import Design
from codesign.training import CheckpointStore, TrainConfig, Trainer

_RANDOM = bfp.Format(mantissa_bits=4, bias="tensor", rounding="stochastic")

_KEPT = Formats(weights=_RANDOM, master=_RANDOM)


class _Small(nn.Module):
    @nn.compact
    def __call__(self, x, bn_mask, *, train):
        x = nn.relu(nn.Dense(16)(x.reshape(len(x), -1)))
        x = models.MaskedBatchNorm(0)(x, bn_mask, train=train)
        return nn.Dense(10)(x)


@functools.cache
def _trainer(chosen):
    dataset = data.load("digits", image_size=8, num_train=320)
    module = _Small() if chosen is None else InFormats(_Small(), chosen)
    network = models.Network(module, image_shape=(8, 8, 1))
    config = TrainConfig(
        epochs=2, batch_size=64, learning_rate=0.1, stop_at_chance=None
    )
    return Trainer(network, dataset, config)


def _design(bits=None):
    return Design(bn_mask=jnp.ones(1), mantissa_bits=bits)


@pytest.mark.slow
def test_a_run_ends_in_numbers_of_the_master_format():
    trainer = _trainer(_KEPT)
    result = trainer.train(_design(), seed=0)
    assert result.history[1]["loss"] < result.history[0]["loss"]
    exact = dataclasses.replace(_RANDOM, rounding="truncate")
    for layer in ("Dense_0", "Dense_1"):
        params = result.state.params[layer]
        kept = formats.cast(params["kernel"], exact, -2)
        np.testing.assert_array_equal(params["kernel"], kept)
        assert np.any(params["bias"] != formats.cast(params["bias"], exact))


class _KilledError(Exception):
    pass


def test_a_run_that_resumes_ends_in_the_same_bits(tmp_path, monkeypatch):
    trainer = _trainer(_KEPT)
    expected = trainer.train(_design(), seed=0)
    store, saves = CheckpointStore(tmp_path), []
    save = store.save

    def killing_save(*args):
        save(*args)
        saves.append(args)
        if len(saves) == 3:
            raise _KilledError

    monkeypatch.setattr(store, "save", killing_save)
    with pytest.raises(_KilledError):
        trainer.train(_design(), seed=0, store=store, checkpoint_every_s=0.0)
    resumed = trainer.train(_design(), seed=0, store=CheckpointStore(tmp_path))
    pairs = zip(
        jax.tree.leaves(resumed.state), jax.tree.leaves(expected.state), strict=True
    )
    for ours, theirs in pairs:
        np.testing.assert_array_equal(ours, theirs)
    plain = _trainer(None)
    with pytest.raises(ValueError, match="another run, of `network`"):
        plain.train(_design(), seed=0, store=CheckpointStore(tmp_path))


@pytest.mark.slow
def test_widths_move_without_another_trace():
    trainer, seen = _trainer(Formats.of("bfp3")), []

    def on_step(design, metrics, steps):
        seen.append((design.mantissa_bits, metrics.loss_bits_gradient))
        return design.replace(mantissa_bits=design.mantissa_bits + 0.125)

    result = trainer.train(_design(jnp.array([2.5, 3.0])), seed=0, on_step=on_step)
    assert trainer.num_step_traces == 1
    assert len(seen) == 2 * trainer.steps_per_epoch
    np.testing.assert_allclose(
        result.design.mantissa_bits, jnp.array([2.5, 3.0]) + len(seen) / 8
    )
    slopes = np.array([slope for _, slope in seen])
    assert slopes.shape == (len(seen), 2)
    assert np.all(np.isfinite(slopes))
    assert np.all(np.any(slopes != 0, 0))
    np.testing.assert_array_equal(result.last_step.loss_bits_gradient, slopes[-1])
    last = slopes[-trainer.steps_per_epoch :].mean(0)
    np.testing.assert_allclose(
        result.last_epoch.loss_bits_gradient, last, rtol=1e-3, atol=1e-7
    )


def test_without_widths_there_is_no_slope_of_them():
    result = _trainer(_KEPT).train(_design(), seed=0)
    assert result.last_step.loss_bits_gradient is None


@pytest.mark.parametrize("bits", [0.5, 24.0, np.nan, [4.0, 4.0, 4.0], [4.0, 0.0]])
def test_widths_out_of_range_or_shape_are_refused(bits):
    design = _design(np.array(bits))
    with pytest.raises(ValueError, match=r"`design.mantissa_bits` must.*from 1 to 23"):
        _trainer(Formats.of("bfp3")).train(design, seed=0)


def test_a_hook_that_moves_widths_out_of_range_is_refused():
    def on_step(design, metrics, steps):
        return design.replace(mantissa_bits=design.mantissa_bits - 2)

    design, trainer = _design(jnp.array([2.5, 3.0])), _trainer(Formats.of("bfp3"))
    with pytest.raises(ValueError, match="a hook that moves it must clip it"):
        trainer.train(design, seed=0, on_step=on_step)


@pytest.mark.parametrize(
    ("chosen", "error", "match"),
    [
        (Formats(), ValueError, "`mantissa_bits` needs.*`weights` is float32"),
        (
            Formats.of({"weights": "bfp3", "activations": "mxint8"}),
            ValueError,
            "`activations` is mxint8",
        ),
        (None, TypeError, "mantissa_bits"),
    ],
)
def test_widths_need_formats_that_have_them(chosen, error, match):
    with pytest.raises(error, match=match):
        _trainer(chosen).train(_design(4.0), seed=0)
