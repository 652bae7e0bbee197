"""Reads JAX's equations, in the form that each version of JAX gives them.

Only here stand the parameters of loops, branches and calls, and what JAX notes about the
source. A form that is not known is refused by name, so that nothing is miscounted.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
from jax.extend import core

_T = TypeVar("_T")
_PATCHES = jax.lax.conv_general_dilated_patches.__name__
RECOMPUTED = "rematted_computation"  # in the name stack of what `remat` runs again
_UNREAD = (AttributeError, KeyError, TypeError, ValueError)


class Params(dict[str, Any]):
    """Parameters of an equation, such as `dimension_numbers`; one it lacks is refused."""

    def __init__(self, eqn: Any):
        super().__init__(eqn.params)
        self._eqn = eqn

    def __missing__(self, name: str) -> Any:
        raise _unknown(self._eqn, f"a parameter `{name}`")


class Scan(NamedTuple):
    """A `scan`: its body takes constants, carried values and a step of each map."""

    body: Any
    length: int
    reverse: bool
    num_consts: int
    num_carry: int

    def split(self, values: Sequence[_T]) -> tuple[list[_T], list[_T], list[_T]]:
        """Constants, carried values and maps among the operands."""
        maps = self.num_consts + self.num_carry
        first = list(values[: self.num_consts])
        return first, list(values[self.num_consts : maps]), list(values[maps:])


class While(NamedTuple):
    """A `while`: constants of its condition, those of its body, and carried values."""

    condition: Any
    body: Any
    condition_consts: int
    body_consts: int


def _expects(form: str) -> Callable[[Callable[[Any], _T]], Callable[[Any], _T]]:
    """Decorates a function that reads an equation or a jaxpr; `form` is what it knows."""

    def decorate(read: Callable[[Any], _T]) -> Callable[[Any], _T]:
        @functools.wraps(read)
        def checked(owner: Any) -> _T:
            try:
                return read(owner)
            except _UNREAD as error:
                raise _unknown(owner, form) from error

        return checked

    return decorate


@_expects("`num_consts` and `num_carry`, or `ft_in` of constants, carry and maps")
def scan(eqn: Any) -> Scan:
    """Reads a `scan`."""
    params = eqn.params
    if "ft_in" in params:  # since JAX 0.11
        num_consts, num_carry, _ = map(len, params["ft_in"].unpack())
    else:
        num_consts, num_carry = params["num_consts"], params["num_carry"]
    body, length, reverse = params["jaxpr"], params["length"], params["reverse"]
    return Scan(body, length, reverse, num_consts, num_carry)


@_expects("`cond_jaxpr` and `body_jaxpr`, `cond_nconsts` and `body_nconsts`")
def while_loop(eqn: Any) -> While:
    """Reads a `while`."""
    names = ("cond_jaxpr", "body_jaxpr", "cond_nconsts", "body_nconsts")
    return While(*(eqn.params[name] for name in names))


@_expects("`branches`")
def branches(eqn: Any) -> tuple[Any, ...]:
    """The jaxprs of a `cond`, whose first operand chooses among them."""
    return tuple(eqn.params["branches"])


@_expects("`jaxpr` or `call_jaxpr`")
def called(eqn: Any) -> Any:
    """The jaxpr of a call: a `jit`, a `remat`, a function with its own derivative."""
    return eqn.params["jaxpr" if "jaxpr" in eqn.params else "call_jaxpr"]


@_expects("a `name`")
def call_name(eqn: Any) -> str:
    """The name of the function under a `jit`; empty for any other equation."""
    return eqn.params["name"] if eqn.primitive.name in ("jit", "pjit") else ""


def is_remat_back(eqn: Any) -> bool:
    """Whether it runs what a `remat` wraps once more, and then its gradient."""
    return bool(eqn.params.get("differentiated")) and "jaxpr" in eqn.params


def is_copy(eqn: Any) -> bool:
    """Whether it is a product in form only: JAX cuts patches by a kernel of 0 and 1."""
    return eqn.primitive.name == "conv_general_dilated" and any(
        frame.function_name == _PATCHES and jax.__name__ in frame.file_name
        for frame in frames(eqn)
    )


@_expects("a `mesh` with a `size`")
def num_devices(eqn: Any) -> int:
    """Over how many devices a `shard_map` splits what it calls."""
    return eqn.params["mesh"].size


def inner_jaxprs(eqn: Any) -> list[Any]:
    """All jaxprs among the parameters of an equation."""
    found = []
    for value in eqn.params.values():
        items = value if isinstance(value, (tuple, list)) else (value,)
        found += [item for item in items if hasattr(item, "eqns")]
    return found


@_expects("`eqns`, `invars` and `constvars`")
def opened(jaxpr: Any) -> core.Jaxpr:
    """A jaxpr without the constants that a closed one holds (since 0.11, itself)."""
    inner = getattr(jaxpr, "jaxpr", jaxpr)
    _ = inner.eqns, inner.invars, inner.constvars
    return inner


def constants(jaxpr: Any) -> Sequence[Any]:
    """The values of a jaxpr's `constvars`; empty if it does not hold them."""
    return getattr(jaxpr, "consts", ())


def is_literal(atom: Any) -> bool:
    """Whether an operand is a number written down, which has a `val` and no hash."""
    return isinstance(atom, core.Literal)


@_expects("`source_info.name_stack`")
def name_stack(eqn: Any) -> str:
    """Modules and named scopes around an equation, within its jaxpr."""
    return str(eqn.source_info.name_stack)


@_expects("`source_info.traceback` with `frames`")
def frames(eqn: Any) -> list[Any]:
    """The calls that led to an equation, innermost first."""
    traceback = eqn.source_info.traceback
    return [] if traceback is None else list(traceback.frames)


@_expects("`debug_info.func_src_info`")
def source(jaxpr: Any) -> str:
    """Name, file and line of the function that a jaxpr stands for, if JAX knows it."""
    return opened(jaxpr).debug_info.func_src_info or ""


def _unknown(owner: Any, expected: str) -> ValueError:
    name = getattr(getattr(owner, "primitive", None), "name", type(owner).__name__)
    held = sorted(getattr(owner, "params", ()))
    return ValueError(
        f"`{name}` has a form in jax {jax.__version__} that the tracer does not know: "
        f"it expects {expected}; parameters are {held}. Use jax 0.10 to 0.12, or teach "
        f"the form to {__name__}."
    )
