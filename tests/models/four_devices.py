"""A reversible stack on four devices and on one; prints what differs, as JSON.

Run by `reversible_devices_test.py` in a process that has four devices.
"""

import functools
import json
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from codesign.models.reversible import ReversibleStack
from codesign.numerics.lattice import to_lattice

_COLLECTIVE = re.compile(
    r"= (?P<made>\S.*?) (?P<kind>all-reduce|all-gather|all-to-all|reduce-scatter|"
    r"collective-permute)(-start)?\("
)
_WIDTH, _BATCH = 24, 16


class _F(nn.Module):
    @nn.compact
    def __call__(self, x):
        return 0.3 * nn.Dense(x.shape[-1])(nn.gelu(nn.LayerNorm()(x)))


def _collectives(compiled) -> list[tuple[str, list[list[int]]]]:
    """Kind, and the shapes of what each collective makes."""
    found = []
    for line in compiled.as_text().splitlines():
        if match := _COLLECTIVE.search(line):
            shapes = re.findall(r"[a-z]\w*\[([\d,]*)\]", match["made"])
            sizes = [[int(n) for n in shape.split(",") if n] for shape in shapes]
            found.append((match["kind"], sizes))
    return found


def compare(bits: int | None, axis_type: AxisType, remat: bool) -> dict:
    """Gradients and streams of a batch in four pieces, against those on one device."""
    stack = ReversibleStack(_F(), _F(), 5, fraction_bits=bits)
    rng = np.random.default_rng(0)
    streams = [
        to_lattice(jnp.asarray(rng.normal(size=(_BATCH, _WIDTH)), jnp.float32), 12)
        for _ in "12"
    ]
    variables = stack.init(jax.random.key(0), *streams)
    apply = jax.checkpoint(stack.apply) if remat else stack.apply

    @functools.partial(jax.grad, argnums=(0, 1, 2), has_aux=True)
    def gradient(variables, x1, x2):
        y1, y2 = apply(variables, x1, x2)
        return jnp.mean(jnp.sin(y1)) + jnp.mean(y2**2), (y1, y2)

    def inverse(variables, y1, y2):
        return stack.apply(variables, y1, y2, method="inverse")

    slopes, made = jax.jit(gradient)(variables, *streams)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(axis_type,))
    spread = NamedSharding(mesh, PartitionSpec("data"))
    given = (
        jax.device_put(variables, NamedSharding(mesh, PartitionSpec())),
        *(jax.device_put(x, spread) for x in streams),
    )
    step = jax.jit(gradient).lower(*given).compile()
    slopes_of_four, made_of_four = step(*given)
    invert = jax.jit(inverse).lower(given[0], *made_of_four).compile()
    back = invert(given[0], *made_of_four)

    def off(found, expected):
        pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
        return max(
            float(np.linalg.norm(np.asarray(f) - e) / np.linalg.norm(e))
            for f, e in pairs
        )

    return {
        "pieces": len({shard.device for shard in made_of_four[0].addressable_shards}),
        "gradients": off(slopes_of_four, slopes),
        "streams": off(made_of_four, made),
        "inverse": off(back, streams),
        "step_collectives": _collectives(step),
        "inverse_collectives": _collectives(invert),
        "parameters": [[*p.shape[1:]] for p in jax.tree.leaves(variables)],
    }


if __name__ == "__main__":
    print(
        json.dumps(
            {
                "float": compare(None, AxisType.Auto, False),
                "lattice": compare(12, AxisType.Auto, False),
                "lattice, checkpoint": compare(12, AxisType.Auto, True),
                "lattice, explicit": compare(12, AxisType.Explicit, False),
            }
        )
    )
