"""A chip is a spec and the one door to its costs, which is checked alike for all."""

import contextlib
import dataclasses
import functools
import inspect
import math
import sys
from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from codesign.hardware.cost import Cost
from codesign.numerics.relax import EXACT, Relax
from codesign.workload.graph import Workload

Estimate = Callable[..., Cost]  # (spec, workload, *, batch_size, relax)
_RANGES = {  # of totals that are not between 0 and what a float holds
    "temperature_c": (-273.15, sys.float_info.max),
    "endurance_trainings": (0, math.inf),
}


@dataclasses.dataclass(frozen=True)
class Chip:
    """A chip of ours or of a user's own; `chips.by_name` has those with sources.

        @struct.dataclass
        class Ideal:
            rate_macs_per_s: float

        def estimate(spec, workload, *, batch_size, relax):
            latency_s = batch_size * workload.macs.sum() / spec.rate_macs_per_s
            return Cost(latency_s=latency_s, energy_j=latency_s * 100.0)

        Chip(Ideal(1e12), estimate)

    Attributes:
        spec: Pytree of physical parameters, all of them finite numbers; they become
            float32 arrays.
        estimate: `estimate(spec, workload, *, batch_size, relax) -> Cost`; what is given
            is put behind `door`.
        name: What tables call it; by default the name of the spec's type.

    Raises:
        TypeError: If `spec` holds no numbers, or `estimate` is no function.
    """

    spec: Any
    estimate: Estimate
    name: str = ""

    def __post_init__(self):
        """Puts `estimate` behind the door, and finds a name."""
        if not callable(self.estimate):
            raise TypeError(f"`estimate` must be a function, got {self.estimate!r}.")
        if not isinstance(self.estimate, Hashable):
            raise TypeError(
                f"`estimate` (={self.estimate!r}) cannot be hashed, so nothing could keep "
                "what is compiled for it; make it a function, or its class frozen."
            )
        if not jax.tree.leaves(self.spec):
            raise TypeError(
                f"`spec` (={self.spec!r}) holds no numbers; make its class a pytree, "
                "such as with `@flax.struct.dataclass`."
            )
        check_spec(self.spec)
        spec = jax.tree.map(jnp.float32, self.spec)
        object.__setattr__(self, "spec", spec)
        object.__setattr__(self, "estimate", door(self.estimate))
        object.__setattr__(self, "name", self.name or type(self.spec).__name__)

    def cost(self, workload: Workload, *, batch_size: int) -> Cost:
        """Exact cost of one batch, compiled once for each network and batch size.

        Raises:
            TypeError, ValueError: As `door` says.
        """
        _check(self.spec, workload, batch_size, EXACT)
        cost = self.cost_at(self.spec, workload, batch_size=int(batch_size))
        _check_cost(cost, self.estimate)
        return cost

    def cost_at(self, spec: Any, workload: Workload, *, batch_size: int) -> Cost:
        """The same at another spec, for secants: unchecked, if JAX compiles the model.

        Raises:
            ValueError: If the model runs on the host and refuses such a spec.
        """
        if getattr(self.estimate, "on_host", False):
            return self.estimate(spec, workload, batch_size=batch_size, relax=EXACT)
        return _compiled(self.estimate)(spec, workload, batch_size=batch_size)


