"""Simulates one network everywhere that the figures and the tables look."""

import dataclasses
import timeit
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from absl import logging

from codesign import units
from codesign.hardware import memory
from codesign.hardware.memory import SYSTEMS, Policy, cache, reuse, simulator
from codesign.hardware.memory import validation as surrogate
from codesign.studies.memory import paper_networks
from codesign.studies.memory.capacity_result import (
    Batches,
    ByKind,
    Curves,
    Layers,
    NetworkSweep,
    Policies,
    Reuse,
    Timeline,
)
from codesign.studies.memory.capacity_settings import MemoryConfig, parse_capacities
from codesign.workload.iteration import Program
from codesign.workload.op import Op

BASE, FAST, HBM, HBM_PRINTED = range(4)  # places in `PAPER_MACHINES`
_RTX = SYSTEMS["RTX 2080 Ti"]
_FASTER = SYSTEMS["Radeon 6900 XT"].throughput_ops_per_s
PAPER_MACHINES = (
    _RTX,
    dataclasses.replace(_RTX, throughput_ops_per_s=_FASTER),
    dataclasses.replace(
        _RTX, bandwidth_bytes_per_s=SYSTEMS["A100"].bandwidth_bytes_per_s
    ),
    # HBM2e stands as 1536 GB/s in the text beside Fig. 5.4, as 1555 in its caption.
    dataclasses.replace(_RTX, bandwidth_bytes_per_s=np.float32(1536 * units.GB_PER_S)),
)
POLICIES = {
    "the paper's": Policy(),
    "prefetch next layer": Policy(prefetch="next_layer"),
    "no prefetch": Policy(prefetch="none"),
    "offload when full": Policy(offload="when_full"),
    "LRU": Policy(replacement="lru"),
    "all three naive": Policy(
        prefetch="next_layer", offload="when_full", replacement="lru"
    ),
}
_SMALL_AND_LARGE_MB = (24.0, 400.0)  # Fig. 5.6, and for the times of layers
_ACTIVATIONS = {"relu": "ReLU", "relu6": "ReLU6", "gelu": "GELU", "silu": "SiLU"}


def check(config: MemoryConfig, name: str, program: Program) -> None:
    """Checks what a network needs of the settings.

    Raises:
        ValueError: If a capacity cannot stream some step of the network, or the batch is
            too large to count.
    """
    program.sizes(config.batch_size or paper_networks.batch_size(name))
    program.sizes(max(config.batch_sizes))
    smallest = int(memory.capacities(parse_capacities(config.capacity_mb))[0])
    for hardware in config.hardware:
        try:
            memory.check_capacity(SYSTEMS[hardware], program, smallest)
        except ValueError as error:
            raise ValueError(
                f"`capacity_mb` (={config.capacity_mb!r}) begins too low for "
                f"{name!r} on {hardware!r}: {error}"
            ) from error


def measure(
    config: MemoryConfig,
    name: str,
    program: Program,
    on_stage: Callable[[int, str], None] = lambda step, stage: None,
) -> NetworkSweep:
    """Everything about one network.

    Args:
        config: Settings.
        name: The network's.
        program: Its training iteration.
        on_stage: Called before each of six parts with its place and a few words.
    """
    batch_size = config.batch_size or paper_networks.batch_size(name)
    network = _Network(program, batch_size)
    on_stage(0, "capacity sweep")
    swept_mb = np.array(parse_capacities(config.capacity_mb))
    sweeps = _sweeps(config.hardware, network, swept_mb)
    first = [SYSTEMS[config.hardware[0]]]
    timings = timeit.repeat(lambda: network.sweep(swept_mb, first), number=1, repeat=3)
    on_stage(1, "figures 5.2 to 5.4")
    paper_mb = network.usable(parse_capacities(config.figure_capacity_mb))
    paper = _curves(network, paper_mb, PAPER_MACHINES) if paper_mb.size else None
    on_stage(2, "layers, batches and policies")
    layer_mb = network.usable(config.layer_capacity_mb)
    batch_mb = network.usable(_SMALL_AND_LARGE_MB)
    layers = _layers(network, batch_mb)
    by_kind = _by_kind(network, layer_mb) if layer_mb.size else None
    batches = _batches(program, batch_mb, config.batch_sizes) if batch_mb.size else None
    policies = _policies(network, layer_mb) if layer_mb.size else None
    on_stage(3, "reuse by scope")
    trace = simulator.prepare(_RTX, program, batch_size)
    reuse_mb = _thinned(paper_mb, config.num_reuse_capacities)
    scopes = _reuse(network, trace, reuse_mb) if reuse_mb.size else None
    on_stage(4, "timeline")
    timeline = _timeline(config, network)
    fidelity = None
    smooth_mb = network.usable(surrogate.CAPACITIES_MB)
    if config.validate and smooth_mb.size:
        on_stage(5, "surrogate against simulator")
        fidelity = surrogate.validate(
            program,
            batch_size=batch_size,
            capacities_mb=tuple(smooth_mb),
            seed=config.seed,
        )
    return NetworkSweep(
        network=name,
        family=paper_networks.comparable(name, batch_size, config.image_size),
        batch_size=batch_size,
        num_steps=program.num_steps,
        smallest_capacity_mb=memory.smallest_capacity(program)[0] / units.MIB,
        largest_step_mb=float(trace.footprint.max()) / units.MIB,
        map_mb=_map_sizes(program, program.sizes(batch_size) / units.MIB),
        sweep_s=min(timings),
        sweeps=sweeps,
        paper=paper,
        layers=layers,
        by_kind=by_kind,
        batches=batches,
        policies=policies,
        reuse=scopes,
        timeline=timeline,
        fidelity=fidelity,
    )


