"""Networks by name: each registers itself beside its module; `create` builds any of them.

A new file in this folder is found by itself:

    @register("lenet", title="LeNet", num_sites=2)
    class LeNet(nn.Module):
        num_classes: int
        width: float = 1.0
        initialisation: str = "pytorch"  # of `layers.Conv` and `layers.Dense`

The search of placements sets these three; further fields are settings of `create`. Maps
that a branch beside the network may read are taps, `self.sow("intermediates", "tap", x)`
with x [B, h, w, C], in the order of the calls.
"""

import dataclasses
import inspect
import math
from collections.abc import Callable
from typing import Any, TypeVar

from codesign.models.layers import INITIALISATIONS
from codesign.models.network import Network
from codesign.models.sequence import SequenceNetwork
from codesign.types import is_number, is_whole

# Settings that say what the data look like; all others are fields of the module.
_IMAGES: dict[str, Any] = {"num_classes": 10, "image_shape": (32, 32, 3)}
_TEXTS: dict[str, Any] = {"num_classes": 2, "length": 64}
_SEQUENCES: dict[str, Any] = {"length": 50}  # Table 5.1 of the memory paper
_FIELDS_OF_FLAX = ("parent", "name")  # which every Linen module has

# Of settings that several networks have: what holds, and what is said where it does not.
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "num_classes": (
        lambda n: is_whole(n) and n >= 2,
        "must be at least 2 and a whole number, got {!r}.",
    ),
    "image_shape": (
        lambda shape: (
            isinstance(shape, tuple | list)
            and len(shape) == 3
            and all(map(is_whole, shape))
            and min(shape[:2]) >= 8
            and shape[2] >= 1
        ),
        "must be (H, W, C) with H and W at least 8, got {}; resize the images.",
    ),
    "width": (
        lambda width: is_number(width) and 0 < width < math.inf,
        "must be positive and finite, got {!r}.",
    ),
    "dropout_rate": (
        lambda rate: is_number(rate) and 0 <= rate < 1,
        "must lie in [0, 1), got {!r}.",
    ),
    "initialisation": (
        lambda name: isinstance(name, str) and name in INITIALISATIONS,
        f"(={{!r}}) must be one of {sorted(INITIALISATIONS)}.",
    ),
}
_RULE_OF_COUNTS = (
    lambda n: is_whole(n) and n >= 1,
    "must be at least 1 and a whole number, got {!r}.",
)

_Module = TypeVar("_Module", bound=Callable[..., Any])


@dataclasses.dataclass(frozen=True)
class _Entry:
    """What `register` was told of a network, and its settings with their defaults."""

    module: Callable[..., Any]
    title: str
    num_sites: int | None
    paper_sites: tuple[str, ...]
    settings: dict[str, Any]
    reads_text: bool

    @property
    def kind(self) -> str:
        """As `names` takes it."""
        if self.num_sites is None:
            return "sequence"
        return "sites" if self.num_sites else "plain"


_ENTRIES: dict[str, _Entry] = {}


def register(
    name: str,
    *,
    title: str,
    num_sites: int | None = None,
    paper_sites: tuple[str, ...] = (),
    reads_text: bool = False,
) -> Callable[[_Module], _Module]:
    """Decorates a Flax module, or a function that makes one, to be created by name.

    Its fields become settings of `create`, and their defaults the defaults there. A
    classifier has a field `num_classes` and is called as `Network` says. A sequence
    network has a field `hidden`, the width of its inputs, and is called as
    `SequenceNetwork` says.

    Args:
        name: For `create`.
        title: As figures and tables call it.
        num_sites: Batch-norm sites of a classifier, 0 of one without; None for a sequence
            network.
        paper_sites: Sites of the published placement, by name: "C5".
        reads_text: Whether a classifier takes tokens [B, T] in place of images.
    """

    def enter(module: _Module) -> _Module:
        of_classifier = _TEXTS if reads_text else _IMAGES
        settings = dict(_SEQUENCES if num_sites is None else of_classifier)
        for field in inspect.signature(module).parameters.values():
            if field.name not in (*settings, *_FIELDS_OF_FLAX):
                settings[field.name] = field.default
        _ENTRIES[name] = _Entry(
            module, title, num_sites, paper_sites, settings, reads_text
        )
        return module

    return enter


def names(kind: str) -> tuple[str, ...]:
    """Sorted names of all networks of a kind.

    Args:
        kind: `sites`, classifiers with batch-norm sites; `plain`, those without; or
            `sequence`.
    """
    return tuple(name for name, entry in sorted(_ENTRIES.items()) if entry.kind == kind)


def reads_images(name: str) -> bool:
    """Whether a network of this name has a setting `image_shape`."""
    return name in _ENTRIES and "image_shape" in _ENTRIES[name].settings


def title(name: str) -> str:
    """Returns what figures call a network, `ResNet-50`; of any other name, the name."""
    return _ENTRIES[name].title if name in _ENTRIES else name


def create(name: str, **settings: Any) -> Any:
    """Builds a `Network` or a `SequenceNetwork` by its name.

    Image classifiers (`NETWORKS`), with batch-norm sites:
        num_classes: Number of classes, 10.
        image_shape: (H, W, C), H and W at least 8; (32, 32, 3).
        width: Multiplies every channel count but the image's and the classes', 1.
            MobileNetV2 rounds as keras's `alpha` does.
        initialisation: `pytorch` (its default), `xavier` or `kaiming`.

    Classifiers without (`PLAIN_NETWORKS`), as their modules: `num_classes`, `image_shape`
    or the `length` of a text, and all fields of `ViT` and of `BERT`.

    Sequence networks (`SEQUENCE_NETWORKS`); by default as Table 5.1 of the
    memory paper has their inputs:
        length: Vectors in a source and in a target, 50.
        All fields of `GNMT` and of `Transformer`: `hidden`, `num_layers`, ...

    Raises:
        ValueError: For a name, a setting or a value that is not one of these.
    """
    if not isinstance(name, str) or name not in _ENTRIES:
        raise ValueError(f"`network` (={name!r}) must be one of {sorted(_ENTRIES)}.")
    entry = _ENTRIES[name]
    for setting in settings:
        if setting not in entry.settings:
            hint = (
                ""
                if entry.num_sites
                else f"; it has no batch-norm sites, which {list(names('sites'))} have"
            )
            raise ValueError(
                f"The network {name!r} has no `{setting}`; its settings are "
                f"{list(entry.settings)}{hint}."
            )
    settings = entry.settings | settings
    for setting, value in settings.items():
        is_count = type(entry.settings[setting]) is int
        rule = _RULES.get(setting, _RULE_OF_COUNTS if is_count else None)
        if rule is not None and not rule[0](value):
            raise ValueError(f"`{setting}` {rule[1].format(value)}")
    if entry.num_sites is None:
        shape = (settings.pop("length"), settings["hidden"])
        return SequenceNetwork(entry.module(**settings), (shape, shape))
    shape = (
        (settings.pop("length"),) if entry.reads_text else settings.pop("image_shape")
    )
    module, num_classes = entry.module(**settings), settings["num_classes"]
    sites = entry.num_sites
    return Network(module, sites, shape, num_classes, entry.paper_sites, name)
