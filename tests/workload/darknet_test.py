import os
import pathlib

import pytest

from codesign.workload import darknet
from codesign.workload.iteration import training_iteration

_DATA = pathlib.Path(__file__).parent / "data"
_SIDES = ("height", "width", "channels")


def _sizes(workload):
    return dict(workload.graph.parameters)


def test_vgg16_by_hand():
    # Totals of the .cfg's comments; also those that Keras states for VGG16.
    ops = darknet.from_cfg(_DATA / "vgg16.cfg")
    assert sum(_sizes(ops).values()) == 138_357_544
    assert ops.total_macs == 15_470_264_320
    matrix = ops.select("conv", "dense")
    assert matrix.kinds == ("conv",) * 13 + ("dense",) * 3
    assert matrix.weight_shapes[1] == (3, 3, 64, 64)
    assert matrix.weight_shapes[13] == (7 * 7 * 512, 4096)
    assert matrix.ops[0].macs == 27 * 64 * 224**2
    assert ops.kinds.count("pool") == 5
    assert ops.kinds.count("activation") == 15
    assert ops.kinds[-5:] == ("dense", "activation", "dropout", "dense", "softmax")
    assert ops.edges == tuple((i, i + 1) for i in range(ops.num_ops - 1))
    pool = ops.select("pool").ops[-1]
    assert (pool.variant, pool.window, pool.output_shape) == ("max", 4, (7, 7, 512))


def test_a_detector_by_hand():
    ops = darknet.from_cfg(_DATA / "tiny_yolo.cfg")
    assert _sizes(ops) == {
        "conv_0": 216,
        "bn_0": 32,
        "conv_2": 1152,
        "bn_2": 64,
        "conv_5": 336 + 21,
        "conv_8": 64,
        "bn_8": 16,
        "conv_11": 420 + 21,
    }
    assert ops.total_macs == 55_296 + 73_728 + 5_376 + 1_024 + 26_880
    operands = {
        op.name: [ops.names[i] if i >= 0 else i for i in op.operands] for op in ops.ops
    }
    assert operands["conv_0"] == [-1]
    assert operands["conv_8"] == ["maxpool_4"]
    assert operands["route_10"] == ["upsample_9", "leaky_2"]
    assert operands["conv_11"] == ["route_10"]
    shapes = dict(zip(ops.names, ops.output_shapes, strict=True))
    assert shapes["maxpool_4"] == (4, 4, 16)
    assert shapes["upsample_9"] == (8, 8, 4)
    assert shapes["route_10"] == (8, 8, 20)
    assert [ops.names[i] for i in ops.graph.outputs] == ["conv_5", "conv_11"]
    assert ops.ops[2].variant == "leaky_relu"


def test_residual_and_grouped_sections_by_hand():
    ops = darknet.from_cfg(_DATA / "darknet53_start.cfg")
    assert ops.total_macs == 884_736 + 2 * 4_718_592 + 524_288 + 73_728 + 320
    norms = 128 + 256 + 128 + 256
    assert sum(_sizes(ops).values()) == (
        864 + 18_432 + 2_048 + 18_432 + norms + 288 + 32 + 330
    )
    index = {name: i for i, name in enumerate(ops.names)}
    assert ops.ops[index["add_4"]].operands == (index["mish_3"], index["mish_1"])
    half = ops.ops[index["route_5"]]
    assert (half.kind, half.output_shape) == ("slice", (16, 16, 32))
    depthwise = ops.ops[index["conv_6"]]
    assert (depthwise.variant, depthwise.weight_shape) == ("depthwise", (3, 3, 1, 32))
    pool = ops.ops[index["avgpool_7"]]
    assert (pool.variant, pool.window, pool.output_shape) == (
        "global_average",
        256,
        (32,),
    )
    assert ops.graph.outputs == (index["softmax_9"],)


