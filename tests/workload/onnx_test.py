import pathlib

import numpy as np
import pytest

from codesign.workload import onnx as importer

onnx = pytest.importorskip("onnx")
from tests.workload.data.onnx_models import (  # noqa: E402
    build,
    computed_shapes,
    ints,
    node,
    small_cnn,
    weight,
)


def test_small_cnn_by_hand():
    ops = importer.from_model(small_cnn())
    assert ops.graph.inputs == ((8, 8, 3),)
    assert ops.names == (
        *("stem", "norm", "relu", "depthwise", "sum", "pool", "head", "softmax"),
    )
    assert ops.kinds == (
        *("conv", "norm", "activation", "conv", "add", "pool", "dense", "softmax"),
    )
    assert ops.ops[3].variant == "depthwise"
    assert ops.ops[3].weight_shape == (3, 3, 1, 4)
    assert ops.ops[4].operands == (3, 2)
    assert ops.ops[5].window == 64
    assert ops.output_shapes[:5] == ((8, 8, 4),) * 5
    assert ops.input_shapes[6] == (4,)
    assert dict(ops.graph.parameters) == {
        "stem": 9 * 3 * 4,
        "norm": 16,
        "depthwise": 9 * 4 + 4,
        "head": 4 * 5 + 5,
    }
    assert ops.total_macs == 64 * (9 * 3 * 4) + 64 * (9 * 4) + 20


def test_attention_with_folded_shapes_and_merged_biases():
    # Length 6, width 4, two heads of 2. Exporters compute the target of Reshape from
    # the shape of x, and write a dense layer as MatMul and Add.
    def heads(name, perm):
        return [
            node("MatMul", f"x w{name}", f"m{name}", f"dense_{name}"),
            node("Add", f"m{name} b{name}", f"d{name}", f"bias_{name}"),
            node("Reshape", f"d{name} split", f"s{name}"),
            node("Transpose", f"s{name}", f"h{name}", perm=perm),
        ]

    nodes = [
        node("Shape", "x", "shape"),
        node("Gather", "shape zero", "batch"),
        node("Concat", "batch rest", "split", axis=0),
        *heads("q", (0, 2, 1, 3)),
        *heads("k", (0, 2, 3, 1)),
        *heads("v", (0, 2, 1, 3)),
        node("MatMul", "hq hk", "scores", "scores"),
        node("Div", "scores two", "scaled", "scale"),
        node("Softmax", "scaled", "p", "softmax"),
        node("MatMul", "p hv", "c", "context"),
        node("Transpose", "c", "ct", perm=(0, 2, 1, 3)),
        node("Reshape", "ct merge", "o"),
        node("LayerNormalization", "o g gb", "y", "norm"),
    ]
    weights = [
        *(weight(f"w{n}", 4, 4) for n in "qkv"),
        *(weight(f"b{n}", 4) for n in "qkv"),
        weight("g", 4),
        weight("gb", 4),
        ints("zero", 0),
        ints("rest", 6, 2, 2),
        ints("merge", 0, 0, -1),
        onnx.numpy_helper.from_array(np.float32(2), "two"),
    ]
    ops = importer.from_model(build(nodes, weights, [("x", ("N", 6, 4))]))
    assert ops.names == (
        *("dense_q", "dense_k", "dense_v", "scores", "scale", "softmax", "context"),
        "norm",
    )
    assert ops.kinds == (
        *("dense",) * 3,
        *("matmul", "elementwise", "softmax", "matmul", "norm"),
    )
    assert ops.output_shapes[3] == (2, 6, 6)
    assert dict(ops.graph.parameters)["dense_k"] == 4 * 4 + 4
    assert ops.ops[3].operands == (0, 1)
    assert ops.ops[6].operands == (5, 2)
    # 3 x 6 x 16 of the dense layers, and 2 x 6 x 6 x 2 for each product of maps.
    assert ops.total_macs == 288 + 72 * 2 + 72 * 2


