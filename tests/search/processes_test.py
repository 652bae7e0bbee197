"""Studies that several processes work on, and that are killed."""

import collections
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from codesign.search.study import Study

_C = 10
_SETTINGS = {"num_variables": _C, "seed": 5, "sparsity_penalty": 0.01}
# Works on a study until it has so many results; says so after every one.
_WORKER = """
import sys, time
import numpy as np
from codesign.search.study import Study
num_trials, seconds, q = int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
study = Study(journal=sys.argv[1], num_variables=10, seed=5, sparsity_penalty=0.01)
while sum(trial.status in ("told", "failed") for trial in study.trials) < num_trials:
    for x in study.ask(q):
        time.sleep(seconds)
        if x[:3].all():
            study.fail(x, "diverged")
        else:
            study.tell(x, float(0.3 + 0.2 * x[1] - 0.1 * x[4] * x[5] + 0.05 * x[8]))
        print(flush=True)
"""


def _start(path, num_trials, *, seconds=0.0, q=1):
    arguments = [str(path), str(num_trials), str(seconds), str(q)]
    return subprocess.Popen(
        [sys.executable, "-c", _WORKER, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _finish(process):
    errors = process.communicate(timeout=240)[1]
    assert process.returncode == 0, errors


def _points(path):
    return ["".join(map(str, trial.x)) for trial in Study.load(path).trials]


@pytest.mark.slow
def test_25_and_25_evaluations_are_50_whenever_killed(tmp_path):
    _finish(_start(tmp_path / "whole.jsonl", 50))
    whole = _points(tmp_path / "whole.jsonl")
    assert len(whole) == len(set(whole)) == 50
    rng = random.Random(0)
    # Twenty times by hand, as the build notes say.
    for attempt in range(int(os.environ.get("CODESIGN_KILLS", "2"))):
        path = tmp_path / f"{attempt}.jsonl"
        process = _start(path, 50, seconds=0.01)
        for _ in range(25):
            process.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.05))  # within an ask, a tell or an evaluation
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert len(_points(path)) < 50
        _finish(_start(path, 50))
        assert _points(path) == whole


@pytest.mark.parametrize("q", [1, 8])
@pytest.mark.slow
def test_four_workers_lose_and_double_nothing_when_one_is_killed(tmp_path, q):
    path = tmp_path / "study.jsonl"
    workers = [_start(path, 60, seconds=0.05, q=q) for _ in range(4)]
    for _ in range(3):
        workers[0].stdout.readline()
    workers[0].kill()
    workers[0].communicate()
    lost = _running_of(path, workers[0].pid)
    for process in workers[1:]:
        _finish(process)
    study = Study(journal=path, **_SETTINGS)
    trials = study.trials
    # Whoever stopped at 60 results may hold points of its last batch no more: none runs.
    assert all(t.status in ("told", "failed") for t in trials)
    assert len(trials) >= 60
    assert len({tuple(t.x) for t in trials}) == len(trials)
    events = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    ended = collections.Counter(e["x"] for e in events if e["event"] != "ask")
    assert set(ended.values()) == {1}
    asked = collections.Counter(e["x"] for e in events if e["event"] == "ask")
    again = {x for x, count in asked.items() if count > 1}
    assert again == lost
    assert any(t.status == "failed" for t in trials)


def _running_of(path, pid):
    """Points that a process was given and did not end, as text."""
    events = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    given = {
        e["x"] for e in events if e["event"] == "ask" and e["worker"]["pid"] == pid
    }
    return given - {e["x"] for e in events if e["event"] != "ask"}
