"""Loops and branches of a jaxpr: counted, unrolled, chosen or refused."""

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from codesign.kernels import equations
from codesign.kernels.named_op import parse_name
from codesign.workload.op import TYPE_I_KINDS
from codesign.workload.tracing.node import STATE, Value
from codesign.workload.tracing.place import is_library
from codesign.workload.tracing.primitives import LAYERS
from codesign.workload.tracing.product import PRODUCTS

if TYPE_CHECKING:
    from codesign.workload.tracing.walk import Context, Walk


def repeated(
    walk: "Walk", eqn: Any, values: list[Value], context: "Context"
) -> list[Value]:
    """A scan whose body is written down once, with the number of its runs.

    A run slices its step from each map that is scanned over, and the maps that it stacks
    are put together after the loop. What the loop carries is read from where it started;
    there is no edge back.
    """
    loop = equations.scan(eqn)
    if loop.length == 0:
        return _unrun(eqn, loop, values)
    place = walk.place(eqn, context)
    values = [walk.whole(eqn, value, place) for value in values]
    consts, carry, maps = _split(walk, eqn, loop, values, context)
    inside = dataclasses.replace(
        walk.enter(eqn, loop.body, context), repeats=context.repeats * loop.length
    )
    loop_place = dataclasses.replace(
        place, repeats=inside.repeats, scope=(place.scope, "loop")
    )
    steps = [
        walk.emit("slice", eqn, loop_place, (value,), shape=value.shape[1:])
        if value.is_data
        else dataclasses.replace(value, shape=value.shape[1:])
        for value in maps
    ]
    outputs = walk.walk(loop.body, [*consts, *carry, *steps], inside)
    num_carry = loop.num_carry
    stacked = []
    for value, var in zip(outputs[num_carry:], eqn.outvars[num_carry:], strict=True):
        shape = tuple(var.aval.shape)
        if value.is_data:
            value = walk.whole(eqn, value, loop_place)
            stacked.append(
                walk.emit("resize", eqn, place, (value,), shape=shape, variant="stack")
            )
        else:
            stacked.append(dataclasses.replace(value, shape=shape))
    return [*outputs[:num_carry], *stacked]


def unrolled(
    walk: "Walk", eqn: Any, values: list[Value], context: "Context"
) -> list[Value]:
    """A scan whose body is written down for every step, in the order of its runs.

    A step of a map that an earlier loop stacked is the value of that step. Of any other
    map it is a slice: the map stays one tensor, be it an input, and each step reads its
    part.
    """
    loop = equations.scan(eqn)
    if loop.length == 0:
        return _unrun(eqn, loop, values)
    consts, carry, maps = _split(walk, eqn, loop, values, context)
    inside = walk.enter(eqn, loop.body, context)
    length, num_carry = loop.length, loop.num_carry
    stacks: list[list[Value]] = [[] for _ in eqn.outvars[num_carry:]]
    order, outer = range(length), walk.place(eqn, context)
    for step in reversed(order) if loop.reverse else order:
        here = dataclasses.replace(inside, step=f"{context.step}@{step}")
        place = dataclasses.replace(
            outer, step=here.step, scope=(outer.scope, "loop", step)
        )
        parts = [_element(walk, eqn, value, step, length, place) for value in maps]
        outputs = walk.walk(loop.body, [*consts, *carry, *parts], here)
        carry = outputs[:num_carry]
        for stack, value in zip(stacks, outputs[num_carry:], strict=True):
            stack.append(value)
    made = []
    for stack, var in zip(stacks, eqn.outvars[num_carry:], strict=True):
        shape = tuple(var.aval.shape)
        elements = tuple(reversed(stack) if loop.reverse else stack)
        if any(value.is_data for value in elements):
            made.append(Value(shape=shape, elements=elements))
        else:
            leaves = frozenset().union(*(value.leaves for value in elements))
            trained = frozenset().union(*(value.trained for value in elements))
            made.append(
                dataclasses.replace(
                    elements[0], shape=shape, leaves=leaves, trained=trained
                )
            )
    return [*carry, *made]


