"""The claim on BO-N: decided over a page, and told in its table and its summary."""

import dataclasses

import numpy as np
import pytest

from codesign import models, workload
from codesign.hardware import chips
from codesign.studies.deeptrain import placement_claims as claims
from codesign.studies.deeptrain import placement_report
from codesign.studies.deeptrain.placement_quantities import result_quantities
from codesign.studies.deeptrain.placement_result import (
    PlacementResult,
    PlacementRow,
    placement_cost,
)
from codesign.studies.deeptrain.placement_settings import PRESETS

_CONFIG = PRESETS["default"]  # 3 seeds, at most 6
_GOOD = (0.98, 0.981, 0.979)


@pytest.fixture(scope="module")
def result_of():
    """Makes a result of one network from the accuracies of BO-N and All-BN."""
    network = models.create("vgg11", image_shape=(32, 32, 1), width=0.0625)
    ops, chip = workload.trace(*network.trace_args()), chips.by_name("deeptrain:3R1G")

    def row(mask, accuracies):
        return PlacementRow(
            mask=np.array(mask, np.int8),
            statuses=tuple("diverged" if a is None else "trained" for a in accuracies),
            validation=tuple(accuracies),
            test=tuple(accuracies),
            history=(),
            cost=placement_cost(chip, ops, np.array(mask), 64),
            batch_size=64,
            training_time_s=1.0,
            bn_elements=float(sum(mask)),
            observed=(),
            metrics=None,
        )

    def make(bo_n, all_bn=(0.98,) * 3, doubt=""):
        rows = {
            "all_bn": row([1] * 8, all_bn),
            "no_bn": row([0] * 8, (0.1,) * 3),
            "bo_n": row([0, 0, 1, 0, 0, 0, 1, 0], bo_n),
        }
        if doubt:
            rows["bo_n"] = rows["all_bn"]
        return PlacementResult(
            network=network,
            ops=ops,
            chip=chip,
            trials=[],
            rows=rows,
            doubt=doubt,
            num_step_traces=1,
            num_test=10_000,
        )

    return make


def _claim(result, config=_CONFIG):
    return claims.settle(config, {"vgg11": result})["vgg11"]


def _text(result, config=_CONFIG):
    """Accuracy and claim of BO-N as the table has them, and the summary."""
    claim = _claim(result, config)
    table = placement_report.comparison_table(config, result, claim)
    headings = [column.name for column in table.columns]
    cells = dict(zip(headings, table.rows[-1].cells, strict=True))
    summary = placement_report.summary(config, result, claim)
    return cells["Test accuracy"], cells["Claim"], summary, table.footnotes


def test_a_claim_that_holds(result_of):
    # Losses 0, -0.1 and 0.1 points: error 0.0577, t(2) at 95 % is 2.92: 0.17 points.
    accuracy, claim, summary, notes = _text(result_of(_GOOD))
    assert (accuracy, claim) == ("98.0 ± 0.1%", "non-inferior")
    assert "over 3 seeds, a loss of 0.00 points, at most 0.17 with 95% conf" in summary
    assert "confidence: not inferior by more than 1 point." in summary
    assert any("after 3 and 6 seeds, at half of that each" in note for note in notes)


def test_noise_leaves_it_open(result_of):
    _, claim, summary, _ = _text(result_of((0.97, 0.97, 0.60)))
    assert claim == "not decided"
    # 13.33 points, error 12.33: 13.33 + 2.92 x 12.33 = 49.35.
    assert "loss of 13.33 points, at most 49.35 with 95% confidence: not dec" in summary
    assert "not decided" in summary


def test_one_that_is_worse(result_of):
    _, claim, summary, _ = _text(result_of((0.90, 0.901, 0.899)))
    assert claim == "inferior"
    assert ": inferior by more than 1 point." in summary


def test_a_diverged_seed_stands_in_the_table(result_of):
    accuracy, claim, *_ = _text(result_of((0.98, None, 0.98)))
    assert accuracy == "98.0 ± 0.0% (2 of 3, 1 diverged)"
    assert claim == "not decided"
    accuracy, *_ = _text(result_of((None,) * 3))
    assert accuracy == "all 3 diverged"


def test_one_seed_has_no_error_and_no_bound(result_of):
    config = dataclasses.replace(_CONFIG, num_seeds=1, max_seeds=1)
    result = result_of((0.975,), (0.98,))
    accuracy, claim, summary, notes = _text(result, config)
    assert (accuracy, claim) == ("97.5%", "not decided")
    assert "a loss of 0.50 points: not decided, as a claim takes 3 seeds" in summary
    assert any("so 1 do not decide it" in note for note in notes)
    found = {q.key: q for q in result_quantities(result, None)}
    assert found["accuracy_loss[bo_n,vgg11]"].value == pytest.approx(0.005)
    assert found["accuracy_loss_upper[bo_n,vgg11]"].value is None


def test_rows_of_other_numbers_of_seeds_are_said(result_of):
    result = result_of((0.98, 0.99, 0.97, 0.98, 0.98, 0.98), (0.98,) * 6)
    *_, notes = _text(result)
    assert notes[0].startswith(
        "Test accuracy: mean over 3 seeds, of All-BN and BO-N ov"
    )


def test_nothing_found_claims_nothing(result_of):
    result = result_of((), doubt="none held")
    assert claims.settle(_CONFIG, {"vgg11": result}) == {}
    assert not claims.is_open(_CONFIG, result)
    found = {q.key: q for q in result_quantities(result, None)}
    assert found["accuracy_loss[bo_n,vgg11]"].value is None
    assert found["accuracy_loss[bo_n,vgg11]"].note == "none found: none held"


@pytest.mark.parametrize(
    ("bo_n", "changes", "is_open"),
    [
        ((0.97, 0.975, 0.98), {}, True),
        (_GOOD, {}, False),
        ((0.90, 0.901, 0.899), {}, False),  # inferior is decided, too
        ((0.97, 0.975, 0.98), {"max_seeds": 3}, False),
        ((0.97, 0.975), {"num_seeds": 2}, True),
        ((0.97, 0.975), {"num_seeds": 1, "max_seeds": 2}, False),  # too few in any case
    ],
)
def test_more_seeds_while_they_could_tell(result_of, bo_n, changes, is_open):
    config = dataclasses.replace(_CONFIG, **changes)
    result = result_of(bo_n, (0.98,) * len(bo_n))
    assert claims.is_open(config, result) == is_open


def test_what_is_decided_alone_is_decided_on_the_page(result_of):
    # p = 0.02: below 2.5 % of one network, above the 1.25 % of either of two.
    result = result_of((0.9805, 0.978, 0.975))
    p = result.loss.p_values()[0]
    assert 0.0125 < p < 0.025
    two = dataclasses.replace(_CONFIG, networks=("vgg11", "vgg16"))
    assert not claims.is_open(_CONFIG, result)
    assert claims.is_open(two, result)
    found = {"vgg11": result, "vgg16": result_of((0.97, 0.60, 0.98))}
    assert {claim.verdict for claim in claims.settle(two, found).values()} == {
        "not_decided"
    }
    claim = claims.settle(two, found)["vgg11"]
    assert "as several looks or claims share the 5%" in claim.sentence
