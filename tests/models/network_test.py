import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codesign import models
from codesign.models import registry
from codesign.models.layers import Conv, Dense

_SITES = {
    **{"vgg11": 8, "vgg16": 13, "vgg19": 16, "resnet18": 20},
    **{"resnet34": 36, "resnet50": 53, "mobilenetv2": 52},
}


def _network(name="vgg11", **settings):
    settings = dict(width=0.125, image_shape=(8, 8, 3)) | settings
    return models.create(name, **settings)


def _init(network):
    return jax.jit(network.init)(jax.random.key(0))


def _images(network, batch=4, seed=0):
    return jax.random.normal(jax.random.key(seed), (batch, *network.image_shape))


class _PlainVgg11(nn.Module):
    """The same network from flax's own batch norm, to compare with."""

    width: float

    @nn.compact
    def __call__(self, x, *, train):
        plan = (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0)
        number = 0
        for features in plan:
            if features == 0:
                if min(x.shape[1:3]) > 1:
                    x = nn.max_pool(x, (2, 2), (2, 2))
                continue
            number += 1
            x = Conv(round(features * self.width), name=f"conv{number}")(x)
            norm = nn.BatchNorm(
                use_running_average=not train,
                momentum=0.9,
                epsilon=1e-5,
                use_fast_variance=False,
                name=f"norm{number}",
            )
            x = nn.relu(norm(x))
        return Dense(10, name="classifier")(x.mean((1, 2)))


@pytest.mark.parametrize("name", models.NETWORKS)
def test_sites_and_output(name):
    network = _network(name)
    variables = jax.eval_shape(network.init, jax.random.key(0))
    assert network.num_sites == _SITES[name] == len(variables["batch_stats"])
    apply = functools.partial(network.apply, train=True)
    logits, _ = jax.eval_shape(
        apply, variables, _images(network), jnp.ones(network.num_sites)
    )
    assert logits.shape == (4, 10)


@pytest.mark.slow
def test_all_ones_is_the_network_with_flax_batch_norms():
    network = _network()
    variables = _init(network)
    plain = _PlainVgg11(0.125)
    images = _images(network, batch=32)
    ones = jnp.ones(8)
    for train in (True, False):
        mutable = ["batch_stats"] if train else []
        expected, updated = plain.apply(variables, images, train=train, mutable=mutable)
        logits, stats = network.apply(variables, images, ones, train=train)
        chex.assert_trees_all_close(logits, expected, rtol=1e-4, atol=1e-4)
        if train:
            chex.assert_trees_all_close(
                stats, updated["batch_stats"], rtol=1e-4, atol=1e-4
            )

    def loss(apply):
        def fn(params):
            return jnp.sum(jnp.sin(apply({**variables, "params": params})))

        return jax.jit(jax.grad(fn))(variables["params"])

    ours = loss(lambda v: network.apply(v, images, ones, train=True)[0])
    theirs = loss(
        lambda v: plain.apply(v, images, train=True, mutable=["batch_stats"])[0]
    )
    # A map of 1x1 leaves 32 values to normalise, so single entries cancel: compare norms.
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert jnp.linalg.norm(a - b) <= 1e-3 * jnp.linalg.norm(b) + 1e-4


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.slow
def test_running_statistics_do_not_matter_where_the_mask_is_zero(train):
    network = _network()
    variables = _init(network)
    other = jax.tree.map(lambda x: x + 3.0, variables["batch_stats"])
    mask = jnp.zeros(8)
    images = _images(network)
    first, _ = network.apply(variables, images, mask, train=train)
    second, _ = network.apply(
        {**variables, "batch_stats": other}, images, mask, train=train
    )
    np.testing.assert_array_equal(first, second)


def test_a_site_at_zero_is_the_identity_bit_for_bit():
    layer = models.MaskedBatchNorm(site=1)
    x = 100 * jax.random.normal(jax.random.key(1), (4, 3, 3, 5))
    mask = jnp.array([1.0, 0.0])
    variables = layer.init(jax.random.key(0), x, mask, train=True)
    y, _ = layer.apply(variables, x, mask, train=True, mutable=["batch_stats"])
    np.testing.assert_array_equal(y, x)