def while_loop(
    walk: "Walk", eqn: Any, values: list[Value], context: "Context"
) -> list[Value]:
    """A loop without a fixed number of runs: refused where it holds layers."""
    loop, place = equations.while_loop(eqn), walk.place(eqn, context)
    if holds_layer(loop.condition) or holds_layer(loop.body):
        raise ValueError(
            f"The `while` at {place.name!r} holds layers, and the number of its runs is "
            "not known; write it with `lax.scan`, or `lax.fori_loop` with fixed bounds."
        )
    values = values[loop.condition_consts :]
    shared = [walk.whole(eqn, value, place) for value in values]
    carry = shared[loop.body_consts :]
    tainted = _tainted(loop.body, values[: loop.body_consts], carry)
    shared = [value for value in shared if value.is_data]
    return [
        walk.emit(
            "elementwise",
            eqn,
            place,
            dict.fromkeys([*([value] if value.is_data else []), *shared]),
            shape=tuple(var.aval.shape),
            variant="while",
        )
        if is_data
        else dataclasses.replace(value, shape=tuple(var.aval.shape))
        for value, is_data, var in zip(carry, tainted, eqn.outvars, strict=True)
    ]


def branches(
    walk: "Walk", eqn: Any, values: list[Value], context: "Context"
) -> list[Value]:
    """A conditional, counted as its branch with the most MACs (then the most steps)."""
    best, most = None, (-1, -1)
    for branch in equations.branches(eqn):
        start = len(walk.nodes)
        inside = walk.enter(eqn, branch, context)
        outputs = walk.walk(branch, values[1:], inside)
        nodes = walk.nodes[start:]
        # What the other branches wrote down reaches no output, and is dropped as such.
        count = (sum(n.macs * n.place.repeats for n in nodes), len(nodes))
        if best is None or count > most:
            best, most = outputs, count
    assert best is not None
    return best


def holds_layer(jaxpr: Any) -> bool:
    """Whether a matrix product or a named layer stands anywhere inside a jaxpr."""
    for eqn in jaxpr.eqns:
        name, inner = equations.call_name(eqn), equations.inner_jaxprs(eqn)
        named = parse_name(name)
        if eqn.primitive.name in PRODUCTS:
            return True
        if name in LAYERS and all(map(is_library, inner)):
            return True
        if named and named.kind in (*TYPE_I_KINDS, "norm"):
            return True
        if any(map(holds_layer, inner)):
            return True
    return False


def holds_product(jaxpr: Any) -> bool:
    """Whether a matrix product stands anywhere inside a jaxpr."""
    return any(
        eqn.primitive.name in PRODUCTS
        or any(map(holds_product, equations.inner_jaxprs(eqn)))
        for eqn in jaxpr.eqns
    )


def _split(walk, eqn, loop: equations.Scan, values, context):
    """Constants, carried values and scanned maps; what a run makes data is data."""
    consts, carry, maps = loop.split(values)
    flags = _tainted(loop.body, consts, carry, maps)
    place = walk.place(eqn, context)
    carry = [
        walk.emit(STATE, eqn, place, (), shape=value.shape)
        if is_data and not value.is_data
        else value
        for value, is_data in zip(carry, flags, strict=True)
    ]
    return consts, carry, maps


def _tainted(jaxpr, consts, carry, maps=()) -> list[bool]:
    """Whether each carried value depends on data, in this run or a later one."""
    jaxpr = equations.opened(jaxpr)
    flags = [value.is_data for value in carry]
    while True:
        reached = {
            var
            for var, flag in zip(
                jaxpr.invars,
                [v.is_data for v in consts] + flags + [v.is_data for v in maps],
                strict=True,
            )
            if flag
        }
        for eqn in jaxpr.eqns:
            if any(not equations.is_literal(a) and a in reached for a in eqn.invars):
                reached.update(eqn.outvars)
        after = [
            flag or (not equations.is_literal(var) and var in reached)
            for flag, var in zip(flags, jaxpr.outvars, strict=False)
        ]
        if after == flags:
            return flags
        flags = after


def _element(walk, eqn, value, step, length, place) -> Value:
    """One step of a map."""
    shape = value.shape[1:]
    if value.elements and value.axis == 0:
        return dataclasses.replace(value.elements[step], shape=shape)
    if value.is_data:
        value = walk.whole(eqn, value, place)
        return walk.emit("slice", eqn, place, (value,), shape=shape)
    parts = {
        leaf: walk.leaves.slice(leaf, step, length) for leaf in sorted(value.leaves)
    }
    return dataclasses.replace(
        value,
        shape=shape,
        offset=value.offset + step * math.prod(shape),
        leaves=frozenset(parts.values()),
        trained=frozenset(parts[leaf] for leaf in value.trained),
    )


def _unrun(eqn, loop: equations.Scan, values) -> list[Value]:
    """The outputs of a loop that never runs."""
    _, carry, _ = loop.split(values)
    stacks = eqn.outvars[loop.num_carry :]
    return [*carry, *(Value(shape=tuple(var.aval.shape)) for var in stacks)]
