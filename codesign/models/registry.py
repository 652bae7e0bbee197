"""Networks by name: the one door to a model."""

import inspect
import math
from collections.abc import Callable
from typing import Any, Literal, overload

from codesign.models.gnmt import GNMT
from codesign.models.layers import INITIALISATIONS
from codesign.models.mobilenet import MobileNetV2
from codesign.models.network import Network
from codesign.models.resnet import ResNet18, ResNet50
from codesign.models.sequence import SequenceNetwork
from codesign.models.transformer import Transformer
from codesign.models.vgg import CONVOLUTIONS, VGG

# Sites of the published placements: Section VI-D of the DeepTrain paper.
_PAPER_SITES = {
    "vgg11": (5, 7),
    "vgg16": (5, 7, 8, 13),
    "vgg19": (5, 8, 11, 16),
    "resnet18": (3, 6, 7, *range(9, 18)),
}
_CLASSIFIERS = {  # module and number of batch-norm sites
    "resnet18": (ResNet18, 20),
    "resnet50": (ResNet50, 53),
    "mobilenetv2": (MobileNetV2, 52),
}
NETWORKS = tuple(sorted({*CONVOLUTIONS, *_CLASSIFIERS}))  # with batch-norm sites
SEQUENCE_NETWORKS = ("gnmt", "transformer")


@overload
def create(
    name: Literal["transformer"],
    *,
    length: int = ...,
    hidden: int = ...,
    num_layers: int = ...,
    inner: int = ...,
    num_heads: int = ...,
    dropout_rate: float = ...,
    initialisation: str = ...,
    activate_projections: bool = ...,
) -> SequenceNetwork: ...
@overload
def create(
    name: Literal["gnmt"],
    *,
    length: int = ...,
    hidden: int = ...,
    num_layers: int = ...,
    dropout_rate: float = ...,
    initialisation: str = ...,
) -> SequenceNetwork: ...
@overload
def create(
    name: str,
    *,
    num_classes: int = ...,
    image_shape: tuple[int, int, int] = ...,
    width: float = ...,
    initialisation: str = ...,
) -> Network: ...
def create(name: str, **settings: Any) -> Network | SequenceNetwork:
    """Builds a network by name.

    Image classifiers (`NETWORKS`), with batch-norm sites:
        num_classes: Number of classes, 10.
        image_shape: (H, W, C), H and W at least 8; (32, 32, 3).
        width: Multiplies every channel count but the image's and the classes', 1.
            MobileNetV2 rounds as keras's `alpha` does.
        initialisation: `pytorch` (its default), `xavier` or `kaiming`.

    Sequence networks (`SEQUENCE_NETWORKS`), without; by default as Table 5.1 of the
    memory paper has their inputs:
        length: Vectors in a source and in a target, 50.
        hidden: Width of a vector, 1024.
        num_layers: Of the encoder, and of the decoder; 6, of `gnmt` 4.
        inner, num_heads: Of `transformer`, 1024 and 16.
        activate_projections: Of `transformer`, a ReLU behind the dense layers of an
            attention; False.
        dropout_rate: In [0, 1); 0.1, of `gnmt` 0.
        initialisation: As above, `xavier`.

    A name that the type checker does not know is taken to be an image classifier's.

    Raises:
        ValueError: For a name, a setting or a value that is not one of these.
    """
    build = _BUILDERS.get(name)
    if build is None:
        raise ValueError(f"`network` (={name!r}) must be one of {list(_BUILDERS)}.")
    known = list(inspect.signature(build).parameters)[1:]
    for setting in settings:
        if setting not in known:
            hint = (
                f"; it has no batch-norm sites, which {list(NETWORKS)} have"
                if name in SEQUENCE_NETWORKS
                else ""
            )
            raise ValueError(
                f"The network {name!r} has no `{setting}`; its settings are {known}{hint}."
            )
    return build(name, **settings)


def _classifier(
    name: str,
    *,
    num_classes: int = 10,
    image_shape: tuple[int, int, int] = (32, 32, 3),
    width: float = 1.0,
    initialisation: str = "pytorch",
) -> Network:
    _check_initialisation(initialisation)
    if not (width > 0 and math.isfinite(width)):
        raise ValueError(f"`width` must be positive and finite, got {width}.")
    if num_classes < 2:
        raise ValueError(f"`num_classes` must be at least 2, got {num_classes}.")
    if len(image_shape) != 3 or min(image_shape[:2]) < 8 or image_shape[2] < 1:
        raise ValueError(
            f"`image_shape` must be (H, W, C) with H and W at least 8, "
            f"got {image_shape}; resize the images."
        )
    settings: dict[str, Any] = dict(
        num_classes=num_classes, width=width, initialisation=initialisation
    )
    if name in CONVOLUTIONS:
        plan = CONVOLUTIONS[name]
        module, num_sites = VGG(plan=plan, **settings), sum(c > 0 for c in plan)
    else:
        make, num_sites = _CLASSIFIERS[name]
        module = make(**settings)
    paper_sites = _PAPER_SITES.get(name, ())
    return Network(module, num_sites, image_shape, num_classes, paper_sites)


def _transformer(
    name: str,
    *,
    length: int = 50,
    hidden: int = 1024,
    num_layers: int = 6,
    inner: int = 1024,
    num_heads: int = 16,
    dropout_rate: float = 0.1,
    initialisation: str = "xavier",
    activate_projections: bool = False,
) -> SequenceNetwork:
    _check_positive(inner=inner, num_heads=num_heads)
    if hidden % num_heads:
        raise ValueError(
            f"`hidden` (={hidden}) must be a multiple of `num_heads` (={num_heads})."
        )
    module = Transformer(
        num_layers,
        hidden,
        inner,
        num_heads,
        dropout_rate,
        initialisation,
        activate_projections,
    )
    return _sequence(module, length)


def _gnmt(
    name: str,
    *,
    length: int = 50,
    hidden: int = 1024,
    num_layers: int = 4,
    dropout_rate: float = 0.0,
    initialisation: str = "xavier",
) -> SequenceNetwork:
    return _sequence(GNMT(num_layers, hidden, dropout_rate, initialisation), length)


def _sequence(module: GNMT | Transformer, length: int) -> SequenceNetwork:
    _check_initialisation(module.initialisation)
    _check_positive(length=length, hidden=module.hidden, num_layers=module.num_layers)
    if not 0 <= module.dropout_rate < 1:
        raise ValueError(
            f"`dropout_rate` must lie in [0, 1), got {module.dropout_rate}."
        )
    return SequenceNetwork(module, ((length, module.hidden), (length, module.hidden)))


_BUILDERS: dict[str, Callable] = {
    **dict.fromkeys(NETWORKS, _classifier),
    "gnmt": _gnmt,
    "transformer": _transformer,
}


def _check_initialisation(initialisation: str) -> None:
    if initialisation not in INITIALISATIONS:
        raise ValueError(
            f"`initialisation` (={initialisation!r}) must be one of "
            f"{sorted(INITIALISATIONS)}."
        )


def _check_positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}.")
