"""Walks a jaxpr and writes down the steps that it takes on data."""

import dataclasses
import math
from collections.abc import Hashable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from codesign.kernels import equations
from codesign.workload.tracing import primitives as known
from codesign.workload.tracing.arguments import Leaves
from codesign.workload.tracing.loops import branches, repeated, unrolled, while_loop
from codesign.workload.tracing.node import MASK, NOISE, Node, Place, Value
from codesign.workload.tracing.place import is_library, module_path, source_line
from codesign.workload.tracing.steps import named_step, step
from codesign.workload.tracing.views import VIEWS, cut, detached, joined, stops, view


@dataclasses.dataclass(frozen=True, slots=True)
class Context:
    """What encloses a jaxpr: paths inside it are relative.

    Attributes:
        path: Module path of the enclosing equation.
        line: Line and call of the enclosing equation, if a library's function.
        calls: The user's functions around it, each call by a number of its own.
        step: Time steps of the unrolled loops around it, `@3`.
        repeats: How often the loops around it run it.
    """

    path: str = ""
    line: tuple[str, Hashable] | None = None
    calls: tuple[int, ...] = ()
    step: str = ""
    repeats: int = 1


class Walk:
    """Collects nodes; `walk` follows the values of a jaxpr's variables through it."""

    def __init__(self, leaves: Leaves, *, unroll_scans: bool):
        self.nodes: list[Node] = []
        self.leaves = leaves
        self.unroll_scans = unroll_scans
        self._num_calls = 0
        self._num_rules = 0  # custom derivatives around it
        self._lines: dict[int, tuple[str, Hashable]] = {}  # by id of equations
        self._stacks: dict[tuple, Value] = {}

    def outputs(self, closed: Any, values: Sequence[Value]) -> list[Value]:
        """Walks a whole function; returns its outputs, none of them a stack."""
        found = self.walk(closed, values, Context())
        last = closed.eqns[-1] if closed.eqns else None
        return [
            self.whole(last, value, self.place(last, Context()))
            if value.elements
            else value
            for value in found
        ]

    def walk(
        self, jaxpr: Any, values: Sequence[Value], context: Context
    ) -> list[Value]:
        """Visits a jaxpr whose inputs are `values`; returns its outputs."""
        jaxpr, consts = equations.opened(jaxpr), equations.constants(jaxpr)
        env: dict[Any, Value] = {
            var: self._cut("", value, var)
            for var, value in zip(jaxpr.invars, values, strict=True)
        }
        for var, const in zip(jaxpr.constvars, consts, strict=bool(consts)):
            env[var] = self._cut("", self.leaves.constant(const), var)

        def read(atom) -> Value:
            if equations.is_literal(atom):
                return Value(shape=tuple(jnp.shape(atom.val)), number=_number(atom))
            return env[atom]

        for eqn in jaxpr.eqns:
            outputs = self._equation(eqn, [read(a) for a in eqn.invars], context)
            # A map without elements holds no data.
            outputs = [o if 0 not in o.shape else Value(shape=o.shape) for o in outputs]
            for var, output in zip(eqn.outvars, outputs, strict=True):
                env[var] = self._cut(eqn.primitive.name, output, var)
        return [read(atom) for atom in jaxpr.outvars]

    def emit(self, kind: str, eqn: Any, place: Place, operands, **fields) -> Value:
        """Writes down a node; returns its output."""
        shape = fields.pop("shape", None)
        shape = tuple(eqn.outvars[0].aval.shape) if shape is None else shape
        name = eqn.primitive.name
        node = Node(
            kind=kind,
            primitive=name,
            place=place,
            operands=tuple(operands),
            shape=shape,
            **fields,
        )
        self.nodes.append(node)
        return Value(shape=shape, source=len(self.nodes) - 1)

    def place(self, eqn: Any, context: Context) -> Place:
        """Where an equation stands."""
        path = module_path(context.path, eqn)
        if path:
            name, key = path, path
        else:
            name, key = context.line or self._line(eqn)
        return Place(
            name=name,
            is_module=bool(path),
            scope=(key, context.calls, context.step, context.repeats),
            step=context.step,
            repeats=context.repeats,
        )

    def enter(self, eqn: Any, jaxpr: Any, context: Context) -> Context:
        """The context of a jaxpr inside an equation."""
        path = module_path(context.path, eqn)
        if is_library(jaxpr):
            line = context.line or (None if path else self._line(eqn))
            return dataclasses.replace(context, path=path, line=line)
        self._num_calls += 1
        calls = (*context.calls, self._num_calls)
        return dataclasses.replace(context, path=path, line=None, calls=calls)

    def whole(self, eqn: Any, value: Value, place: Place) -> Value:
        """A stack as one map: a concatenation, made once for all that read it."""
        if not value.elements:
            return value
        parts = tuple(self.whole(eqn, e, place) for e in value.elements)
        stopped = all(part.detached for part in parts if part.is_data)
        if stopped:  # its readers read it as a constant
            parts = tuple(dataclasses.replace(p, detached=False) for p in parts)
        key = tuple((p.source, p.leaves, p.trained, p.detached) for p in parts)
        if key not in self._stacks:
            made = self.emit("concat", eqn, place, parts, shape=value.shape)
            self._stacks[key] = made
        made = self._stacks[key]
        return dataclasses.replace(made, shape=value.shape, detached=stopped)

    def _cut(self, primitive: str, value: Value, var: Any) -> Value:
        """The value of a variable; detached if no gradient flows back from it.

        A function with a rule of its own for its derivative may round and cast inside
        and yet pass a gradient on (a straight-through estimator): nothing is cut there.
        """
        return detached(value) if self.is_cut(primitive, var) else value

    def is_cut(self, primitive: str, var: Any) -> bool:
        """Whether no gradient flows back from a variable that a primitive made."""
        return not self._num_rules and stops(primitive, var.aval)

    def _line(self, eqn: Any) -> tuple[str, Hashable]:
        if id(eqn) not in self._lines:
            self._lines[id(eqn)] = source_line(eqn)
        return self._lines[id(eqn)]

    def _equation(self, eqn, values: list[Value], context: Context) -> list[Value]:
        name = eqn.primitive.name
        is_data = any(value.is_data for value in values)
        if name in known.CALLS:
            return self._call(eqn, values, context, is_data=is_data)
        if not is_data:
            return [_combined(eqn, values, var) for var in eqn.outvars]
        if name == "scan":
            loop = unrolled if self.unroll_scans else repeated
            return loop(self, eqn, values, context)
        if name == "while":
            return while_loop(self, eqn, values, context)
        if name == "cond":
            return branches(self, eqn, values, context)
        place = self.place(eqn, context)
        if name in VIEWS or name in ("pad", "slice", "concatenate", "stack", "unstack"):
            seen = _views(eqn, values)
            if seen is not None:
                return seen
        values = [self.whole(eqn, value, place) for value in values]
        if name in VIEWS or name == "pad":
            seen = _views(eqn, values)
            if seen is not None:
                return seen
        return step(self, eqn, values, place)

    def _call(self, eqn, values, context, *, is_data: bool) -> list[Value]:
        name, inner = equations.call_name(eqn), equations.called(eqn)
        if is_data:
            place = self.place(eqn, context)
            made = named_step(self, eqn, name, values, place)
            if made is not None:
                return made
            if eqn.primitive.name == "shard_map" and equations.num_devices(eqn) > 1:
                raise ValueError(
                    f"The `shard_map` at {place.name!r} splits the network over devices; "
                    "trace the function before it is sharded."
                )
        has_rule = eqn.primitive.name.startswith("custom_")
        self._num_rules += has_rule
        outputs = self.walk(inner, values, self.enter(eqn, inner, context))
        self._num_rules -= has_rule
        return outputs


