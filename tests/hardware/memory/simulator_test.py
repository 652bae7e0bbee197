import dataclasses

import jax.numpy as jnp
import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.hardware import chips, memory, roofline
from codesign.hardware.memory import MemorySpec, Policy, cache, reuse, simulate, sweep
from codesign.hardware.memory.compiled import compiled
from codesign.studies.speed import plain_simulator as reference
from codesign.workload.graph import build
from codesign.workload.iteration import training_iteration
from tests.workload.graphs import chain, dense, point, workloads

# The chain, in bytes: input 32, W:a 256, A:a 32, A:r 32, W:b 128, A:b 16; G:b 16, G:r 32,
# D:b 128, G:a 32, D:a 256. Steps and working sets:
#   0 a       input W:a A:a            320
#   1 r       A:a A:r                   64
#   2 b       A:r W:b A:b              176
#   3 b back  G:b A:r W:b G:r D:b      336
#   4 r back  G:r A:r G:a               96
#   5 a back  G:a input D:a            320
COLD = 32 + 256 + 128 + 16  # input, W:a, W:b and G:b come in once
KEPT = 128 + 256  # D:b and D:a go out


def run(capacity, bandwidth=16.0, throughput=1.0, workload=None, **policy):
    spec = MemorySpec(
        capacity_bytes=capacity,
        bandwidth_bytes_per_s=bandwidth,
        throughput_ops_per_s=throughput,
    )
    program = training_iteration(workload or chain())
    return simulate(spec, program, batch_size=1, policy=Policy(**policy))


def test_everything_fits():
    # With 368 bytes nothing that is used again ever leaves: at step 3 the input (32) waits
    # beside the working set (336). Times at 16 B/s and 1 operation/s: compute 64, 8, 32,
    # 64, 8, 64 s; transfers input 2, W:a 16, W:b 8, G:b 1, D:b 8, D:a 16 s.
    # 0: load input 0-2, W:a 2-18; compute 18-82.
    # 1: W:b for step 2 takes 8 s, step 1 computes 8 s: issued now, 82-90; compute 82-90.
    # 2: G:b for step 3 takes 1 s: issued now, 90-91; W:b is there; compute 90-122.
    # 3: compute 122-186. 4: D:b goes out 186-194; compute 186-194. 5: compute 194-258.
    # Then D:a, 258-274.
    result = run(368)
    assert result.traffic_in_bytes == COLD
    assert result.traffic_out_bytes == KEPT
    np.testing.assert_array_equal(result.schedule.start, [18, 82, 90, 122, 186, 194])
    np.testing.assert_array_equal(result.schedule.end, [82, 90, 122, 186, 194, 258])
    assert result.total_s == 274
    np.testing.assert_array_equal(result.step_s, [82, 8, 32, 64, 8, 64])
    np.testing.assert_array_equal(result.traffic_in, [288, 0, 128, 16, 0, 0])
    np.testing.assert_array_equal(result.traffic_out, [0, 0, 0, 128, 0, 256])
    # Step 1 holds input, A:a and A:r, and the prefetched W:b.
    np.testing.assert_array_equal(
        result.occupancy, [320, 96 + 128, 32 + 176 + 16, 368, 128, 320]
    )
    assert result.average_bandwidth == (COLD + KEPT) / 274
    assert result.active_time == (COLD + KEPT) / 274 / 16
    assert result.utilisation == 240 / 274
    assert result.type_ii_time_share == 16 / 274  # steps 1 and 4
    # Forward and backward together: a 82 + 64, r 8 + 8, b 32 + 64.
    np.testing.assert_array_equal(result.by_op(result.step_s), [146, 16, 96])
    assert result.by_kind(result.step_s) == {"dense": 242, "activation": 16}
    assert result.by_kind(result.traffic_out) == {"dense": KEPT, "activation": 0}


def test_eviction_of_what_memory_holds_is_free():
    # With 336 bytes the input must go at step 3. Memory has it, so it is dropped, right
    # after step 0, and comes back for step 5: 2 s, covered by step 4 (8 s), so it is
    # issued at 186, behind D:b (186-194): 194-196. Step 5 waits until 196, ends at 260.
    result = run(336)
    assert result.traffic_in_bytes == COLD + 32
    assert result.traffic_out_bytes == KEPT
    np.testing.assert_array_equal(result.schedule.end, [82, 90, 122, 186, 194, 260])
    assert result.total_s == 276
    assert result.occupancy[3] == 336


