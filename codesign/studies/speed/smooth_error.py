"""How far each chip's smooth model is from its exact one, temperature by temperature."""

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from codesign import models, units, workload
from codesign.hardware import closeness, memory, reram_gpu, roofline
from codesign.hardware.closeness import Closeness, Move
from codesign.report import Column, Quantity, Table
from codesign.report.format import format_number
from codesign.studies.memory import paper_networks
from codesign.studies.speed.timing import row

_NETWORKS = ("vgg11", "vgg16", "vgg19", "resnet18")
_SYSTEMS = ("RTX 2080 Ti", "A100")
_CAPACITIES_MB = range(64, 513, 32)  # the knee of ResNet-50 is at 296
# Asked of the stack at T = 0.1: errors of values, differences of elasticities.
_ASKED = {
    **{"latency_median": 0.01, "latency_worst": 0.05},
    **{"energy_median": 0.01, "energy_worst": 0.05},
    **{"smooth_median": 0.02, "smooth_worst": 0.10},
    **{"counts_median": 0.2, "counts_worst": 0.7, "wrong_signs": 0.0},
}
_ASKED_AT = 0.1
_WORDS = {
    **{"latency": "latency off", "energy": "energy off"},
    **{"smooth": "slopes off", "counts": "slopes by counts off"},
    **{f"{mb} MB": f"slopes by ±{mb} MB off" for mb in (8, 16, 32)},
    "ratio": "sum over that of secants",
    "difference_worst": "slopes off finite differences, worst",
    "wrong_signs": "most wrong signs",
    "ties": "secants left out at ties",
}


def stack(width: float, repeats: int, seed: int) -> list[Quantity]:
    """Four networks, four placements, 3R1G and 2R2G."""
    del repeats  # Nothing is timed.
    networks = [models.create(name, width=width) for name in _NETWORKS]
    cases = [
        closeness.stacks(network, workload.trace(*network.trace_args()), seed)
        for network in networks
    ]
    found = closeness.measure(reram_gpu.estimate, itertools.chain(*cases))
    return _rows(found, {"chip": "stack", "network": f"width {width:g}"}, _ASKED)


def titan(width: float, repeats: int, seed: int) -> list[Quantity]:
    """Four networks on a Titan Xp, which has no counts."""
    del repeats, seed
    networks = [models.create(name, width=width) for name in _NETWORKS]
    cases = [
        (roofline.titan_xp(), workload.trace(*network.trace_args()))
        for network in networks
    ]
    found = closeness.measure(roofline.estimate, cases)
    return _rows(found, {"chip": "roofline", "network": f"width {width:g}"})


def memory_chip(name: str, repeats: int, seed: int) -> list[Quantity]:
    """Two systems with caches on both sides of the knee, beside the exact simulator."""
    del repeats, seed
    ops = paper_networks.load(name)
    cases = [
        (_with_cache(memory.SYSTEMS[system], mb), ops)
        for system in _SYSTEMS
        for mb in _CAPACITIES_MB
    ]
    moves = {f"{mb} MB": _capacity(mb * units.MIB) for mb in (8, 16, 32)}
    batch_size = paper_networks.batch_size(name)
    estimate = functools.partial(memory.estimate, batch_size=batch_size)
    found = closeness.measure(estimate, cases, moves=moves, jitted=False)
    return _rows(found, {"chip": "memory", "network": name})


def _with_cache(spec: memory.MemorySpec, mb: float) -> memory.MemorySpec:
    return spec.replace(capacity_bytes=jnp.float32(mb * units.MIB))  # pyright: ignore[reportAttributeAccessIssue]


def _capacity(by: float) -> Move:
    return Move("capacity_bytes", lambda capacity: (capacity + by, capacity - by))


def _rows(
    found: dict[float, Closeness],
    of: dict[str, Any],
    asked: dict[str, float] | None = None,
) -> list[Quantity]:
    rows = []
    for t, close in found.items():
        named = dict(zip(("latency", "energy"), close.value_error.T, strict=True))
        named |= {move: close.off(move) for move in close.pairs}
        values = {}
        for name, errors in named.items():
            values[f"{name}_median"] = np.median(errors)
            values[f"{name}_worst"] = np.max(errors)
        for name, pairs in close.pairs.items():
            if name != "smooth":  # at single points the exact model is a staircase
                values[f"{name}_ratio"] = np.divide(*pairs.sum(axis=0))
        values["difference_worst"] = close.slope_error
        values["wrong_signs"] = max(map(close.wrong_signs, close.pairs))
        values["ties"] = close.num_ties
        for name, value in values.items():
            what, _, which = name.rpartition("_")
            words = _WORDS.get(name) or f"{_WORDS[what]}, {_WORDS.get(which, which)}"
            title = f"T = {t:g}, {of['chip']}, {of['network']}: {words}"
            target = (asked or {}).get(name) if t == _ASKED_AT else None
            rows.append(
                row(name, float(value), title, of | {"temperature": t}, asked=target)
            )
    return rows


def is_ours(quantity: Quantity) -> bool:
    """Whether it is a row of these tables."""
    return "temperature" in quantity.of


def tables(rows: Sequence[Quantity]) -> list[Table]:
    """One table a chip and network, with a line for each temperature."""
    found: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for each in filter(is_ours, rows):
        lines = found.setdefault((each.of["chip"], each.of["network"]), {})
        lines.setdefault(each.of["temperature"], {})[each.name] = each.value
    made = [_table(*of, lines) for of, lines in found.items()]
    for table in made[-1:]:
        table.footnotes.append(_NOTE)
    return made


_NOTE = (
    "Median/worst. Latency and energy: relative errors. The others: elasticities "
    "(d log cost / d log leaf) off secants of the exact model, 1 % up and down, counts "
    "x 1.5, the cache by ± MB. Own slope: off the smooth model's own finite differences, "
    "worst."
)


def _table(chip: str, network: str, lines: dict[str, dict[str, Any]]) -> Table:
    first = next(iter(lines.values()))
    pairs = [name.removesuffix("_median") for name in first if name.endswith("_median")]
    table = Table(
        f"Smooth beside exact, in %: {chip}, {network}",
        [
            Column(f"{name[0].upper()}{name[1:]}", justify="right")
            for name in ("T", *pairs, "own slope", "wrong signs", "ties")
        ],
    )
    for t, values in lines.items():
        cells = [
            f"{_percent(values[f'{name}_median'])}/{_percent(values[f'{name}_worst'])}"
            for name in pairs
        ]
        cells += [
            _percent(values[name]) for name in ("difference_worst", "wrong_signs")
        ]
        table.add(t, *cells, f"{values['ties']:g}")
    return table


def _percent(ratio: float) -> str:
    return "0" if ratio < 5e-5 else format_number(100 * ratio, 2)


PIECES = {
    "stack": (stack, (0.25, 1.0)),
    "roofline": (titan, (1.0,)),
    "memory chip": (memory_chip, ("vgg16", "resnet50")),
}