def test_kinds_of_the_rest():
    nodes = [
        node("ConvTranspose", "x kt", "t", "up", strides=(2, 2), kernel_shape=(2, 2)),
        node("Clip", "t zero six", "c", "relu6"),
        node("Slice", "c from to axis", "s", "half"),
        node("Split", "s", "p q", "parts", axis=1, num_outputs=2),
        node("Mul", "p q", "m", "gate"),
        node("Mul", "m scale", "n", "scale"),
        node("Pad", "n pads", "z", "pad"),
        node("MaxPool", "z", "o", "pool", kernel_shape=(3, 3), strides=(2, 2)),
        node("Resize", "o  factors", "u", "resize", mode="nearest"),
        node("Transpose", "u", "l", perm=(0, 2, 3, 1)),
        node("ReduceMean", "l axes", "y", "mean", keepdims=0),
    ]
    nodes[8].input[:] = ["o", "", "factors"]
    weights = [
        weight("kt", 3, 4, 2, 2),
        ints("from", 0),
        ints("to", 8),
        ints("axis", 3),
        weight("scale", 1, 2, 1, 1),
        ints("pads", 0, 0, 1, 1, 0, 0, 0, 0),
        onnx.numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "factors"),
        onnx.numpy_helper.from_array(np.float32(0), "zero"),
        onnx.numpy_helper.from_array(np.float32(6), "six"),
        ints("axes", 1, 2),
    ]
    ops = importer.from_model(build(nodes, weights))
    told = [(op.name, op.kind, op.variant, op.output_shape) for op in ops.ops]
    assert told == [
        ("up", "conv", "transposed", (16, 16, 4)),
        ("relu6", "activation", "relu6", (16, 16, 4)),
        ("half", "slice", "", (16, 8, 4)),
        ("parts", "slice", "", (16, 8, 2)),
        ("parts_2", "slice", "", (16, 8, 2)),
        ("gate", "mul", "", (16, 8, 2)),
        ("scale", "mul", "", (16, 8, 2)),
        ("pool", "pool", "max", (8, 4, 2)),
        ("resize", "resize", "nearest", (16, 8, 2)),
        ("mean", "reduce", "mean", (2,)),
    ]
    assert ops.ops[0].macs == 64 * (2 * 2 * 3 * 4)  # each pixel with all the kernel
    assert ops.ops[7].input_shape == (16, 8, 2)  # without the zeros of `pad`
    assert ops.ops[6].parameters == ("scale",)


@pytest.mark.parametrize(
    ("left", "right", "x", "w", "given", "made", "kernel", "variant"),
    [
        ("x", "w", (1, 5, 6), (6, 3), (5, 6), (5, 3), (6, 3), ""),
        ("x", "w", (1, 5, 6), (1, 6, 3), (5, 6), (5, 3), (6, 3), ""),
        # One matrix for each of 4 heads; and 4 matrices that all read the same map.
        ("x", "w", (1, 4, 5, 6), (4, 6, 3), (5, 24), (5, 12), (6, 12), "grouped"),
        ("x", "w", (1, 1, 5, 6), (4, 6, 3), (1, 5, 6), (1, 5, 12), (6, 12), ""),
        ("x", "w", (1, 5, 6), (6,), (5, 6), (5, 1), (6, 1), ""),
        ("w", "x", (1, 6, 3), (4, 6), (3, 6), (3, 4), (6, 4), ""),
        ("w", "x", (1, 6, 3), (6,), (3, 6), (3, 1), (6, 1), ""),
        ("w", "x", (1, 2, 6, 3), (2, 4, 6), (3, 12), (3, 8), (6, 8), "grouped"),
    ],
)
def test_products_with_weights(left, right, x, w, given, made, kernel, variant):
    nodes = [node("MatMul", f"{left} {right}", "a", "fc"), node("Relu", "a", "y")]
    ops = importer.from_model(build(nodes, [weight("w", *w)], [("x", x)]))
    assert ops.kinds == ("dense", "activation")
    op = ops.ops[0]
    assert (op.input_shape, op.output_shape) == (given, made)
    assert (op.variant, op.weight_shape) == (variant, kernel)
    # As NumPy multiplies them: each value of the output sums 6 products.
    values = np.matmul(*(np.zeros({"x": x, "w": w}[name]) for name in (left, right)))
    assert op.macs == 6 * values.size
    assert ops.output_shapes[1] == values.shape[1:]
    assert dict(ops.graph.parameters) == {"fc": np.prod(w)}
    assert float(ops.num_windows[0] * ops.fan_in[0] * ops.fan_out[0]) == op.macs


