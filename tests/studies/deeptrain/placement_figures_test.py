"""The figures of a placement search: what is drawn, not how it looks."""

import numpy as np
import pytest

from codesign.studies.deeptrain import placement_figures as figures

_PANELS = {
    "All-BN": {"2R2G": (60e-6, 66e-6), "3R1G": (20e-6, 130e-6)},
    "BO-N": {"2R2G": (60e-6, 9e-6), "3R1G": (20e-6, 15e-6)},
}


@pytest.mark.parametrize(
    ("normalize", "heights", "label"),
    [
        (True, [1, 1, 1.1, 6.5], "Time / slowest Conv/FC stage"),
        (False, [60, 20, 66, 130], "Time of the stage (µs)"),
    ],
)
def test_stage_bars(normalize, heights, label):
    figure = figures.stage_bars(_PANELS, normalize=normalize)
    bars = figure.axes[0].patches
    np.testing.assert_allclose([bar.get_height() for bar in bars], heights)  # pyright: ignore[reportAttributeAccessIssue]
    assert figure.get_supylabel() == label
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()


def test_inclusion_probability_has_a_panel_of_elements():
    figure = figures.inclusion_probability(
        [0.1, 0.95],
        [0, 1],
        ["C1", "C2"],
        intervals=[(0.0, 0.2), (0.9, 1.0)],
        elements=[65536, 2048],
    )
    top, bottom = figure.axes
    assert top.get_ylabel()
    assert bottom.get_ylabel()
    np.testing.assert_allclose([b.get_height() for b in top.patches], [0.95, 0.1])  # pyright: ignore[reportAttributeAccessIssue]
    np.testing.assert_allclose([b.get_height() for b in bottom.patches], [65536, 2048])  # pyright: ignore[reportAttributeAccessIssue]


def test_rejects():
    with pytest.raises(ValueError, match="`panels` must hold"):
        figures.stage_bars({})
    with pytest.raises(ValueError, match="positive first times"):
        figures.stage_bars({"a": {"2R2G": (0.0, 1.0)}})
    with pytest.raises(ValueError, match=r"`sites` \(of 1\).*same length"):
        figures.inclusion_probability([0.1, 0.2], [0, 1], ["C1"])
