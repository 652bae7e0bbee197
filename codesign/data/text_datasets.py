"""Data sets of texts by name: `load_text` reads, splits and tokenises any of them."""

import dataclasses
import os

import numpy as np

from codesign.data import glue, partition, toy_sentences
from codesign.data.augment import Augmentation
from codesign.data.dataset import Dataset, Split
from codesign.data.datasets import DataDir
from codesign.data.text import SPECIAL, Vocabulary

_TOY = "toy_sentences"  # comes with the package
TEXT_DATASETS = (*glue.TASKS, _TOY)


@dataclasses.dataclass(frozen=True, eq=False)
class TextDataset(Dataset):
    """A data set whose `images` are tokens `[N, T]`; `Trainer` takes it as any other."""

    vocabulary: Vocabulary  # that numbers the tokens
    test_part: str  # published part that the test split is of: `test`, `dev`, `train`


def load_text(
    name: str,
    *,
    data_dir: DataDir = None,
    length: int = 64,
    vocabulary: Vocabulary | str | os.PathLike[str] | int = 8192,
    num_train: int | None = None,
    num_validation: int | None = None,
    num_test: int | None = None,
    seed: int = 0,
    skip_malformed: bool = False,
) -> TextDataset:
    """Loads a task of GLUE, or toy sentences, split for training, validation and test.

    Splits are as those of `load`: stratified, nested, of `seed` alone. A tenth of the
    training part is held out for validation. The test split is the published test part
    if it comes with labels, as SST-2 does from elsewhere than GLUE, and the development
    part otherwise; `test_part` says which. `toy_sentences`, which need no file, are split
    60 : 20 : 20. Scores are stratified by the nearest whole number.

    Args:
        name: One of `TEXT_DATASETS`.
        data_dir: Folder with the published files. None for the folder in
            `CODESIGN_DATA`, else the cache. Nothing is downloaded.
        length: T, tokens of each row; what is longer is cut.
        vocabulary: Ready-made; or the path of a file as BERT's `vocab.txt`; or how many
            pieces to take from the training split, which has other words, and other
            numbers, for another `num_train` or `seed`.
        num_train, num_validation, num_test: Size of each split; None for all there is.
        seed: Root of the split. Keep it when seeds of training vary.
        skip_malformed: Whether lines that are no examples are left out, with a warning.

    Returns:
        Tokens in memory. Of a regression `num_classes` is 1 and labels are float32.

    Raises:
        ValueError: If an argument is out of its range, or a line is no example; names
            the file and the line.
        FileNotFoundError: If files are missing, of the data or of the vocabulary.
    """
    sizes = {"train": num_train, "validation": num_validation, "test": num_test}
    seed = partition.checked(sizes, seed)
    task = toy_sentences.TASK if name == _TOY else glue.find_task(name)
    if isinstance(vocabulary, str | os.PathLike):
        vocabulary = Vocabulary.load(vocabulary)
    elif not isinstance(vocabulary, Vocabulary):
        Vocabulary.from_texts((), vocabulary)  # refuses a size before any reading
    Vocabulary(SPECIAL).encode(*([] for _ in task.texts), length=length)  # and a length
    parts, test_part = {"train": toy_sentences.read_rows()}, "train"
    if name != _TOY:
        parts["train"], parts["test"], test_part = glue.read_parts(
            name, data_dir, skip_malformed=skip_malformed
        )
    strata = {
        part: np.rint(rows.labels).astype(np.int32) for part, rows in parts.items()
    }
    chosen = partition.partition(strata["train"], strata.get("test"), sizes, seed, name)
    texts, labels = {}, {}
    for split, (origin, indices) in chosen.items():
        rows = parts[origin]
        texts[split] = [[column[i] for i in indices] for column in rows.texts]
        labels[split] = rows.labels[indices]
    if not isinstance(vocabulary, Vocabulary):
        every = (text for column in texts["train"] for text in column)
        vocabulary = Vocabulary.from_texts(every, vocabulary)
    splits = {
        split: Split(vocabulary.encode(*columns, length=length), labels[split])
        for split, columns in texts.items()
    }
    return TextDataset(
        name=name,
        **splits,
        num_classes=1 if task.is_regression else len(task.class_names),
        mean=(),
        std=(),
        augmentation=Augmentation(),
        class_names=task.class_names,
        vocabulary=vocabulary,
        test_part=test_part,
    )
