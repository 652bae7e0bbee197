"""Walks the gradient of a loss: its matrix products, forward and backward."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from codesign.kernels import equations
from codesign.workload.op import Shape
from codesign.workload.tracing.arguments import (
    ambiguous,
    argument_names,
    find_inputs,
    warn_of_single,
)
from codesign.workload.tracing.loops import holds_layer
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
        is_recomputed: Whether it runs forward once more, as `remat` has it.
    """

    name: str
    phase: str
    macs: int
    output_elements: int
    operand_elements: tuple[int, int]
    repeats: int = 1
    is_recomputed: bool = False


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

    Warns:
        UserWarning: As `trace` does of a single float.
    """
    numbers = find_inputs(fn, args, inputs)
    if inputs is None:
        names = argument_names(fn, len(args))
        warn_of_single(names, ambiguous(args, numbers), numbers)
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
    walk.visit(closed, flags, None, _Around())
    return GradientTrace(products=tuple(walk.products))


@dataclasses.dataclass(frozen=True)
class _Around:
    """What encloses a jaxpr; the fields are those of its products.

    The outermost equation tells the phase, as its stack begins with what the gradient
    does to it. Further in, a network may take a gradient of its own, going forward.
    """

    name: str = ""
    phase: str = ""
    repeats: int = 1
    is_recomputed: bool = False

    def enter(self, eqn: Any) -> "_Around":
        """The same for what an equation calls."""
        stack = equations.name_stack(eqn)
        phase = BACKWARD if stack.startswith("transpose(") else FORWARD
        return dataclasses.replace(
            self,
            name=module_path(self.name, eqn),
            phase=self.phase or phase,
            is_recomputed=self.is_recomputed or equations.RECOMPUTED in stack,
        )


class _Walk:
    def __init__(self):
        self.products: list[GradientProduct] = []

    def visit(
        self,
        jaxpr: Any,
        data: Sequence[bool],
        wanted: Sequence[bool] | None,
        around: _Around,
    ) -> list[bool]:
        """Lists the products that outputs of a jaxpr want, all if `wanted` is None.

        Returns which of its outputs are data.
        """
        jaxpr = equations.opened(jaxpr)
        living = _living(jaxpr, wanted)
        made = {var for var, flag in zip(jaxpr.invars, data, strict=True) if flag}
        for eqn in jaxpr.eqns:
            if not any(var in living for var in eqn.outvars):
                continue
            given = [_is_variable(a) and a in made for a in eqn.invars]
            if not any(given):
                continue
            here = around.enter(eqn)
            if eqn.primitive.name in PRODUCTS and not equations.is_copy(eqn):
                self._record(eqn, here, of_maps=all(given[:2]))
            made.update(self._inside(eqn, given, living, here))
        return [_is_variable(a) and a in made for a in jaxpr.outvars]

    def _inside(self, eqn, given, living, around: _Around) -> list[Any]:
        """Visits what an equation calls; returns its outputs that are data."""
        name, inner = eqn.primitive.name, equations.inner_jaxprs(eqn)
        if name == "while" and any(map(holds_layer, inner)):
            raise ValueError(
                f"The `while` at {around.name or source_line(eqn)[0]!r} holds layers, and "
                "the number of its runs is not known; write it with `lax.scan`."
            )
        if name == "scan":
            return self._loop(eqn, given, around)
        if name == "cond":
            return self._branches(eqn, given, around)
        if len(inner) == 1 and len(inner[0].eqns) and name != "while":
            jaxpr = equations.opened(inner[0])
            if len(jaxpr.invars) == len(given):
                wanted = [var in living for var in eqn.outvars]
                flags = self.visit(jaxpr, given, wanted, around)
                return [v for v, f in zip(eqn.outvars, flags, strict=True) if f]
        return list(eqn.outvars)

    def _loop(self, eqn, given, around: _Around) -> list[Any]:
        loop = equations.scan(eqn)
        consts, carry, maps = loop.split(given)
        outputs, before = [], None
        while carry != before:  # until it is known which of the carried values are data
            flags, before = [*consts, *carry, *maps], carry
            outputs = _Walk().visit(loop.body, flags, None, around)
            carry = [a or b for a, b in zip(carry, outputs, strict=False)]
        inside = dataclasses.replace(around, repeats=around.repeats * loop.length)
        self.visit(loop.body, [*consts, *carry, *maps], None, inside)
        return [var for var, flag in zip(eqn.outvars, outputs, strict=True) if flag]

    def _branches(self, eqn, given, around: _Around) -> list[Any]:
        best: list[GradientProduct] = []
        for branch in equations.branches(eqn):
            walk = _Walk()
            walk.visit(branch, given[1:], None, around)
            found = GradientTrace(products=tuple(walk.products)).macs()
            if found > GradientTrace(products=tuple(best)).macs():
                best = walk.products
        self.products += best
        return list(eqn.outvars)

    def _record(self, eqn, around: _Around, *, of_maps: bool) -> None:
        left, right = (tuple(atom.aval.shape) for atom in eqn.invars[:2])
        output: Shape = tuple(eqn.outvars[0].aval.shape)
        macs = product_macs(
            eqn.primitive.name,
            left,
            right,
            output,
            equations.Params(eqn),
            of_maps=of_maps,
        )
        self.products.append(
            GradientProduct(
                name=around.name or source_line(eqn)[0],
                phase=around.phase,
                macs=macs,
                output_elements=math.prod(output),
                operand_elements=(math.prod(left), math.prod(right)),
                repeats=around.repeats,
                is_recomputed=around.is_recomputed,
            )
        )


def _living(jaxpr: Any, wanted: Sequence[bool] | None) -> set[Any]:
    """Variables of a jaxpr that its wanted outputs need."""
    wanted = wanted or [True] * len(jaxpr.outvars)
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
    return not equations.is_literal(atom)


def _is_differentiable(arg: Any) -> bool:
    leaves = jax.tree.leaves(arg)
    return any(jnp.issubdtype(jnp.result_type(x), jnp.inexact) for x in leaves)
