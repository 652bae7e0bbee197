"""What the study of texts loads, refuses and says; its training is that of images."""

import dataclasses

import numpy as np
import pytest

from codesign.data import glue
from codesign.data.text import SPECIAL
from codesign.models.duplex import ALGORITHMS
from codesign.studies.camel import duplex_training, text_duplex
from codesign.studies.camel.duplex_result import DuplexRun
from codesign.studies.camel.duplex_settings import BACKBONE

_SMOKE = text_duplex.PRESETS["smoke"]
_PAIR = "branch6-bert12"


def _words(dataset, split="train"):
    """Texts of a split as tuples of tokens, with the missing word in its place."""
    part, mask = getattr(dataset, split), SPECIAL.index("[MASK]")
    tokens = np.where(part.images == mask, part.labels[:, None], part.images)
    return [tuple(row) for row in tokens.tolist()]


def _sst2(tmp_path, bad=""):
    """60 training texts of two words each, and 8 of a test part."""
    folder = tmp_path / "SST-2"
    folder.mkdir()
    for name, num in (("train", 60), ("dev", 8)):
        lines = [f"{name}{i} good\t{i % 2}" for i in range(num)]
        (folder / f"{name}.tsv").write_text(
            "\n".join(["sentence\tlabel", *lines, *([bad] if name == "train" else [])])
        )
    return str(tmp_path)


def test_a_backbone_reads_no_held_out_text_and_branches_begin_its_texts(tmp_path):
    config = dataclasses.replace(
        *(_SMOKE,), dataset="sst2", num_train=10, num_pretrain=30, copies=2
    )
    before, after = text_duplex.load(config, _sst2(tmp_path))
    assert before.vocabulary == after.vocabulary
    assert before.num_classes == len(before.vocabulary)
    learnt = _words(before)
    assert len(learnt) == 60  # each of 30 twice
    assert set(learnt[:20]) == set(_words(after))
    held_out = {*_words(after, "validation"), *_words(after, "test")}
    assert not held_out & set(learnt)
    assert set(_words(before, "validation")) == set(_words(after, "validation"))


def test_a_text_file_brings_its_vocabulary(tmp_path):
    own = tmp_path / "own.txt"
    own.write_text("\n".join(f"zebra zebra q{i}" for i in range(10)))
    config = dataclasses.replace(_SMOKE, pretrain_text=str(own), num_pretrain=6)
    before, after = text_duplex.load(config, None)
    assert len(before.train) == 6 * config.copies
    assert "zebra" in before.vocabulary.pieces
    assert "film" not in before.vocabulary.pieces
    assert after.vocabulary == before.vocabulary
    assert after.name == "toy_sentences"


def test_a_backbone_has_the_vocabulary_and_a_branch_no_side(tmp_path):
    prepared = duplex_training.prepare(_SMOKE, [], tmp_path, load=text_duplex.load)
    module = prepared.backbone(_PAIR).module
    vocabulary = text_duplex.load(_SMOKE, None)[1].vocabulary
    assert module.vocabulary_size == module.num_classes == len(vocabulary)
    assert module.separator == vocabulary.separator
    assert module.num_layers == 12
    assert prepared.config.branch_settings(None) == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "imdb"}, r"`dataset` .='imdb'.* one of .*sst2"),
        ({"pairs": ("branch4-resnet18",)}, "`pairs` .='branch4-resnet18'"),
        ({"variants": ("duplex+double",)}, "'duplex\\+double' asks for maps of twice"),
        ({"variants": ("duplx",)}, "`variants`: 'duplx'.*did you mean `duplex`"),
        ({"length": 4}, "`length` .*4"),
        ({"pretrain_text": "absent.txt"}, "absent.txt"),
        ({"dataset": "sst2"}, "(?s)sst2.*SST-2"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_a_folder_is_made(
    changes, message, tmp_path
):
    config = dataclasses.replace(_SMOKE, **changes)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        text_duplex.run(config, workdir=tmp_path / "run", data_dir=str(tmp_path))
    assert not (tmp_path / "run").exists()


def test_a_malformed_line_is_named_before_a_folder_is_made(tmp_path):
    config = dataclasses.replace(_SMOKE, dataset="sst2")
    folder = _sst2(tmp_path, bad="no label")
    with pytest.raises(ValueError, match=r"train.tsv, line 62: 1 columns, but 2"):
        text_duplex.run(config, workdir=tmp_path / "run", data_dir=folder)
    assert not (tmp_path / "run").exists()


def _found(config, tests):
    """Runs of two seeds, of each variant with the accuracy given."""

    def made(test):
        return DuplexRun("trained", "", (1.0, 0.5), (0.5, test), test, 1821, 10, 1.0, 7)

    found = {(_PAIR, BACKBONE, 0): made(0.1)}
    for variant, test in zip(config.variants, tests, strict=True):
        for seed in range(config.num_seeds):
            found[_PAIR, variant, seed] = made(test + seed / 1000)
    return found


def test_the_table_stands_beside_the_printed_one():
    config = dataclasses.replace(text_duplex.PRESETS["quick"], num_seeds=3)
    found = _found(config, (0.70, 0.70, 0.60, 0.55))
    made = duplex_training.report(config, found)
    by_key = {each.key: each for each in made.quantities}
    printed = dict(zip(ALGORITHMS, (0.919, 0.921, 0.868, None), strict=True))
    for variant, value in printed.items():
        assert by_key[f"accuracy[{_PAIR},{variant}]"].paper == value
    for candidate, reference, verdict in (
        ("duplex", "irreversible", "non_inferior"),
        ("chain", "duplex", "inferior"),
        ("branch_only", "duplex", "inferior"),
    ):
        assert by_key[f"claim[{_PAIR},{candidate},{reference}]"].note == verdict
    assert "16,384 sentences of the training part of sst2" in str(
        made.sections[0].body[0]
    )


@pytest.mark.parametrize("name", glue.TASKS)
def test_a_correlation_is_called_one(name):
    config = dataclasses.replace(_SMOKE, dataset=name)
    assert ("correlation" in config.learnt()) == (name == "stsb")


@pytest.mark.slow
def test_smoke_trains_and_a_second_run_keeps_it(tmp_path):
    config = dataclasses.replace(_SMOKE, variants=("duplex",))
    found = text_duplex.run(config, workdir=tmp_path)
    run = found[_PAIR, "duplex", 0]
    assert run.status == "trained"
    assert run.losses[-1] < run.losses[0]
    again = text_duplex.run(config, workdir=tmp_path)
    assert dict(again) == dict(found)