def _import(tmp_path, text):
    path = tmp_path / "net.cfg"
    path.write_text("[net]\nheight=8\nwidth=8\nchannels=4\n" + text)
    return darknet.from_cfg(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[lstm]\noutput=3", r"net.cfg, line 5: \[lstm\] is not known"),
        ("[convolutional]\nfilters=1e9", r"line 6: `filters` \(='1e9'\).*whole number"),
        ("[convolutional]\nfilters=99999999", "line 6: `filters`.*from 1 to 16777216"),
        ("[convolutional]\nsize=-3", "`size`"),
        ("[convolutional]\nstride=0", "`stride`"),
        ("[convolutional]\nantialiasing=1", "line 6: `antialiasing`.*not known"),
        ("[convolutional]\nfilters=2\nfilters=3", "line 7: `filters` is set twice"),
        ("[convolutional]\nsize=9\nactivation=relu", "at least one element"),
        ("[convolutional]\nactivation=__import__('os')", "has the activation"),
        ("[convolutional]\nfilters=6\ngroups=4", "4 groups"),
        ("[convolutional]\nfilters=1_0", "`filters`.*must be a whole number"),
        ("[convolutional]\nfilters=\N{ARABIC-INDIC DIGIT THREE}", "`filters`.*must be"),
        ("[route]\nlayers=-1", "refers to section -1; there are 0 before it"),
        ("[maxpool]\nsize=2\nstride=2\n[shortcut]\nfrom=3", "line 8.*section 3"),
        ("[upsample]\nstride=4000000", r"line 5: \[upsample\].*at most 2\^40"),
        ("[connected]\noutput=16777216\n" * 2, r"line 7: \[connected\].*weights"),
        ("[yolo]", "no layers"),
        ("[convolutional]\nshare_index=0", "must be an earlier convolution"),
        ("[avgpool]\n" * 10_001, "line 10004.*over 10000 sections"),
        ("[dropout]\nprobability=nan", "probability"),
        ("[convolutional", "must end in"),
        ("filters", "key=value"),
    ],
)
def test_refuses(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        _import(tmp_path, text)


def test_refuses_other_files(tmp_path):
    path = tmp_path / "weights.cfg"
    path.write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match="is no text"):
        darknet.from_cfg(path)
    path.write_text("[convolutional]\nfilters=3")
    with pytest.raises(ValueError, match=r"first section must be \[net\]"):
        darknet.from_cfg(path)
    path.write_text("[net]\nheight=8\nwidth=8\n")
    with pytest.raises(ValueError, match="needs `height`, `width` and `channels`"):
        darknet.from_cfg(path)
    path.write_text("[net]\n" + "".join(f"{key}=16777216\n" for key in _SIDES))
    with pytest.raises(ValueError, match=r"line 1: \[net\].*at most 2\^40"):
        darknet.from_cfg(path)
    path.write_bytes(b"#" * (1 << 20) + b"\n")
    with pytest.raises(ValueError, match="has 1048577 bytes; at most 1048576"):
        darknet.from_cfg(path)
    path.unlink()
    os.mkfifo(path)
    for endless in (path, "/dev/zero"):
        with pytest.raises(ValueError, match="no regular file"):
            darknet.from_cfg(endless)


_CONV = "[convolutional]\nfilters={}\nsize={}\nstride={}\npad=1\nactivation=linear\n"


