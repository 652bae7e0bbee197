"""When a step belongs to a layer that is complete: a scale, a shift, a statistic."""

import dataclasses
from collections.abc import Sequence

from codesign.workload.tracing.node import Node

AFFINE = ("add", "sub", "mul", "div")
_MATRIX = ("conv", "dense", "matmul")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Meeting:
    """A step that reads a complete layer.

    Attributes:
        node: The step.
        head: The first node of the layer.
        event: What the layer is: `norm`, `softmax`, `dropout`, or empty.
        of_statistics: Whether the step reads its statistics alone.
        follows: Whether the step reads its map alone, and nobody else does.
        leaf_sizes: Elements of each parameter leaf.
    """

    node: Node
    head: Node
    event: str
    of_statistics: bool
    follows: bool
    leaf_sizes: Sequence[int]

    @property
    def scales(self) -> bool:
        """Whether it does no more than scale or shift the map."""
        return self.follows and not self.of_statistics and self.node.primitive in AFFINE

    @property
    def is_together(self) -> bool:
        """Whether both stand in one module, or both in none."""
        here, there = self.node.place, self.head.place
        if here.is_module != there.is_module:
            return False
        return not here.is_module or here.name == there.name


def updates_statistics(m: Meeting) -> bool:
    """Of a norm: `running = 0.9 * running + 0.1 * x.mean(0)`."""
    return m.of_statistics and m.node.place.scope == m.head.place.scope


def scales_a_product(m: Meeting) -> bool:
    """By a constant, wherever it stands: `(q @ k.T) / 8`."""
    return m.scales and m.head.kind in _MATRIX and m.node.is_constant


def scales_a_norm(m: Meeting) -> bool:
    """By parameters too: `normalised * scale + bias`."""
    noise = any(value.noise for value in m.node.operands)
    return m.scales and m.is_together and m.event == "norm" and not noise


def adds_a_bias(m: Meeting) -> bool:
    """To a product by a weight: `x @ w + b`, b no longer than a row.

    Behind a weight that is a constant, a bias that is trained stands alone: the one has
    a gradient and the other has none.
    """
    node, head = m.node, m.head
    is_sum = head.kind in ("conv", "dense") and node.primitive == "add"
    if not (m.scales and m.is_together and is_sum):
        return False
    is_apart = not head.trained or any(value.detached for value in node.data)
    added = [value for value in node.operands if not value.is_data]
    if (node.trained and is_apart) or any(value.noise for value in added):
        return False
    count = max((value.size for value in added), default=0)
    size = max((m.leaf_sizes[leaf] for v in added for leaf in v.leaves), default=0)
    return min(count, size) <= head.weight_shape[-1]


def scales_a_layer(m: Meeting) -> bool:
    """By a constant: `pool_sum(x) / 9`, `masked(x) / 0.9`."""
    is_layer = bool(m.event) or m.head.kind == "pool"
    return m.scales and m.is_together and is_layer and m.node.is_constant


# When a step belongs to a layer that is complete; any one of them will do.
JOINS = (
    updates_statistics,
    scales_a_product,
    scales_a_norm,
    adds_a_bias,
    scales_a_layer,
)
