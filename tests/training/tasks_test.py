"""What a network learns besides classes of images: numbers, texts, by frozen weights."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from codesign import models
from codesign.data.augment import Augmentation
from codesign.data.dataset import Dataset, Split
from codesign.models.digest import digest
from codesign.objective import Design
from codesign.training import CheckpointStore, TrainConfig, Trainer, task


class Bag(nn.Module):
    """The mean of embedded tokens, shifted by a frozen vector."""

    num_classes: int

    @nn.compact
    def __call__(self, x, bn_mask, *, train):
        shift = self.variable("frozen", "shift", jnp.ones, (8,)).value
        y = nn.Embed(20, 8)(x).mean(1) + jax.lax.stop_gradient(shift)[None]
        return nn.Dense(self.num_classes)(y)


def _texts(num_classes, seed=0, num=400):
    """Texts of 5 tokens, labelled by how often token 3 is in them."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, 20, (num, 5)).astype(np.int32)
    tokens = np.where(rng.random((num, 5)) < 0.3, np.int32(3), tokens)
    count = (tokens == 3).sum(1)
    if num_classes == 1:
        labels = count.astype(np.float32)
    else:
        labels = (count > 1).astype(np.int32)
    parts = {
        "train": slice(0, 240),
        "validation": slice(240, 320),
        "test": slice(320, 400),
    }
    splits = {name: Split(tokens[part], labels[part]) for name, part in parts.items()}
    return Dataset(
        name="texts",
        **splits,
        num_classes=num_classes,
        mean=(),
        std=(),
        augmentation=Augmentation(),
        class_names=(),
    )


def _network(num_classes, shift=1.0):
    frozen = {"frozen": {"shift": jnp.full(8, shift)}}
    return models.Network(Bag(num_classes), 0, (5,), num_classes, frozen=frozen)


_CONFIG = TrainConfig(epochs=6, batch_size=16, optimizer="adam", learning_rate=0.02)
_DESIGN = Design(bn_mask=jnp.zeros(0))


@pytest.mark.parametrize("num_classes", [2, 1])
def test_texts_are_classified_and_scored(num_classes):
    trainer = Trainer(_network(num_classes), _texts(num_classes), _CONFIG)
    result = trainer.train(_DESIGN, seed=0)
    assert result.status == "trained"
    assert result.test_accuracy > 0.85  # of a regression a correlation
    assert trainer.num_step_traces == 1


def test_frozen_variables_stay_and_are_in_no_checkpoint(tmp_path):
    network = _network(2)
    trainer = Trainer(network, _texts(2), _CONFIG)
    store = CheckpointStore(tmp_path)
    first = trainer.train(_DESIGN, seed=0, store=store)
    again = trainer.train(_DESIGN, seed=0)  # whose frozen arrays no step has eaten
    np.testing.assert_array_equal(
        first.state.params["Dense_0"]["kernel"], again.state.params["Dense_0"]["kernel"]
    )
    np.testing.assert_array_equal(network.frozen["frozen"]["shift"], np.ones(8))
    assert "frozen" not in jax.tree_util.keystr(
        tuple(path for path, _ in jax.tree_util.tree_leaves_with_path(first.state))
    )
    other = Trainer(_network(2, shift=2.0), _texts(2), _CONFIG)
    with pytest.raises(ValueError, match="`network`"):
        other.train(_DESIGN, seed=0, store=store)


def test_what_is_frozen_is_part_of_a_networks_digest_but_not_its_objects():
    assert digest(_network(2)) == digest(_network(2))
    assert digest(_network(2)) != digest(_network(2, shift=2.0))
    bare = dataclasses.replace(_network(2), num_classes=2)
    assert digest(bare) == digest(_network(2))


def test_a_score_is_right_answers_or_the_mean_of_two_correlations():
    labels = np.array([0, 1, 2, 2], np.int32)
    assert task.score(np.array([0, 1, 1, 2.0]), labels) == 0.75
    numbers = np.array([1.0, 2, 3, 4], np.float32)
    found = np.array([1.0, 4, 9, 8])
    expected = (
        np.corrcoef(found, numbers)[0, 1] + stats.spearmanr(found, numbers)[0]
    ) / 2
    assert task.score(found, numbers) == pytest.approx(expected)
    assert task.score(np.ones(4), numbers) == 0


def test_losses_are_cross_entropies_or_squares():
    logits = jnp.array([[0.0, 0.0], [np.log(3.0), 0.0]])
    found = task.losses(logits, jnp.array([0, 0], jnp.int32))
    np.testing.assert_allclose(found, [np.log(2), np.log(4 / 3)], rtol=1e-6)
    found = task.losses(jnp.array([[1.5], [0.0]]), jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(found, [0.25, 4.0])


def test_guessing_is_known_of_classes_and_of_numbers():
    images = np.zeros((4, 2, 2, 1), np.float32)
    classes = Split(images, np.array([0, 1, 1, 1], np.int32))
    assert task.of_guessing(classes, 2) == (0.75, np.log(2))
    numbers = Split(images, np.array([0, 0, 2, 2], np.float32))
    assert task.of_guessing(numbers, 1) == (0.0, 1.0)
