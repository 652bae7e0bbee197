import gzip

import numpy as np
import pytest

from codesign.data import glue
from tests import fuzzing

_HEADERS = {
    "cola": "",
    "mrpc": "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n",
    "qnli": "index\tquestion\tsentence\tlabel\n",
    "qqp": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n",
    "rte": "index\tsentence1\tsentence2\tlabel\n",
    "sst2": "sentence\tlabel\n",
    "stsb": "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\t"
    "sentence2\tscore\n",
    "wnli": "index\tsentence1\tsentence2\tlabel\n",
}
# One line of each task as GLUE publishes it, of sentences of our own, and what it says.
_LINES = {
    "cola": ("gj04\t0\t*\tSlept the cat.", ("Slept the cat.",), 0),
    "mrpc": ("1\t70\t71\tIt rains.\tRain falls.", ("It rains.", "Rain falls."), 1),
    "qnli": ("0\tWho ran?\tAnn ran.\tentailment", ("Who ran?", "Ann ran."), 0),
    "qqp": ("7\t1\t2\tWhy?\tHow come?\t1", ("Why?", "How come?"), 1),
    "rte": ("3\tAnn ran.\tAnn sat.\tnot_entailment", ("Ann ran.", "Ann sat."), 1),
    "sst2": ("a fine film\t1", ("a fine film",), 1),
    "stsb": (
        "0\tm\tMS\t2012\t1\tn\tn\tA man eats.\tHe eats.\t4.25",
        ("A man eats.", "He eats."),
        4.25,
    ),
    "wnli": ("0\tIt fell.\tThe cup fell.\t1", ("It fell.", "The cup fell."), 1),
}


def _write(folder, **files):
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        data = content if isinstance(content, bytes) else content.encode()
        (folder / f"{name}.tsv").write_bytes(data)
    return folder


def _sst2(tmp_path, line, first="good\t1\n"):
    """Writes a training file whose third line is given; returns its path."""
    if isinstance(line, str):
        line = line.encode()
    content = _HEADERS["sst2"].encode() + first.encode() + line + b"\nbad\t0\n"
    return _write(tmp_path / "sst2", train=content) / "train.tsv"


@pytest.mark.parametrize("name", glue.TASKS)
def test_a_line_of_each_task_by_hand(tmp_path, name):
    line, texts, label = _LINES[name]
    _write(tmp_path / "x", train=f"{_HEADERS[name]}{line}\n", dev=_HEADERS[name] + line)
    train, test, part = glue.read_parts(name, tmp_path / "x")
    assert part == "dev"
    for rows in (train, test):
        assert rows.texts == tuple([text] for text in texts)
        assert rows.labels.tolist() == [label]
        assert rows.labels.dtype == (np.float32 if name == "stsb" else np.int32)
    task = glue.TASKS[name]
    assert len(task.class_names) == len(task.labels)


@pytest.mark.parametrize("subfolder", ["", "SST-2", "sst2"])
def test_files_are_found_plain_or_compressed(tmp_path, subfolder):
    content = (_HEADERS["sst2"] + _LINES["sst2"][0]).encode()
    folder = tmp_path / subfolder
    folder.mkdir(exist_ok=True)
    (folder / "train.tsv.gz").write_bytes(gzip.compress(content))
    (folder / "dev.tsv").write_bytes(content)
    train, test, _ = glue.read_parts("sst2", tmp_path)
    assert train.texts == test.texts == (["a fine film"],)


def test_the_test_part_tests_if_it_has_labels(tmp_path):
    head = _HEADERS["sst2"]
    folder = _write(tmp_path / "sst2", train=f"{head}a\t0\n", dev=f"{head}b\t1\n")
    _write(folder, test="index\tsentence\n0\tc\n")
    _, test, part = glue.read_parts("sst2", tmp_path)
    assert (test.texts, part) == ((["b"],), "dev")
    _write(folder, test=f"{head}c\t1\n")
    _, test, part = glue.read_parts("sst2", tmp_path)
    assert (test.texts, part) == ((["c"],), "test")


def test_unlabelled_test_file_of_cola_has_a_header(tmp_path):
    line = _LINES["cola"][0]
    _write(tmp_path, train=line, dev=line, test="index\tsentence\n0\tHe ran.\n")
    _, test, part = glue.read_parts("cola", tmp_path)
    assert (test.labels.tolist(), part) == ([0], "dev")


def test_original_files_of_mrpc(tmp_path):
    # Marked as UTF-8, and lines ending as on Windows.
    content = "\ufeff" + _HEADERS["mrpc"] + _LINES["mrpc"][0] + "\n"
    for part in ("train", "test"):
        path = tmp_path / f"msr_paraphrase_{part}.txt"
        path.write_bytes(content.replace("\n", "\r\n").encode())
    train, test, part = glue.read_parts("mrpc", tmp_path)
    assert part == "test"
    assert train.texts == test.texts == (["It rains."], ["Rain falls."])


