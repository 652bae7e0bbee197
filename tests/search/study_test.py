import itertools
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from codesign.search import worker
from codesign.search.study import SearchSpaceExhausted, Study
from tests.search.studies import f as _f
from tests.search.studies import study as _study


def _run(study, num_trials):
    """Asks and tells until there are so many trials told; the points in order."""
    while sum(trial.status == "told" for trial in study.trials) < num_trials:
        (x,) = study.ask()
        study.tell(x, _f(x), {"num_ones": int(x.sum())})
    return _points(study)


def _points(study):
    return ["".join(map(str, trial.x)) for trial in study.trials]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run without interruption: its points and its journal."""
    path = tmp_path_factory.mktemp("whole") / "study.jsonl"
    return _run(_study(path), 11), path.read_bytes()


@pytest.fixture
def new_life(monkeypatch):
    """Call it, and this process is another one to the studies; the old one is dead."""
    lives = itertools.count(1)
    original = worker.this_worker

    def start():
        life = str(next(lives))
        monkeypatch.setattr(
            worker, "this_worker", lambda: {**original(), "start": f"life {life}"}
        )

    return start


def test_initial_points_then_guided_ones(whole):
    points, journal = whole
    assert len(set(points)) == 11
    asked = [json.loads(line) for line in journal.splitlines() if b'"ask"' in line]
    origins = [event["origin"] for event in asked]
    assert origins == ["initial"] * 4 + ["guided"] * 7


def test_memory_and_file_propose_the_same(whole):
    assert _run(_study(), 11) == whole[0]


def test_another_seed_proposes_other_points(whole):
    assert _points(_study(seed=4)) == []
    other = _study(seed=4)
    other.ask(4)
    assert _points(other) != whole[0][:4]


def test_a_kill_after_any_event_changes_no_proposal(whole, tmp_path, new_life):
    points, journal = whole
    lines = journal.splitlines(keepends=True)
    path = tmp_path / "study.jsonl"
    for num_lines in range(len(lines) + 1):
        path.write_bytes(b"".join(lines[:num_lines]))
        new_life()
        assert _run(_study(path), 11) == points, num_lines


def test_the_two_halves_of_a_run_are_the_whole(whole, tmp_path):
    path = tmp_path / "study.jsonl"
    _run(_study(path), 5)
    assert _run(_study(path), 11) == whole[0]


def test_a_batch_is_as_many_single_asks(whole, tmp_path):
    single, batch = _study(), _study(tmp_path / "study.jsonl")
    for study in (single, batch):
        _run(study, 5)
    rows = [single.ask()[0] for _ in range(6)]
    np.testing.assert_array_equal(batch.ask(6), rows)
    assert _points(single)[:6] == whole[0][:6]


def test_the_order_of_results_changes_no_proposal():
    orders = ((0, 1, 2, 3), (3, 1, 0, 2))
    asked = []
    for order in orders:
        study = _study()
        rows = study.ask(4)
        for i in order:
            study.tell(rows[i], _f(rows[i]))
        asked.append(study.ask(2))
    np.testing.assert_array_equal(*asked)


_WORKER = """
import sys
sys.path.insert(0, sys.argv[2])
from study_test import _f, _study
study = _study(sys.argv[1])
while True:
    (x,) = study.ask()
    print("asked", flush=True)
    sys.stdin.readline()
    study.tell(x, _f(x), {"num_ones": int(x.sum())})
    print("told", flush=True)
    sys.stdin.readline()
