import numpy as np
import pytest

from codesign import data
from codesign.data.sentences import load_sentences, read_sentences


def _file(tmp_path, content):
    path = tmp_path / "own.txt"
    path.write_bytes(content)
    return path


def test_lines_are_sentences_and_empty_ones_are_left_out(tmp_path):
    path = _file(tmp_path, b"\xef\xbb\xbfOne.\r\n\n two \n  \nthree\nfour\nf\xc3\xbcnf")
    assert read_sentences(path) == ["One.", "two", "three", "four", "fünf"]


def test_splits_are_disjoint_and_the_vocabulary_of_the_training_part(tmp_path):
    path = _file(tmp_path, "".join(f"w{i} film\n" for i in range(20)).encode())
    made = load_sentences(path, length=4, vocabulary_size=100)
    assert [len(s) for s in (made.train, made.validation, made.test)] == [12, 4, 4]
    own = {piece for piece in made.vocabulary.pieces if piece[:1] == "w" and piece[1:]}
    assert len(own) == 12
    # A smaller training part begins the larger one.
    small = load_sentences(path, length=4, vocabulary_size=100, num_train=3)
    assert len(small.train) == 3
    few = {piece for piece in small.vocabulary.pieces if piece[:1] == "w" and piece[1:]}
    assert few < own
    assert made.name == "own.txt"


def test_what_is_no_sentence_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"own.txt, line 2: not UTF-8 .*; convert"):
        read_sentences(_file(tmp_path, b"good\nb\xe4d\n"))
    with pytest.raises(ValueError, match="own.txt holds 1 sentences, but at least 5"):
        read_sentences(_file(tmp_path, b"alone\n\n"))
    with pytest.raises(FileNotFoundError, match=r"absent.txt"):
        read_sentences(tmp_path / "absent.txt")
    path = _file(tmp_path, b"a\nb\nc\nd\ne\n")
    with pytest.raises(ValueError, match=r"`num_train` .=0"):
        load_sentences(path, length=8, vocabulary_size=50, num_train=0)


def test_toy_sentences_need_no_file_and_can_be_told_apart_by_their_words():
    made = data.load_text("toy_sentences", length=16, vocabulary=300)
    splits = (made.train, made.validation, made.test)
    assert [len(split) for split in splits] == [34, 11, 11]
    assert (made.class_names, made.test_part) == (("negative", "positive"), "train")
    rows = [row.tobytes() for split in splits for row in split.images]
    assert len(set(rows)) == 56
    # Naive Bayes over words, fitted to the training split.
    counts = np.ones((2, len(made.vocabulary)))
    for row, label in zip(made.train.images, made.train.labels, strict=True):
        counts[label, np.unique(row)] += 1
    weights = np.diff(np.log(counts), axis=0)[0]
    held_out = np.concatenate([made.validation.images, made.test.images])
    labels = np.concatenate([made.validation.labels, made.test.labels])
    found = [weights[np.unique(row)].sum() > 0 for row in held_out]
    assert np.mean(found == labels) > 0.75
