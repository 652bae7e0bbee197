"""Settings: what they accept, and what they say to the rest."""

import dataclasses

from absl.testing import absltest, parameterized

from codesign.studies.memory import capacity
from codesign.studies.memory.capacity_settings import PRESETS, parse_capacities

_SMOKE = PRESETS["smoke"]


class CapacitiesTest(parameterized.TestCase):
    @parameterized.parameters(
        ("24:30:2", (24, 26, 28, 30)),  # the stop is in
        ("24:29:2", (24, 26, 28)),
        ("5:5:1", (5,)),
        ("1:2:0.1", tuple(round(1 + i / 10, 9) for i in range(11))),
        ("400,24,128.5", (24, 128.5, 400)),
        ("64", (64,)),
    )
    def test_reads(self, text, expected):
        self.assertEqual(parse_capacities(text), expected)

    def test_the_sweep_of_the_paper_has_489(self):
        self.assertLen(parse_capacities("24:1000:2"), 489)

    @parameterized.parameters(
        ("24:1000", "three parts"),
        ("24:12:2", "stop at or above"),
        ("24:1000:0", "positive"),
        ("-24:1000:2", "positive"),
        ("0,24", "positive"),
        ("inf", "positive"),
        ("nan,24", "positive"),
        ("a,24", "numbers"),
        ("", "numbers"),
        ("24,24.0", "twice"),
        ("1:1e9:1", "larger step"),
    )
    def test_refuses(self, text, rule):
        with self.assertRaisesRegex(ValueError, rf"capacity_mb.*{rule}"):
            parse_capacities(text)


class ConfigTest(parameterized.TestCase):
    @parameterized.parameters(*PRESETS)
    def test_presets_are_valid(self, name):
        config = capacity.STUDY.preset(name)
        self.assertEqual(config.preset, name)
        names = [each for each in config.networks if ":" not in each]
        dataclasses.replace(config, networks=tuple(names)).checked()

    @parameterized.parameters(
        ({"networks": ("resnet51",)}, r"networks.*'resnet51'.*resnet50.*keras:NAME"),
        ({"networks": ()}, "networks.*empty"),
        ({"networks": ("vgg11", "vgg11")}, "networks.*twice"),
        ({"networks": ("darknet:/nowhere.cfg",)}, "names no file"),
        ({"networks": ("onnx:/nowhere.onnx",)}, "names no file"),
        ({"networks": ("torch:x",)}, "must be one of"),
        ({"hardware": ("RTX 2080",)}, r"hardware.*'RTX 2080'.*RTX 2080 Ti.*A100"),
        ({"hardware": ()}, "hardware.*empty"),
        ({"capacity_mb": "24:0:2"}, "capacity_mb"),
        ({"batch_size": 0}, "`batch_size` must be >= 1, got 0"),
        ({"batch_size": -4}, "`batch_size` must be >= 1, got -4"),
        ({"image_size": 4}, "image_size"),
        ({"timeline_mb": 0.0}, "timeline_mb"),
        ({"timeline_mb": float("nan")}, "timeline_mb"),
        ({"seed": -1}, "seed"),
        ({"batch_sizes": (8, 8)}, "batch_sizes"),
        ({"layer_capacity_mb": (0, 8)}, "layer_capacity_mb"),
        ({"batch_sizes": (16, 8)}, "batch_sizes.*must rise"),
        ({"num_reuse_capacities": 1}, "num_reuse_capacities"),
        ({"networks": "vgg11"}, "networks.*tuple"),
    )
    def test_refuses(self, changes, message):
        with self.assertRaisesRegex(ValueError, message):
            dataclasses.replace(_SMOKE, **changes).checked()

    def test_unknown_preset_lists_the_others(self):
        with self.assertRaisesRegex(ValueError, r"preset.*'fast'.*quick.*smoke.*full"):
            capacity.STUDY.preset("fast")


if __name__ == "__main__":
    absltest.main()
