import pathlib

import pytest

from codesign.workload import load as networks

_DATA = pathlib.Path(__file__).parents[2] / "workload" / "data"


def test_files_of_other_people(tmp_path):
    onnx = pytest.importorskip("onnx")
    from tests.workload.data.onnx_models import small_cnn

    model = small_cnn()
    path = tmp_path / "small.onnx"
    onnx.save(model, path)
    free = networks.load(f"onnx:{path}")
    # The same with its batch fixed to 4: refused, until the name says what the 4 is.
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(model, path)
    with pytest.raises(ValueError, match="first axis.*4|4.*first axis"):
        networks.load(f"onnx:{path}")
    fixed = networks.load(f"onnx:{path}@4")
    assert fixed.total_macs == free.total_macs > 0
    assert fixed.output_shapes == free.output_shapes
    assert networks.digest(f"onnx:{path}@4") == networks.digest(f"onnx:{path}")
    assert networks.label(f"onnx:{path}@4") == "small"


def test_darknet():
    ops = networks.load(f"darknet:{_DATA / 'vgg16.cfg'}")
    assert ops.total_macs == 15_470_264_320  # by hand, in darknet_test.py
    assert networks.batch_size("darknet:vgg16.cfg") == 32


def test_the_papers_networks():
    assert networks.batch_size("transformer") == networks.batch_size("keras:x") * 4
    # 12 layers, 18 attentions of four dense layers with a ReLU behind each.
    ops = networks.load("transformer")
    relus = [op for op in ops.ops if op.kind == "activation"]
    assert len(relus) == 18 * 4 + 12


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("resnet51", "must be one of"),
        ("darknet:/nowhere.cfg", "names no file"),
        ("onnx:/nowhere.onnx@4", "names no file"),
    ],
)
def test_refuses(name, why):
    with pytest.raises(ValueError, match=why):
        networks.load(name)