def kind_of(op: Op) -> str:
    """An op's kind, with convolutions of one channel each apart."""
    if op.kind == "conv" and op.weight_shape[-2] == 1 < op.input_shape[-1]:
        return "depthwise conv"
    return op.kind


def describe(op: Op) -> str:
    """An op as a figure calls it: `batch norm`, `ReLU`."""
    if op.kind == "norm":
        return f"{op.variant} norm".strip()
    if op.kind == "activation":
        return _ACTIVATIONS.get(op.variant, op.variant or op.kind)
    return kind_of(op)


@dataclasses.dataclass(frozen=True)
class _Network:
    """A training iteration at one batch size, to be run behind caches in MB.

    On the RTX 2080 Ti unless another machine is given.
    """

    program: Program
    batch_size: int

    def usable(self, mebibytes: Sequence[float]) -> np.ndarray:
        """Those capacities that can run the network at all."""
        values = np.asarray(mebibytes, float)
        smallest, _ = memory.smallest_capacity(self.program)
        return values[memory.capacities(values) >= smallest]

    def sweep(
        self,
        mebibytes: np.ndarray,
        machines: Sequence[memory.MemorySpec] = (_RTX,),
        **options: Any,
    ) -> memory.Sweep:
        capacities = memory.capacities(mebibytes)
        return memory.sweep(
            machines, self.program, capacities, batch_size=self.batch_size, **options
        )

    def run(
        self, mebibytes: float, spec: memory.MemorySpec = _RTX, **options: Any
    ) -> memory.Iteration:
        capacity = float(memory.capacities([mebibytes])[0])
        spec = dataclasses.replace(spec, capacity_bytes=capacity)
        return memory.simulate(
            spec, self.program, batch_size=self.batch_size, **options
        )


def _thinned(values: np.ndarray, count: int) -> np.ndarray:
    if not values.size:
        return values
    places = np.linspace(0, len(values) - 1, min(count, len(values)))
    return values[np.unique(places.round().astype(int))]


def _curves(
    network: _Network, mebibytes: np.ndarray, machines: Sequence[memory.MemorySpec]
) -> Curves:
    found = network.sweep(mebibytes, machines)
    count = network.program.operations
    part = float(count[network.program.is_type_ii].sum() / max(count.sum(), 1))
    return Curves(
        **vars(found),
        capacities_mb=mebibytes,
        type_ii_compute_s=found.compute_s * part,
    )


def _sweeps(
    hardware: Sequence[str], network: _Network, mebibytes: np.ndarray
) -> dict[str, Curves]:
    """One machine's curves each; those of one width of a value share their plans."""
    found: dict[str, Curves] = {}
    for bits in {SYSTEMS[name].value_bits for name in hardware}:
        names = [name for name in hardware if SYSTEMS[name].value_bits == bits]
        curves = _curves(network, mebibytes, [SYSTEMS[name] for name in names])
        found |= {name: curves.machine(i) for i, name in enumerate(names)}
    return {name: found[name] for name in hardware}


def _map_sizes(program: Program, sizes: np.ndarray) -> np.ndarray:
    """Smallest and largest feature map in MB, vectors left out where there are images."""
    shapes = {f"A:{op.name}": op.output_shape for op in program.workload.ops}
    maps = [
        (shapes[tensor], size)
        for tensor, size in zip(program.tensors, sizes, strict=True)
        if tensor in shapes
    ]
    images = [size for shape, size in maps if len(shape) == 3 and min(shape[:2]) > 1]
    chosen = images or [size for _, size in maps]
    return np.array([min(chosen), max(chosen)])


