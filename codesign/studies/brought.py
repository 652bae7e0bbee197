"""A caller's own network, data and chip: digests that tell a workdir whose it is."""

import functools

import jax
import numpy as np

from codesign import models, workload
from codesign.data import Dataset
from codesign.hardware import Chip
from codesign.models import Network
from codesign.models.digest import digest, digest_of, steps_of
from codesign.numerics.relax import EXACT, smooth


def digests(
    network: Network | None = None,
    dataset: Dataset | None = None,
    chip: Chip | None = None,
    *,
    batch_size: int,
) -> str | None:
    """Names and digests of what was brought, as a setting holds them; None of nothing.

    Of a network count what `models.digest` says; of a chip its numbers, and the steps of
    its model at `batch_size`, smooth and exact; of data every byte. Another version of
    JAX may trace other steps: it refuses to go on, as its numbers would be others.
    """
    found = []
    if network is not None:
        found.append(f"network {digest(network)}")
    if dataset is not None:
        found.append(f"dataset {digest_of(dataset.digest())}")
    if chip is not None:
        example = models.create("vgg11", width=0.125, image_shape=(8, 8, 3))
        ops = workload.trace(*example.trace_args())
        on_host = getattr(
            chip.estimate, "on_host", False
        )  # its exact model has no steps
        steps = []
        for relax in (smooth(0.1), *([] if on_host else [EXACT])):
            costs = functools.partial(chip.estimate, batch_size=batch_size, relax=relax)
            steps.append(jax.make_jaxpr(costs)(chip.spec, ops))
        leaves, structure = jax.tree.flatten(chip.spec)
        numbers = [np.asarray(leaf).tolist() for leaf in leaves]
        what = (structure, numbers, *map(steps_of, steps))
        found.append(f"chip {digest_of(what)}")
    return ", ".join(found) or None
