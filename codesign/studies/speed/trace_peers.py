"""Who counts the MACs of a training step right? Ours and others', beside hand counts."""

import contextlib
import functools
import importlib
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from codesign import workload
from codesign.models.counted import NETWORKS, Counted
from codesign.report import Column, Quantity, Table
from codesign.report.format import format_number
from codesign.studies.speed.timing import row

MACs = tuple[float, float]  # of one example: forward, and of the gradient
_BY_HAND, _RIGHT = "by hand", "right"
_OURS = ("our rules", "our gradient")
_WORDS = {
    **{"forward_macs": "MACs forward", "gradient_macs": "MACs of the gradient"},
    **{"wrong_macs": "wrong MACs", "count_s": "a count"},
}


def _rules(network: Counted, args: tuple[Any, ...]) -> MACs:
    inputs = range(1, len(args))
    ops = workload.trace(network.apply, *args, inputs=inputs, unroll_scans=True)
    program = workload.training_iteration(ops)
    is_product = ~program.is_type_ii
    macs, is_backward = program.operations[is_product], program.is_backward[is_product]
    return int(macs[~is_backward].sum()), int(macs[is_backward].sum())


def _gradient(network: Counted, args: tuple[Any, ...]) -> MACs:
    found = workload.trace_gradient(network.loss, *args, inputs=range(1, len(args)))
    return found.macs("forward"), found.macs("backward")


def _flax(network: Counted, args: tuple[Any, ...]) -> MACs:
    """The first row of Flax's table; its second count is of both passes."""
    text = network.module.tabulate(
        jax.random.key(0), *(jnp.zeros(x.shape) for x in args[1:]), depth=0,
        compute_flops=True, compute_vjp_flops=True, console_kwargs={"width": 400},
    )  # fmt: skip
    cells = next(line for line in text.splitlines() if line.startswith("│")).split("│")
    forward, both = (float(cell) / 2 for cell in cells[5:7])
    return forward, both - forward


def _neural_cost(fn: Callable, args: tuple[Any, ...]) -> float:
    adapter = importlib.import_module("neural_cost.adapters.jax").JaxAdapter()
    estimate = importlib.import_module("neural_cost.estimate").estimate_operation
    ops = adapter.operations(fn, args)
    return sum(estimate(op).flops for op in ops if op.kind in ("matmul", "conv2d")) / 2


def _xla(fn: Callable, args: tuple[Any, ...]) -> float:
    return (jax.jit(fn).lower(*args).cost_analysis() or {})["flops"] / 2


def _roofline(fn: Callable, args: tuple[Any, ...]) -> float:
    from jax.experimental.roofline import roofline

    return roofline(fn)(*args)[1].unfused_flops / 2


def _of_steps(count: Callable) -> Callable[[Counted, tuple[Any, ...]], MACs]:
    """Counts a loss, and its value with its gradient: what that adds is the latter's."""

    def counted(network: Counted, args: tuple[Any, ...]) -> MACs:
        forward = count(network.loss, args)
        return forward, count(jax.value_and_grad(network.loss), args) - forward

    return counted


_COUNTERS = {
    **dict(zip(_OURS, (_rules, _gradient), strict=True)),
    "neural-cost": _of_steps(_neural_cost),
    "jax.experimental.roofline": _of_steps(_roofline),
    "XLA's cost_analysis": _of_steps(_xla),
    "flax's tabulate": _flax,
}
_NOTE = (
    "right: both counts equal those by hand. Else ratios to them, forward/gradient. Of a "
    "gradient, what is run is right as well as what is needed: they differ where `remat` "
    "runs products twice, and in the first step of a `scan`. One MAC is two FLOPs. Of "
    "neural-cost, matrix products and convolutions count alone; the last three count "
    "point-wise steps too, a loop's body once, and no taps on padding."
)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps back what counters say of primitives that they don't know."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)


def count(name: str, size: str, repeats: int, seed: int) -> list[Quantity]:
    """Counts one of `NETWORKS` by everyone, and times the second of two counts each.

    A peer that is not installed or fails has no values, and a note that says why.
    """
    del size, repeats, seed  # A count is exact, and takes seconds.
    network, rows, wrong = NETWORKS[name](), [], {}
    args = network.args()

    def add(counter, note="", **values):
        for key, value in values.items():
            title = f"{_WORDS[key]}, {name}, {counter}"
            of = {"counted": name, "counter": counter}
            rows.append(
                row(key, None if value is None else float(value), title, of, note=note)
            )

    add(_BY_HAND, forward_macs=network.forward, gradient_macs=network.backward)
    for counter, counted in _COUNTERS.items():
        try:
            with _quiet():
                counted(network, args)
                start = time.perf_counter()
                forward, gradient = counted(network, args)
                seconds = time.perf_counter() - start
        except Exception as error:
            if counter in _OURS:
                raise
            why = f"{counter}: {type(error).__name__}: {error}".splitlines()[0]
            add(counter, why, forward_macs=None, gradient_macs=None, count_s=None)
            continue
        off = gradient - network.backward
        wrong[counter] = abs(forward - network.forward) + min(
            abs(off), abs(off - network.spare)
        )
        add(
            counter, forward_macs=forward, gradient_macs=gradient,
            wrong_macs=wrong[counter], count_s=seconds,
        )  # fmt: skip
    ours, peer = float(max(wrong[each] for each in _OURS)), "neural-cost"
    title, peers = f"wrong MACs of a step, {name}", (peer, wrong.get(peer))
    of = {"counted": name}
    return [*rows, row("our_wrong_macs", ours, title, of, asked=0.0, peer=peers)]


def is_ours(quantity: Quantity) -> bool:
    """Whether it is a row of these tables."""
    return "counted" in quantity.of


def tables(rows: Sequence[Quantity]) -> list[Table]:
    """Who counts what right, and how long a count takes: a line for each network."""
    found: dict[str, dict[tuple[str, str], Quantity]] = {}
    for each in filter(is_ours, rows):
        if counter := each.of.get("counter"):
            found.setdefault(each.of["counted"], {})[counter, each.name] = each
    if not found:
        return []
    columns = [Column("Network"), *(Column(n, justify="right") for n in _COUNTERS)]
    right = Table("MACs of a training step, beside counts by hand", columns)
    times = Table("Seconds to count them", columns)
    for network, of in found.items():
        right.add(network, *(_verdict(of, counter) for counter in _COUNTERS))
        times.add(network, *(of[counter, "count_s"].value for counter in _COUNTERS))
    _, *verdicts = zip(*(row.cells for row in right.rows), strict=True)
    counted = [[verdict for verdict in each if verdict] for each in verdicts]
    sums = (
        f"{each.count(_RIGHT)} of {len(each)}" if each else None for each in counted
    )
    right.add("all", *sums)
    notes = (each.note for of in found.values() for each in of.values() if each.note)
    right.footnotes += dict.fromkeys((_NOTE, *notes))
    return [right, times]


def _verdict(of: dict[tuple[str, str], Quantity], counter: str) -> str | None:
    """`right`, or forward and gradient over the counts by hand; None without a count."""
    if (counter, "wrong_macs") not in of:
        return None
    if of[counter, "wrong_macs"].value == 0:
        return _RIGHT
    ratios = (
        float(of[counter, key].value or 0) / float(of[_BY_HAND, key].value or 1)
        for key in ("forward_macs", "gradient_macs")
    )
    return "/".join(format_number(ratio) for ratio in ratios)


PIECES = {name: (functools.partial(count, name), ("one example",)) for name in NETWORKS}