def test_tied_embeddings_keep_their_tie():
    nodes = [
        node("Cast", "x", "ids", to=onnx.TensorProto.INT64),
        node("Gather", "e ids", "a", "embed"),
        node("Cast", "e", "half", to=onnx.TensorProto.FLOAT),
        node("Identity", "half", "same"),
        node("Transpose", "same", "t", perm=(1, 0)),
        node("MatMul", "a t", "m", "head"),
        node("Add", "m b", "y", "bias"),
    ]
    weights = [weight("e", 1100, 4), weight("b", 1100)]
    ops = importer.from_model(build(nodes, weights, [("x", ("batch", 5))]))
    assert ops.kinds == ("embedding", "dense")
    assert ops.output_shapes == ((5, 4), (5, 1100))
    assert dict(ops.graph.parameters) == {"embed": 4400, "head": 1100}
    assert ops.ops[1].parameters == ("embed", "head")


def test_shared_matrices_with_biases_of_their_own():
    told = ("x w b a one", "a w c d two", "d v e f three", "f v e y four")
    nodes = [
        node("Gemm", f"{x} {w} {b}", *end) for x, w, b, *end in map(str.split, told)
    ]
    weights = [weight(n, 6, 6) for n in "wv"] + [weight(n, 6) for n in "bce"]
    ops = importer.from_model(build(nodes, weights, [("x", (1, 6))]))
    assert dict(ops.graph.parameters) == {"one": 36, "one/b": 6, "two": 6, "three": 42}
    assert [op.parameters for op in ops.ops] == [
        *(("one", "one/b"), ("one", "two"), ("three",), ("three",)),
    ]


@pytest.mark.parametrize(
    ("mode", "value", "is_free"),
    [
        *(("constant", None, True), ("constant", 0, True), ("constant", -1, False)),
        *(("reflect", None, False), ("edge", None, False), ("reflect", 0, False)),
    ],
)
def test_only_zeros_pad_for_free(mode, value, is_free):
    given = "x pads" if value is None else "x pads value"
    nodes = [
        node("Pad", given, "a", "frame", mode=mode),
        node("Conv", "a k", "y", "conv"),
    ]
    weights = [ints("pads", 0, 0, 1, 1, 0, 0, 1, 1), weight("k", 4, 3, 3, 3)]
    if value is not None:
        weights.append(onnx.numpy_helper.from_array(np.float32(value), "value"))
    ops = importer.from_model(build(nodes, weights))
    told = [(op.kind, op.variant, op.output_shape) for op in ops.ops]
    pad = [] if is_free else [("resize", "pad", (10, 10, 3))]
    assert told == [*pad, ("conv", "", (8, 8, 4))]
    assert ops.total_macs == 64 * 108


@pytest.mark.parametrize(
    ("op", "pads", "size", "positions"),
    [
        # Each position of the smaller map meets the kernel once.
        *(("Conv", 2, 10, 64), ("Conv", 1, 8, 64), ("Conv", 0, 6, 36)),
        *(("ConvTranspose", 0, 10, 64), ("ConvTranspose", 2, 6, 36)),
    ],
)
def test_products_of_a_convolution(op, pads, size, positions):
    nodes, weights = [node(op, "x k", "y", pads=[pads] * 4)], [weight("k", 3, 3, 3, 3)]
    ops = importer.from_model(build(nodes, weights))
    assert ops.output_shapes == ((size, size, 3),)
    assert ops.total_macs == positions * 81


