"""Which reuse of data a cache captures, by the five scopes of training.

Tsai 2021, Section 3.3. A tensor's consecutive uses are a pair of steps; the pair is

    adjacent          a map or its gradient, used by the very next step
    block             a map or its gradient, used later in the same direction
    recurrent weight  a weight or its gradient, used again in the same direction
    forward-backward  used forward, then backward

and intra-layer reuse happens inside a step. Each pair belongs to one scope.
"""

import dataclasses

import numpy as np

from codesign.hardware.memory.cache import WRITTEN, Plan, Trace
from codesign.hardware.memory.compiled import compiled
from codesign.workload.iteration import Program

ADJACENT, BLOCK, RECURRENT, FORWARD_BACKWARD = range(4)
SCOPES = ("adjacent", "block", "recurrent weight", "forward-backward")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Saving:
    """Bytes that one plan spares, against a chip that keeps nothing between two steps.

    Attributes:
        possible: By scope, if every pair were captured.
        saved: By scope.
        streamed_bytes: Traffic of the chip that keeps nothing; less `saved` it is the
            traffic of the plan, exactly.
    """

    possible: dict[str, int]
    saved: dict[str, int]
    streamed_bytes: int


def scopes(trace: Trace, program: Program) -> np.ndarray:
    """[N] scope of the pair that ends at each access, -1 for a first use."""
    is_weight = np.array([role in "WD" for role in program.roles])[trace.touched]
    has_previous = trace.previous >= 0
    before = trace.step[trace.previous]
    backward = program.is_backward
    crosses = backward[trace.step] != backward[before]
    scope = np.where(trace.step - before == 1, ADJACENT, BLOCK)
    scope = np.where(is_weight, RECURRENT, scope)
    scope = np.where(crosses, FORWARD_BACKWARD, scope)
    return np.where(has_previous, scope, -1)


def saving(trace: Trace, plan: Plan, program: Program) -> Saving:
    """Attributes the traffic that a plan spares to the scopes.

    A read that finds its tensor spares a load, for the pair that ends there. A written
    value that dies or is replaced before it was offloaded spares that too, for the last
    pair of uses that it lived through.
    """
    scope = scopes(trace, program)
    everything = plan._replace(
        held=np.ones_like(plan.held),
        loads=trace.reads & (trace.previous < 0),
        leaves=np.where(
            trace.is_kept[trace.touched] & (trace.next_use == len(program.op)),
            WRITTEN,
            0,
        ).astype(plan.leaves.dtype),
    )
    sizes = trace.sizes[trace.touched]
    again = trace.next_use < program.num_steps
    needed = trace.writes & (again | trace.is_kept[trace.touched])
    return Saving(
        possible=_by_name(_saved(trace, everything, scope)),
        saved=_by_name(_saved(trace, plan, scope)),
        streamed_bytes=int(sizes[trace.reads].sum() + sizes[needed].sum()),
    )


def intra_layer_bytes(program: Program, batch_size: int, value_bytes: int = 4) -> int:
    """Bytes that reuse inside the steps spares: two operands of every MAC, less one read
    of each tensor.

    The smallest cache that can run a step captures all of it (Section 4.3.3).
    """
    sizes = program.sizes(batch_size, value_bytes)[program.touched]
    read = np.add.reduceat(np.where(program.reads, sizes, 0), program.first[:-1])
    fetched = 2 * program.operations * batch_size * value_bytes
    is_matrix = ~program.is_type_ii
    return int(np.maximum(fetched - read, 0)[is_matrix].sum())


def capacities(trace: Trace, program: Program) -> dict[str, int]:
    """Bytes with which each scope is captured whole, by the formulas of Section 3.3.

    Adjacent: the largest working set of two steps that share a map. Block: the largest
    sum of a step's working set and the map that waits for its branch. Recurrent: all
    that is touched between two uses of a weight. Forward-backward: all maps and weights,
    sum of cap(Y_i) + cap(W_i). A scope without pairs needs 0.
    """
    scope = scopes(trace, program)
    adjacent, block, recurrent = _needs(trace, scope)
    is_kept = np.array([role in "AW" for role in program.roles])
    crosses = bool((scope == FORWARD_BACKWARD).any())
    every = int(trace.sizes[is_kept].sum()) if crosses else 0
    return dict(zip(SCOPES, (adjacent, block, recurrent, every), strict=True))


def _by_name(counts: np.ndarray) -> dict[str, int]:
    return dict(zip(SCOPES, map(int, counts), strict=True))


@compiled
def _saved(trace, plan, scope):
    saved = np.zeros(4, np.int64)
    unpaid = np.zeros(len(trace.sizes), np.bool_)  # holds a value memory never saw
    num_steps = len(trace.first) - 1
    for a in range(len(trace.touched)):
        t = trace.touched[a]
        size = trace.sizes[t]
        if trace.reads[a] and plan.held[a] and not plan.loads[a] and scope[a] >= 0:
            saved[scope[a]] += size
        if unpaid[t] and (trace.writes[a] or trace.next_use[a] == num_steps):
            saved[scope[a]] += size
            unpaid[t] = False
        if trace.writes[a]:
            is_used = trace.next_use[a] < num_steps
            unpaid[t] = plan.held[a] and is_used
        if plan.leaves[a] == WRITTEN:
            unpaid[t] = False
    return saved


@compiled
def _needs(trace, scope):
    """The largest needs of the adjacent, the block and the recurrent scope."""
    adjacent, block, recurrent = 0, 0, 0
    seen = np.full(len(trace.sizes), -1, np.int64)
    for a in range(len(trace.touched)):
        if scope[a] < 0 or scope[a] == FORWARD_BACKWARD:
            continue
        t, step, before = trace.touched[a], trace.step[a], trace.previous[a]
        since = trace.step[before]
        if scope[a] == RECURRENT:
            total = 0
            for other in range(trace.first[since], trace.first[step + 1]):
                u = trace.touched[other]
                if seen[u] != a:
                    seen[u] = a
                    total += trace.sizes[u]
            recurrent = max(recurrent, total)
            continue
        for k in range(since, step + 1):
            waits = 0 if k in (since, step) else trace.sizes[t]
            need = trace.footprint[k] + waits
            if scope[a] == ADJACENT:
                adjacent = max(adjacent, need)
            else:
                block = max(block, need)
    return adjacent, block, recurrent
