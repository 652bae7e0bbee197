"""When a placement counts as confirmed, and what several networks come to together."""

import numpy as np

from codesign.report import Quantity
from codesign.studies.deeptrain.placement_quantities import over_networks
from codesign.studies.deeptrain.placement_result import PlacementRow
from codesign.studies.deeptrain.placement_search import is_confirmed


def _row(*validation, statuses=None):
    return PlacementRow(
        mask=np.ones(2),
        statuses=statuses or ("trained",) * len(validation),
        validation=validation,
        test=validation,
        history=(),
        cost=None,
        training_time_s=0.0,
    )


def test_confirmed_within_a_point_or_two_standard_errors():
    assert is_confirmed(_row(0.98, 0.98), _row(0.99, 0.99))
    assert not is_confirmed(_row(0.975, 0.975), _row(0.99, 0.99))
    # Means differ by 1.5 points; the standard error of each is 1 point.
    assert is_confirmed(_row(0.965, 0.985), _row(0.98, 1.0))
    # A seed that stayed at chance, or diverged, is no noise.
    lucky = _row(0.98, 0.98, 0.1, statuses=("trained", "trained", "at_chance"))
    assert not is_confirmed(lucky, _row(0.98, 0.98, 0.98))
    survivor = _row(0.98, statuses=("trained", "diverged", "diverged"))
    assert not is_confirmed(survivor, _row(0.98, 0.98, 0.98))


def test_one_seed_has_no_standard_error():
    assert _row(0.98).accuracy_error is None
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
    ]
    found = {q.key: q for q in over_networks(quantities, several=True)}
    assert found["accuracy"].value == 0.8
    assert found["accuracy"].note == "mean of 2 networks"
    assert found["surrogate_r_hat"].value == 1.1
    assert found["num_failed"].value == 3
    (alone, *_) = over_networks(quantities[:1], several=False)
    assert (alone.key, alone.value, alone.note) == ("accuracy", 0.9, "of 0.9")