def test_variants_and_names():
    # 4 channels in 2 groups; nodes of equal names, one named like an input.
    nodes = [
        node("Conv", "x k", "a", "input_0", group=2),
        node("Conv", "a k", "b", "input_0", group=2),
        node("ConvTranspose", "b k", "c", "input_0_2", group=2),
        node("Conv", "c d", "y", "input_0", group=4),
    ]
    weights = [weight("k", 4, 2, 1, 1), weight("d", 4, 1, 1, 1)]
    ops = importer.from_model(build(nodes, weights, [("x", (1, 4, 8, 8))]))
    assert len(set(ops.names)) == 4
    assert [op.variant for op in ops.ops] == [
        *("grouped", "grouped", "transposed", "depthwise"),
    ]
    assert [op.macs for op in ops.ops] == [64 * 8, 64 * 8, 64 * 8, 64 * 4]


def test_shapes_that_are_computed():
    # Inference alone does not follow the shape of x through Div.
    ops = importer.from_model(computed_shapes())
    assert ops.kinds == ("conv",)
    assert ops.total_macs == 64 * 24
    assert ops.input_shapes == ((8, 8, 4),)


def test_constants_in_sums_and_concatenations():
    # As a vision transformer starts: a learned token before 5 patches of width 4, and
    # learned positions.
    nodes = [
        node("Expand", "token one", "c"),
        node("Concat", "c x", "t", "join", axis=1),
        node("Add", "t table", "y", "positions"),
    ]
    weights = [
        weight("token", 1, 1, 4),
        ints("one", 1, 1, 1),
        weight("table", 1, 6, 4),
    ]
    model = build(nodes, weights, [("x", ("N", 5, 4))])
    model.graph.output[0].type.tensor_type.ClearField("shape")
    ops = importer.from_model(model)
    assert ops.kinds == ("concat", "add")
    assert ops.output_shapes == ((6, 4), (6, 4))
    assert dict(ops.graph.constants) == {"join": 4, "positions": 24}  # no product


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [
        # Krizhevsky's network with two groups: 60,965,224 (Caffe's reference model).
        ("bvlc_alexnet", 60_965_224, 654_560_384),
        # Torchvision states 25,557,032 without the means and variances of 26,560
        # channels. Its 3 x 3 convolutions have the strides.
        ("resnet50", 25_557_032 + 2 * 26_560, 4_089_184_256),
        ("squeezenet", 1_235_496, 349_151_936),
        ("vgg19", 143_667_240, 19_632_062_464),
    ],
)
def test_published_models(name, parameters, macs):
    """Models that come with onnx itself."""
    folder = pathlib.Path(onnx.__file__).parent / "backend/test/data/light"
    path = folder / f"light_{name}.onnx"
    if not path.exists():
        pytest.skip("this release of onnx comes without models")
    ops = importer.from_file(path)
    assert sum(size for _, size in ops.graph.parameters) == parameters
    assert ops.total_macs == macs
    assert ops.graph.inputs == ((224, 224, 3),)


def _external(location):
    model = small_cnn()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return model


@pytest.mark.parametrize(
    "location",
    ["/etc/passwd", "../w.bin", "a/../../w", "C:/w.bin", "..\\w.bin", "", "a\0b"],
)
def test_refuses_data_outside_the_folder(location):
    with pytest.raises(ValueError, match=r"'k1'.*only a relative path"):
        importer.from_model(_external(location))


