"""What a network computes, in a few characters: tells whose a checkpoint is."""

import hashlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from codesign.models.network import Network

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # of a function in a field


def digest(network: Network) -> str:
    """Digest of a network: its fields, and the steps that JAX traces of it.

    These are of its initialisation, of training and of evaluation, literals among them.
    Another version of JAX may trace other steps, as its numbers may be others.
    """
    key = jax.random.key(0)
    variables = jax.eval_shape(network.init, key)
    image = network.batch(2)
    mask = jax.ShapeDtypeStruct((network.num_sites,), jnp.float32)

    # What is frozen is an argument, not a constant of the steps, which are printed.
    variables = {**jax.eval_shape(lambda: network.frozen), **variables}

    def train(variables, image, mask, key):
        return network.apply(variables, image, mask, train=True, key=key)

    def evaluate(variables, image, mask):
        return network.apply(variables, image, mask, train=False)

    steps = (
        jax.make_jaxpr(network.init)(key),
        jax.make_jaxpr(train)(variables, image, mask, key),
        jax.make_jaxpr(evaluate)(variables, image, mask),
    )
    frozen = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(network.frozen)]
    hashed = hashlib.sha256(b"".join(frozen)).hexdigest() if frozen else ""
    return digest_of((network.module, *map(steps_of, steps), *filter(None, [hashed])))


def steps_of(jaxpr: Any) -> str:
    """A jaxpr as text, with the arrays that it closes over."""
    return f"{jaxpr} {[np.asarray(const).tolist() for const in jaxpr.consts]}"


def digest_of(what: object) -> str:
    """16 hexadecimal digits of what an object prints, addresses aside."""
    return hashlib.sha256(_ADDRESS.sub("", repr(what)).encode()).hexdigest()[:16]
