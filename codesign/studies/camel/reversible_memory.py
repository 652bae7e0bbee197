"""What does a reversible stack spare, and at what cost? A family and a depth is a unit."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from matplotlib.axes import Axes

from codesign.kernels.convolution import convolution
from codesign.kernels.coupling import Streams, couple
from codesign.kernels.dense import dense
from codesign.numerics.lattice import to_lattice
from codesign.records import StrPath
from codesign.records.settings import setting
from codesign.report import Column, Paragraph, Quantity, Table, canvas
from codesign.report.panels import draw_panels
from codesign.studies import frame
from codesign.studies.published import Published, quantities
from codesign.studies.speed.timing import interleaved
from codesign.types import Array, PyTree

__all__ = ["PRESETS", "STUDY", "ReversibleMemoryConfig", "run"]

FRACTION_BITS = 12
_ENOUGH_S = 60.0  # of timing one stack; a run of 32 convolutional blocks takes ten
FAMILIES = {
    "dense": "dense, D -> D",
    "mlp": "two dense layers, expansion 4",
    "conv": "3x3 convolution",
}
WAYS = {
    "plain": "scanned",
    "unrolled": "unrolled",
    "checkpoint": "scanned, each block under jax.checkpoint",
    "reversible": "reversible, float streams",
    "lattice": f"reversible, on a lattice of 2^-{FRACTION_BITS}",
}
Unit = tuple[str, int]  # a family and a depth


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReversibleMemoryConfig(frame.Config):
    """Settings of one comparison."""

    families: tuple[str, ...] = setting(
        tuple(FAMILIES),
        f"Residual functions: {', '.join(FAMILIES)}.",
        one_of=tuple(FAMILIES),
        distinct=True,
        free=True,
    )
    depths: tuple[int, ...] = setting(
        (4, 8, 16, 32), "Blocks of a stack.", least=1, distinct=True, free=True
    )
    width: int = setting(512, "D, of dense streams.", least=1)
    num_rows: int = setting(256, "Rows of dense streams.", least=1)
    num_channels: int = setting(64, "Of convolutional streams, 16 x 16.", least=1)
    batch_size: int = setting(64, "Images of convolutional streams.", least=1)
    repeats: int = setting(
        7, "Timed runs of each, in turn; three where they take over a minute.", least=1
    )


_FULL = ReversibleMemoryConfig(preset="full")
_FREE: dict[str, Any] = {"preset": "", "families": ("dense",), "repeats": 1, "seed": 0}
PRESETS = {
    "full": _FULL,
    "smoke": ReversibleMemoryConfig(
        preset="smoke", depths=(2, 4), width=32, num_rows=16, num_channels=4,
        batch_size=2, repeats=1,
    ),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class WayRow:
    """A gradient of one stack, computed in one way.

    Attributes:
        way: One of `WAYS`.
        temp_bytes: Temporary memory of the compiled gradient by all parameters.
        step_s: Median wall time of it.
    """

    way: str
    temp_bytes: int
    step_s: float


@dataclasses.dataclass(frozen=True)
class Compared:
    """All ways of one stack, timed in turn."""

    ways: tuple[WayRow, ...]

    def of(self, way: str) -> WayRow:
        """One way."""
        return next(row for row in self.ways if row.way == way)


Stacks = dict[Unit, Compared]


def residual(family: str, parameters: PyTree, x: Array) -> Array:
    """F1 and F2 of a family: relu(x W + b), gelu(x W + b) V + c, relu(W * x + b)."""
    if family == "conv":
        kernel, bias = parameters
        return jax.nn.relu(convolution(x, kernel) + bias[None, None, None])
    if family == "dense":
        kernel, bias = parameters
        return jax.nn.relu(dense(x, kernel) + bias[None])
    kernel, bias, back, shift = parameters
    return dense(jax.nn.gelu(dense(x, kernel) + bias[None]), back) + shift[None]


def _shapes(config: ReversibleMemoryConfig, family: str) -> tuple[Any, Any]:
    """Of the parameters of a residual function, and of a stream."""
    d, c = config.width, config.num_channels
    if family == "conv":
        return ((3, 3, c, c), (c,)), (config.batch_size, 16, 16, c)
    stream = (config.num_rows, d)
    if family == "dense":
        return ((d, d), (d,)), stream
    return ((d, 4 * d), (4 * d,), (4 * d, d), (d,)), stream


def _drawn(config: ReversibleMemoryConfig, family: str, depth: int):
    """Parameters of both functions [depth, ...], scaled so that streams stay of order 1."""
    rng = np.random.default_rng(config.seed)
    parameters, stream = _shapes(config, family)

    def draw(shape: tuple[int, ...]) -> Array:
        scale = 0.0
        if len(shape) > 1:
            scale = 1 / np.sqrt(np.prod(shape[:-1]) * depth)
        return jnp.asarray(scale * rng.normal(size=(depth, *shape)), jnp.float32)

    blocks = tuple(tuple(map(draw, parameters)) for _ in range(2))
    streams = Streams(
        *(jnp.asarray(rng.normal(size=stream), jnp.float32) for _ in "12")
    )
    return blocks, Streams(*(to_lattice(x, FRACTION_BITS) for x in streams))


def gradient(family: str, way: str, depth: int) -> Callable[[PyTree, Streams], PyTree]:
    """Of the mean square of the outputs, by all parameters."""
    f = functools.partial(residual, family)

    def block(streams: Streams, parameters: PyTree) -> tuple[Streams, None]:
        second = streams.second + f(parameters[0], streams.first)
        return Streams(streams.first + f(parameters[1], second), second), None

    def outputs(blocks: PyTree, streams: Streams) -> Streams:
        if way == "plain":
            return lax.scan(block, streams, blocks)[0]
        if way == "checkpoint":
            return lax.scan(jax.checkpoint(block), streams, blocks)[0]
        if way == "unrolled":
            for i in range(depth):
                at = jax.tree.map(lambda leaf, i=i: leaf[i], blocks)
                streams, _ = block(streams, at)
            return streams
        bits = FRACTION_BITS if way == "lattice" else None
        value = lambda parameters, shared, x: (f(parameters, x), None)  # noqa: E731
        return couple(value, value, blocks, (), streams, fraction_bits=bits).streams

    def loss(blocks: PyTree, streams: Streams) -> Array:
        made = outputs(blocks, streams)
        return jnp.mean(made.first**2) + jnp.mean(made.second**2)

    return jax.grad(loss)


def measure(config: ReversibleMemoryConfig, unit: Unit, job: frame.Job) -> Compared:
    """Compiles all ways of one stack, then times them in turn."""
    family, depth = unit
    given = _drawn(config, family, depth)
    runs, sizes = [], []
    for number, way in enumerate(WAYS):
        job.update(number, FAMILIES[family], depth=depth, way=way, state="compiling")
        compiled = jax.jit(gradient(family, way, depth)).lower(*given).compile()
        analysis: Any = compiled.memory_analysis()
        sizes.append(analysis.temp_size_in_bytes)
        runs.append(functools.partial(compiled, *given))
    job.update(len(WAYS), FAMILIES[family], depth=depth, state="timing")
    times = np.median(interleaved(config.repeats, *runs, enough_s=_ENOUGH_S), axis=1)
    rows = zip(WAYS, sizes, map(float, times), strict=True)
    return Compared(tuple(WayRow(*row) for row in rows))


def units(config: ReversibleMemoryConfig) -> list[Unit]:
    """Every family at every depth."""
    return [(family, depth) for family in config.families for depth in config.depths]


def kind(family: str, way: str) -> str:
    """Of a row in results.json: `plain`, `mlp_plain`, `conv_plain`."""
    return way if family == "dense" else f"{family}_{way}"


def _ratio(over: str, unit: Unit, what: str) -> Callable[[Stacks], float | None]:
    """Of a way, or of the best plain one, to the reversible stack."""

    def value(found: Stacks) -> float | None:
        if unit not in found:
            return None
        plain = ("plain", "unrolled") if over == "plain" else (over,)
        least = min(getattr(found[unit].of(way), what) for way in plain)
        return least / getattr(found[unit].of("reversible"), what)

    return value


def _slower(unit: Unit) -> Callable[[Stacks], float | None]:
    ratio = _ratio("plain", unit, "step_s")
    return lambda found: None if (value := ratio(found)) is None else 1 / value


def _asked(config: ReversibleMemoryConfig) -> Iterator[Published[Stacks]]:
    """Targets at the greatest depth, and of memory that stays flat."""
    deep, shallow = max(config.depths), min(config.depths)
    # Memory of plain and of checkpointing over ours, time over plain; None for no target.
    targets = {"dense": (11, 9, 1.2), "mlp": (40, 4, None), "conv": (3, 2, 1.5)}
    if dataclasses.replace(config, **_FREE) != dataclasses.replace(_FULL, **_FREE):
        targets = dict.fromkeys(FAMILIES, (None, None, None))  # asked of these sizes
    for family in config.families:
        unit, (plain, checkpoint, time) = (family, deep), targets[family]
        for way, asked in (("plain", plain), ("checkpoint", checkpoint)):
            yield Published(
                name="memory_ratio",
                of={"family": family, "over": way, "depth": str(deep)},
                ours=_ratio(way, unit, "temp_bytes"),
                asked=asked,
                at_least=True,
                title=f"{FAMILIES[family]}: memory of {way} over ours",
            )
        yield Published(
            name="time_ratio",
            of={"family": family, "depth": str(deep)},
            ours=_slower(unit),
            asked=time,
            title=f"{FAMILIES[family]}: our time over the fastest plain one's",
        )
        yield Published(
            name="growth",
            of={"family": family},
            ours=lambda found, family=family: (
                found[family, deep].of("reversible").temp_bytes
                / found[family, shallow].of("reversible").temp_bytes
            ),
            asked=1.02,
            title=f"{FAMILIES[family]}: memory at depth {deep} over that at {shallow}",
        )


def report(config: ReversibleMemoryConfig, found: Stacks) -> frame.Report:
    """Memory and time of all ways, beside what is asked."""
    numbers = [*quantities(_asked(config), found)]
    for (family, depth), compared in found.items():
        for row in compared.ways:
            of = {"kind": kind(family, row.way), "depth": str(depth)}
            size, time = float(row.temp_bytes), row.step_s
            numbers.append(Quantity("temp_bytes", size, "B", kind="measured", of=of))
            numbers.append(Quantity("step_s", time, "s", kind="measured", of=of))
    tables = [_table(config, family, found) for family in config.families]
    about = Paragraph(
        "A block is y2 = x2 + F1(x1), y1 = x1 + F2(y2). Memory is the temporary memory of "
        "the compiled gradient by all parameters; parameters and gradients themselves come "
        "on top in all ways. Ways of one stack are timed in turn."
    )
    return frame.Report(
        title="Memory of reversible stacks",
        summary=_summary(config, found),
        sections=[
            frame.Section("Memory and time", [about, *tables]),
            frame.Section("Over depth", [*_figures(config, found)]),
        ],
        quantities=numbers,
        shown=tables,
        compared=("Asked and reached",),
    )


def _summary(config: ReversibleMemoryConfig, found: Stacks) -> str:
    deep = max(config.depths)
    parts = [
        f"{_ratio('plain', (family, deep), 'temp_bytes')(found):.3g} times less than plain "
        f"for {FAMILIES[family]}"
        for family in config.families
    ]
    return f"At depth {deep} a reversible stack takes {'; '.join(parts)}."


def _table(config: ReversibleMemoryConfig, family: str, found: Stacks) -> Table:
    mega = 2**20
    table = Table(
        f"{FAMILIES[family]}: memory (MiB) and time (ms) by depth",
        [
            "Way",
            *(Column(f"{depth}, MiB", format=".4g") for depth in config.depths),
            *(Column(f"{depth}, ms", format=".4g") for depth in config.depths),
        ],
    )
    stacks = [found[family, depth] for depth in config.depths]
    for way, title in WAYS.items():
        rows = [compared.of(way) for compared in stacks]
        sizes = [row.temp_bytes / mega for row in rows]
        style = "highlight" if way == "reversible" else ""
        table.add(title, *sizes, *(1e3 * row.step_s for row in rows), style=style)
    return table


def _figures(config: ReversibleMemoryConfig, found: Stacks) -> Iterator[frame.Figure]:
    for name, label, scale in (
        ("temp_bytes", "Temporary memory (MiB)", 2**-20),
        ("step_s", "Time of a gradient (ms)", 1e3),
    ):

        def draw(axes: Axes, family: str, name=name, scale=scale) -> None:
            for number, way in enumerate(WAYS):
                rows = [found[family, depth].of(way) for depth in config.depths]
                values = [scale * getattr(row, name) for row in rows]
                look = {"color": canvas.CYCLE[number], "marker": "o", "ms": 3}
                axes.plot(config.depths, values, label=way, **look)
            canvas.log_scale(axes, "xy")
            axes.set_xticks(config.depths, [str(depth) for depth in config.depths])
            axes.minorticks_off()

        panels = [
            (FAMILIES[f], functools.partial(draw, family=f)) for f in config.families
        ]
        yield frame.Figure(
            name,
            draw_panels(panels, x_label="Blocks", y_label=label, height=2.6),
            f"{label.partition(' (')[0]} of a gradient by the number of blocks."
            if name == "temp_bytes"
            else "Wall time of a gradient by the number of blocks, median of runs in turn.",
        )


STUDY = frame.Study(
    name="reversible_memory",
    presets=PRESETS,
    units=units,
    measure=measure,
    steps=lambda config, unit: len(WAYS) + 1,
    report=report,
    found=Compared,
)


def run(config: ReversibleMemoryConfig, *, workdir: StrPath) -> frame.Found[Compared]:
    """Measures what `workdir` does not hold yet; see `frame.Study.run`."""
    return STUDY.run(config, workdir=workdir)
