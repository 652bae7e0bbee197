"""What may be told to a study, how it is kept, and what is refused."""

import jax.numpy as jnp
import numpy as np
import pytest

from codesign.search.study import Study


def _study(journal=None, **kwargs):
    settings = {"num_variables": 6, "seed": 3, "num_initial": 4, **kwargs}
    return Study(journal=journal, **settings)


def test_results_that_nobody_asked_for():
    study = _study()
    study.tell([1, 0, 0, 0, 0, 0], 0.4)
    study.fail([0, 1, 0, 0, 0, 0], "too large")
    assert [(t.status, t.origin) for t in study.trials] == [
        ("told", "told"),
        ("failed", "told"),
    ]
    assert study.trials[0].seconds is None


def test_telling_twice():
    study = _study()
    x = [1, 0, 0, 0, 0, 0]
    study.tell(x, 0.4, {"a": 1})
    study.tell(x, 0.4)
    with pytest.raises(
        ValueError, match=r"`value` \(=0.5\) contradicts 0.4.*noisy=True"
    ):
        study.tell(x, 0.5)
    with pytest.raises(ValueError, match=r"100000.*told with the value 0.4"):
        study.fail(x, "no")
    (trial,) = study.trials
    assert (trial.values, trial.metrics) == ((0.4,), {"a": 1})


def test_a_result_wins_over_an_earlier_failure():
    study = _study()
    x = study.ask()[0]
    study.fail(x, "worker lost")
    study.tell(x, 0.7)
    (trial,) = study.trials
    assert (trial.status, trial.value, trial.reason) == ("told", 0.7, None)


def test_noisy_repeats_are_all_learnt_from_and_averaged():
    study = _study(noisy=True, sparsity_penalty=0.1)
    for value in (0.25, 0.75, 0.75, 0.25):
        study.tell([1, 0, 0, 0, 0, 0], value)
    study.tell([0, 1, 1, 0, 0, 0], 0.625)
    x, y = study.observations()
    assert x.shape == (5, 6)
    assert y.tolist() == [0.25, 0.75, 0.75, 0.25, 0.625]
    assert study.trials[0].value == 0.5
    assert study.best.number == 1  # 0.625 - 0.2 against 0.5 - 0.1
    assert study.ask(3).shape == (3, 6)


def test_best_takes_the_penalty_off():
    study = _study(sparsity_penalty=0.25)
    assert study.best is None
    study.ask()
    assert study.best is None
    study.tell([1, 1, 1, 0, 0, 0], 1.0)  # 0.25
    study.tell([1, 0, 0, 0, 0, 0], 0.75)  # 0.5
    study.tell([0, 0, 0, 0, 0, 0], 0.5)  # 0.5, later
    assert study.best.x.tolist() == [1, 0, 0, 0, 0, 0]  # pyright: ignore[reportAttributeAccessIssue]
    assert study.penalised(study.best) == 0.5
    with pytest.raises(ValueError, match=r"`trial` \(number 0\) is running"):
        study.penalised(study.trials[0])


def test_metrics_and_exact_values_come_back(tmp_path):
    path = tmp_path / "study.jsonl"
    metrics = {
        "latency_s": np.float32(0.1),
        "curve": [np.float64(1 / 3), jnp.float32(2.0)],
        "confusion": np.eye(2, dtype=int),
        "nested": {"note": "ü", "none": None, "flag": np.True_},
    }
    study = _study(path)
    x = study.ask()[0]
    study.tell(x, np.float32(0.1), metrics)
    (trial,) = _study(path).trials
    assert trial.value == float(np.float32(0.1))
    assert trial.metrics == {
        "latency_s": float(np.float32(0.1)),
        "curve": [1 / 3, 2.0],
        "confusion": [[1, 0], [0, 1]],
        "nested": {"note": "ü", "none": None, "flag": True},
    }
    assert trial.seconds >= 0
    assert not trial.x.flags.writeable


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([0, 1, 2, 0, 0, 0], "`x` must hold only 0 and 1"),
        ([0.5] * 6, "`x` must hold only 0 and 1"),
        ([np.nan] * 6, "`x` must hold only 0 and 1"),
        (list("010101"), "`x` must hold only 0 and 1"),
        ([0] * 5, r"`x` must be one point \[C\] with C = 6, got shape \(5,\)"),
        ([[0] * 6], r"shape \(1, 6\); `ask` returns \[q, C\]"),
        (0, r"`x` must be one point"),
    ],
)
def test_rejects_points(x, message):
    study = _study()
    for call in (
        lambda: study.tell(x, 0.1),
        lambda: study.fail(x, "no"),
        lambda: study.enqueue(x),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert study.trials == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, None, "x", [0.1, 0.2]])
