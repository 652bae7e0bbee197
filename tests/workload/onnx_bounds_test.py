"""Files of strangers: what is too large or damaged is refused before it is expanded."""

import os
import resource
import time

import numpy as np
import pytest

from codesign.workload import onnx as importer

onnx = pytest.importorskip("onnx")
from tests.workload.data.onnx_models import (  # noqa: E402
    build,
    functions,
    ints,
    node,
    weight,
)

_X = [("x", (1, 4))]
_RELU = node("Relu", "x", "r")


def _external(name, *dims):
    tensor = onnx.TensorProto(name=name, dims=dims, data_type=onnx.TensorProto.INT64)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="numbers.bin")
    return tensor


def _reshaped(*nodes, weights=()):
    """A network whose last shape is the value `s` that `nodes` make."""
    return build([_RELU, *nodes, node("Reshape", "r s", "y", "last")], weights, _X)


def _doubled(times):
    nodes = [node("Concat", f"k{i} k{i}", f"k{i + 1}", axis=0) for i in range(times)]
    return _reshaped(
        *nodes, node("Identity", f"k{times}", "s"), weights=[ints("k0", 1)]
    )


def _one_axis_each():
    """Constants of 1024 x 1 x 1, 1 x 1024 x 1 and 1 x 1 x 1024."""
    shapes = np.where(np.eye(3, dtype=bool), 1024, 1)
    return [
        onnx.numpy_helper.from_array(np.ones(s, np.int64), f"p{s.argmax()}")
        for s in shapes
    ]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: _doubled(30), r"'last'.*'s' of \(1073741824,\).*32 axes"),
        (lambda: _doubled(60), r"'Concat_41'.*2\^40"),
        (
            lambda: _reshaped(
                node("ConstantOfShape", "n", "s"), weights=[ints("n", 10**9)]
            ),
            r"'last'.*'s' of \(1000000000,\)",
        ),
        (
            lambda: _reshaped(
                node("Tile", "k n", "s"), weights=[ints("k", 1), ints("n", 10**9)]
            ),
            r"'last'.*'s' of \(1000000000,\)",
        ),
        (
            lambda: _reshaped(
                node("Max", "p0 p1 p2", "big"),
                node("Reshape", "big flat", "s"),
                weights=[*_one_axis_each(), ints("flat", -1)],
            ),
            r"'last'.*'s' of \(1073741824,\)",
        ),
        (
            lambda: build(
                [node("Expand", "x n", "y")], [ints("n", 2**30, 2**30, 4)], _X
            ),
            r"'Expand_0'.*2\^40",
        ),
        (
            lambda: build([node("Unsqueeze", "x n", "y")], [ints("n", *range(99))], _X),
            "101 axes; it may have",
        ),
        (
            lambda: build([node("Split", "x", "y", "cut", num_outputs=10**9)], (), _X),
            "'cut'.*1 outputs.*1000000000",
        ),
        (lambda: build([node("Relu", "x", "y")], (), [("x", (1, 2**62, 4))]), r"2\^40"),
        (
            lambda: build(
                [node("Relu", f"a{i}", f"a{i + 1}") for i in range(20_000)],
                inputs=[("a0", (1, 4))],
                outputs=["a20000"],
            ),
            "20000 nodes.*at most 16384",
        ),
        (lambda: functions(40), "549755813888 nodes"),
        (
            lambda: _reshaped(weights=[_external("s", 2)]),
            "'y'.*no external data is read",
        ),
        (lambda: _reshaped(weights=[_external("s", 2**39)]), "'last'.*32 axes"),
        (
            lambda: _reshaped(
                node("ConstantOfShape", "n", "s", "fill", value=_external("", 1)),
                weights=[ints("n", 2)],
            ),
            "'fill'.*another file, which is never read",
        ),
    ],
)
def test_bombs(make, message):
    model, start = make(), time.process_time()
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=message):
        importer.from_model(model)
    assert time.process_time() - start < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - most < 2**18  # kB


def test_types_that_an_operator_does_not_take():
    model = build([node("Relu", "x", "r"), node("Softmax", "r", "y", "last")], (), _X)
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT32
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT32
    with pytest.raises(ValueError, match="invalid: the node 'last'.*unsupported type"):
        importer.from_model(model)


