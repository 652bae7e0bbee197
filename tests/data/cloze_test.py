import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codesign import data
from codesign.data.cloze import cloze
from codesign.data.dataset import Split
from codesign.data.text import SPECIAL, Vocabulary
from codesign.data.text_datasets import TextDataset

_PAD, _UNK, _CLS, _SEP, _MASK = range(5)
_SPLITS = ("train", "validation", "test")


def _dataset(*rows, validation=((_CLS, 7, _SEP),), num=12, name="made"):
    """Texts by their tokens, of a vocabulary of special pieces and `num` - 5 words."""

    def split(rows):
        tokens = np.zeros((len(rows), max(map(len, rows))), np.int32)
        for i, row in enumerate(rows):
            tokens[i, : len(row)] = row
        return Split(tokens, np.zeros(len(rows), np.int32))

    pieces = (*SPECIAL, *(f"w{i}" for i in range(num - 5)))
    return TextDataset(
        name=name,
        train=split(rows),
        validation=split(validation),
        test=split(validation),
        num_classes=1,
        mean=(),
        std=(),
        augmentation=data.Augmentation(),
        class_names=("any",),
        vocabulary=Vocabulary(pieces),
        test_part="test",
    )


def test_a_text_of_one_word_loses_it():
    made = cloze(_dataset((_CLS, _UNK, 9, _SEP, _PAD)))
    np.testing.assert_array_equal(made.train.images, [[_CLS, _UNK, _MASK, _SEP, _PAD]])
    np.testing.assert_array_equal(made.train.labels, [9])
    assert (made.num_classes, made.class_names[9]) == (12, "w4")


_TEXT = st.lists(st.integers(0, 11), min_size=1, max_size=8)


@given(st.lists(_TEXT, min_size=1, max_size=12), st.integers(1, 3), st.integers(0, 9))
def test_a_label_in_place_of_its_mask_is_the_text_again(texts, copies, seed):
    texts = [[_CLS, *text, _SEP] for text in texts]
    dataset = _dataset(*texts, (_CLS, 8, _SEP))
    made = cloze(dataset, copies=copies, seed=seed)
    has_word = (dataset.train.images > _MASK).any(1)
    expected = np.repeat(dataset.train.images[has_word], copies, axis=0)
    assert made.train.images.shape == expected.shape
    is_changed = made.train.images != expected
    np.testing.assert_array_equal(is_changed.sum(1), 1)
    np.testing.assert_array_equal(made.train.images[is_changed], _MASK)
    np.testing.assert_array_equal(expected[is_changed], made.train.labels)
    assert made.train.labels.min() > _MASK
    again = cloze(dataset, copies=copies, seed=seed)
    assert again.digest() == made.digest()


def test_every_word_of_a_text_is_missing_as_often():
    # 4 words, 4000 draws: 1000 of each, give or take 5 standard deviations of 27.
    made = cloze(_dataset((_CLS, 5, 6, 7, 8, _SEP)), copies=4000)
    counts = np.bincount(made.train.labels, minlength=12)[5:9]
    assert counts.sum() == 4000
    assert np.abs(counts - 1000).max() < 137


def test_texts_stay_in_their_splits_and_labels_are_not_read():
    dataset = data.load_text("toy_sentences", length=16, vocabulary=200)
    made = cloze(dataset, copies=2)
    for part, copies in zip(_SPLITS, (2, 1, 1), strict=True):
        old, new = getattr(dataset, part), getattr(made, part)
        filled = np.where(new.images == _MASK, new.labels[:, None], new.images)
        np.testing.assert_array_equal(filled, np.repeat(old.images, copies, axis=0))
        blind = dataclasses.replace(old, labels=np.zeros_like(old.labels))
        dataset = dataclasses.replace(dataset, **{part: blind})
    assert cloze(dataset, copies=2).digest() == made.digest()


@pytest.mark.parametrize("copies", [0, 1.5, True])
def test_copies_are_counted(copies):
    with pytest.raises(ValueError, match=f"`copies` .={copies}.* whole number >= 1"):
        cloze(_dataset((_CLS, 8, _SEP)), copies=copies)


def test_a_split_without_a_word_is_named():
    dataset = _dataset((_CLS, 8, _SEP), validation=((_CLS, _UNK, _SEP),))
    with pytest.raises(ValueError, match="'made' has no word.* of `validation`; take"):
        cloze(dataset)
