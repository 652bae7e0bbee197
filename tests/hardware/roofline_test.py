import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign import models, workload
from codesign.hardware import roofline
from codesign.numerics.relax import smooth


def _ops(name="vgg11"):
    network = models.create(name)
    return network, workload.trace(*network.trace_args())


def test_first_ops_by_hand():
    # conv1 of VGG-11, batch 2: 2 products (no input gradient), each of 2 x 1769472 MACs
    # at 3840 x 1.582 GHz / 2: 2.330 us. Its traffic, 2 x 4 B x (2 x (3072 + 65536) +
    # 1728) at 0.8 x 547.6 GB/s, takes 2.537 us and wins. Norm: 8 passes over 2 x 65536
    # values, 9.574 us.
    _, ops = _ops()
    cost = roofline.estimate(roofline.titan_xp(), ops, batch_size=2)
    op_s = np.array(cost.breakdown["op_s"])
    assert op_s[0] == pytest.approx(
        8 * (2 * (3072 + 65536) + 1728) / 438.08e9, rel=1e-4
    )
    assert op_s[1] == pytest.approx(8 * 2 * 65536 * 4 / 438.08e9, rel=1e-4)
    # conv2, 3 products: 3 x 2 x 18874368 MACs / 3037.44 G = 37.28 us, compute bound.
    conv2 = ops.names.index("VGG/conv2")
    assert op_s[conv2] == pytest.approx(6 * 18874368 / (3840 * 1.582e9 / 2), rel=1e-4)
    assert float(cost.latency_s) == pytest.approx(op_s.sum(), rel=1e-5)


def test_products_of_maps_and_point_wise_ops_are_charged():
    # q k^T of 512 vectors of 4096: 3 products of 2^30 MACs a batch of 1, compute bound.
    # Softmax of 512 x 512: 5 passes of 2^18 values, memory bound.
    def net(x, w):
        scores = jnp.einsum("bqh,bkh->bqk", x @ w, x)
        return jax.nn.softmax(scores, -1)

    shapes = ((1, 512, 4096), (4096, 4096))
    args = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    ops = workload.trace(net, *args)
    assert ops.kinds == ("dense", "matmul", "softmax")
    cost = roofline.estimate(roofline.titan_xp(), ops, batch_size=1)
    peak, bandwidth = 3840 * 1.582e9 / 2, 438.08e9
    expected = [2 * 512 * 4096**2 / peak, 3 * 2**30 / peak, 5 * 2**18 * 4 / bandwidth]
    np.testing.assert_allclose(cost.breakdown["op_s"], expected, rtol=1e-4)


def test_vgg19_costs_about_twice_vgg11():
    # Section I of the DeepTrain paper says about 2x on a Titan Xp.
    period = [
        float(roofline.estimate(roofline.titan_xp(), _ops(name)[1]).period_s)
        for name in ("vgg19", "vgg11")
    ]
    assert 2.0 < period[0] / period[1] < 3.0


def test_batch_norm_is_a_small_part_of_a_gpu_step():
    network, ops = _ops()
    full = roofline.estimate(roofline.titan_xp(), ops)
    none = roofline.estimate(roofline.titan_xp(), ops.masked(network.mask(())))
    assert 0.02 < 1 - float(none.latency_s / full.latency_s) < 0.1


@settings(max_examples=20, deadline=None)
@given(st.floats(0.1, 10.0), st.floats(0.1, 10.0))
def test_more_of_a_resource_never_costs_time(compute, bandwidth):
    _, ops = _ops()
    spec = roofline.titan_xp()
    faster = spec.replace(  # pyright: ignore[reportAttributeAccessIssue]
        peak_macs_per_s=spec.peak_macs_per_s * max(1, compute),
        bandwidth_bytes_per_s=spec.bandwidth_bytes_per_s * max(1, bandwidth),
    )
    estimate = jax.jit(roofline.estimate)
    assert estimate(faster, ops).latency_s <= estimate(spec, ops).latency_s


def test_smooth_tends_to_exact():
    _, ops = _ops()
    exact = roofline.estimate(roofline.titan_xp(), ops).latency_s
    near = roofline.estimate(roofline.titan_xp(), ops, relax=smooth(1e-3)).latency_s
    assert float(near / exact) == pytest.approx(1, abs=1e-3)


def test_refuses():
    with pytest.raises(ValueError, match="bandwidth_efficiency.*at most 1, got 1.5"):
        roofline.titan_xp().replace(bandwidth_efficiency=1.5).checked()  # pyright: ignore[reportAttributeAccessIssue]