def test_large_constants_that_nobody_needs():
    # 1024^3 numbers, as 18 kB: no op, and not computed.
    nodes = [node("Max", "p0 p1 p2", "big"), node("Relu", "x", "y")]
    assert importer.from_model(build(nodes, _one_axis_each(), _X)).num_ops == 1


def test_many_nodes_of_one_name_and_one_weight():
    nodes = [node("Gemm", f"a{i} w", f"a{i + 1}", "same") for i in range(4000)]
    start = time.process_time()
    model = build(nodes, [weight("w", 4, 4)], [("a0", (1, 4))], ["a4000"])
    ops = importer.from_model(model)
    assert ops.names[::3999] == ("same", "same_4000")
    assert ops.graph.parameters == (("same", 16),)
    assert time.process_time() - start < 5


def test_functions():
    assert importer.from_model(functions(4)).kinds == ("activation",) * 8
    model = functions(2)
    model.functions[0].node[0].op_type, model.functions[0].node[0].domain = "F1", "own"
    with pytest.raises(ValueError, match="'F1' -> 'F0' -> 'F1'|'F0' -> 'F1' -> 'F0'"):
        importer.from_model(model)


def test_external_numbers_are_never_opened(tmp_path, monkeypatch):
    # In the current folder there is a file of that name, and it says 3 x 4.
    (tmp_path / "numbers.bin").write_bytes(np.array([3, 4], np.int64).tobytes())
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.onnx"
    nodes = [
        *(_RELU, node("Constant", "", "c", value=_external("c", 2))),
        *(node("Max", "c k", "s"), node("Reshape", "r s", "y")),
    ]
    path.write_bytes(
        build(nodes, [ints("k", 1, 1)], [("x", (1, 12))]).SerializeToString()
    )
    with pytest.raises(ValueError, match="model.onnx.*'y'.*no external data is read"):
        importer.from_file(path)


@pytest.mark.parametrize("name", ["NODENAME", "bias", "Gemm"])
def test_names_that_are_no_text(tmp_path, name):
    nodes, weights = [node("Gemm", "x w bias", "y", "NODENAME")], [weight("w", 4, 6)]
    model = build(nodes, [*weights, weight("bias", 6)], _X)
    path = tmp_path / "model.onnx"
    damaged = name.encode()[:-1] + b"\xff"
    path.write_bytes(model.SerializeToString().replace(name.encode(), damaged))
    with pytest.raises(ValueError, match=r"model.onnx.*no UTF-8"):
        importer.from_file(path)


@pytest.mark.parametrize("as_raw", [True, False])
@pytest.mark.parametrize("dims", [(10**9,), (-1,), (2**62, 4), (5,), ()])
def test_dims_are_held_against_bytes(dims, as_raw):
    bias = weight("bias", 6)
    if not as_raw:
        bias.ClearField("raw_data")
        bias.float_data.extend([0] * 6)
    del bias.dims[:]
    bias.dims.extend(dims)
    model = build([node("Gemm", "x w bias", "y")], [weight("w", 4, 6), bias], _X)
    with pytest.raises(ValueError, match="'bias'.*dims"):
        importer.from_model(model)


@pytest.mark.parametrize(
    "kind",
    ["INT4", "UINT4", "BOOL", "FLOAT16", "BFLOAT16", "FLOAT8E4M3FN", "COMPLEX64"],
)
@pytest.mark.parametrize("raw", [True, False])
def test_bytes_of_narrow_and_wide_numbers(kind, raw):
    kind = onnx.TensorProto.DataType.Value(kind)
    kinds = onnx.helper.tensor_dtype_to_np_dtype(kind)
    array = np.ones(5, kinds)
    tensor = onnx.numpy_helper.from_array(array, "t")
    if not raw:
        tensor = onnx.helper.make_tensor("t", kind, (5,), array)
    ops = importer.from_model(build([node("Relu", "x", "y")], [tensor], _X))
    assert ops.num_ops == 1


def test_files_that_never_end(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/zero", tmp_path / "pipe"):
        with pytest.raises(ValueError, match="no regular file"):
            importer.from_file(path)
