import pathlib
import subprocess
import sys

import numpy as np
import pytest

from codesign.workload import onnx as importer

onnx = pytest.importorskip("onnx")
helper = pytest.importorskip("onnx.helper")


def _weight(name, *shape):
    return onnx.numpy_helper.from_array(np.zeros(shape, np.float32), name)


def _ints(name, *values):
    return onnx.numpy_helper.from_array(np.array(values, np.int64), name)


def _model(
    nodes, weights=(), inputs=(("x", ("N", 3, 8, 8)),), outputs=("y",), opset=20
):
    """A model whose outputs have no shape yet."""
    floats = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, floats, shape) for name, shape in inputs],
        [helper.make_tensor_value_info(name, floats, ()) for name in outputs],
        list(weights),
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10
    )


def _node(op, inputs, output, name="", **attributes):
    return helper.make_node(op, inputs.split(), output.split(), name=name, **attributes)


def _small_cnn():
    """Convolution, norm, relu, depthwise, a sum, pooling, dense; see the counts below."""
    pads = dict(kernel_shape=(3, 3), pads=(1, 1, 1, 1))
    nodes = [
        _node("Conv", "x k1", "a", "stem", **pads),
        _node("BatchNormalization", "a s b m v", "n", "norm"),
        _node("Relu", "n", "r", "relu"),
        _node("Conv", "r k2 b2", "d", "depthwise", group=4, **pads),
        _node("Add", "d r", "t", "sum"),
        _node("GlobalAveragePool", "t", "g", "pool"),
        _node("Flatten", "g", "f"),
        _node("Gemm", "f w bias", "z", "head", transB=1),
        _node("Softmax", "z", "y", "softmax", axis=1),
    ]
    weights = [
        _weight("k1", 4, 3, 3, 3),
        *(_weight(name, 4) for name in ("s", "b", "m", "v", "b2")),
        _weight("k2", 4, 1, 3, 3),
        _weight("w", 5, 4),
        _weight("bias", 5),
    ]
    return _model(nodes, weights)


def test_small_cnn_by_hand():
    ops = importer.from_model(_small_cnn())
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


