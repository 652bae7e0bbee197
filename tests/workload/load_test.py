import pathlib

import pytest

from codesign.workload import load as networks

_DATA = pathlib.Path(__file__).parent / "data"


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


def test_dimensions_of_onnx_files(tmp_path):
    onnx = pytest.importorskip("onnx")
    from tests.workload.data.onnx_models import build, node, weight

    nodes, weights = [node("Conv", "x k", "y")], [weight("k", 4, 3, 1, 1)]
    path = tmp_path / "at@home.onnx"
    onnx.save(build(nodes, weights, [("x", ("N", 3, "a.0", "a.1"))]), path)
    name = f"onnx:{path}@a.0=5@a.1=7"
    assert networks.load(name).total_macs == 5 * 7 * 12
    assert networks.load(f"onnx:{path}@x=1x3x2x9").graph.inputs == ((2, 9, 3),)
    assert networks.label(name) == "at@home (a.0=5, a.1=7)"
    assert networks.digest(name) == networks.digest(f"onnx:{path}")
    with pytest.raises(ValueError, match=r"'b': 5.*open axis.*'N', 'a.0', 'a.1'"):
        networks.load(f"{name}@b=5")
    with pytest.raises(ValueError, match="names no file.*`@H=480@W=640`"):
        networks.load(f"onnx:{path}@a.0=five")


def test_darknet():
    ops = networks.load(f"darknet:{_DATA / 'vgg16.cfg'}")
    assert ops.total_macs == 15_470_264_320  # by hand, in darknet_test.py


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("resnet50", "ResNet-50"),
        ("keras:ResNet50", "ResNet-50 (Keras)"),
        ("keras:MobileNetV2", "MobileNetV2 (Keras)"),
        ("vgg11", "VGG-11"),
        ("darknet:/some/yolo.cfg", "yolo"),
    ],
)
def test_label(name, label):
    assert networks.label(name) == label


def test_digest_follows_the_file(tmp_path):
    file = tmp_path / "net.cfg"
    file.write_text("[net]\n")
    name = f"darknet:{file}"
    before = networks.digest(name)
    assert networks.digest(name) == before
    file.write_text("[net]\nwidth=8\n")
    assert networks.digest(name) != before
    assert networks.digest("vgg11") == ""
    with pytest.raises(ValueError, match="names no file"):
        networks.digest("darknet:/dev/zero")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("resnet51", "`network` .*must be one of"),
        ("keras:ResNet51", "application of Keras"),
        ("keras:", "must be one of"),
        ("darknet:/nowhere.cfg", "names no file"),
        ("onnx:/nowhere.onnx@4", "names no file"),
    ],
)
def test_refuses(name, why):
    with pytest.raises(ValueError, match=why):
        networks.load(name)


@pytest.mark.parametrize(
    ("text", "why"), [(b"[net]\nheight=x", "line 2: .height"), (b"\xff", "no text")]
)
def test_errors_of_a_file_name_the_setting(tmp_path, text, why):
    path = tmp_path / "net.cfg"
    path.write_bytes(text)
    message = rf"`networks` \(='darknet:{path}'\): .*{why}"
    with pytest.raises(ValueError, match=message):
        networks.load(f"darknet:{path}", setting="networks")


@pytest.mark.skipif(not pathlib.Path("/proc/self/mem").is_file(), reason="no /proc")
def test_an_unreadable_file_is_named(tmp_path):
    link = tmp_path / "net.cfg"
    link.symlink_to("/proc/self/mem")  # a regular file whose first page nobody can read
    with pytest.raises(
        ValueError, match=r"`networks` \(='darknet:.*Input/output error"
    ):
        networks.digest(f"darknet:{link}", "networks")


@pytest.mark.parametrize("data", [b"", b"\x08", b"\xff" * 9])
def test_so_do_those_of_an_onnx_file(tmp_path, data):
    pytest.importorskip("onnx")
    path = tmp_path / "net.onnx"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"`networks` \(='onnx:.*net.onnx'\): "):
        networks.load(f"onnx:{path}", setting="networks")


def test_settings_of_our_own_networks():
    narrow = networks.load("vgg11", 32, width=0.5)
    assert narrow.total_macs < networks.load("vgg11", 32).total_macs / 2
    with pytest.raises(ValueError, match="`networks`.*resnet51"):
        networks.check("resnet51", "networks")
