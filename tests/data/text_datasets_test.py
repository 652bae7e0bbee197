import os
import pathlib

import numpy as np
import pytest

from codesign import data
from codesign.data import Vocabulary
from codesign.data.text import SPECIAL

_WORDS = ("dull", "bright", "slow", "quick", "film", "plot")


def _sst2(tmp_path, num_train=40, test_word="unheard"):
    """Every fourth text is positive; text i names the words i and 2 i, and itself."""

    def lines(num, extra):
        found = "sentence\tlabel\n"
        for i in range(num):
            words = f"{_WORDS[i % 6]} {_WORDS[2 * i % 6]} n{i}{extra}"
            found += f"{words}\t{int(i % 4 == 0)}\n"
        return found

    folder = tmp_path / "SST-2"
    folder.mkdir()
    (folder / "train.tsv").write_text(lines(num_train, ""))
    (folder / "dev.tsv").write_text(lines(8, f" {test_word}"))
    return tmp_path


def _stsb(tmp_path):
    text = "sentence1\tsentence2\tscore\n"
    for i in range(60):
        text += f"a dog runs\ta cat {'sleeps ' * (i % 3)}\t{i % 6 * 0.9:.2f}\n"
    for part in ("train", "dev"):
        (tmp_path / f"{part}.tsv").write_text(text)
    return tmp_path


def test_splits_are_stratified_and_of_the_published_parts(tmp_path):
    dataset = data.load_text("sst2", data_dir=_sst2(tmp_path), length=16)
    splits = (dataset.train, dataset.validation, dataset.test)
    for split, num in zip(splits, (36, 4, 8), strict=True):
        assert split.images.shape == (num, 16)
        assert split.images.dtype == np.int32
        np.testing.assert_array_equal(np.bincount(split.labels), [num * 3 / 4, num / 4])
    assert (dataset.test_part, dataset.num_classes) == ("dev", 2)
    assert dataset.class_names == ("negative", "positive")
    assert (dataset.mean, dataset.std) == ((), ())
    rows = [row.tobytes() for split in splits[:2] for row in split.images]
    assert len(set(rows)) == 40  # each text in one split


def test_labels_stay_with_their_texts(tmp_path):
    vocabulary = Vocabulary((*SPECIAL, *(f"n{i}" for i in range(40))))
    folder = _sst2(tmp_path)
    dataset = data.load_text("sst2", data_dir=folder, vocabulary=vocabulary, length=8)
    for split in (dataset.train, dataset.validation, dataset.test):
        # [CLS] unknown unknown n_i; text i is positive where 4 divides i.
        np.testing.assert_array_equal((split.images[:, 3] - 5) % 4 == 0, split.labels)


def test_the_vocabulary_knows_the_training_split_alone(tmp_path):
    folder = _sst2(tmp_path, test_word="zyx")
    dataset = data.load_text("sst2", data_dir=folder, length=16)
    pieces = set(dataset.vocabulary.pieces)
    assert set(_WORDS) <= pieces
    assert not pieces & {"zyx", "z", "##z", "y", "x", "##y", "##x"}
    own = {f"n{i}" for i in range(40)} - pieces
    assert len(own) == 4  # those that the held-out texts bear


def test_smaller_splits_begin_larger_ones(tmp_path):
    folder = _sst2(tmp_path)
    whole = data.load_text("sst2", data_dir=folder, length=16)
    small = data.load_text(
        *("sst2",),
        data_dir=folder,
        length=16,
        vocabulary=whole.vocabulary,
        num_train=10,
        num_test=3,
    )
    np.testing.assert_array_equal(small.train.images, whole.train.images[:10])
    np.testing.assert_array_equal(small.test.images, whole.test.images[:3])
    np.testing.assert_array_equal(small.validation.images, whole.validation.images)
    again = data.load_text("sst2", data_dir=folder, length=16)
    assert whole.digest() == again.digest() != small.digest()
    other = data.load_text("sst2", data_dir=folder, length=16, seed=1)
    assert other.digest() != whole.digest()


def test_a_vocabulary_file_will_do(tmp_path):
    folder = _sst2(tmp_path)
    whole = data.load_text("sst2", data_dir=folder, length=16, vocabulary=60)
    assert len(whole.vocabulary) <= 60
    whole.vocabulary.save(tmp_path / "vocab.txt")
    again = data.load_text(
        "sst2", data_dir=folder, length=16, vocabulary=tmp_path / "vocab.txt"
    )
    assert again.digest() == whole.digest()


def test_a_regression_of_pairs(tmp_path):
    dataset = data.load_text("stsb", data_dir=_stsb(tmp_path), length=16)
    assert (dataset.num_classes, dataset.class_names) == (1, ())
    for split, num in (
        (dataset.train, 54),
        (dataset.validation, 6),
        (dataset.test, 60),
    ):
        assert split.labels.dtype == np.float32
        # Each nearest whole number of 0, .9, 1.8, 2.7, 3.6 and 4.5 in proportion:
        # 0, 1, 2, 3, 4 and 4, of which the last two are one stratum.
        found = np.bincount(np.rint(split.labels).astype(int), minlength=5)
        np.testing.assert_allclose(found, num / 6 * np.array([1, 1, 1, 1, 2]), atol=1)
    segments = dataset.vocabulary.segments(dataset.train.images)
    ends = (dataset.train.images == dataset.vocabulary.separator).sum(axis=1)
    np.testing.assert_array_equal(ends, 2)
    assert set(np.unique(segments)) == {0, 1}


def test_batches_of_texts_are_filled_with_padding(tmp_path):
    dataset = data.load_text("sst2", data_dir=_sst2(tmp_path), length=16)
    tokens, labels, weights = data.padded_batches(dataset.test, 5)
    assert (tokens.shape, labels.shape) == ((2, 5, 16), (2, 5))
    np.testing.assert_array_equal(tokens[1, 3:], 0)
    np.testing.assert_array_equal(weights, [[1] * 5, [1, 1, 1, 0, 0]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": 2}, r"`length` \(=2\)"),
        ({"vocabulary": 5}, r"`size` \(=5\)"),
        ({"vocabulary": None}, r"`size` \(=None\)"),
        ({"num_train": 0}, r"`num_train` \(=0\)"),
        ({"seed": -1}, r"`seed` \(=-1\)"),
        ({"name": "sst"}, r"`name` \(='sst'\) is no known task"),
    ],
)
def test_arguments_are_refused_before_reading(arguments, message):
    with pytest.raises(ValueError, match=message):
        data.load_text(**({"name": "sst2", "data_dir": "/nowhere"} | arguments))


def test_more_texts_than_there_are(tmp_path):
    with pytest.raises(ValueError, match=r"`num_test` \(=9\) exceeds the 8 test exam"):
        data.load_text("sst2", data_dir=_sst2(tmp_path), num_test=9)


@pytest.mark.slow
def test_real_sst2():
    folder = pathlib.Path(os.environ.get("CODESIGN_DATA") or "/nonexistent")
    if not (folder / "sst2").is_dir() and not (folder / "SST-2").is_dir():
        pytest.skip("CODESIGN_DATA names no folder with SST-2 or sst2")
    dataset = data.load_text("sst2")
    assert len(dataset.train) + len(dataset.validation) == 67_349
    assert len(dataset.test) == {"test": 1821, "dev": 872}[dataset.test_part]
    unknown = dataset.vocabulary.pieces.index("[UNK]")
    assert np.mean(dataset.test.images == unknown) < 1e-3
    assert (dataset.train.images[:, -1] == 0).mean() > 0.99  # 64 tokens hold nearly all
