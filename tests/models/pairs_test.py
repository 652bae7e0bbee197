"""Branches beside backbones by name, on shapes alone."""

import jax
import pytest

from codesign import models
from codesign.models import backbone
from codesign.models.duplex import ALGORITHMS
from codesign.models.pairs import PAIRS, create_backbone, create_branch, learnable_sizes


def _branch(name, algorithm="duplex", **settings):
    shape = (12,) if name == "branch6-bert12" else (32, 32, 3)
    others = {"vocabulary_size": 50} if len(shape) == 1 else {}
    before = create_backbone(name, num_classes=7, shape=shape, width=0.0625, **others)
    frozen = backbone.untrained(before)
    return before, create_branch(
        name,
        before,
        frozen,
        num_classes=3,
        algorithm=algorithm,
        channels=16,
        **settings,
    )


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_has_the_blocks_of_its_name(name):
    before, network = _branch(name)
    depth, kind = name.removeprefix("branch").split("-")
    assert network.label == name
    assert network.num_sites == 2 * int(depth)
    sizes = learnable_sizes(network)
    blocks = jax.eval_shape(network.init, jax.random.key(0))["params"]["branch"]
    assert {leaf.shape[0] for leaf in jax.tree.leaves(blocks)} == {int(depth)}
    assert sizes["classifier"] == 16 * 3 + 3
    assert PAIRS[name].backbone == kind
    assert (before.num_classes, network.num_classes) == (7, 3)


@pytest.mark.parametrize("name", ["branch4-resnet18", "branch6-vit12"])
def test_all_algorithms_learn_as_much_in_each_layer(name):
    for join in ("add", "concatenate"):
        sizes = [learnable_sizes(_branch(name, a, join=join)[1]) for a in ALGORITHMS]
        assert all(each == sizes[0] for each in sizes)


def test_titles_are_those_of_the_paper():
    assert PAIRS["branch4-resnet18"].title == "Branch-4 + ResNet-18"
    assert PAIRS["branch12-vit16"].title == "Branch-12 + ViT-16"


def test_what_is_no_pair_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean `branch4-resnet18`"):
        create_backbone("branch4-resnet", num_classes=2, shape=(8, 8, 3))
    with pytest.raises(ValueError, match=r"`join` \(='ad'\): did you mean `add`"):
        _branch("branch4-resnet18", join="ad")


def test_networks_by_kind():
    assert {"vit12", "vit16", "bert12"} == set(models.PLAIN_NETWORKS)
    assert set(models.names("sites")) == set(models.NETWORKS)
    assert models.reads_images("vit12")
    assert not models.reads_images("bert12")
    assert not models.reads_images("nothing")
