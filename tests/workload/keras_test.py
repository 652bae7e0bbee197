import os
import pathlib
import subprocess
import sys

import jax
import pytest

from codesign import models, workload
from codesign.workload import darknet, onnx
from codesign.workload import keras as importer
from codesign.workload.iteration import training_iteration

os.environ.setdefault("KERAS_BACKEND", "jax")
keras = pytest.importorskip("keras")
layers = keras.layers


pytestmark = pytest.mark.usefixtures("any_ranks")


def _num_parameters(counted):
    return sum(size for _, size in counted.graph.parameters)


def _told(counted):
    """Names with what each op reads."""
    names = counted.names
    return {
        op.name: [names[i] if i >= 0 else i for i in op.operands] for op in counted.ops
    }


def test_resnet50_by_formula():
    # He et al., CVPR 2016, strides in the first 1 x 1; every convolution has a bias and
    # every norm four vectors.
    macs = 49 * 3 * 64 * 112**2
    parameters = 49 * 3 * 64 + 5 * 64
    channels = 64
    for width, size, blocks in ((64, 56, 3), (128, 28, 4), (256, 14, 6), (512, 7, 3)):
        for block in range(blocks):
            kernels = [channels * width, 9 * width * width, width * 4 * width]
            outputs = [width, width, 4 * width]
            if block == 0:
                kernels.append(channels * 4 * width)
                outputs.append(4 * width)
            macs += sum(kernels) * size**2
            parameters += sum(kernels) + 5 * sum(outputs)
            channels = 4 * width
    macs += 2048 * 1000
    parameters += 2048 * 1000 + 1000
    counted = importer.from_application("resnet50")
    assert counted.total_macs == macs == 3_857_973_248
    assert _num_parameters(counted) == parameters == 25_636_712
    assert {kind: counted.kinds.count(kind) for kind in set(counted.kinds)} == {
        "conv": 53,
        "norm": 53,
        "activation": 49,
        "add": 16,
        "pool": 2,
        "dense": 1,
        "softmax": 1,
    }
    told = _told(counted)
    assert told["conv1_conv"] == [-1]  # its zero padding is no op
    assert told["conv2_block1_add"] == ["conv2_block1_0_bn", "conv2_block1_3_bn"]
    assert told["predictions/softmax"] == ["predictions"]
    assert counted.names.index("conv2_block1_0_conv") == 4  # the first that was built


def test_mobilenet_v2_by_formula():
    # Sandler et al., CVPR 2018, Table 2: expansion t, channels c, repeats n, stride s.
    table = (
        *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1)),
        *((6, 160, 3, 2), (6, 320, 1, 1)),
    )
    size, channels = 112, 32
    macs, parameters = 27 * 32 * size**2, 27 * 32 + 4 * 32

    def conv(kernel, width):
        nonlocal macs, parameters
        macs += kernel * size**2
        parameters += kernel + 4 * width

    for expansion, out, repeats, stride in table:
        for block in range(repeats):
            hidden = expansion * channels
            if expansion > 1:
                conv(channels * hidden, hidden)
            size //= stride if block == 0 else 1
            conv(9 * hidden, hidden)
            conv(hidden * out, out)
            channels = out
    conv(320 * 1280, 1280)
    macs, parameters = macs + 1_280_000, parameters + 1_281_000
    counted = importer.from_application("MobileNetV2")
    assert counted.total_macs == macs == 300_774_272
    assert _num_parameters(counted) == parameters == 3_538_984
    depthwise = [op for op in counted.ops if op.variant == "depthwise"]
    assert len(depthwise) == 17
    assert depthwise[1].weight_shape == (3, 3, 1, 96)
    assert depthwise[1].input_shape == (112, 112, 96)  # without the zeros around
    relus = {op.variant for op in counted.ops if op.kind == "activation"}
    assert relus == {"relu6"}


