"""Activations over weights, against counts by hand and what is written."""

import pytest

from codesign.report import Results
from codesign.studies.camel import activation_share
from codesign.studies.camel.activation_share_count import KEPT, count
from codesign.studies.camel.activation_share_published import (
    PRINTED,
    conventions,
    mean_ratio,
    nearest,
    ratio,
)

_STAGES = ((64, 1), (128, 2), (256, 4), (512, 8))  # features, and how much smaller


def _basic(first, maps, at_projection, stem):
    """`stem`, and four stages of two blocks, the first of `first` x `first`.

    A block has `maps` maps, and `at_projection` more where a stage begins, but the first.
    """
    total = stem
    for number, (features, smaller) in enumerate(_STAGES):
        size = features * (first // smaller) ** 2
        total += (2 * maps + (at_projection if number else 0)) * size
    return total


def test_resnet18_by_hand():
    small, imagenet = count("resnet18").by_stem
    # A block makes conv, norm, ReLU, conv, norm, sum, ReLU; a projection conv and norm.
    # Its gradient reads what the norms read and the ReLUs make; of a projection the conv.
    # The stem: image, conv, norm, ReLU, and behind the large one a pool.
    assert small.made == _basic(32, 7, 2, 3 * 1024 + 3 * 64 * 1024 + 512 + 10)
    assert small.read == _basic(32, 4, 1, 3 * 1024 + 2 * 64 * 1024 + 512)
    stem = 3 * 1024 + 3 * 64 * 256 + 64 * 64
    assert imagenet.made == _basic(8, 7, 2, stem + 512 + 10)
    assert imagenet.read == _basic(8, 4, 1, stem - 64 * 256 + 512)
    # Products read the image, the map behind the stem, and two maps a block, but the
    # last one's output, of which they read 512 means.
    inputs = 3 * 1024 + 64 * 64 + _basic(8, 2, 0, 0) - 512 + 512
    assert imagenet.products == inputs
    assert imagenet.weights - small.weights == 3 * 64 * (49 - 9)


def test_vgg16_by_hand():
    small, imagenet = count("vgg16").by_stem
    # Products read the image, twelve maps or pools, and 512 values at the end.
    maps = (65536, 16384, 32768, 8192, 2 * 16384, 4096, 2 * 8192, 2048, 2 * 2048)
    assert small.products == 3072 + sum(maps) + 512
    # Each convolution makes three maps; five pools; one mean and ten logits.
    made = 3 * (2 * 65536 + 2 * 32768 + 3 * 16384 + 3 * 8192 + 3 * 2048)
    pools = 16384 + 8192 + 4096 + 2048 + 512
    assert small.made == 3072 + made + pools + 512 + 10
    # Kernels; a bias, scale, shift, mean and variance for each of 4224 channels.
    pairs = (3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256)
    pairs += (256, 512), *[(512, 512)] * 5
    kernels = sum(9 * a * b for a, b in pairs)
    assert small.weights == kernels + 5 * 4224 + 5130
    assert (small.weights, small.products) == (imagenet.weights, imagenet.products)


@pytest.mark.slow
def test_resnet50_by_hand():
    small, imagenet = count("resnet50").by_stem
    for counts, first, stem in (
        (small, 32, 3 * 1024 + 3 * 64 * 1024),
        (imagenet, 8, 3 * 1024 + 3 * 64 * 256 + 64 * 64),
    ):
        total = stem + 2048 + 10
        for (features, smaller), blocks in zip(_STAGES, (3, 4, 6, 3), strict=True):
            # Six maps of the inner width and four of the outer one, two of a projection.
            total += (blocks * 22 + 8) * features * (first // smaller) ** 2
        assert counts.made == total
    assert small.products < small.read < small.made


def test_what_is_written(tmp_path):
    config = activation_share.ActivationShareConfig(networks=("vgg16",), batch_size=48)
    found = activation_share.run(config, workdir=tmp_path)
    results = Results.read(tmp_path / "results.json").quantities
    by_key = {each.key: each for each in results}
    assert len(by_key) == len(conventions()) + 4
    for kept in KEPT:
        assert by_key[f"mean_ratio[{kept}]"].paper == PRINTED
    elements = by_key["num_kept[vgg16]"].value / by_key["num_weights[vgg16]"].value
    assert by_key["mean_ratio[read]"].value == pytest.approx(elements)
    assert by_key["mean_ratio[read,small,activations 6.4]"].value == pytest.approx(
        elements / 5
    )
    assert (tmp_path / "activation_share.png").exists()
    means = [mean_ratio(found, way, 48) for way in nearest(found, 48)]
    off = [max(mean / PRINTED, PRINTED / mean) for mean in means]
    assert off == sorted(off)
    way = ("made", "small", "equal")
    twice = ratio(found["vgg16"], way, 96)
    assert twice == pytest.approx(2 * ratio(found["vgg16"], way, 48))
