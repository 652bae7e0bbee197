"""Measures speed against its targets: python -m experiments.bench

Prints one table: each figure with its target and, where a peer is installed, the peer's
figure in the same run. Times are medians of interleaved runs after warm-up; the machine is
named, since absolute times are its own and ratios travel better. About 4 minutes on 2
cores. `pip install codesign[benchmark]` brings the peers.
"""

import contextlib
import functools
import importlib.util
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import rich.console
from absl import app, flags

from codesign import models, workload
from codesign.hardware import reram_gpu
from codesign.kernels.convolution import convolution
from codesign.numerics.relax import smooth
from codesign.objective import Design, chip_costs
from codesign.report import Column, Table
from codesign.search import bqp, features, surrogate
from codesign.search import optimizer as optimizers
from codesign.studies.search_benchmark import ask_time as speed
from codesign.studies.search_benchmark import problems
from codesign.studies.speed import memory_speed
from codesign.training.config import TrainConfig, make_optimizer
from codesign.training.state import init_state
from codesign.training.step import make_step

_REPEATS = flags.DEFINE_integer(
    "repeats", 30, "Runs of each timed piece.", lower_bound=3
)
_ONLY = flags.DEFINE_list(
    "only", None, "Some of: training, convolution, search, memory."
)


def interleaved(
    functions: dict[str, Callable[[], object]], repeats: int | None = None
) -> dict[str, list[float]]:
    """Seconds of each function, run in turn so that noise falls on all alike."""
    for fn in functions.values():
        jax.block_until_ready(fn())
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats or _REPEATS.value):
        for name, fn in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(fn())
            times[name].append(time.perf_counter() - start)
    return times


def add(
    table: Table,
    figure: str,
    seconds: float | None,
    target: str = "",
    *,
    met: bool | None = None,
    ratio: float | None = None,
    of: str = "",
) -> None:
    """One row; `ratio` is of this figure to that of `of`."""
    verdict = "" if met is None else ("yes" if met else "no")
    table.add(
        figure, seconds, ratio, of, target, verdict, style="bad" if met is False else ""
    )


def co_jit_overhead(table: Table) -> None:
    """A training step that also returns the chip's costs and all gradients."""
    network = models.create("vgg11", width=0.25)
    ops = workload.trace(*network.trace_args())
    optimizer = make_optimizer(TrainConfig(), 100)
    state = jax.jit(lambda: init_state(network, optimizer, jnp.uint32(0)))()
    images = jax.random.randint(jax.random.key(0), (64, 32, 32, 3), 0, 256)
    batch = (images.astype(jnp.uint8), jnp.arange(64, dtype=jnp.int32) % 10)
    design = Design(bn_mask=network.mask((5, 7)), chip=reram_gpu.deeptrain(3, 1))

    def preprocess(key, images):
        del key
        return images.astype(jnp.float32) / 255 - 0.5

    def compiled(relax):
        costs = relax and chip_costs(
            ops, reram_gpu.estimate, batch_size=64, relax=relax
        )
        step = jax.jit(make_step(network, optimizer, preprocess, chip_costs=costs))
        return lambda: step(state, batch, design)

    times = interleaved(
        {
            "plain": compiled(None),
            "smooth": compiled(smooth(0.1)),
        }
    )
    plain = statistics.median(times["plain"])
    ratio = statistics.median(
        b / a for a, b in zip(times["plain"], times["smooth"], strict=True)
    )
    add(table, "training step, VGG-11 width 0.25, batch 64", plain)
    add(
        table,
        "the same with costs and gradients of the chip",
        statistics.median(times["smooth"]),
        "at most 1.01 of the plain step",
        met=ratio <= 1.01,
        ratio=ratio,
        of="the plain step",
    )
    costs = chip_costs(ops, reram_gpu.estimate, batch_size=64, relax=smooth(0.1))
    alone = jax.jit(lambda d: (costs(d), jax.jacrev(costs)(d)))
    cost_s = statistics.median(interleaved({"cost": lambda: alone(design)})["cost"])
    add(
        table,
        "the chip's costs and gradients alone",
        cost_s,
        "at most 0.01 of the plain step",
        met=cost_s <= 0.01 * plain,
        ratio=cost_s / plain,
        of="the plain step",
    )