@functools.cache
def door(estimate: Estimate, *, on_host: bool = False) -> Estimate:
    """Checks what goes into a chip's `estimate` and what comes out, where concrete.

    Values that JAX traces are not seen, and pass.

    Args:
        estimate: `estimate(spec, workload, *, batch_size, relax) -> Cost`; without
            `relax` if it is smooth as it is. A method `checked` of `spec` has its say on
            the spec's ranges.
        on_host: Whether the exact model runs in NumPy, so that nothing compiles it. What
            it does where `relax` is smooth must be JAX's all the same: training
            differentiates it.

    Returns:
        The same function, which then raises a ValueError that names the argument, the
        value and the rule: for a spec with a number that is not finite; a batch below 1,
        or one that is not whole where `relax` is exact; and for a cost that is no
        `Cost`, or has a total that is no scalar, below 0 or not finite.
    """
    if getattr(estimate, "is_door", False):
        return estimate
    parameters = inspect.signature(estimate).parameters
    defaults = {
        name: parameter.default
        for name, parameter in parameters.items()
        if name in ("batch_size", "relax") and parameter.default is not parameter.empty
    }
    kinds = {parameter.kind for parameter in parameters.values()}
    takes_relax = "relax" in parameters or inspect.Parameter.VAR_KEYWORD in kinds

    @functools.wraps(estimate)
    def checked(spec: Any, workload: Workload, **settings: Any) -> Cost:
        settings = {"relax": EXACT} | defaults | settings
        if "batch_size" not in settings:
            raise TypeError("`batch_size` is missing; costs are those of a batch.")
        _check(spec, workload, settings["batch_size"], settings["relax"])
        if not takes_relax:
            del settings["relax"]
        cost = estimate(spec, workload, **settings)
        _check_cost(cost, estimate)
        return cost

    checked.__dict__.update(is_door=True, on_host=on_host)
    return checked


@functools.cache
def _compiled(estimate: Estimate) -> Estimate:
    return jax.jit(estimate, static_argnames="batch_size")


def _check(spec: Any, workload: Any, batch_size: Any, relax: Any) -> None:
    if not isinstance(workload, Workload):
        raise TypeError(
            f"`workload` must be a Workload, got {type(workload).__name__}; "
            "`workload.trace` makes one of any JAX function."
        )
    if not isinstance(relax, Relax):
        raise TypeError(f"`relax` must be `EXACT` or `smooth(t)`, got {relax!r}.")
    check_spec(spec)
    if isinstance(batch_size, Tracer):
        return
    given, batch_size = batch_size, np.asarray(batch_size)  # JAX would stage its own
    is_number = batch_size.ndim == 0 and batch_size.dtype.kind in "iuf"
    if not is_number or not 1 <= batch_size < math.inf:
        raise ValueError(f"`batch_size` must be at least 1 and finite, got {given!r}.")
    if relax.is_exact and batch_size != int(batch_size):
        raise ValueError(
            f"`batch_size` must be a whole number, got {batch_size}; only a smooth "
            "model takes what lies between."
        )


def check_spec(spec: Any) -> None:
    """Checks that concrete numbers are finite, and what the spec's `checked` adds.

    Raises:
        ValueError: Names the field, its value and the rule.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(spec):
        if isinstance(leaf, Tracer):
            continue
        try:
            is_finite = not isinstance(leaf, str) and np.all(
                np.isfinite(np.asarray(leaf, float))
            )
        except (TypeError, ValueError):
            is_finite = False
        if not is_finite:
            name = jax.tree_util.keystr(path)
            way = "."
            if dataclasses.is_dataclass(leaf):
                way = (
                    "; make its class a pytree, such as with `@flax.struct.dataclass`."
                )
            raise ValueError(f"`spec{name}` must be a finite number, got {leaf!r}{way}")
    if callable(check := getattr(spec, "checked", None)):
        with contextlib.suppress(jax.errors.ConcretizationTypeError):  # it is traced
            check()


def _check_cost(cost: Any, estimate: Estimate) -> None:
    name = getattr(estimate, "__qualname__", repr(estimate))
    if not isinstance(cost, Cost):
        raise TypeError(
            f"`estimate` (={name}) returned {type(cost).__name__}; return a "
            "`codesign.hardware.Cost(latency_s=..., energy_j=...)`."
        )
    scalars = cost.scalars()
    if cost.feasible is not None:
        scalars["feasible"] = cost.feasible
    for field, value in scalars.items():
        if np.shape(value) != ():
            raise ValueError(
                f"`estimate` (={name}) returned a `{field}` of shape {np.shape(value)}; "
                "it is one number of a whole batch, so sum over ops."
            )
        least, most = _RANGES.get(field, (0, sys.float_info.max))
        if not isinstance(value, Tracer) and not least <= float(value) <= most:
            raise ValueError(
                f"`estimate` (={name}) returned a `{field}` of {value}, which must be "
                "finite and not below 0; look at its formula, or at the spec."
            )