def test_a_step_that_does_not_fit_streams():
    # With 335 bytes step 3 passes through: G:b in (16), G:r out (32, used again), D:b out
    # (128); A:r and W:b are used in place, the input stays. Streaming 176 B takes 11 s
    # beside 64 s of compute. G:r was written by step 3, so step 4 can only load it on
    # demand: 186-188. Step 5 finds the input: 196-260. D:a 260-276.
    result = run(335)
    assert result.traffic_in_bytes == COLD + 32  # G:r comes back
    assert result.traffic_out_bytes == KEPT + 32
    np.testing.assert_array_equal(result.plan.streamed_in, [0, 0, 0, 16, 0, 0])
    np.testing.assert_array_equal(result.plan.streamed_out, [0, 0, 0, 160, 0, 0])
    np.testing.assert_array_equal(result.schedule.end, [82, 90, 122, 186, 196, 260])
    assert result.total_s == 276


def test_a_streaming_step_can_be_bound_by_the_channel():
    # The same at 2 B/s. W:b takes 64 s. 0: input 0-16, W:a 16-144, compute 144-208. W:b
    # for step 2 is due at step 0 (8 < 64 <= 72) and fits there beside 320 bytes? No (335):
    # it is tried again at step 1: 208-272. Step 2 starts at 272, ends at 304. Step 3
    # streams 176 B in 88 s: 304-392, longer than its 64 s of compute. G:r 392-408, compute
    # 408-416, step 5 416-480, D:a 480-608.
    result = run(335, bandwidth=2.0)
    assert result.schedule.issued[result.trace.step == 2].max() == 1
    np.testing.assert_array_equal(result.schedule.end, [208, 216, 304, 392, 416, 480])
    assert result.total_s == 608


def test_a_prefetch_that_finds_no_room_is_tried_a_step_later():
    # 336 bytes at 2 B/s. The input for step 5 takes 16 s: step 4 has 8, steps 3 and 4
    # have 72, so it is due at step 3, whose 336 bytes leave no room: issued at step 4.
    # 0-2 as above; G:b (8 s) behind W:b: 272-280. 3: 304-368. 4: D:b 368-432, the input
    # 432-448, compute 368-376. 5: 448-512. D:a 512-640.
    result = run(336, bandwidth=2.0)
    assert result.schedule.issued[result.trace.step == 5].max() == 4
    np.testing.assert_array_equal(result.schedule.end, [208, 216, 304, 368, 376, 512])
    assert result.total_s == 640


def test_prefetching_the_next_layer_only():
    # 368 bytes at 2 B/s: W:b is issued at step 1 whatever the policy's foresight...
    # latency-aware tries it at step 0: 320 + 128 bytes do not fit into 368. With 448 they
    # do: issued at 0 before the demand loads, 0-64; input 64-80, W:a 80-208.
    early = run(448, bandwidth=2.0)
    assert early.schedule.issued[early.trace.step == 2].max() == 0
    assert early.schedule.start[0] == 208
    assert early.schedule.start[2] == early.schedule.end[1] == 280
    late = run(448, bandwidth=2.0, prefetch="next_layer")
    assert late.schedule.issued[late.trace.step == 2].max() == 1
    assert late.schedule.end.tolist()[:3] == [208, 216, 304]
    # On demand, step 2 starts to load at 216: 216-280, compute 280-312.
    never = run(448, bandwidth=2.0, prefetch="none")
    assert never.schedule.end.tolist()[:3] == [208, 216, 312]


def three_layers():
    """A map that must be offloaded: 8 -> a (8) -> gelu g -> b (8) -> gelu h -> c (8)."""
    ops = [
        dense("a", -1, 8, 8),
        point("g", "activation", (0,), 8, "gelu"),
        dense("b", 1, 8, 8),
        point("h", "activation", (2,), 8, "gelu"),
        dense("c", 3, 8, 8),
    ]
    return build(ops, inputs=[(8,)], parameters={"a": 64, "b": 64, "c": 64})


