"""Networks made reversible on a small scale: what goes on, is said, and is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codesign.models.pre_activation import (
    NUM_SITES,
    PLAIN,
    ResidualNet,
    all_norms,
    in_wiring,
)
from codesign.models.to_reversible import WIRINGS
from codesign.report import Results
from codesign.studies.camel import to_reversible
from codesign.studies.camel.to_reversible_report import SeedRun, WayRun, report

_SMOKE = to_reversible.PRESETS["smoke"]


def _run(before, **after):
    """A seed of which each way loses what is given, and 20 points right after."""
    ways = {way: after.get(way, before) for way in (PLAIN, *WIRINGS)}
    runs = (
        WayRun(way, before - 0.2, before - 0.1, a, () if a is None else (1.0,))
        for way, a in ways.items()
    )
    return SeedRun(before, (2.0, 1.5), 1000, tuple(runs))


@pytest.mark.slow
@pytest.mark.parametrize("way", WIRINGS)
def test_a_network_in_a_wiring_has_the_trained_variables(way):
    images = jnp.asarray(
        np.random.default_rng(0).normal(size=(2, 8, 8, 1)), jnp.float32
    )
    plain, made = (ResidualNet(4, 2, 10, w) for w in (PLAIN, way))
    trained = plain.init(jax.random.key(0), images, all_norms(), train=True)
    placed = in_wiring(made, trained)
    new = jax.eval_shape(
        lambda: made.init(jax.random.key(1), images, all_norms(), train=True)
    )
    assert jax.tree.map(jnp.shape, placed) == jax.tree.map(jnp.shape, new)
    assert len(all_norms()) == NUM_SITES
    # Residual functions that are all zero leave both networks the same.
    zeros = {
        name: {**tree, "blocks": jax.tree.map(jnp.zeros_like, tree["blocks"])}
        for name, tree in trained.items()
    }
    expected = plain.apply(zeros, images, all_norms(), train=False)
    found = made.apply(in_wiring(made, zeros), images, all_norms(), train=False)
    # On a lattice of 2^-12.
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_verdicts_of_losses_by_hand():
    # pairs: none lost; copies: 3 points of each; leapfrog: one of four diverged.
    found = {
        seed: _run(0.95 + seed / 1000, copies=0.92 + seed / 1000) for seed in range(3)
    }
    found[3] = _run(0.953, copies=0.923, leapfrog=None)
    made = report(_SMOKE, found)
    by_key = {each.key: each for each in made.quantities}
    for reference in ("before", PLAIN):  # which stays where it was
        assert by_key[f"claim[pairs,{reference}]"].note == "non_inferior"
        assert by_key[f"claim[copies,{reference}]"].note == "inferior"
        assert by_key[f"claim[leapfrog,{reference}]"].note == "not_decided"
    assert by_key["accuracy_loss[copies]"].value == pytest.approx(0.03)
    assert by_key["accuracy_right_after[copies]"].value == pytest.approx(0.7515)
    assert by_key["accuracy_gathered[copies]"].value == pytest.approx(0.8515)
    # A network that diverged counts as an accuracy of 0.
    assert by_key["accuracy_loss[leapfrog]"].value == pytest.approx(0.953 / 4)
    assert by_key["accuracy_loss_upper[pairs]"].verdict == "met"
    assert made.warnings == ["seed 3: reversible, leapfrog diverged"]
    assert set(made.figures) == {"accuracy", "loss"}


@pytest.mark.slow
def test_what_is_written(tmp_path):
    found = to_reversible.run(_SMOKE, workdir=tmp_path)
    by_key = {e.key: e for e in Results.read(tmp_path / "results.json").quantities}
    (run,) = found.values()
    assert [way.way for way in run.ways] == [PLAIN, *WIRINGS]
    assert by_key["accuracy_before"].value == run.before
    # The residual network itself goes on from where it was.
    assert run.of(PLAIN).right_after == run.before
    assert len(run.losses) == _SMOKE.train.epochs


def test_refuses_an_odd_depth():
    with pytest.raises(ValueError, match=r"`depth` \(=3\) must be even"):
        dataclasses.replace(_SMOKE, depth=3).checked()
