"""Mutated journals of studies: a clear error, or trials that were told."""

import hashlib
import json
import warnings

import numpy as np
import pytest

from codesign.records.journal import JournalWarning
from codesign.search.study import Study
from tests import fuzzing

pytestmark = pytest.mark.slow
_SETTINGS = {"num_variables": 3, "seed": 1, "num_initial": 4}


@pytest.fixture
def path(tmp_path):
    """The journal of a study with trials of every status."""
    path = tmp_path / "study.jsonl"
    study = Study(journal=path, **_SETTINGS)
    for value in (0.5, 0.25):
        study.tell(study.ask()[0], value, {"ones": [1, None]})
    study.fail(study.ask()[0], "too large")
    study.ask()
    study.enqueue([1, 1, 1])
    return path


def _told(study):
    return {"".join(map(str, t.x)): (t.status, t.values) for t in study.trials}


def _quietly(read):
    """`read` without warnings of what it drops, and without files of earlier calls."""

    def quiet(path):
        for beside in path.parent.glob(f"{path.name}.*"):
            beside.unlink()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", JournalWarning)
            return read(path)

    return quiet


@pytest.fixture
def states(path):
    """What is known after each line of the journal: a kill may end it there."""
    whole, states = path.read_bytes(), []
    for end, byte in enumerate(whole, start=1):
        if byte == ord("\n"):
            path.write_bytes(whole[:end])
            states.append(_told(Study.load(path)))
    return states


def test_load(path, states):
    read = _quietly(lambda path: _told(Study.load(path)))
    assert 0 < fuzzing.check(read, path, accepts=states.__contains__) < 300


def test_recover(path, states):
    def read(path):
        Study(journal=path, recover=True, **_SETTINGS)
        study = Study(journal=path, **_SETTINGS)  # open to all from now on
        recovered = _told(study)
        study.enqueue([0, 0, 0])
        assert _told(Study.load(path)) == _told(study)
        return recovered

    def is_part(found):
        return all(
            any(state.get(x) == trial for state in states) for x, trial in found.items()
        )

    assert fuzzing.check(_quietly(read), path, accepts=is_part) == 300


def _sealed(data):
    """Lines with checksums that are right, whatever they say."""
    last, sealed = b"", []
    for line in data.splitlines():
        body = line.partition(b',"sum":')[0]
        start, prev, _ = body.partition(b',"prev":')
        body = start + prev + b'"%s"' % last if prev else body
        last = hashlib.sha256(body).hexdigest()[:16].encode()
        sealed.append(body + b',"sum":"%s"}\n' % last)
    return b"".join(sealed)


def test_lines_that_others_wrote(path):
    assert _sealed(path.read_bytes()) == path.read_bytes()

    def read(path):
        path.write_bytes(_sealed(path.read_bytes()))
        return Study.load(path)

    def is_usable(study):
        study._repr_html_()
        xs, ys = study.observations()
        json.dumps([dict(trial.metrics) for trial in study.trials])
        return set(xs.flat) <= {0, 1} and np.isfinite(ys).all()

    assert 0 < fuzzing.check(_quietly(read), path, accepts=is_usable) < 300
