import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings

from codesign.workload.graph import Op, build
from codesign.workload.iteration import execution_order, training_iteration
from tests.workload.graphs import chain, dense, point, workloads


def steps(program):
    """(op, reads, writes, operations) of every step, by name."""
    found = []
    for s, (first, stop) in enumerate(
        zip(program.first[:-1], program.first[1:], strict=True)
    ):
        touched = [program.tensors[t] for t in program.touched[first:stop]]
        reads = {
            t for t, r in zip(touched, program.reads[first:stop], strict=True) if r
        }
        writes = {
            t for t, w in zip(touched, program.writes[first:stop], strict=True) if w
        }
        found.append((program.step_names[s], reads, writes, int(program.operations[s])))
    return found


def test_a_chain_by_the_rules():
    # The first layer reads no W backward: the input needs no gradient, so it also runs
    # one product and not two. ReLU reads its output Y.
    assert steps(training_iteration(chain())) == [
        ("a", {"A:input_0", "W:a"}, {"A:a"}, 64),
        ("r", {"A:a"}, {"A:r"}, 8),
        ("b", {"A:r", "W:b"}, {"A:b"}, 32),
        ("b back", {"G:b", "A:r", "W:b"}, {"G:r", "D:b"}, 64),
        ("r back", {"G:r", "A:r"}, {"G:a"}, 8),
        ("a back", {"G:a", "A:input_0"}, {"D:a"}, 64),
    ]


def test_what_is_in_memory_at_the_start():
    program = training_iteration(chain())
    there = {t for t, m in zip(program.tensors, program.in_memory, strict=True) if m}
    assert there == {"A:input_0", "W:a", "W:b", "G:b"}  # G:b is the loss gradient
    sizes = dict(zip(program.tensors, program.sizes(10), strict=True))
    assert sizes["A:r"] == 8 * 10 * 4
    assert sizes["W:a"] == sizes["D:a"] == 64 * 4  # whatever the batch
    assert dict(zip(program.tensors, program.sizes(10, 2), strict=True))["A:r"] == 160


def test_a_fork_accumulates_and_a_join_copies():
    # p -> q -> r, and q + r: backward, the add writes G:q first; r's product then reads
    # what is there and adds to it.
    ops = [
        dense("p", -1, 4, 4),
        point("q", "activation", (0,), 4, "relu"),
        dense("r", 1, 4, 4),
        point("s", "add", (1, 2), 4),
    ]
    program = training_iteration(
        build(ops, inputs=[(4,)], parameters={"p": 16, "r": 16})
    )
    back = steps(program)[4:]
    assert back[0] == ("s back", {"G:s"}, {"G:q", "G:r"}, 4)
    assert back[1] == (
        "r back",
        {"G:r", "A:q", "W:r", "G:q"},
        {"G:q", "D:r"},
        32,
    )


def test_a_shared_weight_accumulates_its_gradient():
    ops = [dense("a", -1, 4, 4, "shared"), dense("b", 0, 4, 4, "shared")]
    program = training_iteration(build(ops, inputs=[(4,)], parameters={"shared": 16}))
    assert program.tensors.count("W:shared") == program.tensors.count("D:shared") == 1
    back = steps(program)[2:]
    assert back[0] == (
        "b back",
        {"G:b", "A:a", "W:shared"},
        {"G:a", "D:shared"},
        32,
    )
    assert back[1] == ("a back", {"G:a", "A:input_0", "D:shared"}, {"D:shared"}, 16)


@pytest.mark.parametrize(
    ("kind", "variant", "reads"),
    [
        ("activation", "relu", {"A:op"}),
        ("activation", "sigmoid", {"A:op"}),
        ("activation", "tanh", {"A:op"}),
        ("activation", "gelu", {"A:a"}),  # its slope needs the input
        ("softmax", "", {"A:op"}),
        ("dropout", "", {"A:op"}),
        ("pool", "max", {"A:a", "A:op"}),
        ("pool", "average", set()),
        ("pool", "global_average", set()),
        ("concat", "", set()),
        ("resize", "nearest", set()),
        ("elementwise", "", {"A:a"}),
    ],
)
def test_what_a_backward_step_reads(kind, variant, reads):
    ops = [dense("a", -1, 4, 4), point("op", kind, (0,), 4, variant)]
    program = training_iteration(build(ops, inputs=[(4,)], parameters={"a": 16}))
    assert steps(program)[2][1] == {"G:op"} | reads


