"""The tasks of GLUE (Wang et al., 2018), read from their tab-separated files.

A line is an example and a tab ends a column; quotes are characters as any others. The
first line names the columns, except in CoLA's files with labels. Each file may be plain
or `.gz`. Nothing is downloaded.
"""

import dataclasses
import gzip
import math
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from absl import logging

from codesign.data.checksums import KnownFile
from codesign.data.download import Distribution, locate

_MOST_BYTES = 2**30  # of a file, uncompressed
_URL = "https://gluebenchmark.com/tasks"
_FILES = ("train.tsv", "test.tsv", "dev.tsv")


@dataclasses.dataclass(frozen=True)
class Task:
    """The columns of a task's files, and what its labels mean."""

    folder: str  # as GLUE names it
    texts: tuple[str, ...]  # columns, one or a pair
    label: str  # column
    class_names: tuple[str, ...]  # in the order of the labels
    labels: tuple[str, ...] = ("0", "1")  # as in the files; () where they are scores
    highest: float = 0  # score; the lowest is 0
    columns: tuple[str, ...] = ()  # of files whose first line is an example
    # To train on, and those to test on, first choice first; for each form of the set.
    files: tuple[tuple[str, ...], ...] = (_FILES,)

    @property
    def is_regression(self) -> bool:
        """Whether labels are scores."""
        return not self.labels


_ENTAILMENT = ("entailment", "not_entailment")
_PAIR = ("sentence1", "sentence2")
TASKS = {
    "cola": Task(
        "CoLA",
        ("sentence",),
        "label",
        ("unacceptable", "acceptable"),
        columns=("source", "label", "mark", "sentence"),
    ),
    "mrpc": Task(
        "MRPC",
        ("#1 String", "#2 String"),
        "Quality",
        ("not_equivalent", "equivalent"),
        files=(_FILES, ("msr_paraphrase_train.txt", "msr_paraphrase_test.txt")),
    ),
    "qnli": Task("QNLI", ("question", "sentence"), "label", _ENTAILMENT, _ENTAILMENT),
    "qqp": Task(
        "QQP",
        ("question1", "question2"),
        "is_duplicate",
        ("not_duplicate", "duplicate"),
    ),
    "rte": Task("RTE", _PAIR, "label", _ENTAILMENT, _ENTAILMENT),
    "sst2": Task("SST-2", ("sentence",), "label", ("negative", "positive")),
    "stsb": Task("STS-B", _PAIR, "score", (), labels=(), highest=5.0),
    "wnli": Task("WNLI", _PAIR, "label", ("not_entailment", "entailment")),
}


@dataclasses.dataclass(frozen=True)
class Rows:
    """The labelled examples of one file, in its order."""

    texts: tuple[list[str], ...]  # a list of N for each text of an example
    labels: np.ndarray  # [N] int32, or float32 scores


def find_task(name: str) -> Task:
    """The task of that name.

    Raises:
        ValueError: If there is none.
    """
    if not isinstance(name, str) or name not in TASKS:
        raise ValueError(
            f"`name` (={name!r}) is no known task; choose one of {', '.join(TASKS)}."
        )
    return TASKS[name]


def read_parts(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    skip_malformed: bool = False,
) -> tuple[Rows, Rows, str]:
    """Reads the training part of a task, and the part that tests it.

    GLUE keeps the labels of most test parts to itself. So the test part is that of
    `test.tsv` if this file has labels, and that of `dev.tsv` if not.

    Args:
        name: One of `TASKS`.
        data_dir: Folder to search, with its subfolders of the task's name.
        skip_malformed: Whether a line that cannot be an example is left out, with one
            warning a file, instead of being an error.

    Returns:
        The training part, the test part, and which of `test` and `dev` that is.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If `name` is no task, or a line of a file is not an example.
    """
    task = find_task(name)
    train_path, test_paths = _find(name, task, data_dir)
    for path in test_paths:
        if task.label in _columns(path, task)[0]:
            train = read_rows(train_path, task, skip_malformed=skip_malformed)
            test = read_rows(path, task, skip_malformed=skip_malformed)
            return train, test, "dev" if path.name.startswith("dev") else "test"
    raise FileNotFoundError(
        f"{train_path.parent} has no file to test on: neither a test file with labels "
        f"nor dev.tsv; get one of them from {_URL}."
    )