def test_a_map_that_memory_does_not_have_is_written_when_evicted():
    # Maps 32, weights 256 bytes. Steps: a 320, g 64, b 320, h 64, c 320, c back (G:c A:h
    # W:c G:h D:c) 608, h back (G:h A:b G:b) 96, b back (G:b A:g W:b G:g D:b) 608,
    # g back (G:g A:a G:a) 96, a back (G:a input D:a) 320.
    # With 608 bytes: c (step 4) needs 288 more beside 416 (input, A:a, A:g, A:b, A:h, W:b):
    # the farthest next uses go, input (step 9), A:a (8), then of A:g and W:b (both 7) the
    # larger, W:b. c back needs all 608: A:g and A:b go. Memory has input and W:b; A:a, A:g
    # and A:b are written, 96 bytes. All five come back.
    result = run(608, workload=three_layers())
    assert result.traffic_in_bytes == (32 + 3 * 256 + 32) + (32 + 32 + 256 + 32 + 32)
    assert result.traffic_out_bytes == 3 * 256 + 96
    # Each goes out right after its use before: A:a after step 1, A:g after 2, A:b after 3.
    np.testing.assert_array_equal(
        result.traffic_out, [0, 32, 32, 32, 0, 256, 0, 256, 0, 256]
    )
    # When full, the same bytes leave when their room is needed, and the step waits. At
    # 16 B/s: at step 4 A:a out 178-180, G:c for step 5 180-182 (a prefetch goes before a
    # demand load), W:c 182-198; at step 5 A:g and A:b, 4 s.
    late = run(608, workload=three_layers(), offload="when_full")
    assert late.traffic_out_bytes == result.traffic_out_bytes
    assert result.schedule.start[4] == result.schedule.end[3] == 178
    assert late.schedule.start[4] == 198
    assert late.schedule.start[5] == late.schedule.end[4] + 4
    assert result.schedule.start[5] == result.schedule.end[4]
    assert late.total_s > result.total_s


def test_belady_keeps_what_comes_first_and_lru_does_not():
    # Weight w serves a and c. After a, 320 bytes are held: input, W:w (256), A:a. b needs
    # 288 more, 32 too many for 576: Belady drops the input, whose next use is the last
    # step; LRU, of two that were both used last at step 0, the larger, W:w.
    ops = [
        dense("a", -1, 8, 8, "w"),
        dense("b", 0, 8, 8),
        dense("c", 1, 8, 8, "w"),
    ]
    tied = build(ops, inputs=[(8,)], parameters={"w": 64, "b": 64})
    best, lru = run(576, workload=tied), run(576, workload=tied, replacement="lru")

    def evicted_for_b(result):
        gone = (result.trace.step == 0) & (result.plan.leaves_for == 1)
        return {result.program.tensors[t] for t in result.trace.touched[gone]}

    assert evicted_for_b(best) == {"A:input_0"}
    assert evicted_for_b(lru) == {"W:w"}
    assert lru.traffic_in_bytes > best.traffic_in_bytes


def test_steady_state_finds_its_weights():
    # With room for everything W:a and W:b stay for the next iteration, which loads the
    # input and G:b, both in time: its steps are nothing but compute.
    spec = MemorySpec(
        capacity_bytes=2000, bandwidth_bytes_per_s=16.0, throughput_ops_per_s=1.0
    )
    program = training_iteration(chain())
    result = simulate(spec, program, batch_size=1, steady_state=True)
    assert result.traffic_in_bytes == 32 + 16
    assert result.traffic_out_bytes == KEPT
    np.testing.assert_array_equal(result.step_s, [64, 8, 32, 64, 8, 64])
    assert result.total_s == 240
    cold = simulate(spec, program, batch_size=1)
    assert cold.traffic_in_bytes == COLD
    # With 335 bytes no weight survives: the same bytes move, cold or not.
    small = dataclasses.replace(spec, capacity_bytes=335)
    again = simulate(small, program, batch_size=1, steady_state=True)
    once = simulate(small, program, batch_size=1)
    assert again.traffic_in_bytes == once.traffic_in_bytes
    assert again.traffic_out_bytes == once.traffic_out_bytes


SPEEDS = st.floats(0.1, 1000.0)
POLICIES = st.builds(
    Policy,
    replacement=st.sampled_from(["belady", "lru"]),
    prefetch=st.sampled_from(["latency_aware", "next_layer", "none"]),
    offload=st.sampled_from(["look_ahead", "when_full"]),
)


def _random_run(workload, part, bandwidth, throughput, policy, batch_size=2):
    """A capacity between the least that works and all bytes."""
    program = training_iteration(workload)
    least, _ = memory.smallest_capacity(program)
    every = int(program.sizes(batch_size).sum())
    spec = MemorySpec(
        capacity_bytes=least + int(part * max(0, every - least)),
        bandwidth_bytes_per_s=bandwidth,
        throughput_ops_per_s=throughput,
    )
    return spec, program, simulate(spec, program, batch_size=batch_size, policy=policy)


