"""Loops and branches of a jaxpr: counted, unrolled, chosen or refused."""

import dataclasses
from typing import TYPE_CHECKING, Any

from codesign.kernels.named_op import parse_name
from codesign.workload.op import TYPE_I_KINDS
from codesign.workload.tracing.node import STATE, Value
from codesign.workload.tracing.place import is_library
from codesign.workload.tracing.primitives import JITS, LAYERS
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
    params = eqn.params
    if params["length"] == 0:
        return _unrun(eqn, values)
    place = walk.place(eqn, context)
    values = [walk.whole(eqn, value, place) for value in values]
    consts, carry, maps = _split(walk, eqn, values, context)
    inside = dataclasses.replace(
        walk.enter(eqn, params["jaxpr"], context),
        repeats=context.repeats * params["length"],
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
    body = params["jaxpr"]
    outputs = walk.walk(body.jaxpr, [*consts, *carry, *steps], inside, body.consts)
    num_carry = params["num_carry"]
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
    params = eqn.params
    if params["length"] == 0:
        return _unrun(eqn, values)
    consts, carry, maps = _split(walk, eqn, values, context)
    inside = walk.enter(eqn, params["jaxpr"], context)
    body, length, num_carry = params["jaxpr"], params["length"], params["num_carry"]
    stacks: list[list[Value]] = [[] for _ in eqn.outvars[num_carry:]]
    order, outer = range(length), walk.place(eqn, context)
    for step in reversed(order) if params["reverse"] else order:
        here = dataclasses.replace(inside, step=f"{context.step}@{step}")
        place = dataclasses.replace(
            outer, step=here.step, scope=(outer.scope, "loop", step)
        )
        parts = [_element(walk, eqn, value, step, length, place) for value in maps]
        outputs = walk.walk(body.jaxpr, [*consts, *carry, *parts], here, body.consts)
        carry = outputs[:num_carry]
        for stack, value in zip(stacks, outputs[num_carry:], strict=True):
            stack.append(value)
    made = []
    for stack, var in zip(stacks, eqn.outvars[num_carry:], strict=True):
        shape = tuple(var.aval.shape)
        elements = tuple(reversed(stack) if params["reverse"] else stack)
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
    place = walk.place(eqn, context)
    if any(holds_layer(eqn.params[key]) for key in ("cond_jaxpr", "body_jaxpr")):
        raise ValueError(
            f"The `while` at {place.name!r} holds layers, and the number of its runs is "
            "not known; write it with `lax.scan`, or `lax.fori_loop` with fixed bounds."
        )
    num_consts = eqn.params["cond_nconsts"] + eqn.params["body_nconsts"]
    shared = [walk.whole(eqn, v, place) for v in values[eqn.params["cond_nconsts"] :]]
    shared = [v for v in shared if v.is_data]
    carry = [walk.whole(eqn, value, place) for value in values[num_consts:]]
    tainted = _tainted(
        eqn.params["body_jaxpr"].jaxpr,
        values[eqn.params["cond_nconsts"] : num_consts],
        carry,
    )
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
    for branch in eqn.params["branches"]:
        start = len(walk.nodes)
        inside = walk.enter(eqn, branch, context)
        outputs = walk.walk(branch.jaxpr, values[1:], inside, branch.consts)
        nodes = walk.nodes[start:]
        # What the other branches wrote down reaches no output, and is dropped as such.
        count = (sum(n.macs * n.place.repeats for n in nodes), len(nodes))
        if best is None or count > most:
            best, most = outputs, count
    assert best is not None
    return best


def holds_layer(jaxpr: Any) -> bool:
    """Whether a matrix product or a named layer stands anywhere inside a jaxpr."""
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    for eqn in jaxpr.eqns:
        name = eqn.params.get("name", "") if eqn.primitive.name in JITS else ""
        named = parse_name(name) if isinstance(name, str) else None
        if eqn.primitive.name in PRODUCTS:
            return True
        if name in LAYERS and all(map(is_library, inner_jaxprs(eqn))):
            return True
        if named and named.kind in (*TYPE_I_KINDS, "norm"):
            return True
        if any(holds_layer(inner) for inner in inner_jaxprs(eqn)):
            return True
    return False


def holds_product(jaxpr: Any) -> bool:
    """Whether a matrix product stands anywhere inside a jaxpr."""
    return any(
        eqn.primitive.name in PRODUCTS or any(map(holds_product, inner_jaxprs(eqn)))
        for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns
    )


def inner_jaxprs(eqn: Any) -> list[Any]:
    """The jaxprs among the parameters of an equation."""
    found = []
    for value in eqn.params.values():
        items = value if isinstance(value, (tuple, list)) else (value,)
        found += [item for item in items if hasattr(item, "eqns")]
    return found


def _split(walk, eqn, values, context):
    """Constants, carried values and scanned maps; what a run makes data is data."""
    params = eqn.params
    num_consts, num_carry = params["num_consts"], params["num_carry"]
    consts = values[:num_consts]
    carry = values[num_consts : num_consts + num_carry]
    maps = values[num_consts + num_carry :]
    flags = _tainted(params["jaxpr"].jaxpr, [*consts], carry, maps)
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
            # Literals are not hashable; variables are.
            if any(type(a).__name__ != "Literal" and a in reached for a in eqn.invars):
                reached.update(eqn.outvars)
        after = [
            flag or (type(var).__name__ != "Literal" and var in reached)
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
        leaves=frozenset(parts.values()),
        trained=frozenset(parts[leaf] for leaf in value.trained),
    )


def _unrun(eqn, values) -> list[Value]:
    """The outputs of a loop that never runs."""
    first, count = eqn.params["num_consts"], eqn.params["num_carry"]
    empty = [Value(shape=tuple(v.aval.shape)) for v in eqn.outvars[count:]]
    return [*values[first : first + count], *empty]
