"""Walks the gradient of a loss: its matrix products, forward and backward."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from codesign.workload.op import Shape
from codesign.workload.tracing.arguments import find_inputs
from codesign.workload.tracing.loops import holds_layer, inner_jaxprs
from codesign.workload.tracing.place import module_path, source_line
from codesign.workload.tracing.product import PRODUCTS, product_macs

FORWARD, BACKWARD = "forward", "backward"


@dataclasses.dataclass(frozen=True, kw_only=True)
class GradientProduct:
    """One matrix product of a training step, counted for one example.

    Attributes:
        name: Module path of the layer that it belongs to, or file and line.
        phase: `forward` or `backward`: when it runs. What is recomputed runs backward.
        macs: Multiply-accumulates of one run.
        output_elements: Values that it makes.
        operand_elements: Values of its two operands.
        repeats: How often loops run it.
    """

    name: str
    phase: str
    macs: int
    output_elements: int
    operand_elements: tuple[int, int]
    repeats: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class GradientTrace:
    """The matrix products of a gradient, in the order of its jaxpr."""

    products: tuple[GradientProduct, ...]

    def macs(self, phase: str | None = None) -> int:
        """Multiply-accumulates of one phase, or of both."""
        return sum(
            p.macs * p.repeats for p in self.products if phase in (None, p.phase)
        )


def trace_gradient(
    fn: Callable, *args: Any, inputs: Sequence[int] | None = None
) -> GradientTrace:
    """Lists the matrix products of the gradient of a loss, as JAX differentiates it.

    The gradient is that of `fn(*args)` by its floating-point parameters. Every call is
    entered, named ops included: a convolution that runs as a matrix product over patches
    is that product. Products that reach no gradient are left out, and so are those of
    parameters and constants alone. The function's own value counts as an output.

    Args:
        fn: Returns a scalar.
        *args: Arrays, or `jax.ShapeDtypeStruct`s; nothing is computed.
        inputs: Numbers of the arguments that are inputs, as in `trace`.

    Raises:
        ValueError: If an input has no batch of 1, no parameter is given, or products
            stand in a `while` loop.
    """
    numbers = find_inputs(fn, args, inputs)
    by = tuple(
        i for i, arg in enumerate(args) if i not in numbers and _is_differentiable(arg)
    )
    if not by:
        raise ValueError(
            f"`fn` (={fn!r}) takes no parameters to differentiate by; pass them as an "
            "argument."
        )
    closed = jax.make_jaxpr(jax.value_and_grad(fn, argnums=by, allow_int=True))(*args)
    flags = []
    for i, arg in enumerate(args):
        flags += [i in numbers] * len(jax.tree.leaves(arg))
    walk = _Walk()
    jaxpr = closed.jaxpr
    walk.visit(jaxpr, flags, [True] * len(jaxpr.outvars), "", FORWARD, 1)
    return GradientTrace(products=tuple(walk.products))


class _Walk:
    def __init__(self):
        self.products: list[GradientProduct] = []

    def visit(
        self,
        jaxpr: core.Jaxpr,
        data: Sequence[bool],
        wanted: Sequence[bool],
        path: str,
        phase: str,
        repeats: int,
    ) -> list[bool]:
        """Lists the products of a jaxpr; returns which of its outputs are data."""
        living = _living(jaxpr, wanted)
        made = {var for var, flag in zip(jaxpr.invars, data, strict=True) if flag}
        for eqn in jaxpr.eqns:
            if not any(var in living for var in eqn.outvars):
                continue
            given = [_is_variable(a) and a in made for a in eqn.invars]
            if not any(given):
                continue
            stack = str(eqn.source_info.name_stack)
            here = module_path(path, stack)
            now = BACKWARD if phase == BACKWARD or "transpose(" in stack else FORWARD
            name = eqn.primitive.name
            if name in PRODUCTS:
                self._record(eqn, here or source_line(eqn)[0], now, repeats)
            made.update(self._inside(eqn, given, living, here, now, repeats))
        return [_is_variable(a) and a in made for a in jaxpr.outvars]

    def _inside(self, eqn, given, living, path, phase, repeats) -> list[Any]:
        """Visits what an equation calls; returns its outputs that are data."""
        name, inner = eqn.primitive.name, inner_jaxprs(eqn)
        if name == "while" and any(holds_layer(jaxpr) for jaxpr in inner):
            raise ValueError(
                f"The `while` at {path or source_line(eqn)[0]!r} holds layers, and the "
                "number of its runs is not known; write it with `lax.scan`."
            )
        if name == "scan":
            return self._loop(eqn, given, path, phase, repeats)
        if name == "cond":
            return self._branches(eqn, given, path, phase, repeats)
        if len(inner) == 1 and len(inner[0].eqns) and name != "while":
            jaxpr = getattr(inner[0], "jaxpr", inner[0])
            if len(jaxpr.invars) == len(given):
                wanted = [var in living for var in eqn.outvars]
                flags = self.visit(jaxpr, given, wanted, path, phase, repeats)
                return [v for v, f in zip(eqn.outvars, flags, strict=True) if f]
        return list(eqn.outvars)

    def _loop(self, eqn, given, path, phase, repeats) -> list[Any]:
        jaxpr = eqn.params["jaxpr"].jaxpr
        first, count = eqn.params["num_consts"], eqn.params["num_carry"]
        flags, outputs = list(given), []
        wanted = [True] * len(jaxpr.outvars)
        for _ in range(count + 2):  # until what is carried is known to be data or not
            outputs = _Walk().visit(jaxpr, flags, wanted, path, phase, 1)
            after = list(flags)
            for i in range(count):
                after[first + i] |= outputs[i]
            if after == flags:
                break
            flags = after
        inside = repeats * eqn.params["length"]
        self.visit(jaxpr, flags, wanted, path, phase, inside)
        return [var for var, flag in zip(eqn.outvars, outputs, strict=True) if flag]

    def _branches(self, eqn, given, path, phase, repeats) -> list[Any]:
        best: list[GradientProduct] = []
        for branch in eqn.params["branches"]:
            walk, jaxpr = _Walk(), branch.jaxpr
            wanted = [True] * len(jaxpr.outvars)
            walk.visit(jaxpr, given[1:], wanted, path, phase, repeats)
            found = GradientTrace(products=tuple(walk.products)).macs()
            if found > GradientTrace(products=tuple(best)).macs():
                best = walk.products
        self.products += best
        return list(eqn.outvars)

    def _record(self, eqn, name: str, phase: str, repeats: int) -> None:
        left, right = (tuple(atom.aval.shape) for atom in eqn.invars[:2])
        output: Shape = tuple(eqn.outvars[0].aval.shape)
        macs = product_macs(
            eqn.primitive.name,
            left,
            right,
            output,
            eqn.params,
            is_backward=phase == BACKWARD,
        )
        self.products.append(
            GradientProduct(
                name=name,
                phase=phase,
                macs=macs,
                output_elements=math.prod(output),
                operand_elements=(math.prod(left), math.prod(right)),
                repeats=repeats,
            )
        )


def _living(jaxpr: core.Jaxpr, wanted: Sequence[bool]) -> set[Any]:
    """Variables of a jaxpr that its wanted outputs need."""
    living = {
        var
        for var, flag in zip(jaxpr.outvars, wanted, strict=True)
        if flag and _is_variable(var)
    }
    for eqn in reversed(jaxpr.eqns):
        if any(var in living for var in eqn.outvars):
            living.update(atom for atom in eqn.invars if _is_variable(atom))
    return living


def _is_variable(atom: Any) -> bool:
    return not isinstance(atom, core.Literal)


def _is_differentiable(arg: Any) -> bool:
    leaves = jax.tree.leaves(arg)
    return any(jnp.issubdtype(jnp.result_type(x), jnp.inexact) for x in leaves)
