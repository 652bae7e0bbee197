"""Reversible stacks against the same blocks written out, by autodiff and by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from codesign.kernels.coupling import Streams, couple, invert
from codesign.numerics.lattice import to_lattice

_DEPTH, _ROWS, _WIDTH = 6, 5, 8


def _normal(seed, *shape, scale=1.0):
    rng = np.random.default_rng(seed)
    return (scale * rng.normal(size=shape)).astype(np.float32)


def _residual(block, shared, x):
    """Ends in a product and an addition, which XLA may fuse into one rounding."""
    kernel, scale = block
    h = jnp.tanh(x @ kernel)
    value = 0.3 * h * scale[None] + shared * jnp.sin(x) * scale[None]
    return value, {"mean": jnp.mean(x)}


def _blocks(seed, depth=_DEPTH):
    return _normal(seed, depth, _WIDTH, _WIDTH, scale=0.4), _normal(
        seed + 1, depth, _WIDTH
    )


def _streams(fraction_bits=12):
    pair = (_normal(seed, _ROWS, _WIDTH) for seed in (10, 11))
    return Streams(*(to_lattice(x, fraction_bits) for x in pair))


def _written_out(blocks, shared, streams):
    x1, x2 = streams
    for i in range(_DEPTH):
        first, second = jax.tree.map(lambda leaf, i=i: leaf[i], blocks)
        x2 = x2 + _residual(first, shared, x1)[0]
        x1 = x1 + _residual(second, shared, x2)[0]
    return Streams(x1, x2)


def _loss(streams):
    return jnp.mean(jnp.sin(streams.first)) + jnp.mean(streams.second**2)


@functools.partial(jax.jit, static_argnames=("fraction_bits", "plain"))
def _gradients(blocks, shared, streams, *, fraction_bits=None, plain=False):
    def loss(blocks, shared, streams):
        if plain:
            return _loss(_written_out(blocks, shared, streams))
        return _loss(
            couple(
                *(_residual, _residual, blocks, shared, streams),
                fraction_bits=fraction_bits,
            ).streams
        )

    return jax.value_and_grad(loss, (0, 1, 2))(blocks, shared, streams)


def _assert_near(found, expected, tolerance):
    for ours, theirs in zip(
        jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
    ):
        error = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
        assert error < tolerance


def test_a_block_by_hand():
    # f1(x) = 2x, f2(x) = x^2 of x1 = 3, x2 = 1: y2 = 1 + 6 = 7, y1 = 3 + 49 = 52. With
    # dy1 = 1, dy2 = 0: dx2 = 2 y2 = 14, dx1 = 1 + 2 * 14 = 29, and of f1's 2: 3 * 14.
    def run(two, x1, x2):
        f1 = lambda block, shared, x: (block * x, None)  # noqa: E731
        f2 = lambda block, shared, x: (x * x, None)  # noqa: E731
        blocks = (two[None], jnp.zeros(1))
        return couple(f1, f2, blocks, (), Streams(x1, x2)).streams

    inputs = jnp.float32(2), jnp.float32(3), jnp.float32(1)
    assert run(*inputs) == (52, 7)
    found = jax.grad(lambda *inputs: run(*inputs).first, (0, 1, 2))(*inputs)
    assert found == (42, 29, 14)


def test_gradients_are_those_of_the_blocks_written_out():
    parts = (_blocks(0), _blocks(2)), jnp.float32(0.2), _streams()
    _assert_near(_gradients(*parts), _gradients(*parts, plain=True), 1e-5)


def test_a_lattice_changes_values_by_its_step_and_gradients_little():
    parts = (_blocks(0), _blocks(2)), jnp.float32(0.2), _streams(16)
    found = _gradients(*parts, fraction_bits=16)
    _assert_near(found, _gradients(*parts, plain=True), 1e-4)


@pytest.mark.parametrize("fraction_bits", [None, 12])
def test_a_stack_is_inverted(fraction_bits):
    blocks, shared = (_blocks(0, 32), _blocks(2, 32)), jnp.float32(0.2)
    parts = (_residual, _residual, blocks, shared)
    run = functools.partial(couple, *parts, fraction_bits=fraction_bits)
    back = functools.partial(invert, *parts, fraction_bits=fraction_bits)
    streams = _streams()
    for x, found in zip(
        streams, jax.jit(back)(jax.jit(run)(streams).streams), strict=True
    ):
        if fraction_bits is None:
            np.testing.assert_allclose(found, x, atol=1e-3)
        else:
            np.testing.assert_array_equal(found, x)


def test_the_backward_pass_returns_to_the_very_input():
    # A probe of 0 that f1 multiplies its input with has the gradient x1 dy2, of the x1
    # that the backward pass arrives at; dy2 is the gradient of x2. One row: none adds up.
    def f1(block, shared, x):
        *block, probe = block
        value, aux = _residual(block, shared, x)
        return value + x * probe[None], aux

    def loss(probes, x2):
        blocks = (*_blocks(0, 32), probes), _blocks(2, 32)
        streams = Streams(x1, x2)
        found = couple(f1, _residual, blocks, 0.2, streams, fraction_bits=12)
        return _loss(found.streams)

    x1, x2 = (x[:1] for x in _streams())
    of_probes, of_x2 = jax.jit(jax.grad(loss, (0, 1)))(jnp.zeros((32, _WIDTH)), x2)
    np.testing.assert_array_equal(of_probes[0], (x1 * of_x2)[0])


def test_memory_is_that_of_one_block():
    def temporary_bytes(depth):
        blocks = tuple(
            jax.ShapeDtypeStruct((depth, 128, 128), jnp.float32) for _ in range(2)
        )
        streams = Streams(*[jax.ShapeDtypeStruct((64, 128), jnp.float32)] * 2)
        f = lambda kernel, shared, x: (jnp.tanh(x @ kernel), None)  # noqa: E731

        def loss(blocks, streams):
            return _loss(couple(f, f, blocks, (), streams).streams)

        compiled = jax.jit(jax.grad(loss)).lower(blocks, streams).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    shallow, deep = temporary_bytes(4), temporary_bytes(32)
    assert deep <= 1.02 * shallow
    # Four streams, a kernel or its gradient, and two values: (4 + 2) * 32 + 64 KiB.
    assert shallow < 270 * 1024


def test_what_has_no_derivative_costs_none():
    # Gradients of taps [depth, ...] would be an array of their size.
    def temporary_bytes(cut):
        def loss(kernels, taps):
            taps = lax.stop_gradient(taps) if cut else taps
            f = lambda block, _, x: (jnp.tanh(x @ block[0] + block[1]), None)  # noqa: E731
            blocks = (kernels, taps), (kernels, taps)
            return _loss(couple(f, f, blocks, (), Streams(taps[0], taps[1])).streams)

        shapes = (32, 16, 16), (32, 256, 16)
        arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
        compiled = jax.jit(jax.grad(loss, (0, 1))).lower(*arrays).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    of_taps = 32 * 256 * 16 * 4
    assert temporary_bytes(cut=True) < of_taps / 2
    assert temporary_bytes(cut=False) > of_taps


def test_keys_and_whole_numbers_ride_along():
    keys = jax.random.split(jax.random.key(3), _DEPTH)

    def f(block, shared, x):
        kernel, key, number = block
        kept = jax.random.bernoulli(key, 0.5, x.shape)
        return jnp.tanh(x @ kernel) * kept * number, {"number": number}

    kernels = _blocks(0)[0]
    block = kernels, keys, jnp.arange(_DEPTH)

    def loss(kernels):
        found = couple(f, f, ((kernels, *block[1:]), block), (), _streams())
        return _loss(found.streams), found.aux

    (value, aux), slope = jax.jit(jax.value_and_grad(loss, has_aux=True))(kernels)
    np.testing.assert_array_equal(aux[0]["number"], jnp.arange(_DEPTH))
    step = _normal(5, *kernels.shape, scale=1e-3)
    moved = (loss(kernels + step)[0] - loss(kernels - step)[0]) / 2
    np.testing.assert_allclose(np.vdot(slope, step), moved, rtol=1e-2)
    assert np.isfinite(value)


def test_what_a_function_closes_over_has_its_gradient():
    blocks, streams = (_blocks(0), _blocks(2)), _streams()

    def loss(scale, *, closed):
        if closed:
            f = lambda block, _, x: _residual(block, scale, x)  # noqa: E731
            return _loss(couple(f, f, blocks, (), streams).streams)
        return _loss(couple(_residual, _residual, blocks, scale, streams).streams)

    slopes = [
        jax.jit(jax.grad(functools.partial(loss, closed=closed)))(jnp.float32(0.2))
        for closed in (False, True)
    ]
    np.testing.assert_allclose(*slopes, rtol=1e-6)


@pytest.mark.parametrize("fraction_bits", [None, 12])
def test_transformations_change_nothing(fraction_bits):
    blocks, shared = (_blocks(0), _blocks(2)), jnp.float32(0.2)
    one, other = _streams(), Streams(*(2 * x for x in _streams()))

    def slope(streams):
        def loss(blocks):
            parts = (_residual, _residual, blocks, shared, streams)
            return _loss(couple(*parts, fraction_bits=fraction_bits).streams)

        return jax.grad(loss)(blocks), jax.grad(jax.checkpoint(loss))(blocks)

    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), one, other)
    mapped = jax.jit(jax.vmap(slope))(batch)
    for place, streams in enumerate((one, other)):
        expected = jax.jit(slope)(streams)
        _assert_near(
            jax.tree.map(lambda leaf, n=place: leaf[n], mapped), expected, 1e-5
        )
        _assert_near(*expected, 1e-5)


def test_kernels_are_not_copied_for_each_of_a_batch():
    def loss(kernels, x):
        f = lambda kernel, _, x: (jnp.tanh(x[None] @ kernel)[0], None)  # noqa: E731
        return _loss(couple(f, f, (kernels, kernels), (), Streams(x, x)).streams)

    arrays = (16, 64, 64), (512, 64)
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in arrays]
    mapped = jax.jit(jax.vmap(jax.grad(loss, 1), (None, 0)))
    temporary = mapped.lower(*shapes).compile().memory_analysis().temp_size_in_bytes
    assert temporary < 512 * 64 * 64 * 4 / 2


def test_values_out_of_range_are_counted():
    # 2^24 / 2^12 = 4096: the second block takes 4000 beyond it.
    f = lambda block, shared, x: (jnp.full_like(x, 1000.0), None)  # noqa: E731
    blocks = (jnp.zeros(2), jnp.zeros(2))
    streams = Streams(jnp.full((3,), 2500.0), jnp.zeros(3))
    assert couple(f, f, blocks, (), streams, fraction_bits=12).num_overflows == 3
    assert couple(f, f, blocks, (), streams, fraction_bits=11).num_overflows == 0
    assert couple(f, f, blocks, (), streams).num_overflows == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"streams": Streams(jnp.ones(4), jnp.ones(5))},
            r"streams.*\[4\].*\[5\].*one shape",
        ),
        ({"fraction_bits": 24}, r"fraction_bits.*=24.*0 to 23"),
        ({"fraction_bits": True}, r"fraction_bits.*True"),
        (
            {
                "streams": Streams(*[jnp.ones(4, jnp.bfloat16)] * 2),
                "fraction_bits": 12,
            },
            "streams.*bfloat16.*float32",
        ),
        ({"f2": lambda block, shared, x: (x[:2], None)}, r"`f2` makes float32\[2\]"),
        ({"blocks": (jnp.ones(2), jnp.ones(3))}, "blocks.*same number"),
        ({"blocks": ((), ())}, "blocks"),
    ],
)
def test_refuses(change, message):
    f = lambda block, shared, x: (x * block.astype(x.dtype), None)  # noqa: E731
    given = {
        "f1": f,
        "f2": f,
        "blocks": (jnp.ones(2), jnp.ones(2)),
        "shared": (),
        "streams": Streams(jnp.ones(4), jnp.ones(4)),
    }
    with pytest.raises(ValueError, match=message):
        couple(**(given | change))
