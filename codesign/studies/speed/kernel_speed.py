"""How fast unfolded convolutions are, beside XLA's own."""

import jax
import jax.numpy as jnp
import numpy as np

from codesign.kernels.convolution import convolution
from codesign.report import Quantity
from codesign.studies.speed.timing import interleaved, row

_CHANNELS = (3, 64, 128, 256, 256, 512, 512, 512, 512)
_SIZES = (32, 16, 8, 8, 4, 4, 2, 2)


def convolutions(width: float, repeats: int, seed: int) -> list[Quantity]:
    """Times the gradient of each convolution of VGG-11, and adds them up."""
    total_s = np.zeros(2)
    for site, size in enumerate(_SIZES):
        c_in = int(_CHANNELS[site] * width) if site else _CHANNELS[0]
        c_out = int(_CHANNELS[site + 1] * width)
        rng = np.random.default_rng(seed + site)
        x = jnp.asarray(rng.normal(size=(64, size, size, c_in)), jnp.float32)
        kernel = jnp.asarray(rng.normal(size=(3, 3, c_in, c_out)), jnp.float32)

        def gradient(name, x=x, kernel=kernel):
            def loss(x, kernel):
                y = convolution(x, kernel, implementation=name)
                return jnp.sum(jnp.maximum(y, 0))

            grad = jax.jit(jax.grad(loss, (0, 1)))
            return lambda: grad(x, kernel)

        times = interleaved(repeats, gradient("unfold"), gradient("xla"))
        total_s += np.median(times, axis=1)
    unfold_s, xla_s = total_s.tolist()
    title = f"8 convolutions of VGG-11 with gradients, width {width:g}"
    of = {"network": "vgg11", "width": width}
    peer = ("XLA's own", xla_s)
    return [row("convolutions_s", unfold_s, title, of, asked=xla_s, peer=peer)]


PIECES = {"convolutions": (convolutions, (0.25, 1.0))}