def _views(eqn, values) -> list[Value] | None:
    name, params = eqn.primitive.name, equations.Params(eqn)
    shapes = [tuple(var.aval.shape) for var in eqn.outvars]
    if name == "slice":
        found = [cut(params, values[0], shapes[0])]
    elif name == "stack":
        axis = params["axis"]
        found = [Value(shape=shapes[0], elements=tuple(values), axis=axis)]
    elif name == "unstack":
        found = [*values[0].elements] if values[0].axis == params["axis"] else []
        return found or None
    elif name == "concatenate":
        found = [joined(values, params["dimension"], shapes[0])]
    elif name == "pad" and (
        not values[0].is_data
        or min(low for p in params["padding_config"] for low in p) < 0
    ):
        return None  # it crops, or fills with data
    else:
        found = [
            view(name, params, value, shape)
            if value.is_data
            else dataclasses.replace(value, shape=shape)
            for value, shape in zip(values, shapes, strict=False)
        ]
    kept = [value for value in found if value is not None]
    return kept if len(kept) == len(found) else None


def _combined(eqn, values: list[Value], var: Any) -> Value:
    """The output of an equation on parameters and constants alone: free."""
    name, aval = eqn.primitive.name, var.aval
    shape = tuple(getattr(aval, "shape", ()))
    if name in known.RANDOM:
        return Value(shape=shape, noise=NOISE)
    number = values[0].number if len(values) == 1 and name in VIEWS else None
    noise = {value.noise for value in values} - {""}
    leaves = frozenset().union(*(value.leaves for value in values))
    if noise and str(getattr(aval, "dtype", "")) == "bool":
        noise = {MASK}
    roots = any(value.root for value in values) or name in ("sqrt", "rsqrt", "pow")
    return Value(
        shape=shape,
        leaves=leaves,
        trained=frozenset().union(*(value.trained for value in values)),
        noise=MASK if MASK in noise else NOISE if noise else "",
        root=roots and bool(leaves),
        number=number,
        offset=_offset(name, values),
    )


def _offset(name: str, values: list[Value]) -> int:
    """See `Value`: a part of a part, by an index that a loop counts or a constant one."""
    if name != "dynamic_slice":
        return max(value.offset for value in values) if values else 0
    array, *indices = values
    sizes = [math.prod(array.shape[axis + 1 :]) for axis in range(len(indices))]
    return array.offset + sum(
        index.offset * size for index, size in zip(indices, sizes, strict=True)
    )


def _number(literal: Any) -> float | None:
    value = literal.val
    is_real = np.ndim(value) == 0 and jnp.issubdtype(literal.aval.dtype, np.number)
    return float(np.real(value)) if is_real else None