@settings(max_examples=400, deadline=None)
@given(workloads(), st.floats(0, 1), SPEEDS, SPEEDS, POLICIES)
def test_agrees_with_plain_python(workload, part, bandwidth, throughput, policy):
    spec, program, fast = _random_run(workload, part, bandwidth, throughput, policy)
    slow = reference.simulate(spec, program, batch_size=2, policy=policy)
    assert fast.traffic_in_bytes == slow.traffic_in_bytes
    assert fast.traffic_out_bytes == slow.traffic_out_bytes
    assert fast.schedule.end.tolist() == slow.end_s
    assert fast.total_s == slow.total_s


@settings(max_examples=200, deadline=None)
@given(workloads(), st.floats(0, 1), SPEEDS, SPEEDS, POLICIES)
def test_nothing_appears_from_nowhere(workload, part, bandwidth, throughput, policy):
    # Replays the transfers: a value is read where it is, and memory is never stale.
    spec, program, result = _random_run(workload, part, bandwidth, throughput, policy)
    trace, plan = result.trace, result.plan
    in_memory, in_cache = program.in_memory.copy(), np.zeros(program.num_tensors, bool)
    moved_in = moved_out = 0
    for a, t in enumerate(trace.touched):
        size = int(trace.sizes[t])
        if plan.loads[a]:
            assert in_memory[t]
            assert not in_cache[t]
            moved_in += size
        elif trace.reads[a] and plan.held[a]:
            assert in_cache[t]
        elif trace.reads[a]:
            assert in_memory[t]
            moved_in += size
        in_cache[t] = plan.held[a]
        if trace.writes[a]:
            in_memory[t] = not plan.held[a]
            again = trace.next_use[a] < program.num_steps
            moved_out += size * (not plan.held[a] and (again or trace.is_kept[t]))
        if plan.leaves[a] != cache.STAYS:
            is_written = plan.leaves[a] == cache.WRITTEN
            in_memory[t] |= is_written
            in_cache[t] = False
            moved_out += size * is_written
    assert (moved_in, moved_out) == (result.traffic_in_bytes, result.traffic_out_bytes)
    kept = [t for t, role in enumerate(program.roles) if role == "D"]
    assert in_memory[kept].all()
    assert result.occupancy.max() <= int(spec.capacity_bytes)


@settings(max_examples=200, deadline=None)
@given(workloads(), st.floats(0, 1), SPEEDS, SPEEDS, POLICIES)
def test_time_lies_between_its_bounds(workload, part, bandwidth, throughput, policy):
    _, _, result = _random_run(workload, part, bandwidth, throughput, policy)
    compute_s = result.compute_s.sum()
    moved = result.traffic_in_bytes + result.traffic_out_bytes
    assert result.total_s >= max(compute_s, moved / bandwidth) * (1 - 1e-12)
    assert result.total_s <= (compute_s + moved / bandwidth) * (1 + 1e-12)
    loads = result.plan.loads
    start = result.schedule.start[result.trace.step[loads]]
    assert (result.schedule.load_end[loads] <= start).all()


@settings(max_examples=200, deadline=None)
@given(workloads(), st.floats(0, 1), SPEEDS, SPEEDS, POLICIES)
def test_every_spared_byte_has_a_scope(workload, part, bandwidth, throughput, policy):
    _, program, result = _random_run(workload, part, bandwidth, throughput, policy)
    saving = reuse.saving(result.trace, result.plan, program)
    moved = result.traffic_in_bytes + result.traffic_out_bytes
    assert saving.streamed_bytes - sum(saving.saved.values()) == moved
    for scope in reuse.SCOPES:
        assert 0 <= saving.saved[scope] <= saving.possible[scope]


