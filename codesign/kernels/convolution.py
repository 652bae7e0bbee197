"""Two-dimensional convolution: one function, its implementation chosen by platform."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from codesign.kernels.product import Axes, Product, multiply
from codesign.types import Array

AXES = Axes(forward=(-1, 2), input_gradient=(-1, 3), weight_gradient=(0, 0))
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def convolution(
    x: Array,
    kernel: Array,
    *,
    strides: tuple[int, int] = (1, 1),
    padding: str | Sequence[tuple[int, int]] = "SAME",
    groups: int = 1,
    implementation: str | None = None,
) -> Array:
    """Cross-correlates images with a kernel, as `lax.conv_general_dilated` does.

    Args:
        x: [B, H, W, C] images.
        kernel: [kernel_h, kernel_w, C / groups, K].
        strides: Steps between windows.
        padding: `SAME`, `VALID`, or ((top, bottom), (left, right)).
        groups: Channel groups that do not see each other.
        implementation: `xla` or `unfold`; None takes what was measured as the fastest
            on the platform: `unfold` on CPU, where XLA's convolution gradients are 2 to
            9 times slower on VGG-11 (`python -m experiments.bench`), else `xla`.

    Returns:
        [B, H', W', K].

    Raises:
        ValueError: If shapes do not fit, or `implementation` is not known or cannot
            serve grouped convolutions.
    """
    if x.ndim != 4 or kernel.ndim != 4 or x.shape[-1] != kernel.shape[2] * groups:
        raise ValueError(
            f"`x` {x.shape} must be [B, H, W, C] and `kernel` {kernel.shape} "
            f"[h, w, C / groups, K] with the same C at `groups` (={groups})."
        )
    if implementation is None:
        on_cpu = jax.default_backend() == "cpu"
        implementation = "unfold" if on_cpu and groups == 1 else "xla"
    if implementation not in _IMPLEMENTATIONS:
        raise ValueError(
            f"`implementation` (={implementation!r}) must be one of "
            f"{sorted(_IMPLEMENTATIONS)}."
        )
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    static = {
        "strides": tuple(strides),
        "padding": tuple(map(tuple, padding)),
        "groups": groups,
    }
    run = _IMPLEMENTATIONS[implementation]
    unshared = _shifted if run is _unfold else None
    product = Product("conv", run, AXES, tuple(static.items()), unshared=unshared)
    return multiply(product, x, kernel)


def _xla(x, kernel, *, strides, padding, groups):
    dtype = jnp.result_type(x, kernel)  # as a product promotes; XLA would refuse
    return lax.conv_general_dilated(
        x.astype(dtype),
        kernel.astype(dtype),
        strides,
        padding,
        dimension_numbers=_DIMENSIONS,
        feature_group_count=groups,
        preferred_element_type=jnp.result_type(x, kernel, jnp.float32),
    )


def _unfold(x, kernel, *, strides, padding, groups):
    """One matmul over the concatenated shifted inputs; autodiff gives its gradients.

    XLA's CPU backend runs this and both gradients through its matmul library, while its
    convolution gradients on small maps (2x2, 512 channels) fall to a naive loop.
    """
    if groups != 1:
        raise ValueError("`unfold` serves `groups=1` only; use `xla`.")
    taps = patches(x, kernel, strides, padding)
    *shape, num_outputs = *taps[0].shape[:3], kernel.shape[3]
    rows = jnp.concatenate(taps, -1).reshape(math.prod(shape), -1)
    y = _dot(rows, kernel.reshape(-1, num_outputs))
    return y.reshape(*shape, num_outputs)


def _shifted(x, kernel, *, strides, padding, groups):
    """A matmul for each shifted input, added: nothing is copied for its weights' gradient.

    Beside a forward pass that has unfolded the same input it would be the slower one.
    """
    del groups
    taps = patches(x, kernel, strides, padding)
    *shape, num_outputs = *taps[0].shape[:3], kernel.shape[3]
    matrices = kernel.reshape(-1, kernel.shape[2], num_outputs)
    rows = [tap.reshape(math.prod(shape), -1) for tap in taps]
    y = sum(_dot(row, matrix) for row, matrix in zip(rows, matrices, strict=True))
    return jnp.reshape(y, (*shape, num_outputs))


def patches(x, kernel, strides, padding):
    """The input of each tap of a kernel, in row-major order: [B, H', W', C] each."""
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    batch, height, width, num_inputs = x.shape
    kernel_h, kernel_w = kernel.shape[:2]
    out_h = (height - kernel_h) // strides[0] + 1
    out_w = (width - kernel_w) // strides[1] + 1
    ends = (out_h - 1) * strides[0] + 1, (out_w - 1) * strides[1] + 1
    return [
        lax.slice(
            x,
            (0, i, j, 0),
            (batch, i + ends[0], j + ends[1], num_inputs),
            (1, *strides, 1),
        )
        for i in range(kernel_h)
        for j in range(kernel_w)
    ]


def _dot(rows, matrix):
    dtype = jnp.result_type(rows, matrix, jnp.float32)
    return jnp.dot(rows, matrix, preferred_element_type=dtype)


_IMPLEMENTATIONS = {"xla": _xla, "unfold": _unfold}
