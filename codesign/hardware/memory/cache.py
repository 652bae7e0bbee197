"""Which tensors a software-managed cache holds, step by step: whole tensors, Belady."""

import heapq
from typing import Any, NamedTuple

import numpy as np

from codesign.hardware.memory.compiled import compiled

STAYS, DROPPED, WRITTEN = 0, 1, 2  # what becomes of a tensor after one of its uses


class Trace(NamedTuple):
    """A program's accesses as arrays, and what the planner needs to know ahead.

    `[N]` runs over accesses, `[S]` over steps, `[T]` over tensors; step s owns the
    accesses `first[s]` to `first[s + 1]`, each of another tensor.
    """

    first: np.ndarray  # [S + 1]
    touched: np.ndarray  # [N] tensor
    reads: np.ndarray  # [N] bool
    writes: np.ndarray  # [N] bool
    step: np.ndarray  # [N] step that owns the access
    next_use: np.ndarray  # [N] step of the tensor's next access, S if there is none
    previous: np.ndarray  # [N] the tensor's access before, -1 if there is none
    sizes: np.ndarray  # [T] bytes, int64
    rank: np.ndarray  # [T] who leaves first among equals: larger, then smaller name
    by_rank: np.ndarray  # [T] the tensor of each rank
    in_memory: np.ndarray  # [T] bool, whether memory holds it at the start
    is_kept: np.ndarray  # [T] bool, whether it is written after its last use
    footprint: np.ndarray  # [S] bytes of each step's working set


class Plan(NamedTuple):
    """What happens at each access, for one capacity; independent of all speeds."""

    held: np.ndarray  # [N] bool, used in the cache, and not passing through
    loads: np.ndarray  # [N] bool, brought from memory before its step
    leaves: np.ndarray  # [N] STAYS, DROPPED or WRITTEN
    leaves_for: np.ndarray  # [N] step whose working set evicts it; its own if last used
    streamed_in: np.ndarray  # [S] bytes passing through, read
    streamed_out: np.ndarray  # [S] bytes passing through, written
    occupancy: np.ndarray  # [S] bytes of the tensors that stay, from use to use


def trace(
    first: np.ndarray,
    touched: np.ndarray,
    reads: np.ndarray,
    writes: np.ndarray,
    sizes: np.ndarray,
    names: tuple[str, ...],
    in_memory: np.ndarray,
    is_kept: np.ndarray,
) -> Trace:
    """Prepares a program's accesses for any number of plans."""
    num_steps = len(first) - 1
    step = np.repeat(np.arange(num_steps), np.diff(first))
    order = np.lexsort((step, touched))  # by tensor, then by step
    next_use = np.full(len(touched), num_steps, np.int64)
    same = touched[order][1:] == touched[order][:-1]
    next_use[order[:-1][same]] = step[order[1:][same]]
    previous = np.full(len(touched), -1, np.int64)
    previous[order[1:][same]] = order[:-1][same]
    by_rank = np.array(
        sorted(range(len(names)), key=lambda t: (-int(sizes[t]), names[t])), np.int64
    )
    rank = np.argsort(by_rank)
    footprint = np.add.reduceat(sizes[touched], first[:-1])
    return Trace(
        first=first,
        touched=touched,
        reads=reads,
        writes=writes,
        step=step,
        next_use=next_use,
        previous=previous,
        sizes=sizes,
        rank=rank,
        by_rank=by_rank,
        in_memory=in_memory,
        is_kept=is_kept,
        footprint=footprint,
    )


