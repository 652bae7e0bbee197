"""Duplex networks beside their baselines on a small scale: what is written and said."""

import dataclasses
import json

import pytest

from codesign.models.network import Network
from codesign.report import Results
from codesign.studies.camel import duplex_report, duplex_result, duplex_training
from codesign.studies.camel.duplex_published import TABLE_III, printed
from codesign.studies.camel.duplex_result import DuplexRun, answers, curves
from codesign.studies.camel.duplex_settings import BACKBONE, PRESETS, DuplexConfig
from codesign.studies.camel.variants import Variant, parse
from codesign.training import CheckpointStore, TrainConfig
from tests.models.duplex_test import Backbone

_PAIR = "branch4-resnet18"
_TINY = DuplexConfig(
    preset="tiny",
    variants=("duplex", "irreversible+unrefreshed"),
    side=2,
    classes=(2, 3, 4),
    pretrain_classes=(0, 1),
    image_size=8,
    train=TrainConfig(epochs=2, batch_size=16),
    pretrain=TrainConfig(epochs=1, batch_size=16),
    num_seeds=1,
    num_train=300,
    num_pretrain=200,
)


def test_presets_ask_for_what_there_is():
    for config in PRESETS.values():
        config.checked()
        assert config.variants[0] == "duplex"
    units = duplex_training.units(dataclasses.replace(_TINY, num_seeds=2))
    assert units == [
        (_PAIR, BACKBONE, 0),
        *((_PAIR, name, seed) for seed in (0, 1) for name in _TINY.variants),
    ]


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("duplex", Variant("duplex")),
        ("chain+float32", Variant("chain", in_format=False)),
        ("duplex+norms+double", Variant("duplex", norms=True, side_factor=2)),
        ("duplex+errors0.01", Variant("duplex", error_rate=0.01)),
        ("duplex+spared0.001", Variant("duplex", error_rate=0.001, of_streams=False)),
        ("irreversible+unrefreshed", Variant("irreversible", refreshed=False)),
        ("duplex+concatenate", Variant("duplex", join="concatenate")),
    ],
)
def test_a_variant_is_its_name(name, variant):
    assert parse(name) == variant


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("duplx", "'duplx'; did you mean `duplex`"),
        ("duplex+norm", "'norm'; did you mean `norms`"),
        ("duplex+norms+norms", "says norms twice"),
        ("duplex+errors2", "'errors2'"),
        ("duplex+unrefreshed", "keeps nothing that decays"),
        ("chain+recomputed", "has no taps"),
    ],
)
def test_what_is_no_variant_is_refused(name, match):
    with pytest.raises(ValueError, match=match):
        parse(name)
    with pytest.raises(ValueError, match="`variants`: "):
        dataclasses.replace(_TINY, variants=(name,)).checked()


def _run(test, validation=(0.5, 0.6)):
    losses = (1.0,) * len(validation)
    return DuplexRun("trained", "", losses, validation, test, 1000, 10, 1.0, 500)


def _found(tests):
    """Runs by variant from its test accuracies by seed."""
    return {
        (_PAIR, name, seed): _run(test)
        for name, values in tests.items()
        for seed, test in enumerate(values)
    }


def test_claims_are_those_that_the_variants_allow():
    config = dataclasses.replace(
        _TINY,
        variants=("duplex", "irreversible", "chain", "branch_only", "duplex+norms"),
        num_seeds=4,
    )
    found = _found(
        {
            "duplex": (0.80, 0.81, 0.80, 0.81),
            "irreversible": (0.802, 0.811, 0.801, 0.812),  # a tenth of a point better
            "chain": (0.70, 0.71, 0.71, 0.70),  # ten points worse
            "branch_only": (0.81, 0.60, 0.83, 0.70),  # who knows
            "duplex+norms": (0.90, 0.91, 0.90, 0.91),  # the norms are worth ten points
        }
    )
    by_text = {a.question.text: a.verdict for a in answers(config, found)}
    assert by_text == {
        "DuDNN is as good as FI": "non_inferior",
        "CA is worse than DuDNN": "inferior",
        "BO is worse than DuDNN": "not_decided",
        "no norms are as good as norms": "inferior",
    }
    made = duplex_report.report(config, found)
    assert "Of 4 claims 2 hold here" in made.summary
    assert "not so: no norms are as good as norms" in made.summary
    keys = {q.key: q.value for q in made.quantities}
    assert keys[f"accuracy[{_PAIR},chain]"] == pytest.approx(0.705)


