"""What a network asks of hardware: its ops, their shapes and counts, and their edges."""

import dataclasses
import functools
import math

import jax.numpy as jnp
from flax import struct

from codesign.types import Array

MATRIX_KINDS = ("conv", "dense")  # ops whose weights a crossbar or an array can hold


@struct.dataclass(kw_only=True)
class Workload:
    """The ops of one network in execution order, counted for one example.

    Leaves are `[L]` float32, for differentiable models; shapes are exact static integers.
    `fan_in`, `fan_out` and `num_windows` view an op as the matrix product of
    `[num_windows, fan_in]` by `[fan_in, fan_out]`; they are 0 where there is none.
    """

    macs: Array  # [L] multiply-accumulates
    elements: Array  # [L] output elements; of a norm, scaled by its mask
    weights: Array  # [L] parameters read, biases and running statistics left out
    fan_in: Array  # [L]
    fan_out: Array  # [L]
    num_windows: Array  # [L] positions of the output map
    num_input_windows: Array  # [L] positions of the input map
    names: tuple[str, ...] = struct.field(pytree_node=False)  # module paths
    kinds: tuple[str, ...] = struct.field(pytree_node=False)
    edges: tuple[tuple[int, int], ...] = struct.field(pytree_node=False)  # (from, to)
    sites: tuple[int, ...] = struct.field(pytree_node=False)  # BN site of an op, or -1
    input_shapes: tuple[tuple[int, ...], ...] = struct.field(pytree_node=False)
    output_shapes: tuple[tuple[int, ...], ...] = struct.field(pytree_node=False)
    weight_shapes: tuple[tuple[int, ...], ...] = struct.field(pytree_node=False)

    @property
    def num_ops(self) -> int:
        """L."""
        return len(self.names)

    @property
    def num_sites(self) -> int:
        """C, the length of a placement mask."""
        return max(self.sites, default=-1) + 1

    def select(self, *kinds: str) -> "Workload":
        """The ops of these kinds, in order, with the edges that paths between them leave.

        An edge joins two selected ops when data flows from one to the other through
        ops that are not selected.
        """
        keep = [i for i, kind in enumerate(self.kinds) if kind in kinds]
        sources: list[set[int]] = [set() for _ in self.names]
        for start, end in sorted(self.edges, key=lambda edge: edge[1]):
            sources[end] |= {start} if start in keep else sources[start]
        new = {old: i for i, old in enumerate(keep)}
        index = jnp.array(keep, int)

        def pick(values):
            return tuple(values[i] for i in keep)

        return Workload(
            **{name: getattr(self, name)[index] for name in _LEAVES},
            names=pick(self.names),
            kinds=pick(self.kinds),
            edges=tuple((new[s], new[e]) for e in keep for s in sorted(sources[e])),
            sites=pick(self.sites),
            input_shapes=pick(self.input_shapes),
            output_shapes=pick(self.output_shapes),
            weight_shapes=pick(self.weight_shapes),
        )

    def masked(self, bn_mask: Array) -> "Workload":
        """Scales the elements of each norm op by its site's entry of `bn_mask` [C].

        Raises:
            ValueError: If the mask's length is not the number of sites.
        """
        if bn_mask.shape != (self.num_sites,):
            raise ValueError(
                f"`bn_mask` has shape {bn_mask.shape}; this network has "
                f"{self.num_sites} batch-norm sites, so pass ({self.num_sites},)."
            )
        padded = jnp.append(bn_mask, 1.0)  # site -1 reads the 1
        return dataclasses.replace(
            self, elements=self.elements * padded[jnp.array(self.sites)]
        )

    @functools.cached_property
    def total_macs(self) -> int:
        """Multiply-accumulates of one example, exactly."""
        return sum(
            matrix_macs(weight, output)
            for kind, weight, output in zip(
                self.kinds, self.weight_shapes, self.output_shapes, strict=True
            )
            if kind in MATRIX_KINDS
        )


_LEAVES = (
    "macs",
    "elements",
    "weights",
    "fan_in",
    "fan_out",
    "num_windows",
    "num_input_windows",
)


def matrix_macs(weight_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
    """MACs of a conv or dense op: every output element sums fan_in products."""
    return math.prod(weight_shape[:-1]) * math.prod(output_shape)


def build(records: list[dict], edges: list[tuple[int, int]]) -> Workload:
    """Assembles a workload from one record an op.

    Each record has `name`, `kind`, `site`, `input_shape`, `output_shape` (without the
    batch), `weight_shape` (empty where the op has no matrix) and `weights`, the number
    of parameters of an op without one.
    """

    def counts(record):
        shape, output = record["weight_shape"], record["output_shape"]
        elements = math.prod(output)
        if record["kind"] not in MATRIX_KINDS:
            return 0, elements, record["weights"], 0, 0, 0, 0
        return (
            matrix_macs(shape, output),
            elements,
            math.prod(shape),
            math.prod(shape[:-1]),
            shape[-1],
            math.prod(output[:-1]),
            math.prod(record["input_shape"][:-1]),
        )

    columns = zip(*map(counts, records), strict=True)
    leaves = {
        name: jnp.array(column, jnp.float32)
        for name, column in zip(_LEAVES, columns, strict=True)
    }
    return Workload(
        **leaves,
        names=tuple(record["name"] for record in records),
        kinds=tuple(record["kind"] for record in records),
        edges=tuple(sorted(set(edges))),
        sites=tuple(record["site"] for record in records),
        input_shapes=tuple(record["input_shape"] for record in records),
        output_shapes=tuple(record["output_shape"] for record in records),
        weight_shapes=tuple(record["weight_shape"] for record in records),
    )