def test_quotes_and_other_line_ends_are_plain_characters(tmp_path):
    line = '" he said\x0b, \x85"unbalanced\u2028\t0'
    rows = glue.read_rows(_sst2(tmp_path, line), glue.TASKS["sst2"])
    assert rows.texts[0] == ["good", line[:-2], "bad"]
    assert rows.labels.tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("no label", "1 columns, but 2 were expected"),
        ("a\tb\t1", "3 columns, but 2 were expected"),
        ("", "1 columns, but 2"),
        ("\t1", "the column 'sentence' is empty"),
        (" \u00a0\t1", "the column 'sentence' is empty"),
        ("fine\t2", "the label '2' is none of 0, 1"),
        ("fine\t", "the label '' is none of"),
        ("fine\t1.0", "the label '1.0'"),
        (b"caf\xe9\t1", "not UTF-8"),
    ],
)
def test_lines_that_are_no_examples(tmp_path, line, message, caplog):
    path, task = _sst2(tmp_path, line), glue.TASKS["sst2"]
    where = r"train\.tsv, line 3: "
    with pytest.raises(ValueError, match=f"{where}{message}.*`skip_malformed=True`"):
        glue.read_rows(path, task)
    with caplog.at_level("WARNING"):
        rows = glue.read_rows(path, task, skip_malformed=True)
    assert rows.texts == (["good", "bad"],)
    (record,) = caplog.records
    assert "left out 1 of 3 lines" in record.getMessage()
    assert "the first in line 3" in record.getMessage()


@pytest.mark.parametrize("score", ["nan", "inf", "-0.1", "5.001", "", "good"])
def test_scores_out_of_range(tmp_path, score):
    line = _LINES["stsb"][0].replace("4.25", score)
    path = _write(tmp_path, train=_HEADERS["stsb"] + line) / "train.tsv"
    with pytest.raises(
        ValueError, match=r"line 2: the score '.*' is no number in 0\.\.5"
    ):
        glue.read_rows(path, glue.TASKS["stsb"])


def test_files_of_another_task_or_of_none(tmp_path):
    folder = _write(tmp_path, train=_HEADERS["rte"] + _LINES["rte"][0], dev="")
    with pytest.raises(
        ValueError, match=r"line 1: lacks the column 'sentence'; it has"
    ):
        glue.read_rows(folder / "train.tsv", glue.TASKS["sst2"])
    _write(folder, train=_HEADERS["sst2"])
    with pytest.raises(ValueError, match=r"train\.tsv holds no examples"):
        glue.read_rows(folder / "train.tsv", glue.TASKS["sst2"])
    _write(folder, train="")
    with pytest.raises(ValueError, match=r"train\.tsv, line 1: lacks the column"):
        glue.read_rows(folder / "train.tsv", glue.TASKS["sst2"])


def test_damaged_archives(tmp_path):
    data = gzip.compress((_HEADERS["sst2"] + "fine words here\t1\n" * 99).encode())
    path = tmp_path / "train.tsv.gz"
    for content in (data[:-9], b"no archive", data[:20] + b"\xff" * 9 + data[29:]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"train\.tsv\.gz is cut short or no gzip"):
            glue.read_rows(path, glue.TASKS["sst2"])


def test_files_that_inflate_too_far(tmp_path, monkeypatch):
    monkeypatch.setattr(glue, "_MOST_BYTES", 1000)
    path = tmp_path / "train.tsv.gz"
    for content in ("x\t1\n" * 300, "x" * 2000):
        path.write_bytes(gzip.compress((_HEADERS["sst2"] + content).encode()))
        with pytest.raises(ValueError, match="holds more than 1,000 bytes"):
            glue.read_rows(path, glue.TASKS["sst2"])


def test_missing_files(tmp_path):
    for name, needed in (("sst2", r"train\.tsv"), ("mrpc", r"train\.tsv")):
        with pytest.raises(FileNotFoundError, match=f"Needed: {needed}.*gluebenchmark"):
            glue.read_parts(name, tmp_path)
    _write(tmp_path, train=_HEADERS["sst2"] + "a\t0\n", test="index\tsentence\n")
    with pytest.raises(FileNotFoundError, match="neither a test file with labels nor"):
        glue.read_parts("sst2", tmp_path)


def test_unknown_tasks_list_the_known():
    for name in ("mnli", None):
        with pytest.raises(ValueError, match=r"no known task.* cola, .*sst2, stsb"):
            glue.read_parts(name)  # pyright: ignore[reportArgumentType]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_mutated_files_are_refused_or_read(tmp_path, suffix):
    content = (_HEADERS["stsb"] + 4 * (_LINES["stsb"][0] + "\n")).encode()
    path = tmp_path / f"train.tsv{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)

    def is_sound(rows):
        return all(0 <= score <= 5 for score in rows.labels)

    fuzzing.check(
        lambda p: glue.read_rows(p, glue.TASKS["stsb"]), path, accepts=is_sound
    )
