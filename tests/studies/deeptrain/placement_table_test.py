import dataclasses

import numpy as np
import pytest

from codesign import models
from codesign.report import Results
from codesign.studies.deeptrain import exhaustive
from codesign.studies.deeptrain import placement_table as table
from codesign.training import TrainConfig


@pytest.fixture(scope="module")
def small():
    """A table of 2^2 placements and 2 seeds, one run of which diverged."""
    rng = np.random.default_rng(0)
    validation = rng.uniform(size=(4, 2, 3)).round(4)
    validation[2, 1, 1:] = np.nan
    return table.PlacementTable(
        settings={"network": "two"},
        masks=np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.int8),
        seeds=np.array([0, 1]),
        validation=validation,
        loss=rng.uniform(size=(4, 2, 3)).round(4),
        test=rng.uniform(size=(4, 2)).round(4),
        health=rng.uniform(size=(4, 2, 5)).round(4),
        seconds=np.ones((4, 2)),
    )


def test_reads_what_it_wrote(small, tmp_path):
    (tmp_path / "table.csv").write_text(small.to_csv())
    read = table.load(tmp_path / "table.csv")
    for field in dataclasses.fields(small):
        written = getattr(small, field.name)
        if field.name == "settings":
            assert read.settings == written
        else:
            np.testing.assert_allclose(getattr(read, field.name), written)


def test_objective_and_row(small):
    assert small.row([1, 0]) == 2
    objective = small.objective(0.1)
    assert objective[3, 0] == pytest.approx(small.accuracy[3, 0] - 0.2)
    assert objective[2, 1] == -np.inf


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda text: text[: text.rindex("\n", 0, -1) + 1], r"has 7 runs, not the 4"),
        (lambda text: text + text.splitlines()[-1] + "\n", r"has 9 runs"),
        (lambda text: text.replace("10,1,", "10,0,"), r"line 8: .* twice"),
        (lambda text: text.replace("01,0,", "01,0,x"), r"line 5: could not convert"),
        (lambda text: "hello", r"is not a table of placements"),
    ],
)
def test_damage_is_named(small, tmp_path, spoil, message):
    path = tmp_path / "table.csv"
    path.write_text(spoil(small.to_csv()))
    with pytest.raises(ValueError, match=message):
        table.load(path)


def test_published_table_shows_what_it_is_for():
    published = table.load()
    assert published.masks.shape == (256, 8)
    assert len(published.seeds) >= 5
    accuracy = published.accuracy.mean(axis=1)
    assert accuracy[-1] > 0.97  # All-BN
    assert accuracy[0] < 0.15  # No-BN
    # Some placement of two batch norms is as good as all eight.
    two = published.masks.sum(axis=1) == 2
    assert accuracy[two].max() > accuracy[-1] - 0.005
    # Gradients that vanish before training tell which placements cannot learn.
    vanish = published.health.min(axis=2) < 4e-4
    assert published.accuracy[vanish].max() < 0.95


_TINY = exhaustive.ExhaustiveConfig(
    image_size=8,
    train=TrainConfig(epochs=1, batch_size=512, stop_at_chance=None),
    num_seeds=1,
)


@pytest.fixture
def three_sites(monkeypatch, tiny_network):
    """Stands in for VGG-11, so that there are 8 placements."""
    monkeypatch.setattr(models, "create", lambda *args, **kwargs: tiny_network)


@pytest.mark.slow
def test_a_whole_table_is_resumed_run_by_run(tmp_path, three_sites):
    whole = exhaustive.run(_TINY, workdir=tmp_path / "whole")
    assert whole.accuracy.shape == (8, 1)
    assert (tmp_path / "whole" / "table.csv").read_text() == whole.to_csv()
    results = Results.read(tmp_path / "whole" / "results.json")
    assert results["accuracy[all_bn]"].value == whole.accuracy[-1, 0]
    # A kill in the middle of line 6 leaves 4 runs.
    resumed = tmp_path / "resumed"
    resumed.mkdir()
    journal = (tmp_path / "whole" / "finished.jsonl").read_bytes()
    cut = journal.splitlines(keepends=True)[:6]
    (resumed / "finished.jsonl").write_bytes(b"".join(cut)[:-20])
    with pytest.warns(match="unfinished"):
        again = exhaustive.run(_TINY, workdir=resumed)
    np.testing.assert_array_equal(again.accuracy, whole.accuracy)
    np.testing.assert_array_equal(again.health, whole.health)
    more = exhaustive.run(dataclasses.replace(_TINY, num_seeds=2), workdir=resumed)
    np.testing.assert_array_equal(more.accuracy[:, 0], whole.accuracy[:, 0])
    assert more.accuracy.shape == (8, 2)


def test_a_table_of_an_earlier_version_is_refused_by_name(tmp_path):
    (tmp_path / "runs.jsonl").write_text("")
    with pytest.raises(ValueError, match="holds runs.jsonl of an earlier version"):
        exhaustive.run(_TINY, workdir=tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_seeds": 0}, r"`num_seeds` must be >= 1, got 0"),
        ({"dataset": "cats"}, r"`dataset` \(='cats'\) must be one of"),
        ({"network": "vgg16"}, r"`network` \(='vgg16'\) has 2\^13 placements"),
    ],
)
def test_bad_settings(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        exhaustive.run(dataclasses.replace(_TINY, **change), workdir=tmp_path)