@pytest.mark.parametrize(
    ("text", "told", "macs"),
    [
        # make_avgpool_layer makes 1 x 1 x C, and make_connected_layer 1 x 1 x outputs.
        (
            "[avgpool]\n" + _CONV.format(10, 1, 1),
            [("pool", (4,)), ("conv", (1, 1, 10))],
            40,
        ),
        (
            "[connected]\noutput=6\nactivation=linear\n" + _CONV.format(10, 1, 1),
            [("dense", (6,)), ("conv", (1, 1, 10))],
            256 * 6 + 60,
        ),
        (
            "[avgpool]\n[route]\nlayers=-1,-1\n[upsample]\nstride=8\n",
            [("pool", (4,)), ("concat", (1, 1, 8)), ("resize", (8, 8, 8))],
            0,
        ),
        # shortcut_cpu adds the common part to the last map: all 4 of 6 channels,
        (
            _CONV.format(4, 1, 1) + _CONV.format(6, 1, 1) + "[shortcut]\nfrom=-2\n",
            [
                *(("conv", (8, 8, 4)), ("conv", (8, 8, 6))),
                *(("resize", (8, 8, 6)), ("add", (8, 8, 6))),
            ],
            64 * (16 + 24),
        ),
        # every second row and column,
        (
            _CONV.format(4, 1, 1) + _CONV.format(4, 3, 2) + "[shortcut]\nfrom=-2\n",
            [
                *(("conv", (8, 8, 4)), ("conv", (4, 4, 4))),
                *(("slice", (4, 4, 4)), ("add", (4, 4, 4))),
            ],
            64 * 16 + 16 * 144,
        ),
        # both, with fewer channels than before and a smaller map before a larger one.
        (
            _CONV.format(4, 3, 2)
            + "[upsample]\n"
            + _CONV.format(2, 1, 1)
            + "[shortcut]\nfrom=-3\n",
            [
                *(("conv", (4, 4, 4)), ("resize", (8, 8, 4)), ("conv", (8, 8, 2))),
                *(("slice", (4, 4, 2)), ("resize", (8, 8, 2)), ("add", (8, 8, 2))),
            ],
            16 * 144 + 64 * 8,
        ),
        # im2col_cpu_ext pads by padding * dilation; pad=1 by size // 2 of those.
        (
            "[convolutional]\nsize=3\npadding=1\ndilation=2\nactivation=linear\n",
            [("conv", (8, 8, 1))],
            64 * 36,
        ),
        (
            "[convolutional]\nsize=5\npad=1\ndilation=3\nactivation=linear\n",
            [("conv", (8, 8, 1))],
            64 * 100,
        ),
    ],
)
def test_shapes_as_darknet_makes_them(tmp_path, text, told, macs):
    ops = _import(tmp_path, text)
    assert list(zip(ops.kinds, ops.output_shapes, strict=True)) == told
    assert ops.total_macs == macs
    assert training_iteration(ops) if ops.graph.parameters else True


def test_refuses_shortcuts_of_uneven_ratios(tmp_path):
    text = _CONV.format(4, 3, 2) + "stride_x=1\n[shortcut]\nfrom=-2\n"
    with pytest.raises(ValueError, match=r"line 14.*\(8, 8, 4\) to \(4, 8, 4\).*ratio"):
        _import(tmp_path, "[maxpool]\nsize=1\n" + text)


def test_convolutions_that_share_weights(tmp_path):
    norm = "batch_normalize=1\n"
    text = _CONV.format(4, 3, 1) + norm
    ops = _import(tmp_path, text + (text + "share_index=-1\n") + text)
    assert _sizes(ops) == {"conv_0": 144, "bn_0": 16, "conv_2": 144, "bn_2": 16}
    assert [op.parameters for op in ops.ops[:4]] == [("conv_0",), ("bn_0",)] * 2
    assert ops.total_macs == 3 * 64 * 144


def test_scaled_channels_and_settings_of_maps(tmp_path):
    # Squeeze and excitation: 8 x 8 x 4, one value for each channel, multiplied.
    path = tmp_path / "net.cfg"
    path.write_text("[net]\ninputs=4\n[convolutional]\nfilters=4")
    with pytest.raises(ValueError, match=r"needs an image, and is given \(4,\)"):
        darknet.from_cfg(path)
    text = (
        "[maxpool]\nsize=8\nstride=8\n[route]\nlayers=-1\n"
        "[convolutional]\nfilters=8\nactivation=logistic\n"
        "[reorg]\nstride=1\n[connected]\noutput=4\nactivation=linear"
    )
    ops = _import(tmp_path, text)
    assert ops.kinds == ("pool", "conv", "activation", "dense")
    assert ops.output_shapes == ((1, 1, 4), (1, 1, 8), (1, 1, 8), (4,))


def test_groups(tmp_path):
    text = "[convolutional]\nfilters=6\ngroups=2\nactivation=linear\n"
    text += "[convolutional]\nfilters=6\ngroups=6\nactivation=linear\n"
    text += "[convolutional]\nfilters=6\nactivation=linear\n"
    text += "[route]\nlayers=-1,-2\ngroups=2\ngroup_id=1"
    ops = _import(tmp_path, text)
    assert len(set(ops.names)) == ops.num_ops == 6
    convs = ops.select("conv").ops
    assert [op.variant for op in convs] == ["grouped", "depthwise", ""]
    assert [op.macs for op in convs] == [64 * 2 * 6, 64 * 6, 64 * 36]
