import os
import pathlib
import random
import shutil
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codesign.training import CheckpointStore, checkpoint
from codesign.training.checkpoint import CheckpointDamagedWarning
from tests import fuzzing


def _state(value):
    key = jax.random.key(value)
    return {
        "weights": jax.random.normal(key, (5, 3)),
        "step": jnp.int32(value),
        "seed": jnp.uint32(2**32 - 1),
        "mask": jnp.zeros((0, 3)),  # of a network without norms
    }


def _files(directory):
    return sorted(p for p in pathlib.Path(directory).rglob("*") if p.is_file())


def _assert_equal(restored, expected):
    assert jax.tree.structure(restored) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_round_trip_keeps_bits_and_meta(tmp_path):
    store = CheckpointStore(tmp_path / "run")
    assert store.restore(_state(0)) is None
    store.save(3, _state(3), {"history": [0.1 + 0.2]})
    restored = CheckpointStore(tmp_path / "run").restore(_state(0))
    assert restored is not None
    _assert_equal(restored[0], _state(3))
    assert restored[1] == {"history": [0.1 + 0.2]}


def test_keeps_the_newest(tmp_path):
    store = CheckpointStore(tmp_path, keep=2)
    for step in (1, 2, 10):
        store.save(step, _state(step), {})
    assert store.steps() == [2, 10]
    store.clear()
    assert store.steps() == []


def test_every_single_bit_flip_of_24_is_detected(tmp_path):
    store = CheckpointStore(tmp_path / "good")
    store.save(1, _state(1), {"history": []})
    store.save(2, _state(2), {"history": []})
    rng = random.Random(0)
    files = _files(tmp_path / "good" / "2")
    # One in every file at least, the manifest and the metadata among them.
    targets = (files * 24)[: max(24, len(files))]
    for number, path in enumerate(targets):
        copy = tmp_path / f"flip{number}"
        shutil.copytree(tmp_path / "good", copy)
        victim = copy / path.relative_to(tmp_path / "good")
        content = bytearray(victim.read_bytes())
        if not content:
            content = bytearray(b"\0")  # an empty file can only grow
        bit = rng.randrange(8 * len(content))
        content[bit // 8] ^= 1 << bit % 8
        victim.write_bytes(content)
        damaged = CheckpointStore(copy)
        with pytest.warns(CheckpointDamagedWarning, match="fails its checksums"):
            restored = damaged.restore(_state(0))
        assert restored is not None
        _assert_equal(restored[0], _state(1))
        # Nothing is lost: the damaged step is there under another name.
        assert (copy / "2.damaged-1").is_dir()
        damaged.save(2, _state(2), {})
        assert damaged.steps() == [1, 2]


@pytest.mark.parametrize("damage", ["missing", "extra", "truncated", "empty"])
def test_other_damage_is_detected(tmp_path, damage):
    store = CheckpointStore(tmp_path)
    store.save(1, _state(1), {})
    store.save(2, _state(2), {})
    victim = max(_files(tmp_path / "2"), key=lambda path: path.stat().st_size)
    if damage == "missing":
        victim.unlink()
    elif damage == "extra":
        (victim.parent / "other").write_text("?")
    elif damage == "truncated":
        victim.write_bytes(victim.read_bytes()[:-1])
    else:
        shutil.rmtree(tmp_path / "2")
        (tmp_path / "2").mkdir()
    with pytest.warns(CheckpointDamagedWarning):
        restored = store.restore(_state(0))
    assert restored is not None
    assert int(restored[0]["step"]) == 1


def test_all_damaged_means_none(tmp_path):
    store = CheckpointStore(tmp_path)
    store.save(1, _state(1), {})
    (tmp_path / "1" / "meta.json").write_text("{}x")
    with pytest.warns(CheckpointDamagedWarning):
        assert store.restore(_state(0)) is None


def test_a_kill_before_the_rename_leaves_the_old_step(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path)
    store.save(1, _state(1), {})

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            store.save(2, _state(2), {})
    assert store.steps() == [1]
    store.save(2, _state(2), {})
    assert store.steps() == [1, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


def test_another_model_is_refused(tmp_path):
    store = CheckpointStore(tmp_path)
    store.save(1, _state(1), {})
    other = {**_state(0), "weights": jnp.ones((4, 4))}
    with pytest.raises(ValueError, match="another model"):
        store.restore(other)


@pytest.mark.parametrize("name", ["²", "007", "٣", "+1", "1_0", "1.damaged-1", "x"])
def test_folders_beside_the_steps_are_left_alone(tmp_path, name):
    store = CheckpointStore(tmp_path / "run", keep=1)
    store.save(1, _state(1), {})
    (tmp_path / "run" / name).mkdir()
    store.save(2, _state(2), {})
    restored = store.restore(_state(0))
    assert restored is not None
    assert int(restored[0]["step"]) == 2
    assert store.steps() == [2]
    store.clear()
    assert [path.name for path in (tmp_path / "run").iterdir()] == [name]


def test_a_step_that_is_a_link_is_unlinked(tmp_path):
    store = CheckpointStore(tmp_path / "run", keep=1)
    store.save(1, _state(1), {})
    os.rename(tmp_path / "run" / "1", tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", tmp_path / "run" / "1")
    assert store.restore(_state(0)) is not None
    store.save(2, _state(2), {})
    assert store.steps() == [2]
    os.symlink(tmp_path / "elsewhere", tmp_path / "run" / "3")
    os.symlink(tmp_path / "gone", tmp_path / "run" / "4")  # leads nowhere
    with pytest.warns(CheckpointDamagedWarning):
        store.save(4, _state(4), {})
    assert store.steps() == [4]
    store.clear()
    assert len(_files(tmp_path / "elsewhere")) > 3


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[]", "{}", '{"meta": 1, "arrays": 1}']
)
def test_a_manifest_over_nonsense_vouches_for_nothing(tmp_path, text):
    store = CheckpointStore(tmp_path)
    store.save(1, _state(1), {})
    (tmp_path / "1" / "meta.json").write_text(text)
    (tmp_path / "1" / "manifest.sha256").write_text(
        checkpoint._manifest(tmp_path / "1")
    )
    with pytest.warns(CheckpointDamagedWarning):
        assert store.restore(_state(0)) is None


def test_what_a_killed_save_left_goes_with_the_run(tmp_path):
    store = CheckpointStore(tmp_path / "run")
    store.save(1, _state(1), {})
    (tmp_path / "run" / ".2.0123abcd.tmp" / "state").mkdir(parents=True)
    store.clear()
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_mutated_step_is_restored_or_set_aside(tmp_path):
    sound = CheckpointStore(tmp_path / "sound")
    for step in (1, 2):
        sound.save(step, _state(step), {"history": [step]})
    files = _files(tmp_path / "sound" / "2")

    def read(path):
        del path  # one of the files
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        shutil.copytree(tmp_path / "sound", tmp_path / "run")
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", CheckpointDamagedWarning)
            return CheckpointStore(tmp_path / "run").restore(_state(0)), len(said)

    def is_sound(found):
        (state, meta), num_warnings = found
        step = 1 if num_warnings else 2
        assert meta == {"history": [step]}
        _assert_equal(state, _state(step))
        return True

    for index, path in enumerate(files):
        count = -(-300 // len(files))
        seed = index * count
        num = fuzzing.check(read, path, accepts=is_sound, count=count, seed=seed)
        assert num == count  # with an older one to go on from, nothing is refused
