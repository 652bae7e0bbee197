"""Traces a JAX function into a workload by walking its jaxpr."""

import collections
import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core

from codesign.kernels.named_op import parse_name
from codesign.workload.graph import Op, Workload, build, matrix_macs


def trace(fn: Callable, *args: Any) -> Workload:
    """Counts the ops of `fn(*args)` for one example, without running it.

    Recorded are the package's named ops (`conv`, `dense`, `norm`, `pool`), XLA's own
    convolutions, matrix products with a two-dimensional right operand (`dense`), and
    `relu` (`activation`) and sums of two maps (`add`). Data flows through everything
    else unseen, so an edge joins two recorded ops wherever a value passes between them.
    Nested `jit`, `custom_jvp` and `custom_vjp` are entered; names are module paths.

    Args:
        fn: The function. Its first array argument with a leading batch is counted for
            one example: pass batches of 1.
        *args: Arrays, or `jax.ShapeDtypeStruct`s; nothing is computed.

    Raises:
        ValueError: If no matrix op is found, a convolution is not in NHWC / HWIO order,
            an op sees a batch other than 1, or a layer stands inside a loop.
    """
    closed = jax.make_jaxpr(fn)(*args)
    tracer = _Tracer()
    tracer.walk(closed.jaxpr, [frozenset()] * len(closed.jaxpr.invars), "")
    if not any(op.weight_shape for op in tracer.records):
        raise ValueError(
            f"`fn` (={fn!r}) holds no convolution or dense layer to count."
        )
    return build(tracer.records, parameters=tracer.parameters)


class _Tracer:
    """Collects records; each variable carries the set of ops that its value comes from."""

    def __init__(self):
        self.records: list[Op] = []
        self.parameters: dict[str, int] = {}
        self._uses = collections.Counter()

    def walk(
        self, jaxpr: core.Jaxpr, sources: list[frozenset], prefix: str
    ) -> list[frozenset]:
        """Visits a jaxpr whose inputs come from `sources`; returns its outputs' ones."""
        origin: dict[Any, frozenset] = dict(zip(jaxpr.invars, sources, strict=True))

        def read(atom) -> frozenset:
            if isinstance(atom, core.Literal):
                return frozenset()
            return origin.get(atom, frozenset())

        for eqn in jaxpr.eqns:
            inputs = [read(atom) for atom in eqn.invars]
            path = _join(prefix, str(eqn.source_info.name_stack))
            outputs = self._equation(eqn, inputs, path)
            origin.update(zip(eqn.outvars, outputs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _equation(self, eqn, inputs, path) -> list[frozenset]:
        name = eqn.primitive.name
        shapes = [tuple(atom.aval.shape) for atom in eqn.invars]
        output = tuple(eqn.outvars[0].aval.shape) if eqn.outvars else ()
        merged = frozenset().union(*inputs)
        through = [merged] * len(eqn.outvars)
        named = parse_name(eqn.params.get("name", "")) if name in _JITS else None
        if named:
            kind, site = named.kind, named.site
            weight = shapes[1] if kind in ("conv", "dense") else ()
            num_affine = 2 * shapes[0][-1] if kind == "norm" else 0
            op = self._record(
                kind, path, shapes[0], output, weight, inputs[0], site, num_affine
            )
            # A norm also returns its statistics; only the map feeds the next op.
            return [op, *[frozenset()] * (len(eqn.outvars) - 1)]
        if name == "conv_general_dilated":
            numbers = eqn.params["dimension_numbers"]
            spatial = tuple(range(1, len(output) - 1))
            order = (0, len(output) - 1, *spatial)
            kernel = (len(output) - 1, len(output) - 2, *(i - 1 for i in spatial))
            if (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec) != (
                order,
                kernel,
                order,
            ):
                raise ValueError(
                    f"The convolution at {path!r} has `dimension_numbers` (={numbers}); "
                    "write it with NHWC images and an HWIO kernel."
                )
            return [self._record("conv", path, shapes[0], output, shapes[1], merged)]
        if name == "dot_general" and len(shapes[1]) == 2:
            (left, right), batch = eqn.params["dimension_numbers"]
            if right == (0,) and left == (len(shapes[0]) - 1,) and batch == ((), ()):
                return [
                    self._record("dense", path, shapes[0], output, shapes[1], merged)
                ]
        if name == "add" and all(inputs) and shapes[0] == shapes[1] == output:
            return [self._record("add", path, output, output, (), merged)]
        if name in _CONTROL_FLOW and _holds_op(eqn.params):
            raise ValueError(
                f"The `{name}` at {path!r} holds layers, whose number of runs is not "
                "counted; write the loop in Python."
            )
        inner = eqn.params.get("jaxpr") or eqn.params.get("call_jaxpr")
        if inner is None:
            return through
        if name in _JITS and eqn.params.get("name") == "relu":
            return [self._record("activation", path, output, output, (), merged)]
        inner = getattr(inner, "jaxpr", inner)
        if len(inner.invars) != len(inputs) or len(inner.outvars) != len(eqn.outvars):
            return through
        return self.walk(inner, inputs, path)

    def _record(
        self,
        kind: str,
        path: str,
        input_shape: tuple[int, ...],
        output_shape: tuple[int, ...],
        weight_shape: tuple[int, ...],
        inputs: frozenset,
        site: int = -1,
        num_affine: int = 0,
    ) -> frozenset:
        batched = len(output_shape) > 1
        if batched and output_shape[0] != 1:
            raise ValueError(
                f"The op at {path!r} has a batch of {output_shape[0]}; trace with "
                "inputs of batch 1."
            )
        base = path if kind in ("conv", "dense", "norm") else _join(path, kind)
        self._uses[base] += 1
        count = self._uses[base]
        name = base if count == 1 else f"{base}_{count}"
        size = math.prod(weight_shape) if weight_shape else num_affine
        if size:
            self.parameters[name] = size
        output_shape = output_shape[1:] if batched else output_shape
        self.records.append(
            Op(
                name=name,
                kind=kind,
                site=site,
                operands=tuple(sorted(inputs)),
                input_shape=input_shape[1:] if batched else input_shape,
                output_shape=output_shape,
                weight_shape=weight_shape,
                parameters=(name,) if size else (),
                macs=matrix_macs(weight_shape, output_shape) if weight_shape else 0,
            )
        )
        return frozenset((len(self.records) - 1,))


_JITS = ("jit", "pjit")
_CONTROL_FLOW = ("scan", "while", "cond")
_MATRIX_PRIMITIVES = ("conv_general_dilated", "dot_general")


def _holds_op(params: dict[str, Any]) -> bool:
    """Whether a layer stands anywhere inside an equation: a matrix op or a named one."""

    def is_jaxpr(value):
        return hasattr(value, "eqns")

    for value in jax.tree.leaves(list(params.values()), is_leaf=is_jaxpr):
        for eqn in getattr(value, "eqns", ()):
            name = eqn.params.get("name", "")
            is_named = name == "relu" or parse_name(name) is not None
            if eqn.primitive.name in _MATRIX_PRIMITIVES or is_named:
                return True
            if _holds_op(eqn.params):
                return True
    return False


def _join(prefix: str, name: str) -> str:
    return "/".join(part for part in (prefix, name) if part)
