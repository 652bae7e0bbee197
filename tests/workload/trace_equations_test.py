"""What the tracer reads of JAX's equations, on whichever version is installed."""

import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.scipy import special

import codesign
from codesign import workload
from codesign.kernels import equations

X = jnp.ones((4, 3))
TABLE = jnp.arange(12.0).reshape(4, 3)


def every(jaxpr):
    """All equations of a jaxpr and of those inside it, outer ones first."""
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in equations.inner_jaxprs(eqn):
            yield from every(inner)


def equation(name, fn, *args):
    """The first equation of a primitive, wherever it stands."""
    return next(e for e in every(jax.make_jaxpr(fn)(*args)) if e.primitive.name == name)


def full(carry, xs, weight, *, reverse=False):
    """Two constants, one carried value, one map; two maps are made."""

    def body(carry, x):
        return carry * weight + x.sum() * weight.max(), (carry, x)

    return lax.scan(body, carry, xs, reverse=reverse)


def nested(carry, xs, weight):
    return lax.scan(lambda c, _: (full(c, xs, weight)[0], c), carry, None, length=5)


@pytest.mark.parametrize(
    ("fn", "args", "sizes", "length", "reverse"),
    [
        (full, (X[0], X, X[1]), (1, 1, 1), 4, False),
        (lambda *a: full(*a, reverse=True), (X[0], X, X[1]), (1, 1, 1), 4, True),
        (nested, (X[0], X, X[1]), (2, 1, 0), 5, False),
        (
            lambda x: lax.scan(lambda c, x: (c + x, c), x[0], x),
            (X,),
            (0, 1, 1),
            4,
            False,
        ),
        (lambda x, w: lax.map(lambda x: x * w, x), (X, X[0]), (1, 0, 1), 4, False),
        (
            lambda x: lax.fori_loop(0, 6, lambda _, x: x * 2, x),
            (X,),
            (0, 2, 0),
            6,
            False,
        ),
        # A tree of several leaves is several operands; one that is empty is none.
        (
            lambda x: lax.scan(lambda c, x: (c, x["a"]), (), {"a": x, "b": (x, x)}),
            (X,),
            (0, 0, 3),
            4,
            False,
        ),
    ],
    ids=["full", "reverse", "nested", "no_consts", "no_carry", "no_maps", "trees"],
)
def test_a_scan(fn, args, sizes, length, reverse):
    eqn = equation("scan", fn, *args)
    found = equations.scan(eqn)
    assert tuple(map(len, found.split(eqn.invars))) == sizes
    assert (found.num_consts, found.num_carry) == sizes[:2]
    assert (found.length, found.reverse) == (length, reverse)
    body = equations.opened(found.body)
    assert len(body.invars) == sum(sizes)
    # Carried values keep their shape; of a map the body sees one step.
    _, carry, maps = found.split(body.invars)
    _, carried, whole = found.split(eqn.invars)
    assert [v.aval.shape for v in carry] == [v.aval.shape for v in carried]  # pyright: ignore[reportAttributeAccessIssue]
    assert [(length, *v.aval.shape) for v in maps] == [v.aval.shape for v in whole]  # pyright: ignore[reportAttributeAccessIssue]


def test_the_scan_inside_a_scan():
    outer = equations.scan(equation("scan", nested, X[0], X, X[1]))
    (inner,) = [e for e in outer.body.eqns if e.primitive.name == "scan"]
    found = equations.scan(inner)
    assert (found.num_consts, found.num_carry, found.length) == (1, 1, 4)


@pytest.mark.parametrize("remat", [False, True])
def test_the_scans_of_a_gradient(remat):
    def loss(carry, xs, weight):
        return full(carry, xs, weight)[0].sum()

    fn = jax.checkpoint(loss) if remat else loss
    closed = jax.make_jaxpr(jax.grad(fn, (0, 1, 2)))(X[0], X, X[1])
    scans = [eqn for eqn in every(closed) if eqn.primitive.name == "scan"]
    found = [equations.scan(eqn) for eqn in scans]
    assert found[-1].reverse
    for eqn, scan in zip(scans, found, strict=True):
        _, carry, maps = scan.split(eqn.invars)
        outputs = eqn.outvars[: scan.num_carry]
        assert [v.aval.shape for v in carry] == [v.aval.shape for v in outputs]
        assert all(v.aval.shape[0] == 4 for v in maps)


def test_a_while():
    def fn(x, limit, factor):
        return lax.while_loop(lambda x: x.sum() < limit, lambda x: x * factor, x)

    found = equations.while_loop(equation("while", fn, X, 9.0, 2.0))
    assert (found.condition_consts, found.body_consts) == (1, 1)
    assert [e.primitive.name for e in found.condition.eqns][-1] == "lt"
    assert [e.primitive.name for e in found.body.eqns][-1] == "mul"


def test_a_cond():
    def fn(chosen, x):
        return lax.cond(chosen, jnp.sin, jnp.cos, x)

    found = equations.branches(equation("cond", fn, True, X))
    assert [b.eqns[0].primitive.name for b in found] == ["cos", "sin"]  # false first


@jax.custom_jvp
def ruled(x):
    return jnp.sin(x)


ruled.defjvp(lambda primals, tangents: (ruled(*primals), tangents[0]))


@jax.custom_vjp
def backward_ruled(x):
    return jnp.sin(x)


backward_ruled.defvjp(lambda x: (jnp.sin(x), x), lambda x, given: (given,))