def test_rejects_values(value):
    study = _study()
    with pytest.raises(ValueError, match=r"`value` must be"):
        study.tell([0] * 6, value)
    assert study.trials == []


def _deep(num_levels):
    tree = {}
    for _ in range(num_levels):
        tree = {"a": [tree]}
    return tree


def _loop():
    tree = {}
    tree["a"] = tree
    return tree


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (10**400, "at most 1.8e308 in size, got an integer of 1329 bits"),
        (-(10**5000), "at most 1.8e308 in size, got an integer of 16610 bits"),
        (_deep(5000), "one number, got a dict that cannot be shown"),
        ("9" * 9000, "finite, got inf"),
    ],
    ids=["large", "huge", "deep", "text"],
)
def test_rejects_what_no_float_holds(value, message):
    with pytest.raises(ValueError, match=rf"`value` must be {message}"):
        _study().tell([0] * 6, value)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (_deep(51), "nest more than 100 deep"),
        (_deep(50_000), "nest more than 100 deep.*a dict that cannot be shown"),
        (_loop(), "nest more than 100 deep"),
        ({"a": 10**5000}, "Exceeds the limit"),
        ({"a" * 10_000: np.nan}, r"a{50,98}\.\.\.; use"),
    ],
)
def test_rejects_deep_and_huge_metrics(metrics, message):
    study = _study()
    for call in (study.tell, study.fail):
        with pytest.raises(ValueError, match=rf"`metrics` must be.*{message}"):
            call([0] * 6, 0.1, metrics)
    study.tell([0] * 6, 0.1, _deep(49))
    assert study.trials[0].metrics == _deep(49)


@pytest.mark.parametrize(
    "metrics", [{"a": object()}, {"a": np.nan}, {1: 2}, {"a": {1, 2}}, {"a": 1j}]
)
def test_rejects_metrics(metrics):
    study = _study()
    with pytest.raises(ValueError, match=r"`metrics` must be what JSON can hold"):
        study.tell([0] * 6, 0.1, metrics)
    assert study.trials == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_variables": 0}, r"`num_variables` must be at least 1"),
        ({"num_variables": 129}, r"`num_variables` must be at most 128, got 129"),
        ({"num_variables": 3.5}, r"`num_variables` must be an integer"),
        ({"num_variables": "six"}, r"`num_variables` must be an integer"),
        ({"seed": -1}, r"`seed` must be at least 0, got -1"),
        ({"seed": 2**63}, r"`seed` must be below"),
        ({"seed": True}, r"`seed` must be an integer"),
        ({"num_initial": -1}, r"`num_initial` must be at least 0"),
        ({"sparsity_penalty": -1.0}, r"`sparsity_penalty` must be finite"),
        ({"sparsity_penalty": np.nan}, r"`sparsity_penalty` must be finite"),
        ({"seed": 10**5000}, r"`seed` must be below 2\*\*63, got an integer of 16610"),
        ({"num_variables": 10**5000}, r"at most 128, got an integer of 16610 bits"),
        ({"sparsity_penalty": 10**400}, r"`sparsity_penalty` must be at most 1.8e308"),
        ({"sparsity_penalty": "a"}, r"`sparsity_penalty` must be one number, got 'a'"),
        ({"lease_s": "a"}, r"`lease_s` must be one number, got 'a'"),
        ({"lease_s": 0.0}, r"`lease_s` must be positive"),
        ({"lease_s": np.nan}, r"`lease_s` must be positive"),
    ],
)
def test_rejects_settings(change, message):
    with pytest.raises(ValueError, match=message):
        _study(**change)


def test_rejects_no_points():
    with pytest.raises(ValueError, match=r"`q` must be at least 1, got 0"):
        _study().ask(0)
    with pytest.raises(RuntimeError, match=r"`q` \(=an integer of 16610 bits\)"):
        _study().ask(10**5000)


@pytest.mark.parametrize(
    "change",
    [
        {"num_variables": 5},
        {"seed": 9},
        {"sparsity_penalty": 0.5},
        {"num_initial": 1},
        {"noisy": True},
    ],
)
def test_refuses_the_journal_of_another_study(tmp_path, change):
    path = tmp_path / "study.jsonl"
    _study(path).ask()
    ((name, value),) = change.items()
    with pytest.raises(ValueError, match=rf"{name}: .* there, {value} given"):
        _study(path, **change)
    _study(path, lease_s=1.0)  # not part of a study's identity
