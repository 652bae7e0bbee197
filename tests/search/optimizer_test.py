"""Every optimiser keeps the protocol, proposes the same for a seed, and finds optima."""

import ast
import importlib.util
import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign import search
from codesign.search import optimizer as optimizers
from codesign.search import points
from codesign.search.draws import Draws
from codesign.search.study import SearchSpaceExhausted, Study

_PEERS = [
    name
    for name in optimizers.OPTIMIZERS[1:]
    if name != "optuna_tpe" or importlib.util.find_spec("optuna")
]
_FAST = [name for name in _PEERS if name != "optuna_tpe"]
_HERE = ["codesign", *_PEERS]


def _create(name, num_variables=8, *, num_initial=3, seed=0, penalty=0.25):
    return optimizers.create(
        name,
        num_variables=num_variables,
        sparsity_penalty=penalty,
        num_initial=num_initial,
        seed=seed,
    )


def _value(x):
    """Neighbours and distant sites work together or against each other."""
    weights = np.cos(np.arange(x.size**2)).reshape(x.size, x.size)
    return float(x @ weights @ x)


def _one_at_a_time(name, count, value=_value, **settings_):
    optimizer, asked = _create(name, **settings_), []
    for _ in range(count):
        [x] = optimizer.ask()
        asked.append(points.encode(x))
        optimizer.tell(x, value(x))
    return asked


@pytest.mark.parametrize("name", _HERE)
def test_same_seed_same_points(name):
    first, again, other = (_one_at_a_time(name, 8, seed=s) for s in (1, 1, 2))
    assert first == again
    assert first != other


def test_all_begin_with_the_same_points():
    starts = {tuple(_one_at_a_time(name, 3)) for name in _HERE}
    assert len(starts) == 1


@pytest.mark.parametrize("name", _HERE)
def test_batches_are_points_all_different(name):
    optimizer = _create(name)
    for q in (2, 1, 4, 3):
        x = optimizer.ask(q)
        assert x.shape == (q, 8)
        assert x.dtype == np.int8
        assert set(x.flat) <= {0, 1}
        assert len({*map(points.encode, x)}) == q
        for each in reversed(x):
            optimizer.tell(each, _value(each))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(_FAST), st.integers(0, 99), st.data())
def test_points_under_way_are_not_asked_again(name, seed, data):
    optimizer, under_way, known = _create(name, 6, seed=seed), {}, set()
    for _ in range(12):
        q = data.draw(st.integers(1, 5))
        if q > 64 - len(known | under_way.keys()):
            break
        batch = {points.encode(x): x for x in optimizer.ask(q)}
        assert len(batch) == q
        assert not batch.keys() & under_way.keys()
        under_way |= batch
        codes = data.draw(st.permutations(sorted(under_way)))
        for code in codes[: data.draw(st.integers(0, len(codes)))]:
            x = under_way.pop(code)
            known.add(code)
            if data.draw(st.booleans()):
                optimizer.tell(x, _value(x))
            else:
                optimizer.fail(x, "a test")


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(_FAST), st.permutations(range(4)), st.integers(0, 99))
def test_order_of_results_does_not_matter(name, order, seed):
    one, other = _create(name, seed=seed), _create(name, seed=seed)
    for _ in range(6):
        batch = one.ask(4)
        np.testing.assert_array_equal(other.ask(4), batch)
        for x in batch:
            one.tell(x, _value(x))
        for x in batch[list(order)]:
            other.tell(x, _value(x))


@pytest.mark.parametrize("name", _FAST)
def test_one_at_a_time_is_the_script_itself(name):
    # The initial points, then what one script yields; known points are answered at once.
    def random(initial, values, draws):
        while True:
            yield draws.bits(8)

    scripts = {
        "random": random,
        "local_search": optimizers._local_search,
        "simulated_annealing": optimizers._simulated_annealing,
    }
    asked = _one_at_a_time(name, 80)
    initial = np.stack([points.decode(code) for code in asked[:3]])
    known = {
        code: _value(points.decode(code)) - 0.25 * code.count("1") for code in asked
    }
    values = np.array([known[code] for code in asked[:3]])
    script = scripts[name](initial, values, Draws(name, 0))
    x, met = next(script), {*asked[:3]}
    for code in asked[3:]:
        while points.encode(x) in met:
            x = script.send(known[points.encode(x)])
        assert points.encode(x) == code
        met.add(code)