def test_mask_gradient_is_that_of_finite_differences():
    # In the forward direction along each mask entry, in float64 to see small slopes.
    with jax.enable_x64(True):
        layer = models.MaskedBatchNorm(site=0)
        x = jax.random.normal(jax.random.key(1), (8, 2, 2, 3), jnp.float64) * 2 + 1
        variables = layer.init(jax.random.key(0), x, jnp.ones(1), train=True)

        def fn(m):
            y, _ = layer.apply(
                variables, x, m[None], train=True, mutable=["batch_stats"]
            )
            return jnp.sum(jnp.sin(y))

        for m in (0.0, 0.4, 1.0):
            step = 1e-5
            numeric = (fn(jnp.float64(m + step)) - fn(jnp.float64(m - step))) / (
                2 * step
            )
            exact = jax.grad(fn)(jnp.float64(m))
            np.testing.assert_allclose(exact, numeric, rtol=1e-5)


def test_one_program_serves_all_placements():
    network = _network()
    variables = _init(network)
    images = _images(network)
    chex.clear_trace_counter()
    apply = jax.jit(chex.assert_max_traces(network.apply, 1), static_argnames="train")
    outputs = [
        apply(variables, images, network.mask(sites), train=True)[0]
        for sites in ((), (0,), ("C5", "C7"), tuple(range(8)))
    ]
    assert len({float(out.sum()) for out in outputs}) == 4


@pytest.mark.parametrize("name", ["vgg11", "vgg16", "vgg19", "resnet18"])
@pytest.mark.slow
def test_each_site_acts_on_the_output(name):
    network = _network(name)
    variables = _init(network)
    images = _images(network)
    apply = jax.jit(network.apply, static_argnames="train")
    none, _ = apply(variables, images, network.mask(()), train=True)
    for site in range(network.num_sites):
        one, _ = apply(variables, images, network.mask((site,)), train=True)
        assert not np.array_equal(one, none), site


@pytest.mark.parametrize(
    ("initialisation", "variance"),
    # fan_in = 9 * 64, fan_out = 9 * 128: 1 / (3 fan_in), 2 / (fan_in + fan_out), 2 / fan_in
    [("pytorch", 1 / 1728), ("xavier", 2 / 1728), ("kaiming", 2 / 576)],
)
def test_initialisation_variances(initialisation, variance):
    network = models.create("vgg11", initialisation=initialisation)
    init = jax.jit(lambda key: network.init(key)["params"]["conv2"])  # and no other
    params = init(jax.random.key(0))
    np.testing.assert_allclose(jnp.var(params["kernel"]), variance, rtol=0.03)
    if initialisation == "pytorch":
        assert float(jnp.abs(params["kernel"]).max()) <= 1 / 24
        assert 0 < float(jnp.abs(params["bias"]).max()) <= 1 / 24
    else:
        assert not np.any(params["bias"])


@pytest.mark.parametrize("size", [8, 16, 33, 64])
def test_image_sizes(size):
    for name in ("vgg11", "resnet18", "resnet50", "mobilenetv2"):
        network = _network(name, image_shape=(size, size, 1), width=0.05)
        variables = jax.eval_shape(network.init, jax.random.key(0))
        ones = jnp.ones(network.num_sites)
        apply = functools.partial(network.apply, train=False)
        logits, _ = jax.eval_shape(apply, variables, _images(network, 1), ones)
        assert logits.shape == (1, 10)