"""


def _start_worker(path):
    return subprocess.Popen(
        [sys.executable, "-c", _WORKER, str(path), os.path.dirname(__file__)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_kill_minus_nine_and_a_second_process(whole, tmp_path):
    path = tmp_path / "study.jsonl"
    process = _start_worker(path)
    for said in ["asked\n", "told\n"] * 6 + ["asked\n"]:
        assert process.stdout.readline() == said
        if said == "told\n" or len(_study(path).trials) < 7:
            process.stdin.write("\n")
            process.stdin.flush()
    # It is evaluating its seventh point.
    study = _study(path)
    (running,) = [trial for trial in study.trials if trial.status == "running"]
    other = study.ask()[0]  # its worker lives, so we get another point
    assert not np.array_equal(other, running.x)
    os.kill(process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    np.testing.assert_array_equal(study.ask()[0], running.x)  # at once
    process.communicate()
    study.tell(running.x, _f(running.x))
    study.tell(other, _f(other))
    assert _points(study)[:7] == whole[0][:7]


def test_a_lease_runs_out(monkeypatch):
    study = _study(lease_s=100.0)
    first, second = study.ask()[0], study.ask()[0]
    assert not np.array_equal(first, second)  # a process may hold several
    for days in (-400, 400):  # somebody sets the wall clock
        then = time.time() + 86400.0 * days
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda then=then: then)
            assert not np.any(np.all(study.ask() == [first, second], axis=1))
    for trial in study.trials[2:]:
        study.fail(trial.x, "not now")
    later = time.monotonic() + 101.0
    monkeypatch.setattr(time, "monotonic", lambda: later)
    np.testing.assert_array_equal(study.ask(2), [first, second])
    assert len(study.trials) == 4
    assert not np.any(np.all(study.ask(1) == [first, second], axis=1))


def test_a_worker_of_another_host_keeps_its_lease(tmp_path, monkeypatch):
    path = tmp_path / "study.jsonl"
    with monkeypatch.context() as patch:
        elsewhere = {**worker.this_worker(), "host": "elsewhere", "pid": 2**22 + 1}
        patch.setattr(worker, "this_worker", lambda: elsewhere)
        theirs = _study(path).ask()[0]
    study = _study(path)
    assert not np.array_equal(study.ask()[0], theirs)
    later = time.time() + 86401.0
    monkeypatch.setattr(time, "time", lambda: later)
    np.testing.assert_array_equal(study.ask()[0], theirs)


def test_enqueued_points_come_first_and_once():
    study = _study()
    study.enqueue(np.ones(6))
    study.enqueue([0] * 6)
    study.enqueue([1] * 6)
    assert [trial.status for trial in study.trials] == ["queued", "queued"]
    np.testing.assert_array_equal(study.ask(2), [[1] * 6, [0] * 6])
    study.tell([1] * 6, 0.5)
    study.enqueue([1] * 6)
    study.enqueue([0] * 6)
    study.ask(5)
    origins = [trial.origin for trial in study.trials]
    assert origins == ["enqueued"] * 2 + ["initial"] * 4 + ["guided"]
    assert len(set(_points(study))) == 7


def test_without_any_result_the_points_stay_random():
    study = _study(num_initial=1)
    study.ask(3)
    assert [trial.origin for trial in study.trials] == ["initial"] * 3
    assert len(set(_points(study))) == 3


def test_failed_points_are_neither_proposed_nor_learnt_from():
    study = _study(num_variables=3, num_initial=2)
    for i in range(8):
        (x,) = study.ask()
        if i % 2:
            study.tell(x, float(x.sum()))
        else:
            study.fail(x, "diverged", {"epoch": i})
            study.fail(x, "again")
    trials = study.trials
    assert len({tuple(trial.x) for trial in trials}) == 8
    assert [trial.status for trial in trials] == ["failed", "told"] * 4
    assert (trials[0].reason, trials[0].metrics) == ("diverged", {"epoch": 0})
    assert trials[0].value is None
    x, y = study.observations()
    assert x.shape == (4, 3)
    assert y.tolist() == [float(row.sum()) for row in x]
    with pytest.raises(SearchSpaceExhausted, match=r"`q` \(=1\).* 0 of the 8"):
        study.ask()


def test_says_so_before_handing_out_the_last_points():
    study = _study(num_variables=2)
    study.tell([0, 0], 1.0)
    with pytest.raises(SearchSpaceExhausted, match=r"`q` \(=4\).* 3 of the 4"):
        study.ask(4)
    assert len(study.trials) == 1
    assert len(np.unique(study.ask(3), axis=0)) == 3


def test_random_points_are_uniform_over_those_left():
    # One of four points is known; the first random one is any of three.
    counts = np.zeros(4)
    for seed in range(120):
        study = Study(2, seed=seed)
        study.tell([1, 0], 0.0)
        counts[study.ask()[0] @ [2, 1]] += 1
    assert counts[2] == 0
    assert np.all(np.abs(counts[[0, 1, 3]] - 40) < 16)  # 3 standard deviations


def test_goes_on_after_recovery(tmp_path, whole):
    path = tmp_path / "study.jsonl"
    lines = whole[1].splitlines(keepends=True)
    lines[5] = lines[5].replace(b'"ask"', b'"bsk"')  # of the third point
    path.write_bytes(b"".join(lines))
    with pytest.warns(UserWarning, match="damaged in line 6"):
        study = _study(path, recover=True)
    trials = study.trials
    assert [trial.status for trial in trials] == ["told"] * 11
    assert [trial.value for trial in trials] == [_f(trial.x) for trial in trials]
    assert not np.any(np.all(study.ask()[0] == [t.x for t in trials], axis=1))


@pytest.mark.parametrize(
    ("num_variables", "most"), [(8, 20), pytest.param(12, 27, marks=pytest.mark.slow)]
)
def test_finds_the_optimum_of_a_planted_sparse_quadratic(num_variables, most):
    # Two sites and a pair carry it, one pair clashes; the penalty empties the rest.
    def planted(x):
        x = np.asarray(x, float)
        return float(2 * x[0] + x[3] * x[5] * 1.5 + x[6] - 2.5 * x[0] * x[7] - x[2])

    best = np.zeros(num_variables, int)
    best[[0, 3, 5, 6]] = 1
    hits = 0
    for seed in range(5):
        study = Study(num_variables, seed=seed, sparsity_penalty=0.05)
        for _ in range(most):
            (x,) = study.ask()
            study.tell(x, planted(x))
        hits += np.array_equal(study.best.x, best)
    assert hits >= 4


def test_an_exclusive_study_takes_back_what_was_under_way_when_it_opens(tmp_path):
    path = tmp_path / "study.jsonl"
    first = Study(num_variables=6, journal=path, seed=1)
    asked = first.ask(2)
    # This process still lives and holds both, so an ordinary study leaves them to it.
    shared = Study(num_variables=6, journal=path, seed=1)
    assert not any(np.array_equal(x, shared.ask()[0]) for x in asked)
    alone = Study(num_variables=6, journal=path, seed=1, exclusive=True)
    again = alone.ask(3)
    np.testing.assert_array_equal(again[:2], asked)
    # Handed out once more, they are not lost a second time.
    assert not any(np.array_equal(alone.ask()[0], x) for x in again)


def test_the_same_cell_twice_leaves_one_writer(tmp_path):
    def cell(num_trials):
        study = _study(tmp_path / "study.jsonl", exclusive=True)
        for _ in range(num_trials):
            (x,) = study.ask()
            study.tell(x, _f(x))
        return study, study.ask()[0]  # interrupted: the point is under way

    old, lost = cell(2)
    new, _ = cell(1)
    np.testing.assert_array_equal(new.trials[2].x, lost)  # evaluated after all
    assert [trial.status for trial in new.trials] == ["told"] * 3 + ["running"]
    refused = pytest.raises(RuntimeError, match="opened again in this process.*newer")
    for write in (
        old.ask,
        lambda: old.tell([1] * 6, 0.5),
        lambda: old.fail([1] * 6, "no"),
        lambda: old.enqueue([1] * 6),
    ):
        with refused:
            write()
    assert _points(old) == _points(new)  # it reads on
    new.tell([1] * 6, 0.5)
    assert len(old.trials) == 5


@pytest.mark.slow
def test_more_variables_than_can_be_enumerated():
    # The planted effects alone are worth it, so guided points must find them.
    def f(x):
        return 0.1 + 0.4 * x[3] + 0.3 * x[17] * x[18] - 0.2 * x[30]

    study = _study(num_variables=32, num_initial=8, sparsity_penalty=0.01)
    while len(study.trials) < 40:
        (x,) = study.ask()
        study.tell(x, f(x.astype(float)))
    guided = [trial for trial in study.trials if trial.origin == "guided"]
    assert len(guided) == 32
    assert len(set(_points(study))) == 40
    best = study.best.x
    assert best[[3, 17, 18]].all()
    assert not best[30]


def test_warm_start_hands_out_the_best_of_another_study(tmp_path):
    other = _study(tmp_path / "other.jsonl", sparsity_penalty=0.3)
    for x in ([0, 1, 0, 0, 1, 0], [0, 1, 0, 0, 0, 0], [1, 1, 1, 0, 1, 1]):
        other.tell(x, _f(x))  # 0.9, 0.6 and 0.72, with 2, 1 and 5 ones
    other.fail([0] * 6, "diverged")
    study = _study()
    study.tell([0, 1, 0, 0, 1, 0], 0.5)
    # Without a penalty the third is better than the second; the first is known.
    best = study.warm_start(Study.load(tmp_path / "other.jsonl"), 2)
    assert best.tolist() == [[1, 1, 1, 0, 1, 1]]
    assert study.ask().tolist() == best.tolist()
    assert study.warm_start(other, 2).shape == (0, 6)
    assert study.warm_start(other, 3).tolist() == [[0, 1, 0, 0, 0, 0]]


def test_warm_start_wants_the_same_sites():
    with pytest.raises(ValueError, match="of 7 variables, this one has 6"):
        _study().warm_start(_study(num_variables=7))


def test_load_finds_the_settings_in_the_journal(tmp_path, whole):
    path = tmp_path / "study.jsonl"
    path.write_bytes(whole[1])
    study = Study.load(path)
    assert (study.num_variables, _points(study)) == (6, whole[0])
    (tmp_path / "other").write_text('{"a": 1}\n')
    with pytest.raises(ValueError, match="does not begin with the header"):
        Study.load(tmp_path / "other")


def test_initial_points_that_fail_are_replaced():
    study = _study(num_initial=3)
    for reason in ("a", "b"):
        study.fail(study.ask()[0], reason)
    for _ in range(3):
        (x,) = study.ask()
        study.tell(x, _f(x))
    study.ask()
    origins = [trial.origin for trial in study.trials]
    assert origins == ["initial"] * 5 + ["guided"]
