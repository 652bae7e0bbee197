"""What number formats did to the operands of a trained network, row by row."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from codesign.data.augment import normalise
from codesign.data.dataset import Dataset
from codesign.models.network import Network
from codesign.models.operands import operand_statistics
from codesign.types import Array, PyTree


@dataclasses.dataclass(frozen=True)
class OperandRow:
    """What the formats did to one operand of one product, after training.

    Attributes:
        product: Path of its module.
        tensor: `weights`, `activations` or `gradients`.
        zero, zero_mantissa, zero_block, saturated, flushed, error: As in
            `numerics.formats.Statistics`.
    """

    product: str
    tensor: str
    zero: float
    zero_mantissa: float
    zero_block: float
    saturated: float
    flushed: float
    error: float


def first_batch(dataset: Dataset, size: int) -> tuple[Array, Array]:
    """Images as a network sees them, or tokens, and labels: the first of training."""
    images = jnp.asarray(dataset.train.images[:size])
    labels = jnp.asarray(dataset.train.labels[:size])
    return normalise(images, dataset.mean, dataset.std), labels


def measure(
    network: Network,
    variables: PyTree,
    dataset: Dataset,
    mask: Array,
    *,
    batch_size: int,
    seed: int,
) -> tuple[OperandRow, ...]:
    """Of the first training batch; products that the loss does not need are left out."""
    images, labels = first_batch(dataset, batch_size)
    key = jax.random.key(seed)
    found = operand_statistics(network, variables, images, labels, mask, key=key)
    return tuple(
        OperandRow(name, kind, *map(float, values))
        for name, kinds in found.items()
        for kind, values in kinds.items()
        if np.all(np.isfinite(values))
    )


def by_product(rows: Iterable[OperandRow]) -> dict[str, Any]:
    """By product and class of tensor, as JSON holds them."""
    products: dict[str, Any] = {}
    for row in rows:
        values = dataclasses.asdict(row)
        name, tensor = values.pop("product"), values.pop("tensor")
        products.setdefault(name, {})[tensor] = values
    return products
