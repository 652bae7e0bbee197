"""Reading what other searches found, from folders of theirs that anybody may have made."""

import dataclasses
import json
import math

import pytest

from codesign.records import workdir as folders
from codesign.report import Quantity, Results
from codesign.studies.deeptrain import placement_beside as beside
from codesign.studies.deeptrain.placement_settings import PRESETS

_CONFIG = PRESETS["smoke"]
_STUDY = "bn_placement"
_OTHER = beside.Finding(
    seed=7,
    num_cpus=1,
    num_evaluations=8,
    sites=(2, 6),
    period_s=1.6e-6,
    loss=0.002,
    loss_upper=None,
    verdict="not_decided",
)


def _write(folder, config, **extras):
    """As a search leaves its workdir."""
    folder.mkdir()
    folders.write_settings(_STUDY, config, folder)
    of, several = {"network": "vgg11"}, len(config.networks) > 1
    at = {"placement": "bo_n", **(of if several else {})}
    Results(
        experiment=_STUDY,
        preset="smoke",
        seed=config.seed,
        environment={"num_cpus": 1},
        wall_s=1.0,
        quantities=[
            Quantity("num_evaluations", 8, kind="measured", of=of if several else {}),
            Quantity("period_s", 1.6e-6, kind="assumed", of=at),
            Quantity("accuracy_loss", 0.002, kind="measured", of=at),
            Quantity(
                "accuracy_loss_upper", None, kind="measured", note="one seed", of=at
            ),
        ],
        extras={"found": {"vgg11": "C3,C7"}, "claim": {"vgg11": "not_decided"}}
        | extras,
    ).write(folder / "results.json")


def _read(folder, config=_CONFIG, **changes):
    config = dataclasses.replace(config, beside=(str(folder),), **changes)
    return beside.read(config, _STUDY, folder.parent / "own", "vgg11", 8)


@pytest.mark.parametrize("networks", [("vgg11",), ("vgg11", "vgg16")])
def test_another_seed_of_the_same_search(tmp_path, networks):
    ours = dataclasses.replace(_CONFIG, networks=networks)
    # More evaluations or seeds extend a search; they do not make it another one.
    theirs = dataclasses.replace(
        ours, seed=7, preset="", num_evaluations=9, num_seeds=3, max_seeds=4
    )
    _write(tmp_path / "other", theirs)
    assert _read(tmp_path / "other", ours) == (_OTHER,)


def test_no_folders_are_no_findings(tmp_path):
    assert beside.read(_CONFIG, _STUDY, tmp_path, "vgg11", 8) == ()


@pytest.mark.parametrize(
    ("names", "sites"), [(None, None), ("", ()), ("C1,C8", (0, 7))]
)
def test_found_nothing_no_norm_or_some(tmp_path, names, sites):
    _write(tmp_path / "other", _CONFIG, found={"vgg11": names})
    assert _read(tmp_path / "other")[0].sites == sites


def test_another_search_is_refused(tmp_path):
    train = dataclasses.replace(_CONFIG.train, epochs=9)
    _write(tmp_path / "other", dataclasses.replace(_CONFIG, width=0.5, train=train))
    with pytest.raises(ValueError, match=r"`beside` \(='.*other'\) must be") as error:
        _read(tmp_path / "other")
    assert "width: 0.5 there, 0.125 now" in str(error.value)
    assert "train.epochs: 9 there, 4 now" in str(error.value)


def test_the_own_workdir_is_refused(tmp_path):
    _write(tmp_path / "own", _CONFIG)
    with pytest.raises(ValueError, match="this search's own `workdir`"):
        _read(tmp_path / "own")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.json", "[]", "config.json is not one of bn_placement"),
        ("config.json", '{"experiment": "memory_sweep"}', "not one of bn_placement"),
        ("config.json", "{", "Expecting"),
        ("config.json", "[" * 100_000, "nested too deeply"),
        ("config.json", b"\xff", "decode"),
        ("results.json", "{}", "must hold the keys"),
        ("results.json", "hello", "Expecting"),
        ("results.json", "[" * 100_000, "nested too deeply"),
        ("results.json", None, "No such file"),
    ],
)
def test_damaged_files(tmp_path, name, text, message):
    _write(tmp_path / "other", _CONFIG)
    path = tmp_path / "other" / name
    if text is None:
        path.unlink()
    else:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=rf"`beside`(.|\n)*({message})"):
        _read(tmp_path / "other")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"found": {}}, "earlier version"),
        ({"found": None}, "earlier version"),
        ({"claim": {"vgg11": "proven"}}, "`claim` in results.json is 'proven'"),
        ({"claim": {"vgg11": ["inferior"]}}, r"is \['inferior'\]"),
        ({"found": {"vgg11": "C9"}}, "`found` in results.json is 'C9', of 8 sites"),
        ({"found": {"vgg11": "C3, <b>"}}, "`found` in results.json is 'C3, <b>'"),
        ({"found": {"vgg11": "C7,C3"}}, "`found` in results.json is 'C7,C3'"),
        ({"found": {"vgg11": "C3,C3"}}, "`found` in results.json is 'C3,C3'"),
        ({"found": {"vgg11": 3}}, "`found` in results.json is 3"),
        ({"found": {"vgg11": ["C3"]}}, "`found` in results.json is"),
        ({"seed": "0"}, "`seed` in results.json is '0'"),
        ({"seed": True}, "`seed` in results.json is True"),
        ({"environment": {}}, "num_cpus"),
        ({"environment": {"num_cpus": "<b>"}}, "`num_cpus` in results.json is '<b>'"),
        ({"wall_s": math.nan}, "`wall_s` must be a finite number"),
        ({"quantities": []}, "damaged.*No quantity 'num_evaluations'"),
        ({"quantities": [3]}, "damaged"),
        ({"quantities": {"name": 1}}, "dictionary"),
    ],
)
def test_contents_of_a_stranger(tmp_path, changes, message):
    _write(tmp_path / "other", _CONFIG)
    path = tmp_path / "other" / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError, match=rf"`beside`(.|\n)*{message}"):
        _read(tmp_path / "other")


@pytest.mark.parametrize("name", ["num_evaluations", "period_s"])
def test_a_number_below_0_is_refused(tmp_path, name):
    _write(tmp_path / "other", _CONFIG)
    path = tmp_path / "other" / "results.json"
    results = json.loads(path.read_text())
    for quantity in results["quantities"]:
        if quantity["name"].startswith(name):
            quantity["value"] *= -1
    path.write_text(json.dumps(results))
    with pytest.raises(ValueError, match=r"`beside`(.|\n)*below 0"):
        _read(tmp_path / "other")


def test_table(tmp_path):
    this = dataclasses.replace(_OTHER, seed=0, num_cpus=2, verdict="non_inferior")
    none = dataclasses.replace(_OTHER, sites=None, loss=None, verdict=None)
    table = beside.table(this, [_OTHER, none, dataclasses.replace(_OTHER, sites=())])
    lines = table.to_text().splitlines()
    assert lines[3].split() == [
        *("0", "2", "8", "C3,C7", "1.6", "µs", "0.20", "–", "non-inferior")
    ]
    assert "none found" in lines[5]
    assert "No-BN" in lines[6]
    assert "1 of 3 others found the same" in lines[7]