def test_vgg16_agrees_with_darknet():
    ours = importer.from_application("VGG16")
    path = pathlib.Path(__file__).parent / "data/vgg16.cfg"
    theirs = darknet.from_cfg(path)
    assert _num_parameters(ours) == _num_parameters(theirs) == 138_357_544
    for kinds in (("conv", "dense"), ("pool",), ("activation",), ("softmax",)):
        pairs = zip(ours.select(*kinds).ops, theirs.select(*kinds).ops, strict=True)
        for one, other in pairs:
            for field in ("kind", "variant", "output_shape", "weight_shape", "macs"):
                assert getattr(one, field) == getattr(other, field), one.name
            sizes = [
                [dict(w.graph.parameters)[name] for name in op.parameters]
                for w, op in ((ours, one), (theirs, other))
            ]
            assert sizes[0] == sizes[1]


@pytest.mark.parametrize("name", ["resnet50", "mobilenetv2"])
def test_agrees_with_flax(name):
    network = models.create(name, num_classes=1000, image_shape=(224, 224, 3))
    flax = workload.trace(*network.trace_args())
    ours = importer.from_application(name).ops[:-1]  # without its softmax
    assert len(flax.ops) == len(ours)
    for one, other in zip(ours, flax.ops, strict=True):
        assert one.operands == other.operands, (one.name, other.name)
        for field in ("kind", "variant", "output_shape", "weight_shape", "macs"):
            assert getattr(one, field) == getattr(other, field), (one.name, other.name)


def test_agrees_with_onnx():
    pytest.importorskip("onnx")
    from tests.workload.data.onnx_models import small_cnn

    x = inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", use_bias=False)(x)
    x = r = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Add()([layers.DepthwiseConv2D(3, padding="same")(x), r])
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(5, activation="softmax")(x)
    model = importer.from_model(keras.Model(inputs, x))
    ours = onnx.from_model(small_cnn())
    assert model.kinds == ours.kinds
    assert model.weight_shapes == ours.weight_shapes
    assert [op.macs for op in model.ops] == [op.macs for op in ours.ops]
    assert [op.operands for op in model.ops] == [op.operands for op in ours.ops]
    assert [op.elements for op in model.ops] == [op.elements for op in ours.ops]
    assert [op.window for op in model.ops] == [op.window for op in ours.ops]
    sizes = [[size for _, size in w.graph.parameters] for w in (model, ours)]
    assert sizes[0] == sizes[1]


def _reference_macs(model):
    """Of the jaxpr of a model's call: every convolution and product of matrices."""

    def count(jaxpr):
        total = 0
        for eqn in jaxpr.eqns:
            if eqn.primitive.name == "conv_general_dilated":
                kernel, out = eqn.invars[1].aval.shape, eqn.outvars[0].aval.size
                filters = eqn.params["dimension_numbers"].rhs_spec[0]
                total += eqn.invars[1].aval.size // kernel[filters] * out
            elif eqn.primitive.name == "dot_general":
                shape = eqn.invars[0].aval.shape
                terms = 1
                for axis in eqn.params["dimension_numbers"][0][0]:
                    terms *= shape[axis]
                total += terms * eqn.outvars[0].aval.size
            for value in eqn.params.values():
                inner = getattr(value, "jaxpr", value)
                total += count(inner) if hasattr(inner, "eqns") else 0
        return total

    shapes = [jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype) for x in model.inputs]
    given = shapes[0] if len(shapes) == 1 else shapes
    return count(jax.make_jaxpr(lambda x: model(x, training=False))(given).jaxpr)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("MobileNetV3Small", (64, 64, 3)),
        ("EfficientNetB0", (64, 64, 3)),
        ("ConvNeXtTiny", (64, 64, 3)),
        ("DenseNet121", (64, 64, 3)),
        ("ResNet50V2", (64, 64, 3)),
        ("Xception", (128, 128, 3)),
    ],
)
def test_applications_against_keras_itself(name, shape):
    # Weights as Keras counts them, MACs as JAX runs the model.
    told = {}

    def build():
        options = {"weights": None, "input_shape": shape}
        model = getattr(keras.applications, name)(**options)
        told["parameters"] = model.count_params()
        told["macs"] = _reference_macs(model)
        return ()

    jax.eval_shape(build)
    counted = importer.from_application(name, shape)
    assert _num_parameters(counted) == told["parameters"]
    assert counted.total_macs == told["macs"]
    assert counted.graph.inputs == (shape,)
    assert float(counted.macs.sum()) == pytest.approx(
        told["macs"]
    )  # numbers, no tracers
    assert training_iteration(counted).num_steps >= 2 * counted.num_ops - 5