def test_scopes_of_the_chain():
    # Adjacent pairs: A:a 0-1, A:r 1-2 and 3-4, G:r 3-4, G:a 4-5. Across: input 0-5, A:r 2-3
    # and W:b 2-3. With 368 bytes all are captured.
    result = run(368)
    saving = reuse.saving(result.trace, result.plan, result.program)
    assert saving.saved == saving.possible
    # Reads: A:a, A:r, G:r, G:a after the step before, and A:r again at step 4 (32 each);
    # writes of A:a, G:r, G:a die unpaid with an adjacent pair, as A:r does at step 4.
    assert saving.saved["adjacent"] == 5 * 32 + 4 * 32
    assert saving.saved["forward-backward"] == 32 + 32 + 128  # input, A:r, W:b
    assert saving.saved["block"] == saving.saved["recurrent weight"] == 0
    needs = reuse.capacities(result.trace, result.program)
    # Adjacent: two steps that share a map, the larger is step 0 or 3. Forward-backward:
    # maps input, A:a, A:r, A:b and weights, 112 + 384.
    assert needs["adjacent"] == 336
    assert needs["forward-backward"] == 32 * 3 + 16 + 256 + 128


def test_more_cache_never_costs_traffic_on_a_chain():
    program = training_iteration(three_layers())
    spec = memory.SYSTEMS["A100"]
    result = sweep([spec], program, np.arange(352, 1600, 4), batch_size=1)
    assert (np.diff(result.traffic_in_bytes + result.traffic_out_bytes) <= 0).all()


@settings(max_examples=25, deadline=None)
@given(workloads(), POLICIES, st.integers(1, 5))
def test_a_sweep_is_the_simulations_one_by_one(workload, policy, batch_size):
    program = training_iteration(workload)
    least, _ = memory.smallest_capacity(program)
    every = int(program.sizes(batch_size).sum())
    capacities = np.unique(np.linspace(least, max(least, every), 5).astype(np.int64))
    machines = [
        MemorySpec(
            capacity_bytes=1,
            bandwidth_bytes_per_s=bandwidth,
            throughput_ops_per_s=throughput,
        )
        for bandwidth, throughput in ((3.0, 7.0), (50.0, 1.5))
    ]
    swept = sweep(machines, program, capacities, batch_size=batch_size, policy=policy)
    for m, machine in enumerate(machines):
        for c, capacity in enumerate(capacities):
            spec = dataclasses.replace(machine, capacity_bytes=int(capacity))
            one = simulate(spec, program, batch_size=batch_size, policy=policy)
            assert swept.total_s[m, c] == one.total_s
            assert swept.traffic_in_bytes[c] == one.traffic_in_bytes
            assert swept.traffic_out_bytes[c] == one.traffic_out_bytes
            assert swept.group_s[m, c].sum() == pytest.approx(one.schedule.end[-1])
            assert swept.utilisation[m, c] == pytest.approx(one.utilisation)
            assert swept.active_time[m, c] == pytest.approx(one.active_time)


def test_refuses():
    # Rows are whole here: step b back holds G:b, A:r, G:r (16 + 32 + 32) and 128 of W:b;
    # step a back G:a, input and D:a of 256: 320, the most.
    program = training_iteration(chain())
    assert memory.smallest_capacity(program) == (320, 0)
    with pytest.raises(ValueError, match=r"20 bytes too small: step 0 \(a\).*320"):
        run(300)
    for field in ("bandwidth", "throughput"):
        for value in (0.0, -1.0, float("nan")):
            with pytest.raises(ValueError, match=field):
                run(400, **{field: value})
    with pytest.raises(ValueError, match="capacity_bytes"):
        run(0)
    spec = memory.SYSTEMS["A100"]
    with pytest.raises(ValueError, match="batch_size"):
        simulate(spec, program, batch_size=0)
    with pytest.raises(ValueError, match="replacement.*'fifo'"):
        Policy(replacement="fifo")
    with pytest.raises(ValueError, match="value_bits"):
        dataclasses.replace(spec, value_bits=4).checked()
    with pytest.raises(ValueError, match="must be a `Policy`"):
        simulate(spec, program, policy="lru")  # pyright: ignore
    with pytest.raises(ValueError, match="whole bytes"):
        sweep([spec], program, np.array([1000.5]))
    with pytest.raises(ValueError, match="at least one"):
        sweep([spec], program, np.array([]))
    mixed = [spec, memory.SYSTEMS["TPU v5e"]]
    with pytest.raises(ValueError, match="value_bits"):
        sweep(mixed, program, np.array([1000]))