def test_external_data_is_not_read(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(_external("weights/w.bin").SerializeToString())
    assert importer.from_file(path).total_macs == 9_236
    (tmp_path / "weights").symlink_to("/etc")
    with pytest.raises(ValueError, match=r"'weights/w.bin'.*only a relative path"):
        importer.from_file(path)


def test_data_hidden_in_attributes_is_checked():
    tensor = _external("../w.bin").graph.initializer[0]
    nodes = [node("Constant", "", "k", value=tensor), node("Conv", "x k", "y")]
    with pytest.raises(ValueError, match="only a relative path"):
        importer.from_model(build(nodes))


def test_refuses(tmp_path):
    def refuses(message, *args, **options):
        batch_size = options.pop("batch_size", None)
        with pytest.raises(ValueError, match=message):
            importer.from_model(build(*args, **options), batch_size=batch_size)

    refuses(r"'odd' \(Det\).*no operator", [node("Det", "x", "y", "odd")])
    refuses(r"'mine.Relu\)|\(mine.Relu\)", [node("Relu", "x", "y", domain="mine")])
    refuses("no operator", [node("RandomNormal", "", "y", shape=(1, 2))])
    relu = [node("Relu", "x", "y")]
    refuses("Axis 2.*'H'.*dimensions=", relu, inputs=[("x", ("N", 3, "H", 8))])
    refuses("Axis 1.*; name it", relu, inputs=[("x", (1, None))])
    refuses("no shape", relu, inputs=[("x", None)])
    loop = [node("Add", "x b", "a", "first"), node("Relu", "a", "b", "second")]
    refuses("invalid.*sorted", [*loop, node("Relu", "b", "y")])
    refuses("its weights must be constants", [node("Conv", "x x", "y", "own")])
    target = [node("Reshape", "x to", "y", "flat")]
    refuses(
        "'flat'.*batch of 1",
        target,
        [ints("to", 2, 192)],
        inputs=[("x", (2, 3, 8, 8))],
        batch_size=2,
    )
    first = [("x", (12, 1, 6))]
    refuses(
        r"'x'.*\(12, 1, 6\).*fixed to 12.*batch_size=12 if.*batch_size=1 if",
        relu,
        inputs=first,
    )
    refuses(r"`batch_size` \(=8\).*\[12\]", relu, inputs=first, batch_size=8)
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"\xff" * 64)
    with pytest.raises(ValueError, match="is no ONNX model"):
        importer.from_file(path)


def test_symbolic_axes_and_fixed_first_axes():
    model = build([node("Relu", "x", "y")], inputs=[("x", ("N", 3, "H", "W"))])
    ops = importer.from_model(model, {"H": 5, "W": 7})
    assert ops.graph.inputs == ((3, 5, 7),)  # nothing says that it is an image
    # 6 x 3 weights for 12 positions. As a batch of 12 there is one example; sequence
    # first, all 12 are of one example.
    nodes, weights = [node("MatMul", "x w", "y")], [weight("w", 6, 3)]
    model = build(nodes, weights, [("x", (12, 1, 6))])
    assert importer.from_model(model, batch_size=12).graph.inputs == ((1, 6),)
    ops = importer.from_model(model, batch_size=1)
    assert (ops.graph.inputs, ops.total_macs) == (((12, 1, 6),), 12 * 18)
    model = build(nodes, weights, [("x", ("length", "batch", 6))])
    ops = importer.from_model(model, {"length": 12, "batch": 1})
    assert (ops.graph.inputs, ops.total_macs) == (((12, 1, 6),), 12 * 18)
    with pytest.raises(ValueError, match=r"Axis 1.*'batch'.*first axis \('length'\)"):
        importer.from_model(model)


@pytest.mark.parametrize(
    ("kernel", "attributes", "match"),
    [
        ((8, 3, 3, 3), {"group": 0}, r"`group` \(=0\) must divide 3 channels and 8"),
        ((8, 3, 3, 3), {"group": -1}, r"`group` \(=-1\) must divide"),
        ((8, 1, 3, 3), {"group": 3}, r"`group` \(=3\) must divide 3 channels and 8"),
        ((8, 3, 3, 3), {"kernel_shape": (1, 1)}, r"`kernel_shape` \(=\[1, 1\]\)"),
    ],
)
def test_a_convolution_that_contradicts_itself_is_refused(kernel, attributes, match):
    conv = node("Conv", "x k", "y", "stem", **attributes)
    with pytest.raises(ValueError, match=f"(?s)stem.*({match}|nference)"):
        importer.from_model(build([conv], [weight("k", *kernel)]))
