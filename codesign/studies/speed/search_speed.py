"""How fast the search proposes: asks, sweeps of its sampler, binary programmes."""

import importlib.util
import statistics
import time

import jax
import numpy as np

from codesign.report import Quantity
from codesign.search import bqp, features, optimizer, surrogate
from codesign.studies.search_benchmark import ask_time
from codesign.studies.search_benchmark.problems import PlantedQuadratic
from codesign.studies.speed.timing import interleaved, row

_N = 60  # observations


def asks(c: int, repeats: int, seed: int) -> list[Quantity]:
    """Times warm proposals for `c` variables, and Optuna's, in CPU time."""
    del repeats, seed  # `ask_time` has its own.
    ours, peer_s = ask_time.measure(c, _N), _optuna_ask_s(c)
    of, where = {"variables": c, "observations": _N}, f"C = {c}, {_N} observations"
    found = [
        row(
            "ask_s", ours.ask_s, f"one ask, {where}", of, asked=ask_time.MOST_S[c],
            peer=peer_s and ("Optuna TPE", peer_s),
        ),
        row("posterior_s", ours.posterior_s, f"posterior of an ask, {where}", of),
        row("acquisition_s", ours.acquisition_s, f"acquisition of an ask, {where}", of),
        row(
            "batch_ask_s", ours.batch_ask_s, f"eight asks at once, {where}", of,
            asked=ask_time.MOST_BATCH_S, peer=peer_s and ("8 of Optuna TPE", 8 * peer_s),
        ),
    ]  # fmt: skip
    return found if c == 20 else found[:-1]  # Only there is a batch's time asked.


def _optuna_ask_s(c: int) -> float | None:
    """Median CPU time of a warm proposal by Optuna's TPE, or None without Optuna."""
    if importlib.util.find_spec("optuna") is None:
        return None
    problem, times = PlantedQuadratic(0, c), []
    peer = optimizer.create(
        "optuna_tpe", num_variables=c, sparsity_penalty=problem.sparsity_penalty,
        num_initial=_N, seed=0,
    )  # fmt: skip
    for _ in range(_N + 6):
        start = time.process_time()
        x = peer.ask()[0]
        times.append(time.process_time() - start)
        peer.tell(x, problem.value(x))
    return statistics.median(times[_N + 1 :])


def sweep(c: int, repeats: int, seed: int) -> list[Quantity]:
    """Times 400 sweeps of the Gibbs sampler less 100, for one."""
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 2, (_N, c)), rng.normal(size=_N)

    def sweeps(count):
        return lambda: surrogate.sample_posterior(
            jax.random.key(seed), x, y, num_warmup=count, num_samples=1
        )

    few, many = interleaved(repeats, sweeps(100), sweeps(400))
    title = f"one Gibbs sweep, {features.num_features(c)} coefficients"
    of = {"variables": c, "observations": _N}
    each_s = np.median(many - few) / 300
    return [row("gibbs_sweep_s", each_s, f"{title}, {_N} observations", of)]


def programmes(c: int, repeats: int, seed: int) -> list[Quantity]:
    """Times the binary quadratic programme of a Thompson draw, beside Clarabel."""
    problem = PlantedQuadratic(seed, c)
    x = np.random.default_rng(seed).integers(0, 2, (_N, c))
    y = [problem.value(each) for each in x]
    draw = surrogate.sample_posterior(jax.random.key(seed), x, y, num_samples=1)
    a, b = -draw.pairwise[0] / draw.y_sd, -draw.linear[0] / draw.y_sd

    def solved(method, title, **more):
        times = interleaved(repeats, lambda: bqp.solve(a, b, method))
        title = f"{title}, C = {c}"
        return row(f"{method}_s", np.median(times), title, {"variables": c}, **more)

    bound = bqp.solve(a, b, "sdp").bound
    asked = 0.05 if c in (40, 60) else None
    peer = _clarabel(a, b, bound)
    found = [solved("sdp", "SDP bound and point", asked=asked, peer=peer)]
    if c == 20:
        found.append(solved("exact", f"exact minimum of 2^{c} points"))
    return found


def _clarabel(a: np.ndarray, b: np.ndarray, bound: float) -> tuple[str, float] | None:
    """The interior-point solver's seconds, or None without cvxpy."""
    if importlib.util.find_spec("cvxpy") is None:
        return None
    import cvxpy

    c = len(b)
    point = cvxpy.Variable((c + 1, c + 1), PSD=True)
    cost = np.block([[np.zeros((1, 1)), b[None] / 2], [b[:, None] / 2, (a + a.T) / 2]])
    goal = cvxpy.Minimize(cvxpy.trace(cost @ point))
    tied = cvxpy.diag(point)[1:] == point[0, 1:]
    problem = cvxpy.Problem(goal, [point[0, 0] == 1, tied])
    start = time.perf_counter()
    problem.solve(solver=cvxpy.CLARABEL)
    seconds = time.perf_counter() - start
    gap = abs(float(np.asarray(problem.value)) - bound)
    return f"Clarabel, bounds {gap:.0e} apart", seconds


PIECES = {
    "ask": (asks, tuple(ask_time.MOST_S)),
    "Gibbs sweep": (sweep, tuple(ask_time.MOST_S)),
    "programmes": (programmes, (20, 40, 60, 100)),
}
