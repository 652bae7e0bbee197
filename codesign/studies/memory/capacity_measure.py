"""Simulates one network everywhere that the figures and the tables look."""

import dataclasses
import time
from collections.abc import Callable, Sequence

import numpy as np
from absl import logging

from codesign import models, units
from codesign.hardware import memory
from codesign.hardware.memory import (
    SYSTEMS,
    MemorySpec,
    Policy,
    cache,
    reuse,
    simulator,
)
from codesign.studies.memory import surrogate_check as validation
from codesign.studies.memory.capacity_result import (
    Batches,
    ByKind,
    Curves,
    Layers,
    Outcome,
    Policies,
    Reuse,
    Timeline,
)
from codesign.studies.memory.capacity_settings import MemoryConfig, parse_capacities
from codesign.workload import load as networks
from codesign.workload.iteration import Program
from codesign.workload.op import Op

BASE, FAST, HBM, HBM_PRINTED = range(4)  # places in `PAPER_MACHINES`
_RTX = SYSTEMS["RTX 2080 Ti"]
PAPER_MACHINES = (
    _RTX,
    dataclasses.replace(
        _RTX, throughput_ops_per_s=SYSTEMS["Radeon 6900 XT"].throughput_ops_per_s
    ),
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
_LAYER_TIMES_MB = (24.0, 400.0)  # a small and a large cache of the paper
_BATCH_CAPACITIES_MB = (24.0, 400.0)  # Fig. 5.6
_ACTIVATIONS = {"relu": "ReLU", "relu6": "ReLU6", "gelu": "GELU", "silu": "SiLU"}
_NUM_TIMINGS = 3


def check(config: MemoryConfig, name: str, program: Program) -> None:
    """Checks what a network needs of the settings.

    Raises:
        ValueError: If a capacity cannot stream some step of the network, or the batch is
            too large to count.
    """
    program.sizes(config.batch_size or networks.batch_size(name))
    mebibytes = parse_capacities(config.capacity_mb)
    smallest = int(memory.capacities(mebibytes[:1])[0])
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
    on_stage: Callable[[str], None] = lambda stage: None,
) -> Outcome:
    """Everything about one network.

    Args:
        config: Settings.
        name: The network's.
        program: Its training iteration.
        on_stage: Called with a few words before each part.
    """
    batch_size = config.batch_size or networks.batch_size(name)
    on_stage("capacity sweep")
    sweeps = _sweeps(config, program, batch_size)
    sweep_s = _time_sweep(config, program, batch_size)
    on_stage("figures 5.2 to 5.4")
    paper_mb = _usable(parse_capacities(config.figure_capacity_mb), program)
    paper = None
    if paper_mb.size:
        paper = _curves(PAPER_MACHINES, program, paper_mb, batch_size)
    on_stage("layers, batches and policies")
    layer_mb = _usable(config.layer_capacity_mb, program)
    reuse_mb = _thinned(paper_mb, config.num_reuse_capacities)
    sizes = program.sizes(batch_size) / units.MIB
    trace = simulator.prepare(_RTX, program, batch_size)
    policies, by_kind = None, None
    if layer_mb.size:
        policies = _policies(program, layer_mb, batch_size)
        by_kind = _by_kind(program, layer_mb, batch_size)
    batches = _batches(config, program)
    on_stage("reuse by scope")
    scopes = _reuse(program, trace, reuse_mb, batch_size) if reuse_mb.size else None
    on_stage("timeline")
    timeline = _timeline(config, program, batch_size)
    fidelity = None
    if config.validate:
        on_stage("surrogate against simulator")
        fidelity = validation.fidelity(program, batch_size=batch_size, seed=config.seed)
    return Outcome(
        network=name,
        digest=networks.digest(name),
        batch_size=batch_size,
        is_papers=batch_size == networks.batch_size(name)
        and (config.image_size == networks.IMAGE_SIZE or name not in models.NETWORKS),
        num_steps=program.num_steps,
        smallest_capacity_mb=memory.smallest_capacity(program)[0] / units.MIB,
        largest_step_mb=float(trace.footprint.max()) / units.MIB,
        map_mb=_map_sizes(program, sizes),
        sweep_s=sweep_s,
        sweeps=sweeps,
        paper=paper,
        layers=_layers(program, batch_size),
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


def _usable(mebibytes: Sequence[float], program: Program) -> np.ndarray:
    """Those capacities that can run the network at all."""
    values = np.asarray(mebibytes, float)
    smallest, _ = memory.smallest_capacity(program)
    return values[_bytes(values) >= smallest]


def _bytes(mebibytes: np.ndarray) -> np.ndarray:
    return memory.capacities(mebibytes.tolist())


def _thinned(values: np.ndarray, count: int) -> np.ndarray:
    if not values.size:
        return values
    places = np.linspace(0, len(values) - 1, min(count, len(values)))
    return values[np.unique(places.round().astype(int))]


def _curves(
    machines: Sequence[MemorySpec],
    program: Program,
    mebibytes: np.ndarray,
    batch_size: int,
) -> Curves:
    found = memory.sweep(
        machines,
        program,
        _bytes(mebibytes),
        batch_size=batch_size,
        groups=program.is_type_ii.astype(np.int64),
    )
    count = program.operations
    part = float(count[program.is_type_ii].sum() / max(count.sum(), 1))
    return Curves.of(found, mebibytes, part)


def _sweeps(config: MemoryConfig, program: Program, batch_size: int):
    """One machine's curves each; those of one width of a value share their plans."""
    mebibytes = np.array(parse_capacities(config.capacity_mb))
    specs = {name: SYSTEMS[name] for name in config.hardware}
    found: dict[str, Curves] = {}
    for bits in sorted({spec.value_bits for spec in specs.values()}):
        names = [name for name, spec in specs.items() if spec.value_bits == bits]
        machines = [specs[name] for name in names]
        curves = _curves(machines, program, mebibytes, batch_size)
        found |= {name: curves.machine(i) for i, name in enumerate(names)}
    return {name: found[name] for name in config.hardware}


def _time_sweep(config: MemoryConfig, program: Program, batch_size: int) -> float:
    """Warm seconds of the whole capacity sweep on one machine, the best of a few."""
    capacities = memory.capacities(parse_capacities(config.capacity_mb))
    machines = [SYSTEMS[config.hardware[0]]]
    taken = []
    for _ in range(_NUM_TIMINGS):
        start = time.perf_counter()
        memory.sweep(machines, program, capacities, batch_size=batch_size)
        taken.append(time.perf_counter() - start)
    return min(taken)


def _map_sizes(program: Program, sizes: np.ndarray) -> np.ndarray:
    """Smallest and largest feature map in MB, vectors left out where there are images."""
    shapes = {f"A:{op.name}": op.output_shape for op in program.workload.ops}
    maps = {
        tensor: size
        for tensor, size in zip(program.tensors, sizes, strict=True)
        if tensor in shapes
    }
    images = [size for tensor, size in maps.items() if _is_image(shapes[tensor])]
    chosen = images or list(maps.values())
    return np.array([min(chosen), max(chosen)])


def _is_image(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[0] > 1 and shape[1] > 1


def _layers(program: Program, batch_size: int) -> Layers:
    forward = np.flatnonzero(~program.is_backward & (program.operations > 0))
    ops = program.workload.ops
    sizes = program.sizes(batch_size)
    touched = np.add.reduceat(sizes[program.touched], program.first[:-1])
    times = []
    usable = _usable(_LAYER_TIMES_MB, program)
    for capacity in _bytes(usable):
        spec = dataclasses.replace(_RTX, capacity_bytes=float(capacity))
        iteration = memory.simulate(spec, program, batch_size=batch_size)
        times.append(iteration.by_op(iteration.step_s)[program.op[forward]])
    return Layers(
        names=[ops[i].name for i in program.op[forward]],
        kinds=[describe(ops[i]) for i in program.op[forward]],
        is_type_ii=program.is_type_ii[forward],
        operations=program.operations[forward] * batch_size,
        touched_bytes=touched[forward],
        capacities_mb=usable,
        time_s=np.array(times).reshape(len(usable), len(forward)),
    )


def _by_kind(program: Program, mebibytes: np.ndarray, batch_size: int) -> ByKind:
    ops = program.workload.ops
    kinds = [kind_of(ops[i]) for i in program.op]
    type_ii = dict(zip(kinds, map(bool, program.is_type_ii), strict=True))
    ordered = sorted(type_ii, key=lambda kind: type_ii[kind])
    found = memory.sweep(
        [_RTX],
        program,
        _bytes(mebibytes),
        batch_size=batch_size,
        groups=np.array([ordered.index(kind) for kind in kinds]),
    )
    return ByKind(
        kinds=ordered,
        is_type_ii=np.array([type_ii[kind] for kind in ordered]),
        capacities_mb=mebibytes,
        time_s=found.group_s[0],
    )


def _batches(config: MemoryConfig, program: Program) -> Batches | None:
    mebibytes = _usable(_BATCH_CAPACITIES_MB, program)
    if not mebibytes.size:
        return None
    throughput = []
    for size in config.batch_sizes:
        found = memory.sweep([_RTX], program, _bytes(mebibytes), batch_size=size)
        throughput.append(size / found.total_s[0])
    return Batches(
        sizes=np.array(config.batch_sizes),
        capacities_mb=mebibytes,
        samples_per_s=np.array(throughput).T,
    )


def _policies(program: Program, mebibytes: np.ndarray, batch_size: int) -> Policies:
    times, traffic = [], []
    for policy in POLICIES.values():
        found = memory.sweep(
            [_RTX],
            program,
            _bytes(mebibytes),
            batch_size=batch_size,
            policy=policy,
        )
        times.append(found.total_s[0])
        traffic.append(found.traffic_in_bytes + found.traffic_out_bytes)
    warm = [
        memory.simulate(
            dataclasses.replace(_RTX, capacity_bytes=int(capacity)),
            program,
            batch_size=batch_size,
            steady_state=True,
        )
        for capacity in _bytes(mebibytes)
    ]
    times.append([run.total_s for run in warm])
    traffic.append([run.traffic_in_bytes + run.traffic_out_bytes for run in warm])
    return Policies(
        names=[*POLICIES, "the paper's, weights kept between iterations"],
        capacities_mb=mebibytes,
        time_s=np.array(times),
        traffic_bytes=np.array(traffic),
    )


def _reuse(
    program: Program, trace: cache.Trace, mebibytes: np.ndarray, batch_size: int
) -> Reuse:
    saved, streamed, possible = [], 0, {}
    for capacity in _bytes(mebibytes):
        plan = cache.plan(trace, capacity, False, True)
        found = reuse.saving(trace, plan, program)
        saved.append([found.saved[scope] for scope in reuse.SCOPES])
        streamed, possible = found.streamed_bytes, found.possible
    needed = reuse.capacities(trace, program)
    return Reuse(
        scopes=list(reuse.SCOPES),
        capacities_mb=mebibytes,
        saved_bytes=np.array(saved),
        possible_bytes=np.array([possible[scope] for scope in reuse.SCOPES]),
        streamed_bytes=streamed,
        intra_layer_bytes=reuse.intra_layer_bytes(program, batch_size),
        needed_bytes=np.array([needed[scope] for scope in reuse.SCOPES]),
    )


def _timeline(
    config: MemoryConfig, program: Program, batch_size: int
) -> Timeline | None:
    hardware = config.hardware[0]
    capacity = float(memory.capacities([config.timeline_mb])[0])
    spec = dataclasses.replace(SYSTEMS[hardware], capacity_bytes=capacity)
    needed, _ = memory.smallest_capacity(program, spec.value_bits)
    if capacity < needed:
        logging.warning(
            "no timeline: `timeline_mb` (=%g) is below the %.2f MB that %s needs",
            config.timeline_mb,
            needed / units.MIB,
            hardware,
        )
        return None
    run = memory.simulate(spec, program, batch_size=batch_size)
    times = run.schedule
    streamed = np.flatnonzero(~np.isnan(times.stream_start))
    moved = run.plan.streamed_in + run.plan.streamed_out
    stream_end = times.stream_start + moved / float(spec.bandwidth_bytes_per_s)
    loads = np.flatnonzero(~np.isnan(times.load_start))
    writes = np.flatnonzero(~np.isnan(times.write_start))
    ops = program.workload.ops
    return Timeline(
        hardware=hardware,
        capacity_mb=config.timeline_mb,
        total_s=run.total_s,
        names=list(program.step_names),
        kinds=[describe(ops[i]) for i in program.op],
        is_type_ii=program.is_type_ii,
        is_backward=program.is_backward,
        start_s=times.start,
        compute_s=run.compute_s,
        end_s=times.end,
        held_bytes=run.occupancy,
        transfer_start_s=np.concatenate(
            [
                times.load_start[loads],
                times.write_start[writes],
                times.stream_start[streamed],
            ]
        ),
        transfer_end_s=np.concatenate(
            [times.load_end[loads], times.write_end[writes], stream_end[streamed]]
        ),
        direction=np.repeat(np.arange(3), [len(loads), len(writes), len(streamed)]),
    )
