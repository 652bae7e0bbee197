"""A caller's own network, data and chip: digests that tell a workdir whose it is."""

import hashlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from codesign import models, workload
from codesign.data import Dataset
from codesign.hardware import Chip
from codesign.models import Network
from codesign.numerics.relax import smooth

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # of a function in a field


def digests(
    network: Network | None = None,
    dataset: Dataset | None = None,
    chip: Chip | None = None,
) -> str | None:
    """Names and digests of what was brought, as a setting holds them; None of nothing.

    Of a network count the steps that JAX traces of its initialisation and of training,
    literals among them, and the module's fields; of a chip its numbers, and the steps of
    its smooth model; of data every byte. Another version of JAX may trace other steps:
    it refuses to go on, as its numbers would be others.
    """
    found = []
    key = jax.random.key(0)
    if network is not None:
        variables = jax.eval_shape(network.init, key)
        image = jax.ShapeDtypeStruct((2, *network.image_shape), jnp.float32)
        mask = jax.ShapeDtypeStruct((network.num_sites,), jnp.float32)

        def train(variables, image, mask, key):
            return network.apply(variables, image, mask, train=True, key=key)

        steps = (
            jax.make_jaxpr(network.init)(key),
            jax.make_jaxpr(train)(variables, image, mask, key),
        )
        found.append(("network", (network.module, *map(_text, steps))))
    if dataset is not None:
        found.append(("dataset", dataset.digest()))
    if chip is not None:
        example = models.create("vgg11", width=0.125, image_shape=(8, 8, 3))
        ops = workload.trace(*example.trace_args())

        def costs(spec, ops):
            return chip.estimate(spec, ops, batch_size=64, relax=smooth(0.1))

        leaves, structure = jax.tree.flatten(chip.spec)
        numbers = [np.asarray(leaf).tolist() for leaf in leaves]
        steps = _text(jax.make_jaxpr(costs)(chip.spec, ops))
        found.append(("chip", (structure, numbers, steps)))
    return ", ".join(f"{name} {_digest(what)}" for name, what in found) or None


def _text(steps: Any) -> str:
    """A jaxpr, with the arrays that it closes over."""
    return f"{steps} {[np.asarray(const).tolist() for const in steps.consts]}"


def _digest(what: object) -> str:
    return hashlib.sha256(_ADDRESS.sub("", repr(what)).encode()).hexdigest()[:16]