def test_products_of_maps_read_both_and_run_two_products():
    ops = [
        dense("a", -1, 4, 4),
        dense("b", -1, 4, 4),
        Op(name="m", kind="matmul", operands=(0, 1), output_shape=(4,), macs=16),
        point("n", "mul", (2, 0), 4),
    ]
    program = training_iteration(
        build(ops, inputs=[(4,)], parameters={"a": 16, "b": 16})
    )
    back = {name: rest for name, *rest in steps(program)[4:]}
    assert back["n back"] == [{"G:n", "A:m", "A:a"}, {"G:m", "G:a"}, 4]
    assert back["m back"] == [{"G:m", "A:a", "A:b", "G:a"}, {"G:a", "G:b"}, 32]


def test_windows_count_as_operations():
    # Max pool: k k for each of 4 outputs. Global average pool: each of 16 inputs once.
    conv = Op(
        name="c",
        kind="conv",
        operands=(-1,),
        input_shape=(4, 4, 1),
        output_shape=(4, 4, 1),
        weight_shape=(1, 1, 1, 1),
        parameters=("c",),
        macs=16,
    )
    pool = Op(
        name="max",
        kind="pool",
        variant="max",
        window=4,
        operands=(0,),
        input_shape=(4, 4, 1),
        output_shape=(2, 2, 1),
    )
    mean = Op(
        name="mean",
        kind="pool",
        variant="global_average",
        window=16,
        operands=(0,),
        input_shape=(4, 4, 1),
        output_shape=(1,),
    )
    program = training_iteration(
        build([conv, pool, mean], inputs=[(4, 4, 1)], parameters={"c": 1})
    )
    assert program.operations.tolist() == [16, 16, 16, 16, 16, 16]
    assert program.is_type_ii.tolist() == [False, True, True, True, True, False]


def test_order_is_depth_first_and_joins_wait():
    # input -> a -> b -> join, input -> c -> join; another input -> d.
    ops = [
        dense("a", -1, 4, 4),
        dense("c", -1, 4, 4),
        dense("d", -2, 4, 4),
        dense("b", 0, 4, 4),
        point("join", "add", (3, 1), 4),
        point("last", "activation", (4,), 4, "relu"),
    ]
    workload = build(ops, inputs=[(4,), (4,)], parameters=dict.fromkeys("abcd", 16))
    names = [ops[i].name for i in execution_order(workload)]
    assert names == ["a", "b", "c", "join", "last", "d"]


def test_a_recurrent_net_runs_time_step_by_time_step():
    # Two layers over three steps: h[l, t] needs h[l - 1, t] and h[l, t - 1]. Depth first
    # from each input goes up through the layers before the next time step starts; the
    # initial states, which read nothing, are there from the beginning.
    ops, index = [], {}
    for layer in range(2):
        ops.append(point(f"state{layer}", "slice", (), 4, "state"))
        index[layer, -1] = len(ops) - 1
        for t in range(3):
            below = -1 - t if layer == 0 else index[layer - 1, t]
            ops.append(
                point(f"cat{layer}{t}", "concat", (below, index[layer, t - 1]), 8)
            )
            ops.append(dense(f"h{layer}{t}", len(ops) - 1, 8, 4, f"w{layer}"))
            index[layer, t] = len(ops) - 1
    workload = build(ops, inputs=[(4,)] * 3, parameters={"w0": 32, "w1": 32})
    names = [ops[i].name for i in execution_order(workload) if ops[i].kind == "dense"]
    assert names == ["h00", "h10", "h01", "h11", "h02", "h12"]


