"""A caller's own network, data and chip: digests that tell a workdir whose it is."""

import hashlib
import re

import jax

from codesign import workload
from codesign.data import Dataset
from codesign.hardware import Chip
from codesign.models import Network

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # of a function in a field


def digests(
    network: Network | None = None,
    dataset: Dataset | None = None,
    chip: Chip | None = None,
) -> str | None:
    """Names and digests of what was brought, as a setting holds them; None of nothing.

    Of a network count the module's fields, its ops and its parameters' shapes; of a chip
    its numbers and the name of its `estimate`; of data every byte. Two networks that
    differ in an initialiser, or two functions of one name, look alike.
    """
    found = []
    if network is not None:
        ops = workload.trace(*network.trace_args())
        shapes = jax.eval_shape(network.init, jax.random.key(0))
        found.append(("network", (network.module, ops.graph.ops, shapes)))
    if dataset is not None:
        found.append(("dataset", dataset.digest()))
    if chip is not None:
        leaves, structure = jax.tree.flatten(chip.spec)
        estimate = getattr(chip.estimate, "__qualname__", "")
        found.append(("chip", (estimate, structure, [float(leaf) for leaf in leaves])))
    return ", ".join(f"{name} {_digest(what)}" for name, what in found) or None


def _digest(what: object) -> str:
    return hashlib.sha256(_ADDRESS.sub("", repr(what)).encode()).hexdigest()[:16]
