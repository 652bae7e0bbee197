"""Memory and time of reversible stacks: all ways are one function, and what is written."""

import jax
import numpy as np
import pytest

from codesign.report import Results
from codesign.studies.camel import reversible_memory
from codesign.studies.camel.reversible_memory import FAMILIES, PRESETS, WAYS

_SMOKE = PRESETS["smoke"]


@pytest.mark.parametrize("family", FAMILIES)
def test_all_ways_have_one_gradient(family):
    given = reversible_memory._drawn(_SMOKE, family, 4)
    found = {
        way: jax.jit(reversible_memory.gradient(family, way, 4))(*given) for way in WAYS
    }
    for way in WAYS:
        for ours, plain in zip(
            jax.tree.leaves(found[way]), jax.tree.leaves(found["plain"]), strict=True
        ):
            error = np.linalg.norm(ours - plain) / np.linalg.norm(plain)
            assert error < (1e-2 if way == "lattice" else 1e-5), way


@pytest.mark.slow
def test_what_is_written(tmp_path):
    found = reversible_memory.run(_SMOKE, workdir=tmp_path)
    assert set(found) == {(family, depth) for family in FAMILIES for depth in (2, 4)}
    results = Results.read(tmp_path / "results.json").quantities
    by_key = {each.key: each for each in results}
    for name in ("plain", "mlp_checkpoint", "conv_reversible", "mlp_lattice"):
        assert by_key[f"temp_bytes[{name},4]"].value > 0
        assert by_key[f"step_s[{name},2]"].unit == "s"
    deep = found["dense", 4]
    ratio = deep.of("plain").temp_bytes / deep.of("reversible").temp_bytes
    least = min(
        ratio, deep.of("unrolled").temp_bytes / deep.of("reversible").temp_bytes
    )
    assert by_key["memory_ratio[dense,plain,4]"].value == pytest.approx(least)
    assert by_key["memory_ratio[dense,plain,4]"].asked is None  # of larger sizes
    assert {"temp_bytes.png", "step_s.png", "report.html"} <= {
        path.name for path in tmp_path.iterdir()
    }


def test_targets_are_of_the_sizes_asked():
    asked = {row.name: row.asked for row in reversible_memory._asked(PRESETS["full"])}
    assert asked == {
        "memory_ratio": 2,
        "time_ratio": 1.5,
        "growth": 1.02,
    }  # conv's last
