"""The rules of `simulator.simulate` once more, in plain Python and in the obvious way.

Tests hold the compiled simulator against this, to the byte and to the last bit of every
time; the benchmark prints how many times slower it is. Nothing is remembered that could
be looked up: the next use of a tensor is searched in the list of its uses, the tensor to
evict among all that are cached, room at every step from a prefetch to its use.
"""

import bisect
import itertools
from typing import NamedTuple

from codesign.hardware.memory.spec import MemorySpec, Policy
from codesign.workload.iteration import Program


class Outcome(NamedTuple):
    """Totals, and the end of every step."""

    traffic_in_bytes: int
    traffic_out_bytes: int
    total_s: float
    end_s: list[float]


class _Residency:
    """What enters and leaves the cache at each step, whatever the speeds."""

    def __init__(self, program: Program, sizes: list[int]):
        self.sizes = sizes
        self._program = program
        self.steps = []  # tensors that are touched, read, written
        self.uses: list[list[int]] = [[] for _ in sizes]
        for step, ends in enumerate(itertools.pairwise(program.first)):
            span = slice(*ends)
            touched = program.touched[span]
            parts = touched, touched[program.reads[span]], touched[program.writes[span]]
            self.steps.append([part.tolist() for part in parts])
            for tensor in touched:
                self.uses[tensor].append(step)
        self.loads: list[list[int]] = [[] for _ in self.steps]
        self.offloads: dict[int, list[int]] = {}  # queued at the start of a step
        self.waits: list[bool] = [False] * (len(self.steps) + 1)
        self.streamed = [(0, 0)] * len(self.steps)
        self.occupancy = [0] * len(self.steps)
        self.freed: dict[tuple[int, int], int] = {}  # (tensor, last use) -> step

    def next_use(self, tensor: int, step: int) -> int | None:
        """The first use after `step`, or None."""
        uses = self.uses[tensor]
        place = bisect.bisect_right(uses, step)
        return uses[place] if place < len(uses) else None

    def last_use(self, tensor: int, step: int) -> int:
        """The latest use before `step`, or -1."""
        uses = self.uses[tensor]
        place = bisect.bisect_left(uses, step)
        return uses[place - 1] if place else -1

    def plan(self, capacity: int, policy: Policy) -> None:
        """Runs through the steps once."""
        current = self._program.in_memory.tolist()  # memory holds this value
        is_kept = [role == "D" for role in self._program.roles]
        entered: dict[int, int] = {}  # cached tensors, and since which step

        def leave(tensor, last, needed_at, is_written):
            until = last
            if policy.offload == "when_full":
                until = max(last, needed_at - 1)
            for step in range(entered.pop(tensor), until + 1):
                self.occupancy[step] += self.sizes[tensor]
            self.freed[tensor, last] = until + 1
            if is_written:
                self.offloads.setdefault(until + 1, []).append(tensor)
                self.waits[until + 1] |= needed_at == until + 1 and until > last
            current[tensor] = True

        def goes_first(tensor):
            """Largest of these leaves first."""
            order = -self.last_use(tensor, step)
            if policy.replacement == "belady":
                order = self.next_use(tensor, step)
            backwards = [-ord(letter) for letter in self._program.tensors[tensor]]
            return order, self.sizes[tensor], backwards

        for step, (touched, reads, writes) in enumerate(self.steps):
            missing = [tensor for tensor in touched if tensor not in entered]
            if sum(self.sizes[tensor] for tensor in touched) <= capacity:
                need = sum(self.sizes[tensor] for tensor in missing)
                while sum(self.sizes[t] for t in entered) + need > capacity:
                    others = [t for t in entered if t not in touched]
                    victim = max(others, key=goes_first)
                    last = self.last_use(victim, step)
                    leave(victim, last, step, not current[victim])
                self.loads[step] = [tensor for tensor in missing if tensor in reads]
                entered.update(dict.fromkeys(missing, step))
            else:
                out = [t for t in missing if t in writes]
                out = [t for t in out if self.next_use(t, step) or is_kept[t]]
                read = sum(self.sizes[t] for t in missing if t in reads)
                self.streamed[step] = read, sum(self.sizes[t] for t in out)
            for tensor in touched:
                if tensor in writes:
                    current[tensor] = tensor not in entered
                if self.next_use(tensor, step) is None and tensor in entered:
                    leave(tensor, step, step, is_kept[tensor] and not current[tensor])