@pytest.mark.parametrize(
    ("primitive", "fn", "name"),
    [
        ("jit", jax.jit(jnp.sin), "sin"),
        ("remat2", jax.checkpoint(lambda x: jnp.sin(x)), ""),
        ("custom_jvp_call", ruled, ""),
        ("custom_vjp_call", backward_ruled, ""),
    ],
)
def test_a_call(primitive, fn, name):
    eqn = equation(primitive, lambda x: fn(x), X)
    assert equations.call_name(eqn) == name
    inner = equations.opened(equations.called(eqn))
    assert [e.primitive.name for e in inner.eqns] == ["sin"]
    assert len(inner.invars) == len(eqn.invars)


def test_constants_literals_and_places():
    def fn(x):
        with jax.named_scope("outer"):
            return x * TABLE + 2.0

    closed = jax.make_jaxpr(jax.jit(fn))(X)
    assert "trace_equations_test.py" in equations.source(closed.eqns[0].params["jaxpr"])
    closed = jax.make_jaxpr(fn)(X)
    inner = equations.opened(closed)
    assert len(inner.constvars) == len(equations.constants(closed)) == 1
    last = closed.eqns[-1]
    assert [equations.is_literal(a) for a in last.invars] == [False, True]
    assert equations.name_stack(last) == "outer"
    assert any(__file__ == frame.file_name for frame in equations.frames(last))


def unknown(name, **params):
    """An equation as a later JAX might write it."""
    primitive = types.SimpleNamespace(name=name)
    return types.SimpleNamespace(primitive=primitive, params=params)


@pytest.mark.parametrize(
    ("read", "eqn", "expected"),
    [
        (equations.scan, unknown("scan", jaxpr=None, length=3), "num_consts.*ft_in"),
        (equations.scan, unknown("scan", ft_in=(1, 2), length=3), "num_consts.*ft_in"),
        (equations.while_loop, unknown("while", body=None), "cond_nconsts"),
        (equations.branches, unknown("cond", arms=()), "branches"),
        (equations.called, unknown("jit", fun=None), "call_jaxpr"),
        (equations.call_name, unknown("jit", jaxpr=None), "name"),
        (equations.num_devices, unknown("shard_map", mesh=None), "mesh"),
        (equations.name_stack, unknown("add"), "source_info.name_stack"),
        (equations.frames, unknown("add"), "source_info.traceback"),
        (lambda e: equations.Params(e)["axes"], unknown("reduce_sum"), "`axes`"),
    ],
)
def test_an_unknown_form_is_refused(read, eqn, expected):
    held = ".*".join(sorted(eqn.params))
    message = f"`{eqn.primitive.name}`.*jax {jax.__version__}.*{expected}.*{held}"
    with pytest.raises(ValueError, match=message):
        read(eqn)


def test_an_unknown_jaxpr_is_refused():
    for read in (equations.opened, equations.source):
        with pytest.raises(ValueError, match=f"`int`.*jax {jax.__version__}.*expects"):
            read(3)


def test_a_trace_says_what_it_does_not_know(monkeypatch):
    def net(x, w):
        return lax.scan(lambda x, w: (x @ w, None), x, w)[0]

    eqn = equation("scan", net, jnp.ones((1, 3)), jnp.ones((2, 3, 3)))
    for name in ("ft_in", "num_consts"):
        eqn.params.pop(name, None)
    jaxpr = types.SimpleNamespace(
        **{"eqns": [eqn], "invars": eqn.invars, "outvars": eqn.outvars[:1]},
        **{"constvars": [], "in_avals": [v.aval for v in eqn.invars]},
    )
    monkeypatch.setattr(jax, "make_jaxpr", lambda fn: lambda *args: jaxpr)
    with pytest.raises(ValueError, match="`scan`.*expects `num_consts`"):
        workload.trace(net, jnp.ones((1, 3)), jnp.ones((2, 3, 3)))


def test_nobody_else_reads_what_changes_between_versions():
    root = pathlib.Path(codesign.__file__).parent
    for path in root.rglob("*.py"):
        text = path.read_text()
        for name in (
            "eqn.params",
            "jax.extend",
            "jax._src",
            "source_info",
            "debug_info",
        ):
            assert name not in text or path.name == "equations.py", (path, name)


def pointwise_functions():
    """The functions of one to three arrays that JAX names: `(name, function, arity)`."""
    x = jax.ShapeDtypeStruct((1, 4), jnp.float32)
    modules = (jnp, dir(np)), (jax.nn, dir(jax.nn)), (special, dir(special))
    for module, names in modules:
        for name in names:
            if module is jnp and not isinstance(getattr(np, name), np.ufunc):
                continue
            fn = getattr(module, name, None)
            if not callable(fn):
                continue
            for arity in (1, 2, 3):
                try:
                    jax.eval_shape(fn, *arity * [x])
                except Exception:  # not of so many arrays
                    continue
                yield f"{module.__name__}.{name}", fn, arity


@pytest.mark.filterwarnings("ignore:`fn` closes over")  # tables of the functions' own
def test_the_primitives_of_every_function_are_known():
    # A new version splits a function into new primitives; each must have its cost.
    x, w = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1, 4), (4, 4)))
    unknown, known = [], 0
    for name, fn, arity in pointwise_functions():

        def value(w, x, fn=fn, arity=arity):
            return jnp.real(fn(*(x @ w * (i + 1) for i in range(arity))))

        def slope(w, x, value=value):
            return jax.grad(lambda x: jnp.sum(value(w, x)))(x) @ w

        for traced in (value, slope):
            try:
                jax.eval_shape(traced, w, x)
            except Exception:  # no slope by all of its arguments
                continue
            try:
                workload.trace(traced, w, x)
                known += 1
            except ValueError as error:
                if "is not known" in str(error):
                    unknown.append((name, str(error)))
    assert not unknown
    assert known > 150
