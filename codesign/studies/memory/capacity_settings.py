"""Settings of a memory sweep, and the presets."""

import dataclasses
import math

from codesign.hardware.memory import SYSTEMS
from codesign.workload import load as networks
from codesign.workload.load import IMAGE_SIZE

_MOST_CAPACITIES = 100_000
PAPER_CAPACITIES = "24:1000:2"  # Section 5.3


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryConfig:
    """Settings of one sweep; `PRESETS` has named ones.

    Attributes:
        preset: Name that the results carry.
        seed: Root of every random key; the simulation draws nothing, the validation of
            the surrogate does.
        networks: As `networks.load` takes them.
        hardware: Names of `memory.SYSTEMS`; their bandwidth and throughput
            count, their own capacity does not.
        capacity_mb: Capacities of `sweep.csv` in MB of 2^20 bytes: `start:stop:step`
            with the stop included, or a list `24,128,400`.
        batch_size: Examples in a batch; None for each network's own of the paper.
        image_size: Height and width of the images of our own classifiers.
        figure_capacity_mb: Capacities of the figures and of the published numbers.
        layer_capacity_mb: Of the times by layer type and of the policies.
        batch_sizes: Of the throughput over batch size.
        timeline_mb: Capacity of the timeline, on the first of `hardware`.
        num_reuse_capacities: Capacities at which traffic is attributed to scopes.
        validate: Whether to hold the surrogate against the simulator.
    """

    preset: str = "quick"
    seed: int = 0
    networks: tuple[str, ...] = networks.PAPER_NETWORKS
    hardware: tuple[str, ...] = ("RTX 2080 Ti",)
    capacity_mb: str = PAPER_CAPACITIES
    batch_size: int | None = None
    image_size: int = IMAGE_SIZE
    figure_capacity_mb: str = PAPER_CAPACITIES
    layer_capacity_mb: tuple[float, ...] = (24, 64, 128, 180, 296, 400)
    batch_sizes: tuple[int, ...] = (8, 16, 32, 64, 128, 256, 512, 1024)
    timeline_mb: float = 128.0
    num_reuse_capacities: int = 62
    validate: bool = False

    def checked(self) -> "MemoryConfig":
        """Validates what needs no network; returns self.

        Raises:
            ValueError: Names the field, its value, the rule and the way out.
        """
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"`seed` must lie in 0..2**32 - 1, got {self.seed}.")
        _check_names("networks", self.networks)
        for name in self.networks:
            networks.check(name)
        _check_names("hardware", self.hardware)
        for name in self.hardware:
            if name not in SYSTEMS:
                raise ValueError(
                    f"`hardware` (={name!r}) must be one of {list(SYSTEMS)}."
                )
        for field in ("capacity_mb", "figure_capacity_mb"):
            parse_capacities(getattr(self, field), field)
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(
                f"`batch` must be at least 1, got {self.batch_size}; leave it out for "
                "each network's own."
            )
        if self.image_size < 8:
            raise ValueError(f"`image_size` must be at least 8, got {self.image_size}.")
        for field in ("layer_capacity_mb", "batch_sizes"):
            values = getattr(self, field)
            if not values or min(values) <= 0 or sorted({*values}) != list(values):
                raise ValueError(
                    f"`{field}` (={values}) must hold positive numbers that rise."
                )
        if not (self.timeline_mb > 0 and math.isfinite(self.timeline_mb)):
            raise ValueError(
                f"`timeline_mb` must be positive and finite, got {self.timeline_mb}."
            )
        if self.num_reuse_capacities < 2:
            raise ValueError(
                "`num_reuse_capacities` must be at least 2, got "
                f"{self.num_reuse_capacities}."
            )
        return self


def parse_capacities(text: str, name: str = "capacity_mb") -> tuple[float, ...]:
    """Capacities in MB, rising, of `start:stop:step` or of a list `24,128,400`.

    Raises:
        ValueError: If it is written otherwise, a number is not positive, or one stands
            there twice.
    """
    way_out = "write `24:1000:2`, with the stop included, or a list `24,128,400`."
    parts = text.split(":" if ":" in text else ",")
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        raise ValueError(f"`{name}` (={text!r}) must hold numbers; {way_out}") from None
    if not all(number > 0 and math.isfinite(number) for number in numbers):
        raise ValueError(f"`{name}` (={text!r}) must hold positive numbers; {way_out}")
    if ":" in text:
        if len(numbers) != 3:
            raise ValueError(f"`{name}` (={text!r}) must have three parts; {way_out}")
        start, stop, step = numbers
        if stop < start:
            raise ValueError(
                f"`{name}` (={text!r}) must stop at or above its start; {way_out}"
            )
        count = math.floor((stop - start) / step + 1e-9) + 1
        if count > _MOST_CAPACITIES:
            raise ValueError(
                f"`{name}` (={text!r}) has {count} capacities, at most "
                f"{_MOST_CAPACITIES} are swept; take a larger step."
            )
        # Rounded, as 24 + 3 * 0.1 is 24.300000000000001.
        numbers = [round(start + i * step, 9) for i in range(count)]
    if len({*numbers}) < len(numbers):
        raise ValueError(f"`{name}` (={text!r}) holds a capacity twice; {way_out}")
    return tuple(sorted(numbers))


def _check_names(field: str, names: tuple[str, ...]) -> None:
    if not names:
        raise ValueError(f"`{field}` is empty; name at least one.")
    if len({*names}) < len(names):
        raise ValueError(f"`{field}` (={list(names)}) holds a name twice.")


PRESETS = {
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
    "quick": MemoryConfig(),
    "full": MemoryConfig(
        preset="full",
        networks=(
            *networks.PAPER_NETWORKS,
            *("keras:ResNet50", "keras:MobileNetV2", "resnet18", "vgg16"),
        ),
        # The paper's first: timelines and `sweep_s` stand for it.
        hardware=tuple(sorted(SYSTEMS, key=lambda name: name != "RTX 2080 Ti")),
        num_reuse_capacities=245,
        validate=True,
    ),
}


def preset(name: str) -> MemoryConfig:
    """One of `PRESETS`.

    Raises:
        ValueError: If there is none of that name.
    """
    if name not in PRESETS:
        raise ValueError(f"`preset` (={name!r}) must be one of {list(PRESETS)}.")
    return PRESETS[name]
