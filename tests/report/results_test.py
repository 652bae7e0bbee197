"""Tests of `codesign.report.results`."""

import dataclasses
import json
import math
import pathlib
import subprocess
import sys
import tempfile

import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import absltest, parameterized

from codesign.report import results
from tests import fuzzing
from tests.records.html_test import EVIL, Reader


def _results(*quantities, **changes):
    content = {
        "experiment": "bn_placement",
        "preset": "smoke",
        "seed": 0,
        "environment": {"jax": "0.10.2"},
        "wall_s": 1.5,
        "quantities": quantities,
        "figures": ["pareto.png"],
    }
    return results.Results(**{**content, **changes})


_PERIOD = results.Quantity("period", 21.3e-6, "s", kind="derived")
_SAVED = results.Quantity(
    "time saved", 64.8, "%", kind="fitted", paper=67.1, source="Fig. 12", note="rate"
)
_ENERGY = results.Quantity("energy", None, "J", kind="assumed", note="not published")


class QuantityTest(parameterized.TestCase):
    @parameterized.parameters(
        (math.nan,), (math.inf,), (np.float32("nan"),), ("1.0",), ([1.0],)
    )
    def test_rejects_what_is_no_finite_number(self, value):
        with self.assertRaisesRegex(ValueError, "`value` of 'period' must be a finite"):
            results.Quantity("period", value, "s", kind="measured")

    def test_rejects_a_published_nan(self):
        with self.assertRaisesRegex(ValueError, "`paper` of 'period'"):
            results.Quantity(
                "period", 1.0, "s", kind="measured", paper=math.nan, source="Fig. 1"
            )

    @parameterized.parameters(
        ({"value": None, "kind": "measured"}, "`note` of 'x' must say why"),
        ({"value": 1, "kind": "fitted"}, "`note` of 'x' must name"),
        ({"value": 1, "kind": "guessed"}, "`kind` of 'x'.*got 'guessed'"),
        ({"value": 1, "kind": "derived", "paper": 2}, "`source` of 'x'.*=2"),
        ({"value": 1, "kind": "derived", "name": ""}, "`name`"),
        ({"value": 1, "kind": "derived", "unit": 7}, "`unit` of 'x' must be a text"),
        ({"value": 1, "kind": "derived", "of": {"seed": 1}}, r"`of\[seed\]` of 'x'"),
        ({"value": 1, "kind": "derived", "asked": math.inf}, "`asked` of 'x'.*got inf"),
        ({"value": 1, "kind": "derived", "peer": ("a",)}, "`peer` of 'x'.*a name and"),
        ({"value": 1, "kind": "derived", "peer": ("a", "1")}, "`peer` of 'x'.*got '1'"),
    )
    def test_rejects(self, changes, message):
        with self.assertRaisesRegex(ValueError, message):
            results.Quantity(**{"name": "x", "unit": "s", **changes})

    @parameterized.parameters(
        (jnp.float32(0.5), 0.5), (np.int64(3), 3), (np.bool_(True), True)
    )
    def test_scalars_become_python(self, value, expected):
        quantity = results.Quantity("x", value, "", kind="measured")
        self.assertIs(type(quantity.value), type(expected))
        self.assertEqual(quantity.value, expected)


