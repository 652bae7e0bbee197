"""Branches beside backbones by CAMEL's names, such as `branch4-resnet18`."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from codesign.models.branch import JOINS, AttentionResidual, ConvResidual
from codesign.models.duplex import Duplex
from codesign.models.network import Network
from codesign.models.registry import create, title
from codesign.records.named import nearest
from codesign.types import PyTree

_HEADS, _HEAD_WIDTH = 12, 64  # of ViT-B and BERT-base
_PATCHES = 8  # along each side


@dataclasses.dataclass(frozen=True)
class Pair:
    """A branch of CAMEL's Tables III and IV.

    Attributes:
        backbone: Name of the network.
        depth: Blocks of the branch.
        attends: Whether they hold attention, else convolutions.
    """

    backbone: str
    depth: int
    attends: bool = False

    @property
    def title(self) -> str:
        """As the paper's tables have it: `Branch-4 + ResNet-18`."""
        return f"Branch-{self.depth} + {title(self.backbone)}"


PAIRS = {
    "branch4-resnet18": Pair("resnet18", 4),
    "branch5-resnet34": Pair("resnet34", 5),
    "branch6-resnet50": Pair("resnet50", 6),
    "branch6-vit12": Pair("vit12", 6, attends=True),
    "branch6-vgg16": Pair("vgg16", 6),
    "branch8-vit16": Pair("vit16", 8, attends=True),
    "branch12-resnet50": Pair("resnet50", 12),
    "branch12-vit16": Pair("vit16", 12, attends=True),
    "branch6-bert12": Pair("bert12", 6, attends=True),
}


def pair(name: str) -> Pair:
    """One of `PAIRS`.

    Raises:
        ValueError: If it is none of them.
    """
    if name not in PAIRS:
        raise ValueError(f"`pair` (={name!r}): {nearest(name, PAIRS)}")
    return PAIRS[name]


def create_backbone(
    name: str,
    *,
    num_classes: int,
    shape: Sequence[int],
    width: float = 1.0,
    **settings: Any,
) -> Network:
    """The backbone of a pair, to be trained.

    Args:
        name: One of `PAIRS`.
        num_classes: That it is to tell apart.
        shape: (H, W, C) of images, or (T,) of texts.
        width: Multiplies channels; of a transformer the hidden width, in steps of its
            heads, so that 1 is the published network. Images of a transformer are cut
            into 8 x 8 patches (assumed; ViT-B/16 has 14 x 14 of 224 x 224 pixels).
        **settings: Others of `models.create`.
    """
    which = pair(name)
    if which.attends:
        hidden = _HEADS * max(1, round(_HEAD_WIDTH * width))
        sizes = {"hidden": hidden, "inner": 4 * hidden}
        if len(shape) == 3:
            sizes["patch_size"] = max(1, shape[0] // _PATCHES)
        settings = sizes | settings
    else:
        settings["width"] = width
    settings |= (
        {"length": shape[0]} if len(shape) == 1 else {"image_shape": tuple(shape)}
    )
    return create(which.backbone, num_classes=num_classes, **settings)


def create_branch(
    name: str,
    before: Network,
    frozen: PyTree,
    *,
    num_classes: int,
    join: str = "add",
    residual: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Network:
    """A pair's branch beside its trained backbone.

        before = create_backbone(
            "branch4-resnet18", num_classes=100, shape=(32, 32, 3)
        )
        ...  # train it, which gives `variables`
        frozen = backbone.frozen(before, variables)
        network = create_branch("branch4-resnet18", before, frozen, num_classes=10)

    Args:
        name: One of `PAIRS`.
        before: The backbone, as `create_backbone` made it, or any `Network` that says
            its maps.
        frozen: What `backbone.frozen` made of it.
        num_classes: That the branch is to tell apart.
        join: How a tap comes in: `add`, or `concatenate`.
        residual: Settings of `ConvResidual` or `AttentionResidual`.
        **settings: Of `Duplex`.

    Raises:
        ValueError: If there is no such pair or join.
    """
    which = pair(name)
    if join not in JOINS:
        raise ValueError(f"`join` (={join!r}): {nearest(join, JOINS)}")
    kind = AttentionResidual if which.attends else ConvResidual
    f1, f2 = (kind(site, join=join, **(residual or {})) for site in (0, 1))
    module = Duplex(
        before.module, f1, f2, which.depth, num_classes=num_classes, **settings
    )
    return Network(
        module,
        2 * which.depth,
        before.image_shape,
        num_classes,
        label=name,
        frozen=frozen,
    )


def learnable_sizes(network: Network) -> dict[str, int]:
    """Number of learnable parameters by layer."""
    params = jax.eval_shape(network.init, jax.random.key(0))["params"]
    sizes: dict[str, int] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        layer = jax.tree_util.keystr(path[:-1], simple=True, separator="/")
        sizes[layer] = sizes.get(layer, 0) + leaf.size
    return sizes
