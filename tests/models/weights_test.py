import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from codesign import models
from codesign.models.weights import load_weights, save_weights


def _variables(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "params": {
            "conv": {"kernel": jnp.asarray(rng.normal(size=(3, 2, 4, 5)), jnp.float32)},
            "head": {"bias": jnp.asarray(rng.normal(size=5), jnp.float32)},
        },
        "batch_stats": {"norm": {"mean": jnp.asarray(rng.normal(), jnp.float32)}},
        "counts": jnp.arange(3),
    }


def _saved(path, tensors):
    safetensors.numpy.save_file(tensors, path)
    return path


def test_what_is_saved_is_loaded(tmp_path):
    path, variables = tmp_path / "a.safetensors", _variables()
    save_weights(path, _variables(1))
    save_weights(path, variables)  # over the old file
    shapes = jax.eval_shape(lambda: variables)
    for like in (variables, shapes, _variables(2)):
        found = load_weights(path, like)
        chex.assert_trees_all_equal(found, variables)
        chex.assert_trees_all_equal_shapes_and_dtypes(found, variables)
    assert [each.name for each in tmp_path.iterdir()] == ["a.safetensors"]
    assert "params/conv/kernel" in safetensors.numpy.load_file(path)


def test_a_network_computes_as_before(tmp_path):
    network = models.create("vgg11", width=0.05, image_shape=(8, 8, 1))
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: jnp.asarray(rng.uniform(size=leaf.shape), leaf.dtype), shapes
    )
    save_weights(tmp_path / "a.safetensors", variables)
    found = load_weights(tmp_path / "a.safetensors", shapes)
    chex.assert_trees_all_equal(found, variables)


def test_layouts_of_pytorch(tmp_path):
    # torch.nn.Conv2d keeps [out, in, h, w], and Linear [out, in]: y = x W^T.
    rng = np.random.default_rng(0)
    conv = rng.normal(size=(2, 3, 1, 1)).astype(np.float32)
    linear = rng.normal(size=(4, 2)).astype(np.float32)
    path = _saved(tmp_path / "a.safetensors", {"f.0.weight": conv, "fc.weight": linear})
    like = {
        "conv": {"kernel": jnp.zeros((1, 1, 3, 2))},
        "dense": {"kernel": jnp.zeros((2, 4)), "bias": jnp.arange(4.0)},
    }
    names = {
        "conv/kernel": ("f.0.weight", "OIHW->HWIO"),
        "dense/kernel": ("fc.weight", "OI->IO"),
        "dense/bias": None,
    }
    for each in (names, names.__getitem__):
        found = load_weights(path, like, each)
        x = rng.normal(size=3).astype(np.float32)
        y = nn.Conv(2, (1, 1), use_bias=False).apply(
            {"params": found["conv"]}, x.reshape(1, 1, 1, 3)
        )
        y = nn.Dense(4).apply({"params": found["dense"]}, y)
        expected = linear @ (conv[:, :, 0, 0] @ x) + np.arange(4)
        np.testing.assert_allclose(jnp.ravel(y), expected, rtol=1e-5)


def test_each_fault_is_named(tmp_path):
    tensors = {
        "a": np.zeros((2, 3), np.float32),
        "b": np.zeros(2, np.float16),
        "c": np.array([1, np.nan], np.float32),
        "e": np.zeros((2, 2), np.float32),
        "h": np.zeros(2, ml_dtypes.bfloat16),
    }
    path = _saved(tmp_path / "a.safetensors", tensors)
    like = {name: jnp.zeros(2) for name in "abcdfh"} | {"e": jnp.zeros((2, 2))}
    like["k"] = jax.ShapeDtypeStruct((2,), jnp.float32)
    names = {name: name for name in "abcdh"} | {"e": ("e", "OI->OO"), "k": None}
    with pytest.raises(ValueError, match="does not fit `like`") as caught:
        load_weights(path, like, names)
    said = str(caught.value)
    for fault in (
        "'a' has shape (2,), but the tensor 'a' has (2, 3)",
        "'b' is float32, but the tensor 'b' is float16; write it as float32",
        "'c' needs the tensor 'c', which is not finite",
        "'d' needs the tensor 'd', which is not there",
        "'e' has the layout 'OI->OO', which is no order of the 2 axes",
        "'f' is not in `names`",
        "'h' is float32, but the tensor 'h' is BF16",
        "'k' is kept, but `like` has its shape alone",
    ):
        assert fault in said
    with pytest.raises(
        ValueError, match=r"\(2,\).*'a' has \(2, 3\), \(3, 2\) as AB->BA"
    ):
        load_weights(path, {"a": jnp.zeros(2)}, {"a": ("a", "AB->BA")})


def test_many_faults_are_counted(tmp_path):
    path = _saved(tmp_path / "a.safetensors", {"a": np.zeros(1, np.float32)})
    like = {f"b{n}": jnp.zeros(1) for n in range(13)}
    with pytest.raises(ValueError, match="and 3 more"):
        load_weights(path, like)
    path = _saved(path, {"kernel": np.zeros(1, np.float32)})
    with pytest.raises(ValueError, match="'kernal', .*; the nearest is 'kernel'"):
        load_weights(path, {"kernal": jnp.zeros(1)})


def test_tensors_that_are_left_over_are_named(tmp_path):
    tensors = {name: np.zeros(1, np.float32) for name in ("a", "mask", "step")}
    path = _saved(tmp_path / "a.safetensors", tensors)
    with pytest.warns(UserWarning, match="2 tensor.* takes: mask; step"):
        found = load_weights(path, {"a": jnp.ones(1)})
    assert found == {"a": 0.0}


@pytest.mark.parametrize("name", ["a.bin", "a.pt", "a.npz", "a"])
def test_other_files_are_refused_by_name(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"")
    for act in (load_weights, save_weights):
        with pytest.raises(ValueError, match=rf"`path`.*{name}.*must be a safetensors"):
            act(path, {})
    assert path.read_bytes() == b""


@pytest.mark.parametrize(
    "content",
    # Nothing; a header longer than any file; one that is no JSON; too few bytes.
    [
        b"",
        b"\xff" * 7 + b"\x7f{}",
        b"\x02" + bytes(7) + b"{{",
        None,
    ],
)
def test_damaged_files_are_refused(tmp_path, content):
    path = tmp_path / "a.safetensors"
    if content is None:
        content = safetensors.numpy.save({"a": np.zeros(9, np.float32)})[:-1]
    path.write_bytes(content)
    with pytest.raises(ValueError, match="`path`.*a.safetensors.*cannot be read"):
        load_weights(path, {"a": jnp.zeros(9)})
    with pytest.raises(ValueError, match="b.safetensors.*is no file"):
        load_weights(tmp_path / "b.safetensors", {})


def test_a_type_that_cannot_be_read_again_is_not_written(tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(ValueError, match="bfloat16 in 'a/b'.*float32"):
        save_weights(path, {"a": {"b": jnp.zeros(1, jnp.bfloat16)}})
    assert not path.exists()
