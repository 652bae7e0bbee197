"""Networks by the names that a sweep takes: ours, or somebody's file."""

import hashlib
import pathlib

from codesign import models, workload
from codesign.workload import Workload

# Table 5.1 of the memory paper, in its order, and its batch sizes.
_PAPER = {"resnet50": 32, "mobilenetv2": 32, "gnmt": 32, "transformer": 128}
PAPER_NETWORKS = tuple(_PAPER)
LABELS = {
    "resnet50": "ResNet-50",
    "mobilenetv2": "MobileNetV2",
    "gnmt": "GNMT",
    "transformer": "Transformer",
    "resnet18": "ResNet-18",
    "vgg11": "VGG-11",
    "vgg16": "VGG-16",
    "vgg19": "VGG-19",
}
IMPORTERS = ("keras", "darknet", "onnx")
IMAGE_SIZE = 224
_NUM_CLASSES = 1000  # of ImageNet


def check(name: str) -> None:
    """Raises ValueError if no network has this name; reads no file to its end."""
    importer, colon, rest = name.partition(":")
    if colon and importer in IMPORTERS:
        if importer == "keras":
            from codesign.workload import keras  # starts Keras only when asked to

            known = keras.applications()
            if rest.lower() not in {each.lower() for each in known}:
                raise ValueError(
                    f"`networks` (={name!r}) must name an application of Keras: "
                    f"{list(known)}."
                )
        elif not _file(name)[0].is_file():
            raise ValueError(f"`networks` (={name!r}) names no file; check its path.")
        return
    known = (*models.NETWORKS, *models.SEQUENCE_NETWORKS)
    if name not in known:
        raise ValueError(
            f"`networks` (={name!r}) must be one of {list(known)}, `keras:NAME`, "
            "`darknet:FILE` or `onnx:FILE` (`onnx:FILE@N` if its batch is fixed to N)."
        )


def load(name: str, image_size: int = IMAGE_SIZE) -> Workload:
    """Counts one network.

    Args:
        name: Of `models.create`; `keras:NAME` of keras.applications; `darknet:FILE`,
            `onnx:FILE`, or `onnx:FILE@N` for a file whose batch is fixed to N.
        image_size: Height and width of the images of our own classifiers, which tell
            1000 classes apart; other networks bring their own.

    Raises:
        ValueError: As the importers, or if no network has this name.
    """
    check(name)
    importer, colon, rest = name.partition(":")
    if colon and importer == "keras":
        from codesign.workload import keras

        return keras.from_application(rest)
    if colon and importer == "darknet":
        from codesign.workload import darknet

        return darknet.from_cfg(rest)
    if colon and importer == "onnx":
        from codesign.workload import onnx

        path, batch_size = _file(name)
        return onnx.from_file(path, batch_size=batch_size)
    if name == "transformer":
        # fitted: keras-multi-head activates its projections; with that the type-II share
        # at 24 MB is 23 %, without 17 %, in the paper 26.69 %.
        network = models.create(name, activate_projections=True)
    elif name in models.SEQUENCE_NETWORKS:
        network = models.create(name)
    else:
        network = models.create(
            name, image_shape=(image_size, image_size, 3), num_classes=_NUM_CLASSES
        )
    return workload.trace(*network.trace_args(), unroll_scans=True)


def family(name: str) -> str:
    """The network of the paper that this is, however it was imported; else nothing."""
    lowered = name.lower().removeprefix("keras:")
    return lowered if lowered in _PAPER else ""


def batch_size(name: str) -> int:
    """The batch of the paper's Table 5.1; 32 for networks that are not in it."""
    return _PAPER.get(family(name), 32)


def label(name: str) -> str:
    """As a figure calls it."""
    importer, _, rest = name.partition(":")
    if name in LABELS:
        return LABELS[name]
    if importer == "keras":
        return f"{LABELS.get(rest.lower(), rest)} (Keras)"
    return pathlib.Path(rest).stem if rest else name


def digest(name: str) -> str:
    """Changes when the file that a network comes from does; empty without a file."""
    if name.partition(":")[0] not in ("darknet", "onnx"):
        return ""
    return hashlib.sha256(_file(name)[0].read_bytes()).hexdigest()


def _file(name: str) -> tuple[pathlib.Path, int | None]:
    """The file of an importer's name, and the batch that stands behind it."""
    importer, _, rest = name.partition(":")
    path, at, size = rest.rpartition("@")
    if importer == "onnx" and at and size.isdecimal():
        return pathlib.Path(path), int(size)
    return pathlib.Path(rest), None
