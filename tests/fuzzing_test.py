import json

import pytest

from tests import fuzzing


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file.json"
    path.write_text('{"sizes": [3, 224, 224], "name": "x"}')
    return path


def test_holds_for_a_careful_reader(path):
    def read(path):
        try:
            return json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise ValueError(f"`path` (={path}) is no JSON: {error}") from None

    num_read = fuzzing.check(read, path, accepts=lambda found: found is not True)
    assert 0 < num_read < 300
    assert json.loads(path.read_text())["sizes"] == [3, 224, 224]


@pytest.mark.parametrize(
    ("read", "why"),
    [
        (lambda path: json.loads(path.read_bytes()), "JSONDecodeError|UnicodeDecode"),
        (lambda path: bytes(2**33) and path, "MemoryError"),
        (lambda path: path.read_bytes()[300], "IndexError"),
    ],
)
def test_fails_for_a_careless_one(path, read, why):
    sound = path.read_bytes()

    def careless(path):
        return read(path) if path.read_bytes() != sound else path

    with pytest.raises(AssertionError, match=why):
        fuzzing.check(careless, path, accepts=lambda _: True)
    assert path.read_bytes() == sound


def test_an_endless_reader_is_stopped(path, monkeypatch):
    monkeypatch.setattr(fuzzing, "MOST_SECONDS", 0.05)
    sound = path.read_bytes()

    def endless(path):
        is_changed = path.read_bytes() != sound
        while is_changed:
            pass

    with pytest.raises(AssertionError, match="took over"):
        fuzzing.check(endless, path, accepts=lambda _: True)