def test_names_do_not_depend_on_what_was_built_before():
    first = importer.from_application("InceptionV3", (75, 75, 3))
    assert first.names[0] == "conv2d"
    assert importer.from_application("inceptionv3", (75, 75, 3)).graph == first.graph


def test_nested_models_share_weights():
    tower = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Conv2D(4, 3, name="conv"), layers.Flatten()],
        name="tower",
    )
    left, right = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    x = layers.Concatenate(name="both")([tower(right), tower(left)])
    x = layers.Dense(2, name="head", use_bias=False)(x)
    counted = importer.from_model(keras.Model([left, right], x))
    assert _told(counted) == {
        "tower/conv": [-1],
        "tower/conv_2": [-2],
        "both": ["tower/conv_2", "tower/conv"],
        "head": ["both"],
    }
    assert dict(counted.graph.parameters) == {
        "tower/conv": 27 * 4 + 4,
        "head": 2 * 36 * 4 * 2,
    }
    assert counted.ops[1].parameters == ("tower/conv",)
    assert counted.input_shapes[3] == (288,)


def test_names_are_unique():
    # A shared layer's second call would be `input_0_2`, which another layer is named.
    x = keras.Input((6,))
    shared = layers.Dense(6, name="input_0")
    y = shared(layers.ReLU(name="relu")(shared(x)))
    y = layers.Dense(3, name="input_0_2")(y)
    counted = importer.from_model(keras.Model(x, y))
    assert counted.names == ("input_0", "relu", "input_0_2", "input_0_2_2")
    assert dict(counted.graph.parameters) == {"input_0": 42, "input_0_2": 21}


def test_kinds_and_counts_of_single_layers():
    x = inputs = keras.Input((9, 9, 4))
    x = layers.SeparableConv2D(6, 3, depth_multiplier=2, activation="relu", name="sep")(
        x
    )
    x = layers.Conv2DTranspose(5, 2, strides=2, name="up")(x)
    x = layers.Conv2D(10, 1, groups=5, use_bias=False, name="grouped")(x)
    x = layers.Conv2D(10, 1, groups=2, use_bias=False, name="pairs")(x)
    x = layers.Cropping2D(1, name="crop")(x)
    x = layers.Dropout(0.0)(x)
    x = layers.Dropout(0.1, name="drop")(x)
    x = layers.AveragePooling2D(3, padding="same", name="pool")(x)
    x = layers.Rescaling(2.0, name="scale")(layers.ZeroPadding2D(1)(x))
    x = x[:, :4] * 0.5
    x = layers.UpSampling2D(2, interpolation="bilinear", name="resize")(x)
    x = layers.PReLU(shared_axes=(1, 2), name="prelu")(x)
    x = layers.GlobalMaxPooling2D(name="top")(x)
    model = keras.Model(inputs, x)
    counted = importer.from_model(model)
    told = [(op.name, op.kind, op.variant, op.output_shape) for op in counted.ops]
    assert told[:10] == [
        ("sep/depthwise", "conv", "depthwise", (7, 7, 8)),
        ("sep/pointwise", "conv", "", (7, 7, 6)),
        ("sep/relu", "activation", "relu", (7, 7, 6)),
        ("up", "conv", "transposed", (14, 14, 5)),
        ("grouped", "conv", "depthwise", (14, 14, 10)),
        ("pairs", "conv", "grouped", (14, 14, 10)),
        ("crop", "slice", "", (12, 12, 10)),
        ("drop", "dropout", "", (12, 12, 10)),
        ("pool", "pool", "average", (4, 4, 10)),
        ("pad", "resize", "pad", (6, 6, 10)),  # its reader cannot pad by itself
    ]
    kinds = ["elementwise", "slice", "elementwise", "resize", "activation", "pool"]
    assert [op.kind for op in counted.ops[10:]] == kinds
    assert counted.ops[-1].window == 8 * 12
    assert _num_parameters(counted) == model.count_params()
    assert counted.ops[0].macs == 49 * 9 * 8
    assert counted.ops[3].macs == 49 * 6 * (4 * 5)  # each pixel with all the kernel
    assert counted.ops[4].macs == 14 * 14 * 10
    assert counted.ops[5].macs == 14 * 14 * (5 * 10)


