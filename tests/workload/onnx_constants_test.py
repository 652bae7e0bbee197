"""Constants, broadcasting, what is fixed, and real files that hold all of it."""

import importlib.util
import pathlib

import numpy as np
import pytest

from codesign.workload import onnx as importer
from codesign.workload.iteration import training_iteration

onnx = pytest.importorskip("onnx")
from tests.workload.data.onnx_models import build, ints, node, weight  # noqa: E402


def _array(name, values, kind=np.float32):
    return onnx.numpy_helper.from_array(np.asarray(values, kind), name)


@pytest.mark.parametrize("is_node", [True, False])
@pytest.mark.parametrize(
    ("scales", "sizes"), [([1, 1, 2, 2], None), ([], [1, 8, 16, 16])]
)
def test_empty_constants(is_node, scales, sizes):
    # As PyTorch and Paddle write Resize: an empty `roi`, or empty `scales` with `sizes`.
    held = [_array("roi", []), _array("scales", scales)]
    inputs = ["c", "roi", "scales"]
    if sizes:
        held.append(ints("sizes", *sizes))
        inputs.append("sizes")
    nodes = [node("Conv", "x k", "c", pads=[1] * 4)]
    if is_node:
        nodes += [node("Constant", "", t.name, value=t) for t in held]
    nodes.append(onnx.helper.make_node("Resize", inputs, ["y"]))
    weights = [weight("k", 8, 3, 3, 3), *([] if is_node else held)]
    ops = importer.from_model(build(nodes, weights, opset=13))
    assert ops.output_shapes == ((8, 8, 8), (16, 16, 8))
    assert ops.total_macs == 64 * 216


def test_one_hot_spreads_over_more_than_it_reads():
    nodes = [
        *(node("Unsqueeze", "x axis", "u"), node("Equal", "u range", "q")),
        *(node("Cast", "q", "f", to=1), node("MatMul", "f w", "y")),
    ]
    weights = [ints("axis", 2), _array("range", np.arange(7)), weight("w", 7, 4)]
    ops = importer.from_model(build(nodes, weights, [("x", ("N", 5))]))
    assert ops.output_shapes == ((5, 7), (5, 4))
    assert ops.total_macs == 5 * 7 * 4


@pytest.mark.parametrize(
    "op", ["Less", "Greater", "Max", "Min", "Pow", "Add", "Mul", "Mod"]
)
def test_maps_that_spread_over_each_other(op):
    settings = {"fmod": 1} if op == "Mod" else {}
    nodes = [node(op, "a b", "c", **settings), node("Cast", "c", "y", to=1)]
    given = [("a", ("N", 5, 1)), ("b", ("N", 1, 7))]
    ops = importer.from_model(build(nodes, inputs=given))
    assert (ops.num_ops, ops.output_shapes) == (1, ((5, 7),))
    assert ops.ops[0].operands == (-1, -2)


def test_masks_that_spread_over_each_other():
    # A mask of the keys and a causal one: 6 x 6 of 6 and 36, then scores or -1e9.
    nodes = [
        *(node("MatMul", "x w", "s"), node("Cast", "m", "b", to=9)),
        *(node("Unsqueeze", "b axis", "u"), node("And", "u causal", "a")),
        node("Where", "a s low", "y"),
    ]
    causal = _array("causal", np.tril(np.ones((1, 6, 6))), bool)
    weights = [weight("w", 6, 6), ints("axis", 1), causal, _array("low", -1e9)]
    ops = importer.from_model(
        build(nodes, weights, [("x", ("N", 6, 6)), ("m", ("N", 6))])
    )
    assert ops.output_shapes == ((6, 6),) * 3
    assert ops.total_macs == 216
    assert set(ops.ops[2].operands) == {0, 1}


def test_constants_that_take_only_a_type_or_shape_from_data():
    nodes = [
        *(node("MatMul", "x w", "h"), node("CastLike", "c h", "like")),
        *(
            node("Add", "h like", "a"),
            node("EyeLike", "a", "e"),
            node("Mul", "a e", "y"),
        ),
    ]
    tensors = [weight("w", 8, 8), weight("c", 1, 8)]
    model = build(nodes, tensors, [("x", (1, 8))])
    ops = importer.from_model(model)
    assert [(op.kind, op.operands) for op in ops.ops] == [
        ("dense", (-1,)),
        ("mul", (0,)),
    ]
    assert dict(ops.graph.parameters)["MatMul_0"] == 64 + 8  # the bias
    tensors[1] = _array("c", 2.0)
    ops = importer.from_model(build(nodes[:3], tensors, [("x", (1, 8))], ["a"]))
    assert [(op.kind, op.operands) for op in ops.ops] == [
        *(("dense", (-1,)), ("elementwise", (0,))),
    ]


