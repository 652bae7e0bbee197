"""When a plan's transfers run: one channel to memory beside one compute unit."""

from typing import NamedTuple

import numpy as np

from codesign.hardware.memory.cache import WRITTEN, Plan, Trace
from codesign.hardware.memory.compiled import compiled

ON_DEMAND, NEXT_STEP, LATENCY_AWARE = 0, 1, 2  # when a load is first tried


class Schedule(NamedTuple):
    """Times in seconds; an access that moves nothing has NaN."""

    start: np.ndarray  # [S] compute begins
    end: np.ndarray  # [S] compute and what streams past it are done
    stream_start: np.ndarray  # [S] NaN where nothing streams
    issued: np.ndarray  # [N] step at whose start a load was queued, -1 for none
    load_start: np.ndarray  # [N]
    load_end: np.ndarray  # [N]
    write_start: np.ndarray  # [N]
    write_end: np.ndarray  # [N]
    occupancy: np.ndarray  # [S] bytes held, prefetched ones included
    total_s: float  # until compute and channel are both done


@compiled
def schedule(
    trace: Trace,
    plan: Plan,
    compute_s: np.ndarray,
    bandwidth: float,
    capacity: int,
    prefetch: int,
    look_ahead: bool,
) -> Schedule:
    """Runs a plan: transfers are served first come first served, both directions alike.

    At the start of each step, in this order: offloads of tensors whose last use was the
    step before are queued (without `look_ahead`, of those whose room this step needs,
    and it waits for them); prefetches that are due are issued; what is still missing is
    loaded. Compute starts when all loads of the step are done. What passes through
    streams beside compute, and the step ends with the later of the two.

    A load for step i is first tried at the latest step j whose compute, with that of all
    steps up to i - 1, covers its transfer (`LATENCY_AWARE`), or at i - 1 (`NEXT_STEP`),
    but not before the tensor's previous use is over. It is issued if it fits beside what
    is held at every step from then to i, else tried again a step later.

    More of a resource can cost time. With more room a prefetch starts earlier, and a load
    that a step already waits for queues behind it; that costs next to nothing. And a step
    that does not fit streams beside its compute, while in a slightly larger cache it fits
    and first waits for its loads; that costs up to 6.5 % on the networks of the paper above
    24 MB, and 41 % on an LSTM between 16 and 18 MB.
    """
    num_steps, num_accesses = len(trace.first) - 1, len(trace.touched)
    start, end = np.empty(num_steps), np.empty(num_steps)
    stream_start = np.full(num_steps, np.nan)
    issued = np.full(num_accesses, -1, np.int64)
    load_start, load_end = np.full(num_accesses, np.nan), np.full(num_accesses, np.nan)
    write_start = np.full(num_accesses, np.nan)
    write_end = np.full(num_accesses, np.nan)
    occupancy = plan.occupancy.copy()
    first_write, writes = _writes_by_step(trace, plan, look_ahead)
    due, then = _first_trials(trace, plan, compute_s, bandwidth, prefetch, look_ahead)
    now, channel = 0.0, 0.0
    for step in range(num_steps):
        begin, stop = trace.first[step], trace.first[step + 1]
        ready = now
        for k in range(first_write[step], first_write[step + 1]):
            a = writes[k]
            write_start[a] = max(channel, now)
            channel = write_start[a] + trace.sizes[trace.touched[a]] / bandwidth
            write_end[a] = channel
            if trace.step[a] != step - 1:  # its room is needed now
                ready = channel
        a = due[step]
        while a >= 0:
            following = then[a]
            size, target = trace.sizes[trace.touched[a]], trace.step[a]
            blocked = target - 1
            while blocked >= step and occupancy[blocked] + size <= capacity:
                blocked -= 1
            if blocked >= step:  # the steps after it have room
                if blocked + 1 < target:
                    _insert(a, blocked + 1, due, then)
            else:
                occupancy[step:target] += size
                issued[a] = step
                load_start[a] = max(channel, now)
                channel = load_start[a] + size / bandwidth
                load_end[a] = channel
            a = following
        for a in range(begin, stop):
            if not plan.loads[a]:
                continue
            if issued[a] < 0:
                issued[a] = step
                load_start[a] = max(channel, now)
                channel = load_start[a] + trace.sizes[trace.touched[a]] / bandwidth
                load_end[a] = channel
            ready = max(ready, load_end[a])
        start[step] = ready
        now = ready + compute_s[step]
        streamed = plan.streamed_in[step] + plan.streamed_out[step]
        if streamed > 0:
            stream_start[step] = max(channel, ready)
            channel = stream_start[step] + streamed / bandwidth
            now = max(now, channel)
        end[step] = now
    for k in range(first_write[num_steps], len(writes)):
        a = writes[k]
        write_start[a] = max(channel, now)
        channel = write_start[a] + trace.sizes[trace.touched[a]] / bandwidth
        write_end[a] = channel
    return Schedule(
        start,
        end,
        stream_start,
        issued,
        load_start,
        load_end,
        write_start,
        write_end,
        occupancy,
        max(now, channel),
    )