def test_curves_are_over_iterations():
    content = curves(_TINY, _found({"duplex": (0.8, 0.9)}))
    of_seed = content["curves"][_PAIR]["duplex"]["1"]
    assert of_seed["iterations"] == [10, 20]
    assert of_seed["validation_accuracy"] == [0.5, 0.6]
    assert of_seed["test_accuracy"] == 0.9


def test_printed_accuracies_stand_beside_their_own_variant_alone():
    config = dataclasses.replace(_TINY, dataset="cifar10")
    assert printed(config, _PAIR, "chain") == (0.7833, "Table III")
    assert printed(config, _PAIR, "irreversible+unrefreshed") == (0.2323, "Table VIII")
    assert printed(config, _PAIR, "duplex+norms") is None
    assert printed(_TINY, _PAIR, "duplex") is None
    # Abstract of Table III: DuDNN is within .6 points of FI in each of its rows.
    for rows in TABLE_III.values():
        assert all(abs(dudnn - fi) < 0.7 for dudnn, fi, _, _ in rows.values())


@pytest.fixture
def small(monkeypatch):
    """A backbone that compiles in seconds in the place of ResNet-18."""

    def create(name, *, num_classes, shape, width):
        return Network(Backbone(num_classes), 3, tuple(shape), num_classes, label=name)

    monkeypatch.setattr(duplex_training.pairs, "create_backbone", create)
    monkeypatch.setitem(
        duplex_training.pairs.PAIRS,
        _PAIR,
        dataclasses.replace(duplex_training.pairs.PAIRS[_PAIR], depth=2),
    )


@pytest.mark.slow
def test_a_comparison_is_written_goes_on_and_keeps_its_backbone(small, tmp_path):
    found = duplex_training.run(_TINY, workdir=tmp_path)
    assert set(found) == set(duplex_training.units(_TINY))
    names = {path.name for path in tmp_path.iterdir()}
    assert {"report.html", "curves.json", "operand_statistics.json"} <= names
    content = json.loads((tmp_path / "operand_statistics.json").read_text())
    products = content["operands"][_PAIR]["duplex"]
    assert any(name.startswith("branch/") for name in products)
    weights = products["branch/residual1/conv"]["weights"]
    assert 0 < weights["error"] < 0.1
    results = Results.read(tmp_path / "results.json")
    by_key = {each.key: each.value for each in results.quantities}
    assert by_key["accuracy[branch4-resnet18,duplex]"] > 0.3
    # The backbone's checkpoint serves further seeds, the others are gone.
    store = CheckpointStore(tmp_path / "checkpoints" / f"{_PAIR}-backbone-seed0")
    assert store.steps()
    more = dataclasses.replace(_TINY, num_seeds=2, variants=_TINY.variants)
    again = duplex_training.run(more, workdir=tmp_path)
    assert again[_PAIR, "duplex", 0] == found[_PAIR, "duplex", 0]
    assert (_PAIR, "duplex", 1) in again


def test_operands_and_curves_of_nothing_are_empty():
    assert duplex_result.operands(_TINY, {})["operands"] == {}
    assert duplex_result.curves(_TINY, {})["curves"] == {}


def test_a_layer_of_another_size_would_be_noticed(small):
    # Both branches of the tiny backbone, as the study builds them.
    config = _TINY
    from codesign import data

    dataset = data.load("digits", image_size=8, num_train=100)
    prepared = duplex_training.Prepared(config, dataset, dataset)
    duplex_training._check_branches(prepared)
    sizes = duplex_training.pairs.learnable_sizes
    prepared.frozen[_PAIR] = duplex_training.backbone.untrained(
        prepared.backbone(_PAIR)
    )
    found = sizes(prepared.network(_PAIR, "duplex"))
    # 2 blocks of 3 x 3 x 8 x 8 weights and 8 biases.
    assert found["branch/residual1/conv"] == 2 * (9 * 64 + 8)
    assert found["classifier"] == 8 * 10 + 10