@pytest.mark.parametrize(
    ("name", "settings", "match"),
    [
        ("vgg12", {}, r"`network` \(='vgg12'\) must be one of.*vgg11"),
        ("vgg11", {"width": 0.0}, "`width` must be positive and finite, got 0.0"),
        ("vgg11", {"width": -1.0}, "`width` must be positive"),
        ("vgg11", {"initialisation": "he"}, "`initialisation`.*'he'.*kaiming"),
        ("vgg11", {"image_shape": (4, 4, 3)}, "`image_shape`.*at least 8"),
        ("vgg11", {"num_classes": 1}, "`num_classes` must be at least 2"),
        ("resnet50", {"image_shape": (7, 7, 3)}, "`image_shape`.*at least 8"),
        ("mobilenetv2", {"length": 7}, "'mobilenetv2' has no `length`.*image_shape"),
    ],
)
def test_refuses(name, settings, match):
    with pytest.raises(ValueError, match=match):
        models.create(name, **settings)


@pytest.mark.parametrize("length", [1, 7, 9])
def test_a_mask_of_the_wrong_length_is_refused(length):
    network = _network()
    variables = jax.eval_shape(network.init, jax.random.key(0))
    with pytest.raises(ValueError, match=rf"\({length},\).*8 batch-norm sites"):
        network.apply(variables, _images(network), jnp.ones(length), train=False)
    layer = models.MaskedBatchNorm(site=length)
    with pytest.raises(ValueError, match=f"`site` {length}"):
        layer.init(jax.random.key(0), jnp.ones((2, 3)), jnp.ones(length), train=True)


def test_mask_refuses_a_site_that_does_not_exist():
    for site in (8, -1, "C0", "C9", "conv1", "c1"):
        with pytest.raises(ValueError, match=rf"{site!r}; .*0 to 7, or C1 to C8"):
            _network().mask((0, site))


def test_sites_count_from_0_and_have_the_papers_names():
    network = _network()
    np.testing.assert_array_equal(network.mask((0, 7)), [1, 0, 0, 0, 0, 0, 0, 1])
    np.testing.assert_array_equal(network.mask(("C5", "C7")), network.mask((4, 6)))


def test_paper_placements():
    counts = {n: len(_network(n).paper_sites) for n in models.NETWORKS}
    published = {n: count for n, count in counts.items() if count}
    assert published == {"vgg11": 2, "vgg16": 4, "vgg19": 4, "resnet18": 12}


def test_a_network_of_ones_own_is_created_by_name(monkeypatch):
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))

    @models.register("lenet", title="LeNet", num_sites=2, paper_sites=("C1",))
    class LeNet(nn.Module):
        num_classes: int
        num_filters: int = 6

    network = models.create("lenet", image_shape=(28, 28, 1), num_filters=8)
    assert network == models.Network(LeNet(10, 8), 2, (28, 28, 1), 10, ("C1",), "lenet")
    with pytest.raises(ValueError, match="`num_filters` must be at least 1 and"):
        models.create("lenet", num_filters=0)
    with pytest.raises(ValueError, match=r"no `width`.*'image_shape', 'num_filters'"):
        models.create("lenet", width=0.5)


def test_titles():
    titles = {name: models.title(name) for name in ("resnet50", "gnmt", "onnx:a.onnx")}
    assert titles == {
        "resnet50": "ResNet-50",
        "gnmt": "GNMT",
        "onnx:a.onnx": "onnx:a.onnx",
    }


class _Small(nn.Module):
    """A user's own network: two sites, dropout, and any number of them."""

    sites: tuple[int, ...] = (0, 1)
    num_classes: int = 10

    @nn.compact
    def __call__(self, x, bn_mask, *, train):
        for site in self.sites:
            x = nn.Conv(4, (3, 3))(x)
            x = models.MaskedBatchNorm(site)(x, bn_mask, train=train)
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(self.num_classes)(x.mean((1, 2)))


def test_sites_are_found_from_the_module():
    network = models.Network(_Small(), image_shape=(8, 8, 1))
    assert (network.num_sites, network.label) == (2, "_Small")
    assert models.Network(_Small((1, 0, 0)), image_shape=(8, 8, 1)).num_sites == 2
    for name in models.NETWORKS:
        assert _network(name).count_sites() == _SITES[name]