def _find(
    name: str, task: Task, data_dir: str | os.PathLike[str] | None
) -> tuple[Path, list[Path]]:
    """The file to train on, and those that are there of the files to test on."""
    errors = []
    for form in task.files:
        train, *tests = (KnownFile(file, None, "") for file in form)
        published = Distribution(
            name=name,
            folders=(task.folder,),
            files=(train,),
            gzipped=True,
            archive=None,
            downloads=(),
            url=_URL,
        )
        try:
            folder = locate(published, data_dir)
        except FileNotFoundError as error:
            errors.append(error)
            continue
        train_path = published.find(folder, train)
        assert train_path is not None  # it was located
        return train_path, [
            path for file in tests if (path := published.find(folder, file))
        ]
    raise errors[0]


def read_rows(path: Path, task: Task, *, skip_malformed: bool = False) -> Rows:
    """Reads the examples of one file.

    Args:
        path: The file, plain or gzipped by its ending.
        task: What its columns are.
        skip_malformed: Whether to leave out, with one warning, what is no example.

    Raises:
        ValueError: Names the file and the line that has another number of columns, an
            empty text, an unknown label, a score out of range, or is not UTF-8.
    """
    columns, first = _columns(path, task)
    if absent := [c for c in (*task.texts, task.label) if c not in columns]:
        raise ValueError(
            f"{path}, line 1: lacks the column {absent[0]!r}; it has "
            f"{', '.join(columns)}. Give the file of {task.folder} as GLUE has it."
        )
    texts, labels = tuple([] for _ in task.texts), []
    skipped = []
    for number, line in _lines(path):
        if number < first:
            continue
        try:
            cells = dict(zip(columns, _cells(line, len(columns)), strict=True))
            found = [_text(cells[column], column) for column in task.texts]
            label = _label(cells[task.label], task)
        except ValueError as error:
            if not skip_malformed:
                raise ValueError(
                    f"{path}, line {number}: {error} Mend or remove the line, or leave "
                    "all such lines out by `skip_malformed=True`."
                ) from error
            skipped.append(number)
            continue
        for column, text in zip(texts, found, strict=True):
            column.append(text)
        labels.append(label)
    if skipped:
        logging.warning(
            "%s: left out %d of %d lines that are no examples, the first in line %d.",
            *(path, len(skipped), len(skipped) + len(labels), skipped[0]),
        )
    if not labels:
        raise ValueError(f"{path} holds no examples; replace it with a complete copy.")
    kind = np.float32 if task.is_regression else np.int32
    return Rows(texts, np.array(labels, kind))


def _columns(path: Path, task: Task) -> tuple[tuple[str, ...], int]:
    """Names of a file's columns, and the number of the line where examples begin."""
    line = next((line for _, line in _lines(path)), b"")
    named = tuple(line.decode(errors="replace").split("\t"))
    is_header = any(text in named for text in task.texts)
    return (task.columns, 1) if task.columns and not is_header else (named, 2)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Each line of a file with its number, from 1, without its end."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            num_bytes = 0
            for number, line in enumerate(
                iter(lambda: file.readline(_MOST_BYTES), b"")
            ):
                num_bytes += len(line)
                if num_bytes > _MOST_BYTES:
                    raise ValueError(
                        f"{path} holds more than {_MOST_BYTES:,} bytes; split it up."
                    )
                if not number:
                    line = line.removeprefix(b"\xef\xbb\xbf")  # as Windows marks UTF-8
                yield number + 1, line.rstrip(b"\r\n")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"{path} is cut short or no gzip file ({error}); replace it with an "
            "undamaged copy."
        ) from error


def _cells(line: bytes, num: int) -> list[str]:
    try:
        cells = line.decode().split("\t")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 ({error}).") from error
    if len(cells) != num:
        raise ValueError(f"{len(cells)} columns, but {num} were expected.")
    return cells


def _text(cell: str, column: str) -> str:
    if not cell.strip():
        raise ValueError(f"the column {column!r} is empty.")
    return cell


def _label(cell: str, task: Task) -> float:
    if not task.is_regression:
        if cell not in task.labels:
            raise ValueError(f"the label {cell!r} is none of {', '.join(task.labels)}.")
        return task.labels.index(cell)
    try:
        score = float(cell)
    except ValueError:
        score = math.nan
    if not 0 <= score <= task.highest:
        raise ValueError(f"the score {cell!r} is no number in 0..{task.highest:g}.")
    return score