def _layers(network: _Network, mebibytes: np.ndarray) -> Layers:
    program = network.program
    forward = np.flatnonzero(~program.is_backward & (program.operations > 0))
    ops = [program.workload.ops[i] for i in program.op[forward]]
    sizes = program.sizes(network.batch_size)
    touched = np.add.reduceat(sizes[program.touched], program.first[:-1])
    runs = [network.run(each) for each in mebibytes]
    times = [run.by_op(run.step_s)[program.op[forward]] for run in runs]
    return Layers(
        names=[op.name for op in ops],
        kinds=[describe(op) for op in ops],
        is_type_ii=program.is_type_ii[forward],
        operations=program.operations[forward] * network.batch_size,
        touched_bytes=touched[forward],
        capacities_mb=mebibytes,
        time_s=np.array(times).reshape(len(mebibytes), len(forward)),
    )


def _by_kind(network: _Network, mebibytes: np.ndarray) -> ByKind:
    program = network.program
    kinds = [kind_of(program.workload.ops[i]) for i in program.op]
    type_ii = dict(zip(kinds, map(bool, program.is_type_ii), strict=True))
    ordered = sorted(type_ii, key=lambda kind: type_ii[kind])
    groups = np.array([ordered.index(kind) for kind in kinds])
    return ByKind(
        kinds=ordered,
        is_type_ii=np.array([type_ii[kind] for kind in ordered]),
        capacities_mb=mebibytes,
        time_s=network.sweep(mebibytes, groups=groups).group_s[0],
    )


def _batches(
    program: Program, mebibytes: np.ndarray, batch_sizes: Sequence[int]
) -> Batches:
    throughput = [
        size / _Network(program, size).sweep(mebibytes).total_s[0]
        for size in batch_sizes
    ]
    return Batches(
        sizes=np.array(batch_sizes),
        capacities_mb=mebibytes,
        samples_per_s=np.array(throughput).T,
    )


def _policies(network: _Network, mebibytes: np.ndarray) -> Policies:
    swept = [network.sweep(mebibytes, policy=policy) for policy in POLICIES.values()]
    warm = [network.run(each, steady_state=True) for each in mebibytes]
    times = [found.total_s[0] for found in swept]
    traffic = [found.traffic_in_bytes + found.traffic_out_bytes for found in swept]
    return Policies(
        names=[*POLICIES, "the paper's, weights kept between iterations"],
        capacities_mb=mebibytes,
        time_s=np.array([*times, [run.total_s for run in warm]]),
        traffic_bytes=np.array(
            [*traffic, [run.traffic_in_bytes + run.traffic_out_bytes for run in warm]]
        ),
    )


def _reuse(network: _Network, trace: cache.Trace, mebibytes: np.ndarray) -> Reuse:
    found = [
        reuse.saving(trace, cache.plan(trace, capacity, False, True), network.program)
        for capacity in memory.capacities(mebibytes)
    ]
    needed = reuse.capacities(trace, network.program)
    return Reuse(
        scopes=list(reuse.SCOPES),
        capacities_mb=mebibytes,
        saved_bytes=np.array([[f.saved[s] for s in reuse.SCOPES] for f in found]),
        possible_bytes=np.array([found[-1].possible[s] for s in reuse.SCOPES]),
        streamed_bytes=found[-1].streamed_bytes,
        intra_layer_bytes=reuse.intra_layer_bytes(network.program, network.batch_size),
        needed_bytes=np.array([needed[s] for s in reuse.SCOPES]),
    )


def _timeline(config: MemoryConfig, network: _Network) -> Timeline | None:
    hardware, program = config.hardware[0], network.program
    spec = SYSTEMS[hardware]
    needed, _ = memory.smallest_capacity(program, spec.value_bits)
    if memory.capacities([config.timeline_mb])[0] < needed:
        logging.warning(
            "no timeline: `timeline_mb` (=%g) is below the %.2f MB that %s needs",
            config.timeline_mb,
            needed / units.MIB,
            hardware,
        )
        return None
    run = network.run(config.timeline_mb, spec)
    times = run.schedule
    moved = run.plan.streamed_in + run.plan.streamed_out
    stream_end = times.stream_start + moved / float(spec.bandwidth_bytes_per_s)
    transfers = [
        np.stack([start, end])[:, ~np.isnan(start)]  # [2, X], those that happened
        for start, end in (
            (times.load_start, times.load_end),
            (times.write_start, times.write_end),
            (times.stream_start, stream_end),
        )
    ]
    transfer_start_s, transfer_end_s = np.concatenate(transfers, axis=1)
    return Timeline(
        hardware=hardware,
        capacity_mb=config.timeline_mb,
        total_s=run.total_s,
        names=list(program.step_names),
        kinds=[describe(program.workload.ops[i]) for i in program.op],
        is_type_ii=program.is_type_ii,
        is_backward=program.is_backward,
        start_s=times.start,
        compute_s=run.compute_s,
        end_s=times.end,
        held_bytes=run.occupancy,
        transfer_start_s=transfer_start_s,
        transfer_end_s=transfer_end_s,
        direction=np.repeat(np.arange(3), [each.shape[1] for each in transfers]),
    )
