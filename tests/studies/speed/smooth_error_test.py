"""Tables of the smooth models' errors, and a figure that holds zeros."""

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from codesign.hardware.closeness import TEMPERATURES, Closeness
from codesign.studies import frame
from codesign.studies.speed import bench, smooth_error


def _close(t, counts=0.0):
    return Closeness(
        value_error=np.array([(0.02 * t, 0), (0.06 * t, 0)]),
        slope_error=1e-7,
        pairs={
            "smooth": np.array([(1.0, 1.0), (-1.0, -0.95), (0.0, 0.0)]),
            "counts": np.array([(-1.0 - counts, -1.0), (0.5, 0.5)]),
        },
        num_ties=3,
    )


@pytest.fixture
def rows(monkeypatch):
    def measure(estimate, cases):
        assert len(list(cases)) == 4 * 2 * 4
        return {t: _close(t) for t in TEMPERATURES}

    monkeypatch.setattr(smooth_error.closeness, "measure", measure)
    return smooth_error.stack(0.25, 3, 0)


def test_rows_have_the_targets_of_one_temperature(rows):
    asked = {row.key: row for row in rows if row.asked is not None}
    assert all(row.of["temperature"] == "0.1" for row in asked.values())
    worst = asked["latency_worst[stack,width 0.25,0.1]"]
    assert (worst.value, worst.asked) == (pytest.approx(0.006), 0.05)
    assert "counts_worst[stack,width 0.25,0.1]" in asked
    assert all(row.verdict == "met" for row in asked.values())
    ratio = next(row for row in rows if row.name == "counts_ratio")
    assert ratio.value == 1


def test_one_line_a_temperature(rows):
    (table,) = smooth_error.tables(rows)
    text = table.to_text()
    assert text.startswith("Smooth beside exact, in %: stack, width 0.25\n")
    assert [row.cells[0] for row in table.rows] == ["1.0", "0.1", "0.01", "0.001"]
    # Median and worst of 0.002 and 0.006, of 0 and 0, of 0, 0.05 and 0, of 0 and 0.
    cells = ("0.4/0.6", "0/0", "0/5", "0/0", "0", "0", "3")
    assert table.rows[1].cells[1:] == cells


def test_a_report_of_zeros_has_its_figure(rows):
    config = bench.PRESETS["smoke"]
    report = bench.report(config, {("smooth", "stack", 0.25, 3, "here"): rows})
    figure, *tables = report.sections[0].body
    assert isinstance(figure, frame.Figure)
    assert len(tables) == 1  # none of times, as there are none
    assert report.compared == ["Targets"]
    bars = figure.drawn.axes[0].patches
    widths = [bar.get_width() for bar in bars if isinstance(bar, Rectangle)]
    assert min(widths) == 1e-3 - 1
    assert report.summary.startswith("9 of 9 targets met")


@pytest.mark.slow
@pytest.mark.parametrize("piece", [smooth_error.titan, smooth_error.memory_chip])
def test_pieces(piece, monkeypatch):
    monkeypatch.setattr(smooth_error, "_CAPACITIES_MB", (64,))
    found = piece({"titan": 0.25}.get(piece.__name__, "vgg16"), 3, 0)
    values = {row.key: row.value for row in found}
    assert len({row.of["temperature"] for row in found}) == 4
    for key, value in values.items():
        if key.startswith(("latency_median", "energy_median")) and "1.0" not in key:
            assert value < 0.02
        if key.startswith("difference_worst"):
            assert value < 1e-4