def test_agrees_with_keras(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    from codesign.workload import keras as of_keras

    x = inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", use_bias=False)(x)
    x = r = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    x = keras.layers.Add()([keras.layers.DepthwiseConv2D(3, padding="same")(x), r])
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(5, activation="softmax")(x)
    model = of_keras.from_model(keras.Model(inputs, x))
    ours = importer.from_model(_small_cnn())
    assert model.kinds == ours.kinds
    assert model.weight_shapes == ours.weight_shapes
    assert [op.macs for op in model.ops] == [op.macs for op in ours.ops]
    assert [op.operands for op in model.ops] == [op.operands for op in ours.ops]
    assert [op.elements for op in model.ops] == [op.elements for op in ours.ops]
    assert [op.window for op in model.ops] == [op.window for op in ours.ops]
    sizes = [[size for _, size in w.graph.parameters] for w in (model, ours)]
    assert sizes[0] == sizes[1]


def test_attention_with_folded_shapes_and_merged_biases():
    # Length 6, width 4, two heads of 2. Exporters compute the target of Reshape from
    # the shape of x, and write a dense layer as MatMul and Add.
    def heads(name, perm):
        return [
            _node("MatMul", f"x w{name}", f"m{name}", f"dense_{name}"),
            _node("Add", f"m{name} b{name}", f"d{name}", f"bias_{name}"),
            _node("Reshape", f"d{name} split", f"s{name}"),
            _node("Transpose", f"s{name}", f"h{name}", perm=perm),
        ]

    nodes = [
        _node("Shape", "x", "shape"),
        _node("Gather", "shape zero", "batch"),
        _node("Concat", "batch rest", "split", axis=0),
        *heads("q", (0, 2, 1, 3)),
        *heads("k", (0, 2, 3, 1)),
        *heads("v", (0, 2, 1, 3)),
        _node("MatMul", "hq hk", "scores", "scores"),
        _node("Div", "scores two", "scaled", "scale"),
        _node("Softmax", "scaled", "p", "softmax"),
        _node("MatMul", "p hv", "c", "context"),
        _node("Transpose", "c", "ct", perm=(0, 2, 1, 3)),
        _node("Reshape", "ct merge", "o"),
        _node("LayerNormalization", "o g gb", "y", "norm"),
    ]
    weights = [
        *(_weight(f"w{n}", 4, 4) for n in "qkv"),
        *(_weight(f"b{n}", 4) for n in "qkv"),
        _weight("g", 4),
        _weight("gb", 4),
        _ints("zero", 0),
        _ints("rest", 6, 2, 2),
        _ints("merge", 0, 0, -1),
        onnx.numpy_helper.from_array(np.float32(2), "two"),
    ]
    ops = importer.from_model(_model(nodes, weights, [("x", ("N", 6, 4))]))
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
        _node("ConvTranspose", "x kt", "t", "up", strides=(2, 2), kernel_shape=(2, 2)),
        _node("Clip", "t zero six", "c", "relu6"),
        _node("Slice", "c from to axis", "s", "half"),
        _node("Split", "s", "p q", "parts", axis=1, num_outputs=2),
        _node("Mul", "p q", "m", "gate"),
        _node("Mul", "m scale", "n", "scale"),
        _node("Pad", "n pads", "z", "pad"),
        _node("MaxPool", "z", "o", "pool", kernel_shape=(3, 3), strides=(2, 2)),
        _node("Resize", "o  factors", "u", "resize", mode="nearest"),
        _node("Transpose", "u", "l", perm=(0, 2, 3, 1)),
        _node("ReduceMean", "l axes", "y", "mean", keepdims=0),
    ]
    nodes[8].input[:] = ["o", "", "factors"]
    weights = [
        _weight("kt", 3, 4, 2, 2),
        _ints("from", 0),
        _ints("to", 8),
        _ints("axis", 3),
        _weight("scale", 1, 2, 1, 1),
        _ints("pads", 0, 0, 1, 1, 0, 0, 0, 0),
        onnx.numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "factors"),
        onnx.numpy_helper.from_array(np.float32(0), "zero"),
        onnx.numpy_helper.from_array(np.float32(6), "six"),
        _ints("axes", 1, 2),
    ]
    ops = importer.from_model(_model(nodes, weights))
    told = [(op.name, op.kind, op.variant, op.output_shape) for op in ops.ops]
    assert told == [
        ("up", "conv", "transpose", (16, 16, 4)),
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


def test_shared_weights_and_embeddings():
    nodes = [
        _node("Cast", "x", "ids", to=onnx.TensorProto.INT64),
        _node("Gather", "table ids", "e", "embed"),
        _node("MatMul", "e w", "a", "first"),
        _node("MatMul", "a w", "y", "second"),
    ]
    weights = [_weight("table", 11, 4), _weight("w", 4, 4)]
    ops = importer.from_model(_model(nodes, weights, [("x", ("batch", 7))]))
    assert ops.kinds == ("embedding", "dense", "dense")
    assert dict(ops.graph.parameters) == {"embed": 44, "first": 16}
    assert ops.ops[2].parameters == ("first",)
    assert ops.output_shapes == ((7, 4),) * 3


def test_shapes_that_are_computed():
    # Channel shuffle as exported by tracing: the axes are products and quotients of
    # x's shape, which inference alone does not follow through Div.
    nodes = [
        _node("Shape", "x", "shape"),
        _node("Gather", "shape one", "channels"),
        _node("Div", "channels two", "half"),
        _node("Cast", "half", "whole", to=onnx.TensorProto.INT64),
        _node("Concat", "one two whole side", "split", axis=0),
        _node("Reshape", "x split", "r"),
        _node("Transpose", "r", "t", perm=(0, 2, 1, 3)),
        _node("Reshape", "t joined", "m"),
        _node("Conv", "m k", "y", "conv"),
    ]
    weights = [
        _ints("one", 1),
        _ints("two", 2),
        _ints("side", 64),
        _ints("joined", 1, -1, 8, 8),
        _weight("k", 6, 4, 1, 1),
    ]
    ops = importer.from_model(_model(nodes, weights, [("x", ("N", 4, 8, 8))]))
    assert ops.kinds == ("conv",)
    assert ops.total_macs == 64 * 24
    assert ops.input_shapes == ((8, 8, 4),)


def test_constants_in_sums_and_concatenations():
    # As a vision transformer starts: a learned token before 5 patches of width 4, and
    # learned positions.
    nodes = [
        _node("Expand", "token one", "c"),
        _node("Concat", "c x", "t", "join", axis=1),
        _node("Add", "t table", "y", "positions"),
    ]
    weights = [
        _weight("token", 1, 1, 4),
        _ints("one", 1, 1, 1),
        _weight("table", 1, 6, 4),
    ]
    model = _model(nodes, weights, [("x", ("N", 5, 4))])
    model.graph.output[0].type.tensor_type.ClearField("shape")
    ops = importer.from_model(model)
    assert ops.kinds == ("concat", "add")
    assert ops.output_shapes == ((6, 4), (6, 4))
    assert dict(ops.graph.parameters) == {"join": 4, "positions": 24}


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
    model = _small_cnn()
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
    nodes = [_node("Constant", "", "k", value=tensor), _node("Conv", "x k", "y")]
    with pytest.raises(ValueError, match="only a relative path"):
        importer.from_model(_model(nodes))


def test_refuses(tmp_path):
    def refuses(message, *args, **options):
        dimensions = options.pop("dimensions", None)
        with pytest.raises(ValueError, match=message):
            importer.from_model(_model(*args, **options), dimensions)

    refuses(r"'odd' \(Det\).*no operator", [_node("Det", "x", "y", "odd")])
    refuses(r"'mine.Relu\)|\(mine.Relu\)", [_node("Relu", "x", "y", domain="mine")])
    refuses("no operator", [_node("RandomNormal", "", "y", shape=(1, 2))])
    relu = [_node("Relu", "x", "y")]
    refuses("Axis 2.*'H'.*dimensions=", relu, inputs=[("x", ("N", 3, "H", 8))])
    refuses("no shape", relu, inputs=[("x", None)])
    loop = [_node("Add", "x b", "a", "first"), _node("Relu", "a", "b", "second")]
    refuses("invalid.*sorted", [*loop, _node("Relu", "b", "y")])
    refuses("its weights must be constants", [_node("Conv", "x x", "y", "own")])
    target = [_node("Reshape", "x to", "y", "flat")]
    refuses(
        "'flat'.*batch of 1",
        target,
        [_ints("to", 2, 192)],
        inputs=[("x", (2, 3, 8, 8))],
    )
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"\xff" * 64)
    with pytest.raises(ValueError, match="is no ONNX model"):
        importer.from_file(path)


def test_symbolic_axes_take_sizes():
    nodes = [_node("Relu", "x", "y")]
    model = _model(nodes, inputs=[("x", ("N", 3, "H", "W"))])
    ops = importer.from_model(model, {"H": 5, "W": 7})
    assert ops.graph.inputs == ((3, 5, 7),)  # nothing says that it is an image


def test_importing_the_package_needs_neither_keras_nor_onnx():
    code = (
        "import sys; from codesign.workload import keras, onnx, darknet; "
        "assert not {'keras', 'onnx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