class ResultsTest(absltest.TestCase):
    def test_json_has_the_keys_of_the_contract_in_order(self):
        content = json.loads(_results(_PERIOD, _SAVED, _ENERGY).to_json())
        self.assertEqual(
            list(content),
            [
                *("experiment", "preset", "seed", "environment", "wall_s"),
                *("quantities", "figures"),
            ],
        )
        keys = ["name", "value", "unit", "paper", "source", "kind", "note"]
        for quantity in content["quantities"]:
            self.assertEqual(list(quantity), keys)
        self.assertEqual(content["quantities"][2]["value"], None)
        self.assertEqual(content["quantities"][1]["paper"], 67.1)
        self.assertEqual(content["figures"], ["pareto.png"])

    def test_reads_what_it_wrote(self):
        written = _results(_PERIOD, _SAVED, _ENERGY)
        path = (
            pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
            / "results.json"
        )
        written.write(path)
        self.assertEqual(results.Results.read(path), written)

    def test_read_names_wrong_keys(self):
        path = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory())) / "x.json"
        path.write_text('{"experiment": "x"}')
        with self.assertRaisesRegex(ValueError, "must hold the keys.*wall_s"):
            results.Results.read(path)

    def test_extras_are_further_keys_and_come_back(self):
        path = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory())) / "x.json"
        written = dataclasses.replace(_results(_PERIOD), extras={"sweep_s": {"a": 2.0}})
        written.write(path)
        self.assertEqual(json.loads(path.read_text())["sweep_s"], {"a": 2.0})
        self.assertEqual(results.Results.read(path), written)
        with self.assertRaisesRegex(ValueError, r"extras.*\['seed'\]"):
            dataclasses.replace(written, extras={"seed": 1})

    def test_finds_a_quantity_by_name(self):
        found = _results(_PERIOD, _SAVED)
        self.assertIs(found["time saved"], _SAVED)
        with self.assertRaisesRegex(KeyError, "No quantity 'area'; there are: period"):
            found["area"]

    def test_rejects_duplicates(self):
        with self.assertRaisesRegex(ValueError, "holds 'period' twice"):
            _results(_PERIOD, _SAVED, _PERIOD)

    def test_rejects_an_endless_run(self):
        with self.assertRaisesRegex(
            ValueError, "`wall_s` must be a finite number, got nan"
        ):
            _results(wall_s=math.nan)

    @pytest.mark.slow
    def test_mutations_are_refused_or_can_be_shown_and_written(self):
        folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        path = folder / "results.json"
        peer = results.Quantity(
            "error",
            0.5,
            "ratio",
            kind="measured",
            of={"network": "vgg11"},
            asked=0.4,
            peer=("them", 0.6),
        )
        _results(_PERIOD, _SAVED, _ENERGY, peer).write(path)

        def is_sound(found):
            found._repr_html_()
            found.write(folder / "again.json")
            return results.Results.read(folder / "again.json") == found

        self.assertBetween(
            fuzzing.check(results.Results.read, path, accepts=is_sound), 1, 299
        )


class QuantitiesTest(absltest.TestCase):
    def test_shows_all_beside_the_published(self):
        quantities = results.Quantities([_PERIOD, _SAVED, _ENERGY])
        self.assertEqual(quantities, [_PERIOD, _SAVED, _ENERGY])
        rows = Reader(quantities._repr_html_()).rows
        self.assertEqual([row[0] for row in rows[1:4]], [q.key for q in quantities])
        saved = rows[2]
        self.assertEqual(saved[1:3], ["64.8%", "67.1%"])
        self.assertEqual(saved[-1], _SAVED.source)
        lines = repr(quantities).splitlines()
        self.assertEqual(lines[0].split()[:3], ["Quantity", "Ours", "Paper"])
        self.assertIn("67.1%", lines[3])

    def test_none(self):
        self.assertEqual(repr(results.Quantities()), "Quantities()")
        self.assertIn("Quantities()", results.Quantities()._repr_html_())

    def test_names_are_only_text(self):
        quantity = results.Quantity(EVIL, 1, "s", kind="measured", paper=1, source=EVIL)
        page = results.Quantities([quantity])._repr_html_()
        self.assertNotIn("script", Reader(page).tags)
        self.assertGreaterEqual(page.count("&lt;script&gt;"), 2)

    def test_results_show_what_they_are_of(self):
        page = _results(_PERIOD)._repr_html_()
        self.assertIn("bn_placement, preset", page)
        self.assertIn("period", page)
        self.assertIn("bn_placement", _results()._repr_html_())


class EnvironmentTest(absltest.TestCase):
    def test_is_json_without_paths(self):
        text = json.dumps(results.environment(), allow_nan=False)
        self.assertNotIn(str(pathlib.Path.home()) + "/", text)
        self.assertNotIn(str(pathlib.Path(results.__file__).parents[2]), text)
        for key in ("codesign", "jax", "device_kind", "num_devices", "jax_enable_x64"):
            self.assertIn(key, json.loads(text))

    def test_survives_without_git_and_devices(self):
        with (
            absltest.mock.patch.object(
                results.subprocess, "run", side_effect=FileNotFoundError
            ),
            absltest.mock.patch.object(
                results.jax, "devices", side_effect=RuntimeError("no backend")
            ),
        ):
            found = results.environment()
        self.assertIsNone(found["git_commit"])
        self.assertIsNone(found["device_kind"])

    def test_import_draws_nothing_and_touches_no_device(self):
        code = (
            "import sys, codesign.report\n"
            "assert not any(name.startswith('matplotlib') for name in sys.modules)\n"
            "import codesign.report.plots\n"
            "assert 'matplotlib.pyplot' not in sys.modules\n"
            "from jax._src import xla_bridge\n"
            "assert not xla_bridge.backends_are_initialized()\n"
        )
        subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


if __name__ == "__main__":
    absltest.main()