@pytest.mark.parametrize("name", ["local_search", "simulated_annealing"])
def test_first_chain_does_not_see_its_neighbours(name):
    # Alone, it gets the values of points that others asked for at no cost: what is left
    # of its own way is in the same order.
    alone = _one_at_a_time(name, 30, num_variables=12)
    optimizer, first = _create(name, 12), []
    for x in optimizer.ask(3):
        optimizer.tell(x, _value(x))
    met = {*alone[:3]}
    for _ in range(10):
        batch = optimizer.ask(4)
        first.append(points.encode(batch[0]))
        for x in batch:
            optimizer.tell(x, _value(x))
        met |= {*map(points.encode, batch)}
    assert [code for code in alone if code in first] == first
    assert set(alone[: alone.index(first[-1])]) <= met


@pytest.mark.parametrize("name", _FAST)
def test_points_are_met_once(name):
    assert len({*_one_at_a_time(name, 120, num_variables=10)}) == 120


def test_hand_worked_local_search():
    # Among 0..7 as bits, a flip that raises the count of ones is kept at once. From the
    # best initial point, every further point is one flip from the best so far.
    asked = [points.decode(code) for code in _one_at_a_time("local_search", 6, np.sum)]
    best = max(asked[:3], key=np.sum)
    for x in asked[3:]:
        assert np.sum(x != best) == 1
        best = max(best, x, key=np.sum)


@pytest.mark.parametrize("name", [name for name in _PEERS if name != "random"])
@pytest.mark.parametrize("q", [1, 3])
def test_peers_climb(name, q):
    # The most ones among 8 variables, each a gain of 1 less the penalty.
    optimizer, best = _create(name), -np.inf
    for _ in range(63 // q):
        for x in optimizer.ask(q):
            optimizer.tell(x, float(x.sum()))
            best = max(best, 0.75 * x.sum())
    assert best == 6


def test_penalty_is_seen():
    # A gain of 0.2 for a penalty of 0.25: no ones are best.
    asked = _one_at_a_time("local_search", 43, lambda x: 0.2 * x.sum(), num_variables=6)
    assert "000000" in asked


def test_failed_point_is_as_bad_as_the_worst():
    optimizer = _create("local_search", num_initial=1)
    [start] = optimizer.ask()
    optimizer.tell(start, -100.0)
    for _ in range(8):  # each flip fails, and none is taken for an improvement
        [x] = optimizer.ask()
        assert np.sum(x != start) == 1
        optimizer.fail(x, "a test")
    [x] = optimizer.ask()
    assert np.sum(x != start) > 1


@pytest.mark.parametrize("name", _PEERS)
def test_stops_when_too_few_points_are_left(name):
    optimizer = _create(name, 3)
    for q in (3, 2):
        for x in optimizer.ask(q):
            optimizer.tell(x, _value(x))
    with pytest.raises(SearchSpaceExhausted, match=r"`q` \(=4\)"):
        optimizer.ask(4)
    assert len(optimizer.ask(3)) == 3  # the refusal took nothing away


@pytest.mark.parametrize("name", _HERE)
def test_rejects_bad_input(name):
    optimizer = _create(name)
    with pytest.raises(ValueError, match="`q`"):
        optimizer.ask(0)
    [x] = optimizer.ask()
    with pytest.raises(ValueError, match="`x` must be one point"):
        optimizer.tell(x[None, :], 0.0)
    with pytest.raises(ValueError, match="`value` must be finite"):
        optimizer.tell(x, np.nan)


def test_study_is_an_optimizer_as_it_is():
    assert type(_create("codesign")) is Study


def test_rejects_unknown_and_missing(monkeypatch):
    with pytest.raises(ValueError, match="`optimizers`.*bocs.*codesign"):
        optimizers.check("bocs")
    monkeypatch.setattr(optimizers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs Optuna.*\.\[benchmark\]"):
        optimizers.check("optuna_tpe")


def test_search_knows_nothing_of_networks_chips_or_reports():
    assert search.__file__ is not None
    allowed = ("records", "search", "types", "units")
    for path in pathlib.Path(search.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [getattr(node, "module", None) or ""]
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif names == ["codesign"]:
                assert isinstance(node, ast.ImportFrom)
                names = [f"codesign.{alias.name}" for alias in node.names]
            for name in names:
                root, _, inside = name.partition(".")
                assert root != "experiments", path
                assert root != "codesign" or inside.split(".")[0] in allowed, path