def convolutions(table: Table) -> None:
    """Gradient of each VGG-11 convolution, unfolded against XLA's own."""
    channels = (3, 64, 128, 256, 256, 512, 512, 512, 512)
    sizes = (32, 16, 8, 8, 4, 4, 2, 2)
    for width in (0.25, 1.0):
        totals = {"unfold": 0.0, "xla": 0.0}
        for site, size in enumerate(sizes):
            c_in = channels[site] if site == 0 else int(channels[site] * width)
            c_out = int(channels[site + 1] * width)
            rng = np.random.default_rng(site)
            x = jnp.asarray(rng.normal(size=(64, size, size, c_in)), jnp.float32)
            kernel = jnp.asarray(rng.normal(size=(3, 3, c_in, c_out)), jnp.float32)

            def gradient(name, x=x, kernel=kernel):
                def loss(x, kernel):
                    y = convolution(x, kernel, implementation=name)
                    return jnp.sum(jnp.maximum(y, 0))

                grad = jax.jit(jax.grad(loss, (0, 1)))
                return lambda: grad(x, kernel)

            times = interleaved({name: gradient(name) for name in totals})
            for name, seconds in times.items():
                totals[name] += statistics.median(seconds)
        ratio = totals["unfold"] / totals["xla"]
        add(
            table,
            f"8 convolutions of VGG-11 with gradients, width {width:g}",
            totals["unfold"],
            "at most XLA's",
            met=ratio <= 1,
            ratio=ratio,
            of=f"XLA's own, {totals['xla'] * 1e3:.1f} ms",
        )


def asks(table: Table) -> None:
    """Proposals of a study after 60 observations, against Optuna's."""
    for c, target_s in ((20, 0.05), (50, 0.2), (100, 1.5)):
        measured = speed.measure(c, 60)
        peer_s = _optuna_ask_s(c, 60)
        add(
            table,
            f"one ask, C = {c}, 60 observations",
            measured.ask_s,
            f"at most {target_s:g} s",
            met=measured.ask_s <= target_s,
            ratio=peer_s and measured.ask_s / peer_s,
            of=f"Optuna TPE, {peer_s * 1e3:.1f} ms" if peer_s else "",
        )
        add(table, "  of which the posterior", measured.posterior_s)
        add(table, "  of which the acquisition", measured.acquisition_s)
        if c == 20:
            add(
                table,
                "eight asks at once, C = 20, 60 observations",
                measured.batch_ask_s,
                "at most 0.25 s",
                met=measured.batch_ask_s <= 0.25,
                ratio=peer_s and measured.batch_ask_s / (8 * peer_s),
                of=f"8 of Optuna TPE, {8 * peer_s * 1e3:.0f} ms" if peer_s else "",
            )


def _optuna_ask_s(num_variables: int, num_observations: int) -> float | None:
    """Median CPU time of a warm proposal by Optuna's TPE, or None without Optuna."""
    if importlib.util.find_spec("optuna") is None:
        return None
    problem = problems.PlantedQuadratic(0, num_variables)
    peer = optimizers.create(
        "optuna_tpe",
        num_variables=num_variables,
        sparsity_penalty=problem.sparsity_penalty,
        num_initial=num_observations,
        seed=0,
    )
    times = []
    for _ in range(num_observations + 6):
        start = time.process_time()
        x = peer.ask()[0]
        times.append(time.process_time() - start)
        peer.tell(x, problem.value(x))
    return statistics.median(times[num_observations + 1 :])


def programmes(table: Table) -> None:
    """Binary quadratic programmes of Thompson draws, against an interior-point solver."""
    for c in (20, 40, 60, 100):
        problem = problems.PlantedQuadratic(0, c)
        x = np.random.default_rng(0).integers(0, 2, (60, c))
        y = [problem.value(row) for row in x]
        draw = surrogate.sample_posterior(jax.random.key(0), x, y, num_samples=1)
        a, b = -draw.pairwise[0] / draw.y_sd, -draw.linear[0] / draw.y_sd
        solve = functools.partial(bqp.solve, a, b, "sdp")
        seconds = statistics.median(interleaved({"sdp": solve}, 9)["sdp"])
        peer = _clarabel(a, b)
        gap = f", bounds differ by {abs(solve().bound - peer[1]):.0e}" if peer else ""
        add(
            table,
            f"SDP bound and point, C = {c}",
            seconds,
            "at most 0.05 s" if c in (40, 60) else "",
            met=seconds <= 0.05 if c in (40, 60) else None,
            ratio=seconds / peer[0] if peer else None,
            of=f"Clarabel, {peer[0] * 1e3:.0f} ms{gap}" if peer else "",
        )
    solve = functools.partial(
        bqp.solve, np.random.default_rng(1).normal(size=(20, 20)), np.zeros(20), "exact"
    )
    seconds = statistics.median(interleaved({"exact": solve})["exact"])
    add(table, "exact minimum of 2^20 points, C = 20", seconds)