@pytest.mark.parametrize(
    "changes",
    [
        *({"capacity_bytes": value} for value in (1e30, 2.0**63, "1 GB", None, True)),
        {"capacity_bytes": np.array([1e6, 2e6])},
        *({"bandwidth_bytes_per_s": value} for value in (1e-300, 1e300, "fast")),
        {"throughput_ops_per_s": 1e-40},  # float32 has it, but XLA makes it 0
        *({"value_bits": value} for value in (None, "32", 32.0, np.array([8, 16]))),
    ],
)
def test_refuses_what_is_no_amount_that_it_can_count(changes):
    (field,) = changes
    spec = dataclasses.replace(memory.SYSTEMS["A100"], **changes)
    program = training_iteration(chain())
    with pytest.raises(ValueError, match=rf"`(spec\.)?{field}`"):
        simulate(spec, program)
    if field != "capacity_bytes":  # of which a sweep has its own
        with pytest.raises(ValueError, match=rf"`(spec\.)?{field}`"):
            sweep([spec], program, np.array([1000]))


def test_the_largest_cache_is_an_endless_one():
    assert run(2.0**62).total_s == run(10**9).total_s == run(368).total_s


@pytest.mark.parametrize("batch_size", ["32", None, True, np.array([3]), float("nan")])
def test_refuses_what_is_no_batch(batch_size):
    program = training_iteration(chain())
    with pytest.raises(ValueError, match="`batch_size` must be a whole number"):
        simulate(memory.SYSTEMS["A100"], program, batch_size=batch_size)


@pytest.mark.parametrize("capacities", [[1e30], [-1], ["1 MB"], None, 1e6, [[1e6]]])
def test_refuses_what_are_no_capacities(capacities):
    with pytest.raises(ValueError, match="`capacit"):
        sweep([memory.SYSTEMS["A100"]], training_iteration(chain()), capacities)


@pytest.mark.parametrize("mebibytes", [[1e30], [-1.0], ["24"], float("nan")])
def test_refuses_what_are_no_mebibytes(mebibytes):
    with pytest.raises(ValueError, match=r"`mebibytes` must be numbers in 0\.\.2"):
        memory.capacities(mebibytes)


def test_what_is_no_iteration_or_no_machine_says_how_to_make_one():
    spec, ops = memory.SYSTEMS["A100"], chain()
    program = training_iteration(ops)
    for call in (
        lambda: simulate(spec, ops),  # pyright: ignore
        lambda: sweep([spec], ops, np.array([1000])),  # pyright: ignore
        lambda: memory.smallest_capacity(ops),  # pyright: ignore
    ):
        with pytest.raises(
            TypeError, match=r"got Workload; .*training_iteration\(ops\)"
        ):
            call()
    with pytest.raises(TypeError, match=r"got Chip; take one of `memory\.SYSTEMS`"):
        simulate(chips.by_name("memory:A100"), program)  # pyright: ignore
    with pytest.raises(TypeError, match="put it in brackets"):
        sweep(spec, program, np.array([1000]))  # pyright: ignore


def test_a_memory_that_is_not_there_is_answered_with_the_nearest():
    with pytest.raises(KeyError, match="no 'rtx 2080'; did you mean `RTX 2080 Ti`?"):
        memory.SYSTEMS["rtx 2080"]
    with pytest.raises(KeyError, match="no 'abacus'; there are `i9-10980XE`, `RTX"):
        memory.SYSTEMS["abacus"]
    with pytest.raises(ValueError, match="did you mean `memory:H100`"):
        chips.by_name("memory:h100")
    with pytest.raises(KeyError, match="did you mean `Titan Xp`"):
        roofline.GPUS["titan"]


def test_compiled_without_a_folder_for_its_cache(monkeypatch):
    def no_folder(*args, **kwargs):
        if kwargs.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return njit(*args, **kwargs)

    njit = numba.njit
    monkeypatch.setattr(numba, "njit", no_folder)
    assert compiled(lambda x: x + 1)(2) == 3


@pytest.mark.parametrize("kind", [int, np.int32, jnp.int32, float])
def test_a_batch_of_any_integer_type_is_counted_exactly(kind):
    # 2^20 MACs an example: 4096 of them overflow 32 bits.
    ops, sizes = [dense("a", -1, 1024, 1024)], {"a": 2**20}
    program = training_iteration(build(ops, inputs=[(1024,)], parameters=sizes))
    spec = memory.SYSTEMS["A100"]
    run = simulate(spec, program, batch_size=kind(4096))
    assert run.total_s == simulate(spec, program, batch_size=4096).total_s
    assert run.compute_s.min() == 4096 * 2**20 / float(spec.throughput_ops_per_s)
    with pytest.raises(ValueError, match="`batch_size` must be a whole number"):
        simulate(spec, program, batch_size=2.5)
