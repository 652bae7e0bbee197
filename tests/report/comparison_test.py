"""One rule for what equals a published number, and one table."""

import pytest

from codesign.report import Quantity, comparison


def _quantity(value, unit="", **more):
    more = {"source": "Fig. 1", "note": "why", "kind": "derived"} | more
    return Quantity("x", value, unit, **more)


@pytest.mark.parametrize(
    ("value", "unit", "paper", "verdict"),
    [
        (48.14, "%", 48.1, "equal"),  # to the digits that are printed
        (49.05, "%", 48.1, "within"),  # a point of a percentage
        (49.15, "%", 48.1, "missed"),
        (0.6705, "ratio", 0.671, "within"),  # the same of a fraction
        (0.6708, "ratio", 0.671, "equal"),
        (0.6605, "ratio", 0.671, "missed"),
        (0.0, "ratio", 0.0, "equal"),
        (15.4, "×", 15, "equal"),  # no decimal is printed
        (15.6, "×", 15, "missed"),
        (5.6, "s", 6, "missed"),  # rounds to 6, but is 6.7 % off
        (1.005, "s", 1.0, "equal"),
        (101.0, "s", 100.0, "within"),  # 1 % of any other number
        (True, "", True, "equal"),
        (False, "", True, "missed"),
        (None, "s", 1.0, ""),
        (1.0, "s", None, ""),
    ],
)
def test_verdict_on_a_published_number(value, unit, paper, verdict):
    assert _quantity(value, unit, paper=paper).verdict == verdict


@pytest.mark.parametrize(
    ("value", "at_least", "verdict"),
    [
        (7.9, False, "met"),
        (8, False, "met"),
        (8.1, False, "missed"),
        (8.1, True, "met"),
        (7.9, True, "missed"),
        (None, False, "missed"),
    ],
)
def test_verdict_on_a_target(value, at_least, verdict):
    assert _quantity(value, "s", asked=8, at_least=at_least).verdict == verdict


def test_fractions_read_as_percentages():
    (row,) = comparison.table([_quantity(0.281, "ratio", paper=0.671)], "").rows
    assert row.cells[1:5] == ("28.1%", "67.1%", "−39.0 points", "missed")


def test_a_fitted_number_is_told_from_a_measured_one():
    kinds = [
        _quantity(1.0, "s", paper=1.0, kind=kind) for kind in ("fitted", "derived")
    ]
    table = comparison.table(kinds, "")
    place = [column.name for column in table.columns].index("Kind")
    assert [row.cells[place] for row in table.rows] == ["fitted", "derived"]
    same = comparison.table(kinds[:1], "")
    assert "Kind" not in [column.name for column in same.columns]


def test_what_rounds_to_nothing_is_the_same():
    assert comparison.difference(_quantity(0.1662, "ratio", paper=0.166)) == "same"
    assert (
        comparison.difference(_quantity(0.1667, "ratio", paper=0.166)) == "+0.1 points"
    )


def test_a_printed_bound_stands_among_published_numbers():
    bound = _quantity(144.5, "MB", paper=180, asked=180, title="needs")
    table = comparison.table([_quantity(296, "MB", paper=296), bound], "T")
    assert [column.name for column in table.columns][2] == "Paper"
    assert "Peer elsewhere" not in [column.name for column in table.columns]
    assert table.rows[1].cells[2] == "≤ 180 MB"
    assert "met" in table.rows[1].cells


def test_a_target_that_a_peer_set_shows_what_the_peer_reached():
    target = _quantity(6, "", paper=8, asked=8, source="BOCS-SDP")
    table = comparison.table([target], "Targets")
    row = dict(zip([c.name for c in table.columns], table.rows[0].cells, strict=True))
    assert (row["Asked"], row["Peer elsewhere"]) == ("≤ 8", "8")