def test_attention_by_hand():
    # Length 6, width 8, 2 heads of 3: 6 * 8 * 6 for each of three products, 2 * 6 * 6 * 3
    # for the scores and as much for their product with the values, 6 * 6 * 8 back.
    x = keras.Input((6, 8))
    y = layers.MultiHeadAttention(2, 3, dropout=0.1, name="mha")(x, x)
    y = layers.LayerNormalization(name="norm")(layers.Add(name="sum")([x, y]))
    y = layers.EinsumDense("abc,cd->abd", (6, 5), bias_axes="d", name="einsum")(y)
    model = keras.Model(x, y)
    counted = importer.from_model(model)
    assert counted.kinds == (
        *("dense", "dense", "dense", "matmul", "softmax", "dropout", "matmul", "dense"),
        *("add", "norm", "dense"),
    )
    assert counted.names[3:7] == (
        *("mha/scores", "mha/softmax", "mha/dropout", "mha/context"),
    )
    assert counted.ops[3].operands == (0, 1)
    assert counted.ops[6].operands == (5, 2)
    assert counted.total_macs == 4 * 288 + 2 * 216 + 6 * 8 * 5
    assert counted.total_macs == _reference_macs(model)
    assert _num_parameters(counted) == model.count_params()


def test_shapes_that_keras_leaves_open():
    # Keras's own example of EinsumDense: 32 positions, 128 x 64 and then 64 x 8 weights.
    x = keras.Input((32, 128))
    open_one = layers.EinsumDense("abc,cd->abd", output_shape=(None, 64))
    inner = keras.Input((None, 64))
    nested = keras.Model(inner, layers.Dense(8)(inner))
    y = nested(layers.LayerNormalization()(open_one(x)))
    ops = importer.from_model(keras.Model(x, y))
    assert ops.output_shapes == ((32, 64), (32, 64), (32, 8))
    assert ops.total_macs == 32 * 128 * 64 + 32 * 64 * 8


def test_what_keras_does_not_train_is_fixed():
    # The statistics of an input, and a frozen convolution: W, but no D.
    x = keras.Input((8, 8, 3))
    y = layers.Normalization()(x)
    y = layers.Conv2D(4, 3, trainable=False, name="frozen")(y)
    y = layers.Conv2D(5, 3, use_bias=False, name="trained")(y)
    ops = importer.from_model(keras.Model(x, y))
    assert [bool(op.fixed) for op in ops.ops] == [True, True, False]
    program = training_iteration(ops)
    assert [name for name in program.tensors if name[0] == "D"] == ["D:trained"]
    # Backward, the weights' gradient alone: 16 positions of 9 x 4 x 5.
    back = dict(zip(program.step_names, program.operations.tolist(), strict=True))
    assert back["trained back"] == 16 * 180


def test_importing_the_package_needs_neither_keras_nor_onnx():
    code = (
        "import sys; from codesign.workload import keras, onnx, darknet; "
        "assert not {'keras', 'onnx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