def test_dimensions():
    nodes = [node("Conv", "x k", "y", pads=[1] * 4)]
    model = build(nodes, [weight("k", 8, 3, 3, 3)], [("x", ("N", 3, "?", "?"))])
    assert importer.from_model(model, {"?": 48}).graph.inputs == ((48, 48, 3),)
    ops = importer.from_model(model, {"x": (1, 3, 48, 192)})
    assert ops.graph.inputs == ((48, 192, 3),)

    def refuses(message, dimensions):
        with pytest.raises(ValueError, match=message):
            importer.from_model(model, dimensions)

    refuses(r"Axis 2.*dimensions=\{'x': \(1, 3, 224, 224\)\}", {})
    refuses(r"'hieght': 7\) must name.*\['\?', 'N'\].*\['x'\]", {"?": 48, "hieght": 7})
    refuses(r"must fit the shape \('N', 3, '\?', '\?'\)", {"x": (1, 4, 48, 192)})
    refuses(r"must fit the shape", {"x": (1, 3, 48)})
    refuses(r"whole sizes from 1 to 2\^40", {"?": 0})
    refuses(r"whole sizes from 1 to 2\^40", {"x": (1, 3, 48.0, 192)})


def _normalised(*, batch_norm=False):
    """(x - mean) / std, and the first convolution of a ResNet."""
    nodes = [node("Sub", "x mean", "c", "centre"), node("Div", "c std", "n", "scale")]
    if batch_norm:
        norm = node("BatchNormalization", "x std mean mean std", "n", "norm")
        nodes = [norm]
    conv = dict(pads=(2, 2, 3, 3), strides=(2, 2))
    nodes.append(node("Conv", "n k", "y", "stem", **conv))
    shape = (3,) if batch_norm else (3, 1, 1)
    weights = [weight("mean", *shape), weight("std", *shape), weight("k", 64, 3, 7, 7)]
    return build(nodes, weights, [("x", ("N", 3, 224, 224))])


@pytest.mark.parametrize("batch_norm", [True, False])
def test_what_normalises_an_input_is_fixed(batch_norm):
    model = _normalised(batch_norm=batch_norm)
    macs = 112**2 * 49 * 3 * 64  # 118,013,952
    for train_constants, products in ((False, 1), (True, 2)):
        ops = importer.from_model(model, train_constants=train_constants)
        program = training_iteration(ops)
        back = dict(zip(program.step_names, program.operations.tolist(), strict=True))
        assert ops.total_macs == macs
        assert back["stem back"] == products * macs
        gradients = [name for name in program.tensors if name[0] == "D"]
        assert (gradients == ["D:stem"]) != train_constants
        held = sum(name[0] == "W" for name in program.tensors)
        assert held == len(ops.graph.parameters) + len(ops.graph.constants)
        assert (len(ops.graph.parameters) == 1) != train_constants


def test_what_later_layers_read_is_trained():
    # A scale before the first product that scales its result as well; positions behind
    # an embedding; a branch of the input around the first layer.
    nodes = [
        *(node("Mul", "x s", "a"), node("MatMul", "a w", "b"), node("Mul", "b s", "y")),
    ]
    ops = importer.from_model(
        build(nodes, [weight("s", 4), weight("w", 4, 4)], [("x", ("N", 4))])
    )
    assert [op.fixed for op in ops.ops] == [()] * 3
    nodes = [
        *(node("Cast", "x", "i", to=7), node("Gather", "e i", "a")),
        *(node("Add", "a p", "b"), node("MatMul", "b w", "y")),
    ]
    weights = [weight("e", 9, 4), weight("p", 5, 4), weight("w", 4, 4)]
    ops = importer.from_model(build(nodes, weights, [("x", ("N", 5))]))
    assert [op.fixed for op in ops.ops] == [()] * 3
    nodes = [
        *(node("Mul", "x s", "a"), node("MatMul", "a w", "b")),
        *(node("Add", "a b", "c"), node("Mul", "c t", "y")),
    ]
    weights = [weight("s", 4), weight("t", 4), weight("w", 4, 4)]
    ops = importer.from_model(build(nodes, weights, [("x", ("N", 4))]))
    assert [bool(op.fixed) for op in ops.ops] == [True, False, False, False]


@pytest.mark.parametrize(
    ("package", "file", "shape", "macs"),
    [
        # Counted from the shapes of every product's operands in onnxruntime 1.32.
        (
            "rapidocr_onnxruntime",
            "models/ch_PP-OCRv4_det_infer.onnx",
            (1, 3, 640, 640),
            2_301_935_744,
        ),
        (
            "rapidocr_onnxruntime",
            "models/ch_PP-OCRv4_rec_infer.onnx",
            (1, 3, 48, 320),
            702_469_440,
        ),
        (
            "rapidocr_onnxruntime",
            "models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
            (1, 3, 48, 192),
            16_315_376,
        ),
        ("magika", "models/standard_v3_3/model.onnx", (1, 2048), 366_717_952),
    ],
)
def test_files_of_packages(package, file, shape, macs):
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        pytest.skip(f"{package} is not installed")
    path = pathlib.Path(found.origin).parent / file
    name = "bytes" if package == "magika" else "x"
    assert importer.from_file(path, {name: shape}).total_macs == macs