def _clarabel(a: np.ndarray, b: np.ndarray) -> tuple[float, float] | None:
    """Seconds and bound of the interior-point solver, or None without cvxpy."""
    if importlib.util.find_spec("cvxpy") is None:
        return None
    import cvxpy

    c = len(b)
    point = cvxpy.Variable((c + 1, c + 1), PSD=True)
    top = np.concatenate([[0.0], b / 2])
    half = np.concatenate([b[:, None] / 2, (a + a.T) / 2], axis=1)
    cost = np.concatenate([top[None, :], half])
    rules: list[cvxpy.Constraint] = [
        point[0, 0] == 1,
        cvxpy.diag(point)[1:] == point[0, 1:],
    ]
    programme = cvxpy.Problem(cvxpy.Minimize(cvxpy.trace(cost @ point)), rules)
    start = time.perf_counter()
    programme.solve(solver=cvxpy.CLARABEL)
    return time.perf_counter() - start, float(np.asarray(programme.value))


def posterior(table: Table) -> None:
    """Sweeps of the surrogate's Gibbs sampler."""
    for c in (20, 50, 100):
        rng = np.random.default_rng(0)
        x, y = rng.integers(0, 2, (60, c)), rng.normal(size=60)

        def sweeps(count: int, x=x, y=y) -> Callable[[], object]:
            return lambda: surrogate.sample_posterior(
                jax.random.key(0), x, y, num_warmup=count, num_samples=1
            )

        times = interleaved({"few": sweeps(100), "many": sweeps(400)}, 7)
        each = statistics.median(
            (b - a) / 300 for a, b in zip(times["few"], times["many"], strict=True)
        )
        add(
            table,
            f"one Gibbs sweep, {features.num_features(c)} coefficients, 60 observations",
            each,
        )


def memory_model(table: Table) -> None:
    """Sweeps of the simulator, against plain Python, and designs of the surrogate."""
    for name, prototype_s in memory_speed.PROTOTYPE_S.items():
        found = memory_speed.capacity_sweep(name)
        add(
            table,
            f"489 capacities, {name}, {found.num_steps} steps",
            found.compiled_s,
            f"at most {prototype_s / 100:.3g} s",
            met=found.compiled_s <= prototype_s / 100,
            ratio=found.compiled_s / found.python_s,
            of="plain Python, here",
        )
    each = memory_speed.surrogate_design()
    add(
        table,
        "one design of the surrogate, time and 3 gradients, ResNet-50",
        each,
        "at most 1 us",
        met=each <= 1e-6,
    )


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    groups = {
        "training": (co_jit_overhead,),
        "convolution": (convolutions,),
        "search": (asks, posterior, programmes),
        "memory": (memory_model,),
    }
    chosen = _ONLY.value or list(groups)
    for name in chosen:
        if name not in groups:
            raise app.UsageError(f"--only (={name!r}) must be some of {list(groups)}.")
    device = jax.devices()[0]
    table = Table(
        f"Speed on {device.device_kind} ({device.platform})",
        [
            "Figure",
            Column("Measured", "s", "si"),
            Column("Ratio", format=".3g"),
            "To",
            "Target",
            "Met",
        ],
        footnotes=[
            f"Medians of {_REPEATS.value} interleaved runs, one process; asks and Optuna "
            "in seconds of CPU over all threads, of 5 warm calls.",
        ],
    )
    console = rich.console.Console(width=150)
    with (
        console.status("measuring") if console.is_terminal else contextlib.nullcontext()
    ):
        for name in chosen:
            for measure in groups[name]:
                measure(table)
    console.print(table.to_rich())


if __name__ == "__main__":
    jax.config.config_with_absl()
    app.run(main)
