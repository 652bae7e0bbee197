"""ResNet-50 and MobileNetV2 are those of keras.applications."""

import jax
import pytest

from codesign import models, workload


def _network(name, size):
    return models.create(name, image_shape=(size, size, 3), num_classes=1000)


def _resnet50_macs():
    # The stem, then for each stage a first block, which projects, and the others.
    macs = 112**2 * 7 * 7 * 3 * 64
    inputs = 64
    for side, inner, blocks in ((56, 64, 3), (28, 128, 4), (14, 256, 6), (7, 512, 3)):
        outer = 4 * inner
        first = inputs * inner + 9 * inner**2 + inner * outer + inputs * outer
        other = outer * inner + 9 * inner**2 + inner * outer
        macs += side**2 * (first + (blocks - 1) * other)
        inputs = outer
    return macs + 2048 * 1000


def _mobilenetv2_macs():
    macs, side, inputs = 112**2 * 9 * 3 * 32, 112, 32
    stages = (
        *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
        *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
    )
    for expansion, outputs, blocks, first_stride in stages:
        for block in range(blocks):
            inner = expansion * inputs
            if expansion > 1:
                macs += side**2 * inputs * inner
            side //= first_stride if block == 0 else 1
            macs += side**2 * (9 * inner + inner * outputs)
            inputs = outputs
    return macs + 7**2 * 320 * 1280 + 1280 * 1000


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    # Totals of `Model.count_params` in keras 3.15, which its documentation prints too.
    [
        ("resnet50", 25_636_712, _resnet50_macs()),
        ("mobilenetv2", 3_538_984, _mobilenetv2_macs()),
    ],
)
def test_parameters_and_macs(name, parameters, macs):
    network = _network(name, 224)
    variables = jax.eval_shape(network.init, jax.random.key(0))
    assert sum(x.size for x in jax.tree.leaves(variables)) == parameters
    assert workload.trace(*network.trace_args()).total_macs == macs
    rounded = {"resnet50": 3.86, "mobilenetv2": 0.30}  # GMACs, as both papers say
    assert round(macs / 1e9, 2) == rounded[name]


@pytest.mark.parametrize("name", ["resnet50", "mobilenetv2"])
def test_each_site_stands_behind_its_convolution(name):
    network = _network(name, 32)
    ops = workload.trace(*network.trace_args()).ops
    norms = {op.site: op for op in ops if op.kind == "norm"}
    assert sorted(norms) == list(range(network.num_sites))
    for site, norm in norms.items():
        (source,) = (ops[i].name for i in norm.operands)
        assert source.endswith(f"/conv{site + 1}")
        assert any(site in (ops[i].site for i in op.operands if i >= 0) for op in ops)


def test_maps_of_resnet50():
    ops = workload.trace(*_network("resnet50", 224).trace_args())
    pool = ops.select("pool")
    assert pool.output_shapes == ((56, 56, 64), (2048,))
    assert pool.input_shapes == ((112, 112, 64), (7, 7, 2048))
    sums = ops.select("add").output_shapes
    sides = (56,) * 3 + (28,) * 4 + (14,) * 6 + (7,) * 3
    assert [shape[:2] for shape in sums] == [(side, side) for side in sides]
    # Strides stand in the first 1x1 convolution of a stage, not in its 3x3.
    strided = [
        op.weight_shape[:2]
        for op in ops.select("conv").ops
        if op.input_shape[0] == 2 * op.output_shape[0]
    ]
    assert strided == [(7, 7), *[(1, 1)] * 6]


def test_maps_of_mobilenetv2():
    ops = workload.trace(*_network("mobilenetv2", 224).trace_args())
    sides = [op.output_shape[0] for op in ops.select("conv").ops]
    assert (sides[0], sides[-1]) == (112, 7)
    assert len(ops.select("add").ops) == 10
    depthwise = [op for op in ops.select("conv").ops if op.weight_shape[2] == 1]
    assert len(depthwise) == 17
    for op in depthwise:
        assert op.weight_shape == (3, 3, 1, op.output_shape[-1])


@pytest.mark.parametrize(
    ("width", "stem", "last"),
    # 32 * 0.35 = 11.2 rounds to 8, which would take away more than a tenth: 16.
    [(0.35, 16, 1280), (0.5, 16, 1280), (1.4, 48, 1792)],
)
def test_widths_of_mobilenetv2_are_multiples_of_eight(width, stem, last):
    network = models.create("mobilenetv2", width=width)
    params = jax.eval_shape(network.init, jax.random.key(0))["params"]
    assert params["conv1"]["kernel"].shape == (3, 3, 3, stem)
    assert params["conv52"]["kernel"].shape[-1] == last
    assert all(p["kernel"].shape[-1] % 8 == 0 for n, p in params.items() if "conv" in n)
