"""Settings: what they accept, and what they say to the rest."""

import dataclasses
import pathlib
import tempfile

from absl.testing import absltest, parameterized

from codesign.studies.memory import capacity as memory
from codesign.studies.memory.capacity_settings import PRESETS, parse_capacities
from codesign.workload import load as networks

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
        config = memory.preset(name)
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
        ({"batch_size": 0}, "`batch` must be at least 1, got 0"),
        ({"batch_size": -4}, "`batch` must be at least 1, got -4"),
        ({"image_size": 4}, "image_size"),
        ({"timeline_mb": 0.0}, "timeline_mb"),
        ({"timeline_mb": float("nan")}, "timeline_mb"),
        ({"seed": -1}, "seed"),
        ({"batch_sizes": (8, 8)}, "batch_sizes"),
        ({"layer_capacity_mb": (0, 8)}, "layer_capacity_mb"),
        ({"num_reuse_capacities": 1}, "num_reuse_capacities"),
    )
    def test_refuses(self, changes, message):
        with self.assertRaisesRegex(ValueError, message):
            dataclasses.replace(_SMOKE, **changes).checked()

    def test_unknown_preset_lists_the_others(self):
        with self.assertRaisesRegex(ValueError, r"preset.*'fast'.*smoke.*quick.*full"):
            memory.preset("fast")


class NetworksTest(parameterized.TestCase):
    @parameterized.parameters(
        ("resnet50", "resnet50", 32, "ResNet-50"),
        ("keras:ResNet50", "resnet50", 32, "ResNet-50 (Keras)"),
        ("keras:MobileNetV2", "mobilenetv2", 32, "MobileNetV2 (Keras)"),
        ("transformer", "transformer", 128, "Transformer"),
        ("gnmt", "gnmt", 32, "GNMT"),
        ("vgg11", "", 32, "VGG-11"),
        ("darknet:/some/yolo.cfg", "", 32, "yolo"),
    )
    def test_names(self, name, family, batch_size, label):
        self.assertEqual(networks.family(name), family)
        self.assertEqual(networks.batch_size(name), batch_size)
        self.assertEqual(networks.label(name), label)

    def test_digest_follows_the_file(self):
        folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        file = folder / "net.cfg"
        file.write_text("[net]\n")
        name = f"darknet:{file}"
        before = networks.digest(name)
        self.assertEqual(networks.digest(name), before)
        file.write_text("[net]\nwidth=8\n")
        self.assertNotEqual(networks.digest(name), before)
        self.assertEqual(networks.digest("vgg11"), "")


if __name__ == "__main__":
    absltest.main()