@settings(max_examples=100, deadline=None)
@given(workload=workloads())
def test_nothing_is_read_before_it_is_written(workload):
    program = training_iteration(workload)
    assert sorted(execution_order(workload)) == list(range(workload.num_ops))
    exists = {t for t in range(program.num_tensors) if program.in_memory[t]}
    for first, stop in zip(program.first[:-1], program.first[1:], strict=True):
        touched = program.touched[first:stop]
        assert len(set(touched)) == len(touched)
        assert set(touched[program.reads[first:stop]]) <= exists
        exists |= set(touched[program.writes[first:stop]])
    forward = int((~program.is_backward).sum())
    assert forward == workload.num_ops
    written = {program.tensors[t] for t in exists}
    assert {f"D:{name}" for name, _ in workload.graph.parameters} <= written
    macs = program.operations[:forward][~program.is_type_ii[:forward]].sum()
    assert macs == workload.total_macs


def test_no_gradient_flows_to_what_is_read_as_a_constant():
    # head(stop_gradient(relu(a(x)))): only the head is trained, and writes no G.
    ops = [
        dense("a", -1, 4, 4),
        point("r", "activation", (0,), 4, "relu"),
        dataclasses.replace(dense("head", 1, 4, 2), detached=(1,)),
    ]
    program = training_iteration(
        build(ops, inputs=[(4,)], parameters={"a": 16, "head": 8})
    )
    assert steps(program)[3:] == [
        ("head back", {"G:head", "A:r"}, {"D:head"}, 8),
    ]


def test_a_product_with_a_weight_is_expanded_as_a_dense():
    op = Op(
        name="experts",
        kind="matmul",
        operands=(0,),
        output_shape=(4,),
        macs=16,
        parameters=("experts",),
    )
    program = training_iteration(
        build(
            [dense("a", -1, 4, 4), op],
            inputs=[(4,)],
            parameters={"a": 16, "experts": 16},
        )
    )
    assert steps(program)[2] == (
        "experts back",
        {"G:experts", "A:a", "W:experts"},
        {"G:a", "D:experts"},
        32,
    )


def test_a_weight_that_is_a_constant_has_no_gradient():
    # x @ stop_gradient(a), then relu, then b: no step goes back behind b.
    fixed = dataclasses.replace(dense("a", -1, 4, 4), fixed=("a",))
    ops = [fixed, point("r", "activation", (0,), 4, "relu"), dense("b", 1, 4, 2)]
    program = training_iteration(
        build(ops, inputs=[(4,)], parameters={"a": 16, "b": 8})
    )
    assert steps(program)[3:] == [("b back", {"G:b", "A:r"}, {"D:b"}, 8)]
    # Behind a trained one it passes the gradient on: one product, W and no D.
    ops = [dense("b", -1, 4, 4), dataclasses.replace(dense("a", 0, 4, 2), fixed=("a",))]
    program = training_iteration(
        build(ops, inputs=[(4,)], parameters={"a": 8, "b": 16})
    )
    name, reads, writes, count = steps(program)[2]
    assert {"G:a", "W:a"} <= reads
    assert (name, writes, count) == ("a back", {"G:b"}, 8)


def test_a_product_of_a_map_with_an_input_runs_one_product_back():
    ops = [
        dense("a", -1, 4, 4),
        Op(name="m", kind="matmul", operands=(0, -2), output_shape=(4,), macs=16),
    ]
    program = training_iteration(build(ops, inputs=[(4,), (4,)], parameters={"a": 16}))
    assert steps(program)[2][3] == 16


def test_an_op_may_be_called_as_an_input_is():
    ops = [dense("input_0", -1, 4, 4)]
    program = training_iteration(build(ops, inputs=[(4,)], parameters={"input_0": 16}))
    assert program.roles.count("A") == 2


