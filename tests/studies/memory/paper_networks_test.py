"""Table 5.1: which networks are the paper's, and at which settings."""

import pytest

from codesign.studies.memory import paper_networks


@pytest.mark.parametrize(
    ("name", "family", "batch_size"),
    [
        ("resnet50", "resnet50", 32),
        ("keras:ResNet50", "resnet50", 32),
        ("keras:MobileNetV2", "mobilenetv2", 32),
        ("transformer", "transformer", 128),
        ("gnmt", "gnmt", 32),
        ("vgg11", "", 32),
        ("darknet:/some/resnet50.cfg", "", 32),
    ],
)
def test_names(name, family, batch_size):
    assert paper_networks.family(name) == family
    assert paper_networks.batch_size(name) == batch_size


@pytest.mark.parametrize(
    ("name", "batch_size", "image_size", "expected"),
    [
        ("keras:ResNet50", 32, 32, "resnet50"),  # it brings its own images
        ("keras:ResNet50", 16, 224, ""),
        ("resnet50", 32, 32, ""),
        ("resnet50", 32, 224, "resnet50"),
        ("gnmt", 32, 32, "gnmt"),
        ("transformer", 32, 224, ""),
    ],
)
def test_only_the_papers_own_settings_are_held_against_it(
    name, batch_size, image_size, expected
):
    assert paper_networks.comparable(name, batch_size, image_size) == expected


def test_the_transformer_activates_its_projections():
    # 12 layers, 18 attentions of four dense layers with a ReLU behind each.
    ops = paper_networks.load("transformer")
    relus = [op for op in ops.ops if op.kind == "activation"]
    assert len(relus) == 18 * 4 + 12
