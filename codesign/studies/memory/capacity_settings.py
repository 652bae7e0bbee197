"""Settings of a memory sweep, and the presets."""

import dataclasses
import math

from codesign.hardware.memory import SYSTEMS
from codesign.records.settings import setting
from codesign.studies import frame
from codesign.studies.memory.paper_networks import BATCH_SIZES
from codesign.workload import load

_MOST_CAPACITIES = 100_000
_MOST_MB = 1e9  # a PB: bytes are counted in 64 bits
_PAPER_CAPACITIES = "24:1000:2"  # Section 5.3


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryConfig(frame.Config):
    """Settings of one sweep; `PRESETS` has named ones."""

    networks: tuple[str, ...] = setting(
        tuple(BATCH_SIZES),
        "Names of codesign.models, keras:NAME, darknet:FILE, onnx:FILE (onnx:FILE@N if "
        "its batch is fixed to N, onnx:FILE@H=480@W=640 for its open axes).",
        distinct=True,
        free=True,
    )
    hardware: tuple[str, ...] = setting(
        ("RTX 2080 Ti",),
        "Chips, such as A100: their memory and throughput count, their cache does not.",
        one_of=tuple(SYSTEMS),
        distinct=True,
    )
    capacity_mb: str = setting(
        _PAPER_CAPACITIES,
        "Caches of sweep.csv in MB of 2^20 bytes: start:stop:step with the stop "
        "included, or a list 24,128,400.",
    )
    batch_size: int | None = setting(
        None,
        "Examples in a batch; none: of each network its own.",
        least=1,
        flag="batch",
    )
    image_size: int = setting(
        load.IMAGE_SIZE,
        "Height and width of our own classifiers' images.",
        least=8,
        most=65536,
    )
    figure_capacity_mb: str = setting(
        _PAPER_CAPACITIES, "Caches of the figures and of the published numbers."
    )
    layer_capacity_mb: tuple[float, ...] = setting(
        (24, 64, 128, 180, 296, 400),
        "Caches of the times by layer type and of the policies.",
        above=0,
        most=_MOST_MB,
    )
    batch_sizes: tuple[int, ...] = setting(
        (8, 16, 32, 64, 128, 256, 512, 1024),
        "Batches of the throughput over batch size.",
        least=1,
    )
    timeline_mb: float = setting(
        128.0, "Cache of the timelines, on the first chip.", above=0, most=_MOST_MB
    )
    num_reuse_capacities: int = setting(
        62, "Caches at which traffic is attributed to scopes of reuse.", least=2
    )
    validate: bool = setting(False, "Hold the surrogate against the simulator.")

    def check(self) -> None:
        """Checks that networks exist, that capacities can be read, and that lists rise."""
        for name in self.networks:
            load.check(name, "networks")
        for field in ("capacity_mb", "figure_capacity_mb"):
            parse_capacities(getattr(self, field), field)
        for field in ("layer_capacity_mb", "batch_sizes"):
            values = getattr(self, field)
            if sorted({*values}) != list(values):
                raise ValueError(f"`{field}` (={values}) must rise; sort it.")


def parse_capacities(text: str, name: str = "capacity_mb") -> tuple[float, ...]:
    """Capacities in MB, rising, of `start:stop:step` or of a list `24,128,400`.

    Raises:
        ValueError: If it is written otherwise, a number is not positive, or one stands
            there twice.
    """
    numbers: list[float] = []
    rule, way_out = "", "write `24:1000:2`, with the stop included, or `24,128,400`."
    try:
        numbers = [float(part) for part in text.split(":" if ":" in text else ",")]
    except ValueError:
        rule = "must hold numbers"
    if not all(number > 0 and math.isfinite(number) for number in numbers):
        rule = "must hold positive numbers"
    elif any(number > _MOST_MB for number in numbers):
        rule = f"must stay below {_MOST_MB:g} MB"
    elif ":" in text and not rule:
        if len(numbers) != 3:
            rule = "must have three parts"
        elif numbers[1] < numbers[0]:
            rule = "must stop at or above its start"
        elif (numbers[1] - numbers[0]) / numbers[2] >= _MOST_CAPACITIES:
            rule, way_out = f"has over {_MOST_CAPACITIES} values", "take a larger step."
        else:
            start, stop, step = numbers
            count = math.floor((stop - start) / step + 1e-9) + 1
            # Rounded, as 24 + 3 * 0.1 is 24.300000000000001.
            numbers = [round(start + i * step, 9) for i in range(count)]
    if not rule and len({*numbers}) < len(numbers):
        rule = "holds a capacity twice"
    if rule:
        raise ValueError(f"`{name}` (={text!r}) {rule}; {way_out}")
    return tuple(sorted(numbers))


PRESETS = {
    "quick": MemoryConfig(preset="quick"),
    "smoke": MemoryConfig(
        preset="smoke",
        networks=("vgg11",),
        image_size=32,
        capacity_mb="10,16,24",
        figure_capacity_mb="10:30:2",
        layer_capacity_mb=(10, 24),
        batch_sizes=(8, 32),
        timeline_mb=10.0,
        num_reuse_capacities=4,
    ),
    "full": MemoryConfig(
        preset="full",
        networks=(
            *BATCH_SIZES,
            *("keras:ResNet50", "keras:MobileNetV2", "resnet18", "vgg16"),
        ),
        # The paper's first: timelines and `sweep_s` stand for it.
        hardware=tuple(sorted(SYSTEMS, key=lambda name: name != "RTX 2080 Ti")),
        num_reuse_capacities=245,
        validate=True,
    ),
}