@compiled
def _writes_by_step(trace, plan, look_ahead):
    """Returns the accesses whose tensor is written when it leaves, sorted by step.

    Step s queues `writes[first[s]:first[s + 1]]`; the last entry drains after all steps.
    """
    num_steps = len(trace.first) - 1
    due = np.full(len(trace.touched), -1, np.int64)
    count = np.zeros(num_steps + 2, np.int64)
    for a in range(len(trace.touched)):
        if plan.leaves[a] == WRITTEN:
            due[a] = trace.step[a] + 1
            if not look_ahead and plan.leaves_for[a] > trace.step[a]:
                due[a] = plan.leaves_for[a]
            count[due[a] + 1] += 1
    first = np.cumsum(count)
    place = first.copy()
    writes = np.empty(first[-1], np.int64)
    for a in range(len(trace.touched)):
        if due[a] >= 0:
            writes[place[due[a]]] = a
            place[due[a]] += 1
    return first, writes


@compiled
def _first_trials(trace, plan, compute_s, bandwidth, prefetch, look_ahead):
    """Returns which loads are first tried at each step, as linked lists of accesses.

    `due[step]` is the first access of the step's list, `then[access]` the one that
    follows it, and -1 ends a list. Accesses stand in the order of the program.
    """
    done = np.zeros(len(compute_s) + 1)  # compute time before each step
    for step in range(len(compute_s)):
        done[step + 1] = done[step] + compute_s[step]
    due = np.full(len(compute_s), -1, np.int64)
    then = np.full(len(trace.touched), -1, np.int64)
    if prefetch == ON_DEMAND:
        return due, then
    for a in range(len(trace.touched) - 1, -1, -1):
        if not plan.loads[a]:
            continue
        target, earliest, before = trace.step[a], 0, trace.previous[a]
        if before >= 0:
            earliest = trace.step[before] + 1
            if not look_ahead and plan.held[before]:
                earliest = max(earliest, plan.leaves_for[before])
        at = target - 1
        if prefetch == LATENCY_AWARE:
            latest = done[target] - trace.sizes[trace.touched[a]] / bandwidth
            at = _last_at_most(done, latest, target - 1)
        at = max(at, earliest)
        if at < target:
            then[a] = due[at]
            due[at] = a
    return due, then


@compiled
def _last_at_most(values, bound, last):
    """Largest index up to `last` whose value is at most `bound`, or the first."""
    low, high = 0, last
    while low < high:
        middle = (low + high + 1) // 2
        if values[middle] <= bound:
            low = middle
        else:
            high = middle - 1
    return low


@compiled
def _insert(a, step, due, then):
    """Puts an access into the list of a later step, in its place."""
    if due[step] < 0 or due[step] > a:
        then[a] = due[step]
        due[step] = a
        return
    at = due[step]
    while 0 <= then[at] < a:
        at = then[at]
    then[a] = then[at]
    then[at] = a
