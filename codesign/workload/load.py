"""Networks by name: ours, or somebody's file."""

import hashlib
import pathlib
from typing import Any

from codesign import models, workload
from codesign.workload import Workload

IMAGE_SIZE = 224
_NUM_CLASSES = 1000  # of ImageNet


def check(name: str, setting: str = "network") -> None:
    """Raises ValueError, about `setting`, if no network has this name; reads no file."""
    importer, _, rest = name.partition(":")
    known = (*models.NETWORKS, *models.SEQUENCE_NETWORKS)
    if rest and importer == "keras":
        from codesign.workload import keras  # starts Keras only when asked to

        known = keras.applications()
        if rest.lower() not in {each.lower() for each in known}:
            raise ValueError(
                f"`{setting}` (={name!r}) must name an application of Keras: "
                f"{list(known)}."
            )
    elif rest and importer in ("darknet", "onnx"):
        if not _file(name)[0].is_file():
            raise ValueError(f"`{setting}` (={name!r}) names no file; check its path.")
    elif name not in known:
        raise ValueError(
            f"`{setting}` (={name!r}) must be one of {list(known)}, `keras:NAME`, "
            "`darknet:FILE` or `onnx:FILE` (`onnx:FILE@N` if its batch is fixed to N)."
        )


def load(name: str, image_size: int = IMAGE_SIZE, **settings: Any) -> Workload:
    """Counts one network.

    Args:
        name: Of `models.create`; `keras:NAME` of keras.applications; `darknet:FILE`,
            `onnx:FILE`, or `onnx:FILE@N` for a file whose batch is fixed to N.
        image_size: Height and width of the images of our own classifiers, which tell
            1000 classes apart; other networks bring their own.
        **settings: Of `models.create`, for our own networks.

    Raises:
        ValueError: As the importers, or if no network has this name.
    """
    check(name)
    importer, _, rest = name.partition(":")
    if importer == "keras":
        from codesign.workload import keras

        return keras.from_application(rest)
    if importer == "darknet":
        from codesign.workload import darknet

        return darknet.from_cfg(rest)
    if importer == "onnx":
        from codesign.workload import onnx

        path, batch_size = _file(name)
        return onnx.from_file(path, batch_size=batch_size)
    if name in models.NETWORKS:
        image = dict(image_shape=(image_size, image_size, 3), num_classes=_NUM_CLASSES)
        settings = image | settings
    network = models.create(name, **settings)
    return workload.trace(*network.trace_args(), unroll_scans=True)


def label(name: str) -> str:
    """As a figure calls it."""
    importer, _, rest = name.partition(":")
    if importer == "keras":
        known = models.title(rest.lower())
        return f"{rest if known == rest.lower() else known} (Keras)"
    return pathlib.Path(rest).stem if rest else models.title(name)


def digest(name: str) -> str:
    """Changes when the file that a network comes from does; empty without a file."""
    if name.partition(":")[0] not in ("darknet", "onnx"):
        return ""
    with open(_file(name)[0], "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _file(name: str) -> tuple[pathlib.Path, int | None]:
    """The file of an importer's name, and the batch that stands behind it."""
    importer, _, rest = name.partition(":")
    path, at, size = rest.rpartition("@")
    if importer == "onnx" and at and size.isdecimal():
        return pathlib.Path(path), int(size)
    return pathlib.Path(rest), None
