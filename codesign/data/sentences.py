"""Text files of one sentence a line, without labels."""

import os

import numpy as np

from codesign.data import partition
from codesign.data.augment import Augmentation
from codesign.data.dataset import Split
from codesign.data.text import Vocabulary
from codesign.data.text_datasets import TextDataset

_LEAST = 5  # of which each split gets one


def read_sentences(path: str | os.PathLike[str]) -> list[str]:
    """Reads a file, one sentence a line; empty lines are left out.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: Names the file and a line that is not UTF-8; or a file of fewer than
            five sentences.
    """
    sentences = []
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path}, line {number}: not UTF-8 ({error}); convert the file."
                ) from error
            if text:
                sentences.append(text)
    if len(sentences) < _LEAST:
        raise ValueError(
            f"{path} holds {len(sentences)} sentences, but at least {_LEAST} are needed "
            "for three splits; write one a line."
        )
    return sentences


def load_sentences(
    path: str | os.PathLike[str],
    *,
    length: int,
    vocabulary_size: int,
    num_train: int | None = None,
    num_validation: int | None = None,
) -> TextDataset:
    """Loads such a file, split 60 : 20 : 20; all labels are 0.

    Args:
        path: The file.
        length: T, tokens of each row; what is longer is cut.
        vocabulary_size: Pieces that are taken from the training split.
        num_train, num_validation: Size of these splits; None for all there is.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: As `read_sentences`, or for an argument out of its range.
    """
    sentences = read_sentences(path)
    labels = np.zeros(len(sentences), np.int32)
    sizes = {"train": num_train, "validation": num_validation, "test": None}
    partition.checked(sizes, 0)
    chosen = partition.partition(labels, None, sizes, 0, str(path))
    texts = {
        part: [sentences[i] for i in indices] for part, (_, indices) in chosen.items()
    }
    vocabulary = Vocabulary.from_texts(texts["train"], vocabulary_size)
    splits = {
        part: Split(vocabulary.encode(rows, length=length), labels[: len(rows)])
        for part, rows in texts.items()
    }
    return TextDataset(
        name=os.path.basename(path),
        **splits,
        num_classes=1,
        mean=(),
        std=(),
        augmentation=Augmentation(),
        class_names=("sentence",),
        vocabulary=vocabulary,
        test_part="train",
    )