@compiled
def plan(
    trace: Trace, capacity: int, least_recently_used: bool, look_ahead: bool
) -> Plan:
    """Plans the residency of every tensor in a cache of `capacity` bytes.

    A step whose working set fits loads what it misses, and makes room by evicting, among
    tensors that it does not touch, the one whose next use is farthest (Belady, IBM Syst.
    J. 1966); among equals the larger, then the smaller name. With `least_recently_used`
    it evicts the one whose last use is longest ago. A step that does not fit evicts and
    installs nothing: it uses what is cached in place, and the rest passes through. After
    its last use a tensor leaves at once, written only if it is to be kept. An evicted
    tensor is written only if memory has no copy that is up to date; with `look_ahead` it
    leaves right after the use before, else when the room is needed: the same bytes.
    """
    num_steps, num_accesses = len(trace.first) - 1, len(trace.touched)
    num_tensors = len(trace.sizes)
    loads = np.zeros(num_accesses, np.bool_)
    held = np.zeros(num_accesses, np.bool_)
    leaves = np.zeros(num_accesses, np.int8)
    leaves_for = np.zeros(num_accesses, np.int64)
    streamed_in = np.zeros(num_steps, np.int64)
    streamed_out = np.zeros(num_steps, np.int64)
    cached = np.zeros(num_tensors, np.bool_)
    current = trace.in_memory.copy()  # memory's copy is up to date
    last = np.full(num_tensors, -1, np.int64)  # access of the latest use
    turn = np.full(num_tensors, -1, np.int64)  # key in the heap that counts
    heap: Any = [
        np.int64(0) for _ in range(0)
    ]  # the smallest leaves first, or is stale
    used = 0
    for step in range(num_steps):
        begin, end = trace.first[step], trace.first[step + 1]
        fits = trace.footprint[step] <= capacity
        if fits:
            need = 0
            for a in range(begin, end):
                t = trace.touched[a]
                turn[t] = -1  # not to be evicted now
                if not cached[t]:
                    need += trace.sizes[t]
            while used + need > capacity:
                key = heapq.heappop(heap)
                t = trace.by_rank[key % num_tensors]
                if turn[t] != key:
                    continue
                turn[t] = -1
                cached[t] = False
                used -= trace.sizes[t]
                leaves_for[last[t]] = step
                leaves[last[t]] = DROPPED if current[t] else WRITTEN
                current[t] = True
            used += need
        for a in range(begin, end):
            t = trace.touched[a]
            is_over = trace.next_use[a] == num_steps
            if cached[t] or fits:
                held[a] = True
                loads[a] = not cached[t] and trace.reads[a]
                cached[t] = True
                if trace.writes[a]:
                    current[t] = False
                last[t] = a
                if is_over:
                    must_write = trace.is_kept[t] and not current[t]
                    leaves[a] = WRITTEN if must_write else DROPPED
                    leaves_for[a] = step
                    cached[t] = False
                    turn[t] = -1
                    used -= trace.sizes[t]
                    continue
                order = step if least_recently_used else num_steps - trace.next_use[a]
                turn[t] = order * num_tensors + trace.rank[t]
                heapq.heappush(heap, turn[t])
            else:
                if trace.reads[a]:
                    streamed_in[step] += trace.sizes[t]
                if trace.writes[a]:
                    if not is_over or trace.is_kept[t]:
                        streamed_out[step] += trace.sizes[t]
                    current[t] = True
    occupancy = _occupancy(trace, held, leaves, leaves_for, look_ahead)
    return Plan(held, loads, leaves, leaves_for, streamed_in, streamed_out, occupancy)


@compiled
def _occupancy(trace, held, leaves, leaves_for, look_ahead):
    """Sums the bytes of the tensors that are held at each step, [S]."""
    change = np.zeros(len(trace.first) + 1, np.int64)
    inside = np.zeros(len(trace.sizes), np.bool_)
    for a in range(len(trace.touched)):
        t, step = trace.touched[a], trace.step[a]
        if not held[a]:
            continue
        if not inside[t]:
            change[step] += trace.sizes[t]
            inside[t] = True
        if leaves[a] != STAYS:
            until = step + 1
            if not look_ahead:
                until = max(until, leaves_for[a])
            change[until] -= trace.sizes[t]
            inside[t] = False
    return np.cumsum(change)[: len(trace.first) - 1]
