"""Where the search computes: in float64, on this process's CPU device."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax


@contextlib.contextmanager
def float64_on_cpu() -> Iterator[Any]:
    """Everything computed inside is float64 on the CPU device, which it yields.

    Random keys come from outside: `jax.device_put` them to the device.

    Raises:
        RuntimeError: If this process was started without JAX's CPU backend.
    """
    try:
        device = jax.local_devices(backend="cpu")[0]  # not another process's
    except RuntimeError as error:
        raise RuntimeError(
            "The search needs JAX's CPU backend beside the accelerator's; append ',cpu' "
            "to JAX_PLATFORMS."
        ) from error
    with jax.enable_x64(True), jax.default_device(device):
        yield device
