"""When a placement counts as confirmed, and what several networks come to together."""

import dataclasses

import numpy as np
import pytest

from codesign.report import Quantity
from codesign.studies.deeptrain.placement_quantities import over_networks
from codesign.studies.deeptrain.placement_result import PlacementRow
from codesign.studies.deeptrain.placement_search import is_confirmed


def _row(*accuracies):
    return PlacementRow(
        mask=np.ones(2),
        statuses=tuple("diverged" if a is None else "trained" for a in accuracies),
        validation=accuracies,
        test=accuracies,
        history=(),
        cost=None,
        batch_size=64,
        training_time_s=0.0,
        bn_elements=0.0,
        observed=(),
        metrics=None,
    )


@pytest.mark.parametrize(
    ("found", "reference", "valid"),
    [
        ((0.98, 0.98), (0.99, 0.99), True),  # exactly a point
        ((0.975, 0.975), (0.99, 0.99), False),
        ((0.965, 0.985), (0.98, 1.0), False),  # 1.5 points, as noisy as they are
        ((0.97, 0.97, 0.60), (0.98, 0.98, 0.98), False),  # 13.3 points
        ((0.96, 0.98, 0.98), (0.98, 0.97, 0.98), True),  # 2, -1 and 0 points
        ((0.98,), (0.99,), True),
        ((0.97,), (0.99,), False),
        ((0.98, None, 0.98), (0.98, 0.98, 0.98), False),
        # All-BN diverged once: the other two pairs lose 0 and 2 points.
        ((0.98, 0.98, 0.96), (0.98, None, 0.98), True),
    ],
)
def test_valid_within_a_point_however_noisy(found, reference, valid):
    assert is_confirmed(_row(*found), _row(*reference)) == valid


def test_a_seed_at_chance_is_no_noise():
    lucky = dataclasses.replace(
        _row(1.0, 1.0, 0.98), statuses=("trained", "trained", "at_chance")
    )
    assert not is_confirmed(lucky, _row(0.98, 0.98, 0.98))


def test_runs_that_diverged_keep_their_place_and_count_in_no_mean():
    row = _row(0.96, None, 0.98)
    np.testing.assert_allclose((row.accuracy, row.accuracy_error), (0.97, 0.01))
    assert row.num_diverged == 1
    assert _row(None, None).accuracy is None


def test_one_seed_has_no_standard_error():
    assert _row(0.98).accuracy_error is None
    assert _row(0.98, None).accuracy_error is None
    np.testing.assert_allclose(_row(0.965, 0.985).accuracy_error, 0.01)


def test_a_mean_over_networks_says_nothing_of_one():
    def measured(name, *values):
        return [
            Quantity(name, v, kind="measured", of={"network": f"{i}"}, note=f"of {v}")
            for i, v in enumerate(values)
        ]

    quantities = [
        *measured("accuracy", 0.9, 0.7),
        *measured("surrogate_r_hat", 1.1, None),
        *measured("num_failed", 1, 2),
        *measured("accuracy_loss_upper", 0.01, 0.03),
    ]
    found = {q.key: q for q in over_networks(quantities, several=True)}
    assert found["accuracy"].value == 0.8
    assert found["accuracy"].note == "mean of 2 networks"
    assert found["surrogate_r_hat"].value == 1.1
    assert found["num_failed"].value == 3
    assert found["accuracy_loss_upper"].value == 0.03  # a bound of all of them
    (alone, *_) = over_networks(quantities[:1], several=False)
    assert (alone.key, alone.value, alone.note) == ("accuracy", 0.9, "of 0.9")