def simulate(
    spec: MemorySpec,
    program: Program,
    *,
    batch_size: int = 32,
    policy: Policy | None = None,
) -> Outcome:
    """Does what `simulator.simulate` does; see there for the rules."""
    policy = policy or Policy()
    capacity = int(spec.capacity_bytes)
    bandwidth = float(spec.bandwidth_bytes_per_s)
    sizes = program.sizes(batch_size, spec.value_bits // 8).tolist()
    throughput = float(spec.throughput_ops_per_s)
    compute = [count * batch_size / throughput for count in program.operations.tolist()]
    residency = _Residency(program, sizes)
    residency.plan(capacity, policy)
    due = _first_trials(residency, compute, bandwidth, policy)
    channel = now = 0.0
    arrival: dict[tuple[int, int], float] = {}
    ends = []

    def transfer(size, earliest):
        nonlocal channel
        channel = max(channel, earliest) + size / bandwidth
        return channel

    for step in range(program.num_steps):
        ready = now
        for tensor in _in_order(residency, step):
            done = transfer(sizes[tensor], now)
            if residency.waits[step] and residency.uses[tensor].count(step - 1) == 0:
                ready = done
        for target, place in sorted(due.pop(step, [])):
            tensor = residency.loads[target][place]
            if max(residency.occupancy[step:target]) + sizes[tensor] <= capacity:
                for k in range(step, target):
                    residency.occupancy[k] += sizes[tensor]
                arrival[target, tensor] = transfer(sizes[tensor], now)
            elif step + 1 < target:
                due.setdefault(step + 1, []).append((target, place))
        for tensor in residency.loads[step]:
            if (step, tensor) not in arrival:
                arrival[step, tensor] = transfer(sizes[tensor], now)
            ready = max(ready, arrival[step, tensor])
        now = ready + compute[step]
        if sum(residency.streamed[step]):
            now = max(now, transfer(sum(residency.streamed[step]), ready))
        ends.append(now)
    for tensor in _in_order(residency, program.num_steps):
        transfer(sizes[tensor], now)
    loaded = sum(sizes[tensor] for loads in residency.loads for tensor in loads)
    written = sum(sizes[t] for tensors in residency.offloads.values() for t in tensors)
    past_in, past_out = map(sum, zip(*residency.streamed, strict=True))
    return Outcome(loaded + past_in, written + past_out, max(now, channel), ends)


def _in_order(residency: _Residency, step: int) -> list[int]:
    """Tensors offloaded at the start of a step, by their last use and place in it."""

    def place(tensor):
        last = residency.last_use(tensor, step)
        return last, residency.steps[last][0].index(tensor)

    return sorted(residency.offloads.get(step, []), key=place)


def _first_trials(residency, compute, bandwidth, policy):
    """For each step, the loads (target step, place in it) that are first tried there."""
    done = list(itertools.accumulate(compute, initial=0.0))
    due: dict[int, list[tuple[int, int]]] = {}
    if policy.prefetch == "none":
        return due
    for target, tensors in enumerate(residency.loads):
        for place, tensor in enumerate(tensors):
            step = target - 1
            if policy.prefetch == "latency_aware":
                latest = done[target] - residency.sizes[tensor] / bandwidth
                while step > 0 and done[step] > latest:
                    step -= 1
            last = residency.last_use(tensor, target)
            if last >= 0:
                step = max(step, residency.freed.get((tensor, last), last + 1))
            if 0 <= step < target:
                due.setdefault(step, []).append((target, place))
    return due