@pytest.mark.parametrize(
    ("module", "settings", "error", "match"),
    [
        (_Small((0, 2)), {}, ValueError, r"sites \[0, 2\], but none of \[1\]"),
        (_Small(num_classes=7), {}, ValueError, r"\(1, 7\).*`num_classes` \(=10\)"),
        (
            _Small(),
            {"image_shape": (8, 8)},
            ValueError,
            r"\(8, 8\)\) must be \(H, W, C",
        ),
        (_Small(), {"image_shape": (8, 0, 1)}, ValueError, r"must be \(H, W, C\)"),
        (_Small(), {"num_sites": "2"}, ValueError, r"`num_sites` \(='2'\)"),
        (_Small(), {"num_sites": -1}, ValueError, r"`num_sites` \(=-1\)"),
        (_Small(), {"num_sites": True}, ValueError, r"`num_sites` \(=True\)"),
        (_Small, {}, TypeError, "an instance of a `flax.linen.Module`"),
        (None, {}, TypeError, "an instance of a `flax.linen.Module`"),
    ],
)
def test_a_network_that_cannot_be_searched_is_refused(module, settings, error, match):
    with pytest.raises(error, match=match):
        models.Network(module, **({"image_shape": (8, 8, 1)} | settings))


class _Block(nn.Module):
    """A dropout, which branches, or none, and a site."""

    drops: bool = False

    @nn.compact
    def __call__(self, x, bn_mask, train):
        if self.drops:
            x = nn.Dropout(0.5, deterministic=not train)(x)
        return models.MaskedBatchNorm(0)(x, bn_mask, train=train)


class _Remat(nn.Module):
    """The block is run again in the backward pass."""

    drops: bool = False
    is_careless: bool = True

    @nn.compact
    def __call__(self, x, bn_mask, *, train):
        if self.is_careless:
            x = nn.remat(_Block)(self.drops)(x, bn_mask, train=train)
        else:
            x = nn.remat(_Block, static_argnums=3)(self.drops)(x, bn_mask, train)
        return nn.Dense(10)(x.mean((1, 2)))


def test_a_traced_switch_under_remat_is_explained():
    with pytest.raises(TypeError, match="`train` must be True or False.*nn.remat"):
        models.Network(_Remat(), image_shape=(8, 8, 1))
    with pytest.raises(jax.errors.TracerBoolConversionError) as caught:
        models.Network(_Remat(drops=True), image_shape=(8, 8, 1))
    assert "`static_argnums`" in caught.value.__notes__[-1]
    for drops in (False, True):
        network = models.Network(
            _Remat(drops, is_careless=False), image_shape=(8, 8, 1)
        )
        assert network.num_sites == 1


def test_dropout_gets_its_keys():
    network = models.Network(_Small(), image_shape=(8, 8, 1))
    variables, images = network.init(jax.random.key(0)), jnp.ones((4, 8, 8, 1))
    apply = jax.jit(network.apply, static_argnames="train")
    one, two, again = (
        apply(variables, images, jnp.ones(2), train=True, key=jax.random.key(k))[0]
        for k in (0, 1, 0)
    )
    assert not np.array_equal(one, two)
    np.testing.assert_array_equal(one, again)
    still = [apply(variables, images, jnp.ones(2), train=False)[0] for _ in range(2)]
    np.testing.assert_array_equal(*still)


@pytest.mark.parametrize(
    "sites", [[True, False], np.array([1.0, 0.0]), [0, 1, 0, 1], 1, "C1"]
)
def test_a_mask_is_no_list_of_sites(sites):
    with pytest.raises(ValueError, match="`sites`"):
        _network().mask(sites)


def test_sites_of_a_paper_must_exist():
    with pytest.raises(ValueError, match=r"'C9'; this network has sites 0 to 1"):
        models.Network(_Small(), image_shape=(8, 8, 1), paper_sites=("C9",))
