"""Networks by name: ours, or somebody's file."""

import contextlib
import hashlib
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from codesign import models, workload
from codesign.workload import Workload

IMAGE_SIZE = 224
_NUM_CLASSES = 1000  # of ImageNet
_SETTINGS = (
    "`@N` if its batch is fixed to N, `@H=480@W=640` for its open axes H and W, or "
    "`@x=1x3x480x640` for all axes of its input x"
)


def check(name: str, setting: str = "network") -> None:
    """Raises ValueError, about `setting`, if no network has this name; reads no file."""
    importer, _, rest = name.partition(":")
    known = (
        *models.NETWORKS,
        *models.PLAIN_NETWORKS,
        *models.SEQUENCE_NETWORKS,
    )
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
            raise ValueError(
                f"`{setting}` (={name!r}) names no file; check its path, and for ONNX "
                f"what stands behind it: {_SETTINGS}."
            )
    elif name not in known:
        raise ValueError(
            f"`{setting}` (={name!r}) must be one of {list(known)}, `keras:NAME`, "
            f"`darknet:FILE` or `onnx:FILE`, which takes {_SETTINGS}."
        )


@contextlib.contextmanager
def _naming(name: str, setting: str) -> Iterator[None]:
    """Says of what goes wrong with a network's file who asked for it."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise ValueError(f"`{setting}` (={name!r}): {error}") from error


def load(
    name: str,
    image_size: int = IMAGE_SIZE,
    *,
    setting: str = "network",
    **settings: Any,
) -> Workload:
    """Counts one network.

    Args:
        name: Of `models.create`; `keras:NAME` of keras.applications; `darknet:FILE`;
            `onnx:FILE`, `onnx:FILE@N` for a file whose batch is fixed to N, or
            `onnx:FILE@H=480@W=640` and `onnx:FILE@x=1x3x480x640` for sizes of open axes.
        image_size: Height and width of the images of our own classifiers, which tell
            1000 classes apart; other networks bring their own.
        setting: What the user calls `name`, for errors.
        **settings: Of `models.create`, for our own networks.

    Raises:
        ValueError: As the importers, if a file cannot be read, or no network has this
            name.
    """
    check(name, setting)
    importer, _, rest = name.partition(":")
    with _naming(name, setting):
        if importer == "keras":
            from codesign.workload import keras

            return keras.from_application(rest)
        if importer == "darknet":
            from codesign.workload import darknet

            return darknet.from_cfg(rest)
        if importer == "onnx":
            from codesign.workload import onnx

            path, dimensions, batch_size = _file(name)
            return onnx.from_file(path, dimensions, batch_size)
    if models.reads_images(name):
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
    if not rest:
        return models.title(name)
    path, dimensions, _ = _file(name)
    sizes = [
        f"{key}={size if isinstance(size, int) else 'x'.join(map(str, size))}"
        for key, size in dimensions.items()
    ]
    return f"{path.stem} ({', '.join(sizes)})" if sizes else path.stem


def digest(name: str, setting: str = "network") -> str:
    """Changes when the file that a network comes from does; empty without a file.

    Raises:
        ValueError: About `setting`, if there is no such file or it cannot be read.
    """
    if name.partition(":")[0] not in ("darknet", "onnx"):
        return ""
    check(name, setting)  # a device never ends
    with _naming(name, setting), open(_file(name)[0], "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _file(
    name: str,
) -> tuple[pathlib.Path, dict[str, int | tuple[int, ...]], int | None]:
    """The file of an importer's name, and the dimensions and batch that stand behind."""
    importer, _, path = name.partition(":")
    dimensions: dict[str, int | tuple[int, ...]] = {}
    batch_size = None
    setting = re.compile(r"(.+)@(?:(\d{1,12})|([^@=]+)=(\d{1,12}(?:x\d{1,12})*))")
    while importer == "onnx" and (found := setting.fullmatch(path)):
        path, batch, key, sizes = found.groups()
        if batch:
            batch_size = int(batch)
        else:
            whole = tuple(map(int, sizes.split("x")))
            dimensions[key] = whole if "x" in sizes else int(sizes)
    return pathlib.Path(path), dict(reversed(dimensions.items())), batch_size