def test_refuses():
    op = dataclasses.replace(dense("cell", -1, 4, 4), repeats=3)
    looped = build([op], inputs=[(4,)], parameters={"cell": 16})
    with pytest.raises(ValueError, match="'cell'.*3 times.*unroll_scans=True"):
        training_iteration(looped)
    for ops, parameters in (
        ([point("r", "activation", (-1,), 4, "relu")], {}),
        ([dataclasses.replace(dense("a", -1, 4, 4), fixed=("a",))], {"a": 16}),
    ):
        with pytest.raises(ValueError, match="no parameters that are trained"):
            training_iteration(build(ops, inputs=[(4,)], parameters=parameters))
    with pytest.raises(ValueError, match="constants.*among its parameters"):
        build([dataclasses.replace(dense("a", -1, 4, 4), fixed=("b",))],
              inputs=[(4,)], parameters={"a": 16})  # fmt: skip
    program = training_iteration(chain())
    for batch_size in (0, -1, 1.5, float("nan"), float("inf"), 10**16):
        with pytest.raises(ValueError, match="batch_size"):
            program.sizes(batch_size)
    with pytest.raises(ValueError, match="value_bytes"):
        program.sizes(1, 0)


def test_a_graph_must_fit_together():
    relu = point("r", "activation", (1,), 4, "relu")
    with pytest.raises(ValueError, match="cycle: 'r' -> 'a' -> 'r'|'a' -> 'r' -> 'a'"):
        build([dense("a", 1, 4, 4), dataclasses.replace(relu, operands=(0,))],
              inputs=[(4,)], parameters={"a": 16})  # fmt: skip
    with pytest.raises(ValueError, match="'a' stands before 'r'"):
        build([dense("a", 1, 4, 4), point("r", "activation", (-1,), 4)],
              inputs=[(4,)], parameters={"a": 16})  # fmt: skip
    with pytest.raises(ValueError, match="operand 7"):
        build([point("r", "activation", (7,), 4)], inputs=[(4,)])
    with pytest.raises(ValueError, match="kind must be one of"):
        build([point("r", "convolve", (-1,), 4)], inputs=[(4,)])
    with pytest.raises(ValueError, match="shapes must agree"):
        build([point("r", "activation", (-1,), 5)], inputs=[(4,)])
    with pytest.raises(ValueError, match="does not hold"):
        build([dense("a", -1, 5, 4)], inputs=[(4,)], parameters={"a": 20})
    with pytest.raises(ValueError, match="needs a whole size"):
        build([dense("a", -1, 4, 4)], inputs=[(4,)])
    with pytest.raises(ValueError, match="does not spread"):
        build([point("s", "add", (-1, -2), 4)], inputs=[(4,), (3,)])
    with pytest.raises(ValueError, match="do not fit into"):
        build([point("c", "concat", (-1, -2), 6)], inputs=[(4,), (3,)])
    with pytest.raises(ValueError, match="Two ops are called 'a'"):
        build([dense("a", -1, 4, 4), dense("a", 0, 4, 4)],
              inputs=[(4,)], parameters={"a": 16})  # fmt: skip
    with pytest.raises(ValueError, match="MACs"):
        build([dataclasses.replace(dense("a", -1, 4, 4), macs=-5)],
              inputs=[(4,)], parameters={"a": 16})  # fmt: skip
    with pytest.raises(ValueError, match="whole size"):
        build([dense("a", -1, 4, 4)], inputs=[(4,)], parameters={"a": 16.5})
    with pytest.raises(ValueError, match="names op 5"):
        build([dense("a", -1, 4, 4)], inputs=[(4,)], outputs=[5],
              parameters={"a": 16})  # fmt: skip
    with pytest.raises(ValueError, match="constants.*among its operands"):
        build([dataclasses.replace(dense("a", -1, 4, 4), detached=(-2,))],
              inputs=[(4,)], parameters={"a": 16})  # fmt: skip
    with pytest.raises(ValueError, match="`inputs`.*must be positive"):
        build([point("z", "activation", (-1,), 4)], inputs=[(0,)])
    with pytest.raises(ValueError, match="must be positive"):
        build([point("z", "activation", (-1,), 0)], inputs=[(4,)])


def test_operations_are_exact_integers():
    program = training_iteration(chain())
    assert program.operations.dtype == np.int64
