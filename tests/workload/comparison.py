"""The rules of a training iteration against the gradient that JAX really computes."""

import collections
import dataclasses
import math
import re

from codesign.workload.gradient import BACKWARD, FORWARD, GradientTrace
from codesign.workload.iteration import Program
from codesign.workload.op import TYPE_I_KINDS, Op


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerComparison:
    """One layer: what the rules expand it to, and the products of its real gradient.

    Attributes:
        name: Of the layer; ops of one module path are taken together.
        rule_macs, traced_macs: By phase, for one example.
        rule_outputs, traced_outputs: Elements of what its products make, sorted: maps
            forward, gradients of weights and of maps backward.
    """

    name: str
    rule_macs: dict[str, int]
    traced_macs: dict[str, int]
    rule_outputs: tuple[int, ...]
    traced_outputs: tuple[int, ...]

    @property
    def agrees_on_macs(self) -> bool:
        """Whether both run as many multiply-accumulates, forward and backward."""
        return self.rule_macs == self.traced_macs

    @property
    def agrees_on_sizes(self) -> bool:
        """Whether both make tensors of the same sizes."""
        return self.rule_outputs == self.traced_outputs


def compare(program: Program, gradient: GradientTrace) -> list[LayerComparison]:
    """Holds the expansion of a forward graph against the traced gradient, by layer.

    MACs agree whatever way a layer is computed. Sizes agree where a product's result is
    the tensor itself; a convolution that runs as one product over unfolded patches, as
    on CPU, makes the gradient of the patches, kernel_h * kernel_w times its input.

    Layers come in execution order; one that has no product in the gradient has traced
    MACs of 0, and products of no layer come last.
    """
    names = {product.name for product in gradient.products}
    empty = {FORWARD: 0, BACKWARD: 0}
    rule_macs: dict[str, dict[str, int]] = {}
    rule_outputs = collections.defaultdict(list)
    ops, sizes = program.workload.ops, dict(program.workload.graph.parameters)
    for step in range(program.num_steps):
        op = ops[program.op[step]]
        if op.kind not in TYPE_I_KINDS:
            continue
        name = _layer(op, names)
        phase = BACKWARD if program.is_backward[step] else FORWARD
        macs = rule_macs.setdefault(name, dict(empty))
        macs[phase] += int(program.operations[step])
        if phase == FORWARD:
            rule_outputs[name].append(op.elements)
            continue
        if op.trained:
            whole = sum(sizes[tensor] for tensor in op.trained)
            is_shaped = bool(op.weight_shape)  # then without the bias
            rule_outputs[name].append(
                math.prod(op.weight_shape) if is_shaped else whole
            )
        touched = slice(program.first[step], program.first[step + 1])
        for tensor, is_written in zip(
            program.touched[touched], program.writes[touched], strict=True
        ):
            if is_written and program.roles[tensor] == "G":
                rule_outputs[name].append(int(program.per_example[tensor]))
    traced_macs: dict[str, dict[str, int]] = {}
    traced_outputs = collections.defaultdict(list)
    for product in gradient.products:
        if product.is_recomputed:  # for memory's sake: no rule of a network
            continue
        macs = traced_macs.setdefault(product.name, dict(empty))
        macs[product.phase] += product.macs * product.repeats
        traced_outputs[product.name] += [product.output_elements] * product.repeats
    return [
        LayerComparison(
            name=name,
            rule_macs=rule_macs.get(name, empty),
            traced_macs=traced_macs.get(name, empty),
            rule_outputs=tuple(sorted(rule_outputs[name])),
            traced_outputs=tuple(sorted(traced_outputs[name])),
        )
        for name in dict.fromkeys((*rule_macs, *traced_macs))
    ]


def _layer(op: Op, names: set[str]) -> str:
    """The module path of an op: its name without what the tracer put behind it."""
    name = re.sub(r"(@\d+)+$", "", op.name)  # steps of an unrolled loop
    plain = re.sub(r"_\d+$", "", name)
    for found in (name, plain, *(n.rpartition("/")[0] for n in (name, plain))):
        if found in names:
            return found
    return name
