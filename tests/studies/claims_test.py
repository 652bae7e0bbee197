"""Claims that noise cannot help, against cases worked by hand."""

import numpy as np
import pytest

from codesign.studies import claims
from codesign.studies.claims import PairedLoss, paired_losses, verdicts

_MANY = 10**6  # images, so that whole ones do not matter


def _verdict(candidate, reference, num_images=_MANY):
    loss = PairedLoss(paired_losses(candidate, reference), num_images)
    return verdicts({"it": loss})["it"]


def test_bound_by_hand():
    # Losses 0, 1, 2 points: mean 1, standard deviation 1, error 1 / sqrt(3) = 0.5774;
    # t(2) at 95 % is 2.92: 1 + 2.92 x 0.5774 = 2.686 points.
    loss = PairedLoss(paired_losses((0.98, 0.97, 0.96), (0.98,) * 3), _MANY)
    assert loss.mean == pytest.approx(0.01)
    assert loss.bound() == pytest.approx(0.02686, abs=1e-5)
    np.testing.assert_allclose(loss.p_values(), (0.5, 0.5))


@pytest.mark.parametrize(
    ("candidate", "reference", "verdict"),
    [
        ((0.98, 0.981, 0.979), (0.98, 0.98, 0.98), "non_inferior"),
        ((0.97, 0.97, 0.60), (0.98, 0.98, 0.98), "not_decided"),
        ((0.90, 0.901, 0.899), (0.98, 0.98, 0.98), "inferior"),
        ((0.98, 0.98, None), (0.98, 0.98, 0.98), "not_decided"),
        ((None, None, None), (0.98, 0.98, 0.98), "inferior"),
        ((0.98, 0.98), (0.98, 0.98), "not_decided"),  # two seeds decide nothing
        ((0.98,), (0.90,), "not_decided"),
        ((0.98, 0.98, 0.98), (0.98, 0.98, None), "not_decided"),  # two pairs
        ((0.98, 0.98, 0.98, None), (0.98, 0.98, 0.98, None), "non_inferior"),
        ((0.98,) * 3, (0.98,) * 3, "non_inferior"),
        ((0.97,) * 3, (0.98,) * 3, "not_decided"),  # exactly 1 point
        ((0.96,) * 3, (0.98,) * 3, "inferior"),
    ],
)
def test_verdicts(candidate, reference, verdict):
    assert _verdict(candidate, reference) == verdict


@pytest.mark.parametrize("later", [(0.98,) * 3, (0.99,) * 3, (1.0,) * 20])
def test_one_run_that_diverged_is_not_made_up_for(later):
    reference = (0.98,) * (1 + len(later))
    assert _verdict((None, *later), reference) == "not_decided"


def test_a_run_that_diverged_never_helps():
    whole = PairedLoss(paired_losses((0.97, 0.98, 0.98), (0.98,) * 3), _MANY)
    broken = PairedLoss(paired_losses((0.97, 0.98, None), (0.98,) * 3), _MANY)
    assert broken.bound() > whole.bound()
    assert broken.p_values()[0] > whole.p_values()[0]


def test_equal_losses_are_known_to_half_an_image():
    # 100 images: 0.5 points, error 0.5 / sqrt(3) = 0.2887, t(2) at 95 % is 2.92.
    loss = PairedLoss((0.0, 0.0, 0.0), 100)
    assert loss.bound() == pytest.approx(0.00843, abs=1e-5)
    assert verdicts({"it": loss})["it"] == "non_inferior"
    # At 2.5 % it is 4.303: 1.24 points.
    assert verdicts({"it": loss}, level=0.025)["it"] == "not_decided"


def test_one_pair_has_no_bound():
    assert PairedLoss((0.0,), 360).bound() is None


def test_claims_of_a_page_are_decided_together():
    # p-values of about 0.03 and 0.04, each below 0.05. Of two the smaller must be below
    # 0.025, and as it is not, neither holds; of a third of 0 both do not change.
    found = {
        "a": PairedLoss((0.0, 0.002, 0.0065), _MANY),
        "b": PairedLoss((0.0, 0.002, 0.0075), _MANY),
    }
    p = {name: loss.p_values()[0] for name, loss in found.items()}
    assert 0.025 < p["a"] < p["b"] < 0.05
    assert all(
        verdicts({"it": each})["it"] == "non_inferior" for each in found.values()
    )
    assert set(verdicts(found).values()) == {"not_decided"}
    # Beside one that is far below, "b" has the last place, and all of the level.
    found["a"] = PairedLoss((0.0, 0.0001, 0.0002), _MANY)
    assert set(verdicts(found).values()) == {"non_inferior"}


@pytest.mark.parametrize(
    ("num_seeds", "max_seeds", "looks"),
    [(3, 6, (3, 6)), (3, 3, (3,)), (2, 6, (6,)), (2, 2, ()), (1, 2, ())],
)
def test_too_few_seeds_are_no_look(num_seeds, max_seeds, looks):
    assert claims.looks(num_seeds, max_seeds) == looks


@pytest.mark.parametrize("num_images", [360, _MANY])
@pytest.mark.parametrize("deviation", [0.0005, 0.002, 0.01])
def test_two_looks_rarely_claim_what_is_not_so(num_images, deviation):
    # A true mean loss of exactly 1 point, in whole images: a claim in 5 % of trials at
    # most. With all of the level at each look it would be 8 %, and so without the half
    # image, of 360 images and the least deviation.
    rng = np.random.default_rng(0)
    looks, trials = claims.looks(3, 6), 2000
    exact = num_images * rng.normal(0.01, deviation, (trials, max(looks)))
    losses = np.floor(exact + rng.uniform(size=exact.shape)) / num_images

    def decided(row):
        """The first look's verdict, or the last one's where that leaves it open."""
        for look in looks:
            loss = PairedLoss(tuple(row[:look]), num_images)
            verdict = verdicts({"it": loss}, level=claims.LEVEL / len(looks))["it"]
            if verdict != "not_decided":
                return verdict
        return "not_decided"

    claimed = sum(decided(row) == "non_inferior" for row in losses)
    assert claimed <= trials * 0.05 + 2 * np.sqrt(trials * 0.05 * 0.95)


def test_a_mean_loss_of_a_point_is_within():
    assert claims.is_within((0.99 - 0.98,))  # a little more than 0.01 in binary
    assert not claims.is_within((0.0, 0.0, 0.031))


def test_runs_are_paired_by_seed():
    with pytest.raises(ValueError, match=r"has 2 runs and `reference` 3; train both"):
        paired_losses((0.9, 0.9), (0.9,) * 3)
