"""What a notebook shows of a study."""

import pytest

from codesign.search.study import Study
from tests.records.html_test import EVIL, Reader


def _rows(study):
    return Reader(study._repr_html_()).rows


def test_the_best_stands_first_and_the_latest_follow():
    study = Study(4, sparsity_penalty=0.25)
    study.tell([1, 0, 0, 0], 0.875)
    study.tell([1, 1, 1, 1], 1.5)  # 0.5 less the penalty of 1
    for i in range(4):
        study.tell([0, *map(int, f"{i:03b}")], 0.5)
    study.fail([1, 1, 0, 0], "diverged")
    study.enqueue([1, 0, 1, 1])
    heading, best, *latest, note = _rows(study)
    assert heading == [
        *("", "Trial", "Point", "Status", "Origin"),
        *("Value", "Penalised", "Time", "Reason"),
    ]
    assert best == ["★", "0", "1000", "told", "told", "0.875", "0.625", "–", ""]
    assert [row[1] for row in latest] == ["3", "4", "5", "6", "7"]
    assert latest[0][5:7] == ["0.5", "0.25"]  # one 1
    assert latest[3][3:] == ["failed", "told", "–", "–", "–", "diverged"]
    assert latest[4][2:4] == ["1011", "queued"]
    assert note == ["The best and the latest 5."]
    assert "8 trials: 6 told, 1 failed, 1 queued" in study._repr_html_()


def test_a_small_one_has_no_empty_columns_and_no_row_twice():
    study = Study(3)
    study.tell([0, 0, 1], 0.5)
    study.ask()
    heading, *rows = _rows(study)
    assert heading == ["", "Trial", "Point", "Status", "Origin", "Value", "Time"]
    assert [row[1] for row in rows] == ["0", "1"]
    assert rows[1][3] == "running"


def test_nothing_told_yet():
    study = Study(3)
    assert "without trials" in study._repr_html_()
    study.fail([0, 0, 1], EVIL)
    page = study._repr_html_()
    assert "script" not in Reader(page).tags
    assert "&lt;script&gt;" in page
    assert _rows(study)[1][0] == "0"  # no star


@pytest.mark.parametrize(
    ("ones", "text"),
    [([], "none of 40"), ([3, 39], "2 of 40: 3, 39"),
     (range(9), "9 of 40: 0, 1, 2, 3, 4, 5, 6, 7, …")],
)  # fmt: skip
def test_points_of_many_variables_are_named_by_their_ones(ones, text):
    study = Study(40)
    study.tell([int(i in ones) for i in range(40)], 0.5)
    assert _rows(study)[1][2] == text
