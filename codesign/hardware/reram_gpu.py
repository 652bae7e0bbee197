"""DeepTrain's 3-D stack: ReRAM tiers multiply, GPU tiers normalise, all in one pipeline."""

import functools
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.core import Tracer

from codesign import units
from codesign.hardware.chip import door
from codesign.hardware.cost import Cost
from codesign.hardware.parts import replication
from codesign.hardware.parts.crossbar import (
    CrossbarSpec,
    num_block_crossbars,
    num_crossbars,
)
from codesign.hardware.spec import checked_leaves, count
from codesign.numerics.relax import EXACT, Relax
from codesign.types import Array, Scalar, is_number
from codesign.workload.graph import MATRIX_KINDS, Workload

CROSSBARS_PER_TILE = 96  # DeepTrain, Table I
TILES_PER_TIER = 36 * 4  # clusters x tiles; DeepTrain, Table I

# Thread-instructions of one element through batch norm, forward and backward, counted
# from Ioffe & Szegedy, ICML 2015 (Algorithm 1 and the gradients of Section 3). Forward,
# three loops: sum (load, add), variance (load, subtract, multiply-add), normalise
# (load, subtract, multiply, multiply-add, store): 10. Backward, two loops: the sums of
# dy and dy x_hat (2 loads, subtract, multiply, add, multiply-add), dx (2 loads,
# subtract, multiply, 2 multiply-adds, multiply, store): 14. And one address or loop
# instruction for each of the 9 loads and stores. assumed range 24 (unrolled) .. 60.
BN_INSTRUCTIONS_PER_ELEMENT = 33.0
# assumed: batch norm streams, so a Fermi core waits for memory; range 0.1..1.
GPU_UTILISATION = 0.5
# assumed: 250 W of a GeForce GTX 480 over 480 lanes at 1.4 GHz is 370 pJ with
# everything counted, about half of it not the cores'; range 50..400 pJ.
GPU_INSTRUCTION_ENERGY_J = 200 * units.PJ
# assumed: half of one of the 16 cores' share of a GF100 die of 529 mm2 at 40 nm, the rest
# being memory controllers, video and links; range 10..33 mm2.
GPU_TILE_AREA_M2 = 16 * units.MM2
MAX_TIERS = 4  # R + G; a fifth tier passes 100 C (DeepTrain, Section V-A)


@struct.dataclass(kw_only=True)
class ReramGpuSpec:
    """R ReRAM tiers and G GPU tiers. `Scalar` fields are design variables."""

    num_reram_tiers: Scalar = count()  # [] R
    num_gpu_tiers: Scalar = count()  # [] G
    crossbar: CrossbarSpec
    crossbars_per_tier: Scalar = count()  # []
    gpu_tiles_per_tier: Scalar = count()  # []
    gpu_clock_hz: Scalar  # []
    gpu_instructions_per_cycle: Scalar  # [] thread-instructions of one tile at peak
    gpu_utilisation: Scalar  # [] part of the peak that batch norm reaches
    bn_instructions_per_element: Scalar  # [] forward and backward of one element
    gpu_instruction_energy_j: Scalar  # [] of one thread-instruction
    gpu_tile_area_m2: Scalar = GPU_TILE_AREA_M2  # []
    dedicated_tiles: bool = struct.field(pytree_node=False, default=False)

    def checked(self) -> "ReramGpuSpec":
        """Validates concrete values; returns float32 leaves.

        Between whole numbers of tiers lies what a search goes through.

        Raises:
            ValueError: If R or G is below 1, R + G exceeds 4, or a leaf is out of range.
        """
        tiers = {"R": self.num_reram_tiers, "G": self.num_gpu_tiers}
        if any(isinstance(number, Tracer) for number in tiers.values()):
            return checked_leaves(self)
        # NumPy's, as under `jit` JAX would stage a comparison of its own arrays.
        for name, number in tiers.items():
            _check_tiers(name, number)
        tiers = {name: float(np.asarray(number)) for name, number in tiers.items()}
        for name, number in tiers.items():
            if number < 1:
                raise ValueError(
                    f"`{name}` (={number:g}) must be at least 1 tier: convolutions need "
                    "ReRAM, batch norm needs GPU tiles."
                )
        if sum(tiers.values()) > MAX_TIERS:
            raise ValueError(
                f"`R` + `G` (={tiers['R']:g} + {tiers['G']:g}) must not exceed {MAX_TIERS} "
                "tiers, which is what stays below 100 C; use 3R1G or 2R2G."
            )
        return checked_leaves(self)


def _check_tiers(name: str, number: Any) -> None:
    if not is_number(number) or not abs(number) < 1e9:
        raise ValueError(f"`{name}` must be a number of tiers, got {number!r}.")


def deeptrain(num_reram_tiers: int = 3, num_gpu_tiers: int = 1) -> ReramGpuSpec:
    """The DeepTrain stack with R ReRAM and G GPU tiers at its sourced priors.

    2R2G with a batch norm after every convolution is AccuReD.

    Raises:
        ValueError: If R or G is no whole number or below 1, or R + G exceeds 4.
    """
    for name, number in (("R", num_reram_tiers), ("G", num_gpu_tiers)):
        _check_tiers(name, number)
        if number != int(number):
            raise ValueError(
                f"`{name}` (={number}) must be a whole number of tiers; `replace` takes "
                "what a search goes through."
            )
    return ReramGpuSpec(
        num_reram_tiers=num_reram_tiers,
        num_gpu_tiers=num_gpu_tiers,
        crossbar=CrossbarSpec(
            read_time_s=100 * units.NS,  # 10 MHz; DeepTrain, Table I
            power_w=330 * units.MW / CROSSBARS_PER_TILE,  # DeepTrain, Table I
            area_m2=0.372 * units.MM2 / CROSSBARS_PER_TILE,  # a tile; ISAAC, Table I
        ),
        crossbars_per_tier=TILES_PER_TIER * CROSSBARS_PER_TILE,
        gpu_tiles_per_tier=16,  # DeepTrain, Table I
        gpu_clock_hz=700 * units.MHZ,  # DeepTrain, Table I
        gpu_instructions_per_cycle=64,  # a Fermi core issues two warps of 32
        gpu_utilisation=GPU_UTILISATION,
        bn_instructions_per_element=BN_INSTRUCTIONS_PER_ELEMENT,
        gpu_instruction_energy_j=GPU_INSTRUCTION_ENERGY_J,
    ).checked()


@door
def estimate(
    spec: ReramGpuSpec,
    workload: Workload,
    *,
    batch_size: int = 64,
    relax: Relax = EXACT,
) -> Cost:
    """Costs one training iteration of `workload` on the stack.

    Convolutions and dense layers sit in crossbars twice, as they are and transposed for
    the error (not for a layer fed by the input alone). Spare crossbars hold copies that
    shorten the slowest stage. Each kept batch norm is a stage on the GPU tiles, streamed
    as in Liao et al., arXiv:1610.06160. With L conv and dense layers of index l,

        crossbars_l = ceil(k k C_in / 128) ceil(8 C_out / 128), and transposed        (1)
        activations = sum_l (2 (L - l) + 1) elements_l, packed densely in cells       (2)
        Tc  = ceil(windows_l / r_l) reads of 16 x 100 ns, the slowest                 (3)
        Tn  = sum_sites elements x instructions / (tiles x clock x IPC x utilisation) (4)
        T   = max(Tc, Tn);  latency = (B + stages - 1) T                              (5)
        energy = B (MVMs x crossbar energy + instructions x instruction energy)       (6)

    windows is the larger of the forward map's positions and the error's. stages counts
    2 L + 1 as PipeLayer does, and a forward and a backward stage for each kept norm.
    With `dedicated_tiles`, every norm has whole tiles of its own and Tn is the slowest; a
    slope by the mask is then that of a norm's work, and not of the tile that it takes.

    The weight gradient multiplies stored activations [windows, fan_in] by C_out error
    columns. It is counted in (6) and kept off the pipeline: streamed through one copy,
    512 columns would take 819 us, longer than a whole step on a GPU; the paper does not
    say how it is hidden. Writing cells and moving data are not in this model yet.

    Args:
        spec: The stack; leaves may be traced. See `deeptrain`.
        workload: One example's ops; `workload.masked(bn_mask)` for a placement.
        batch_size: B, inputs between two weight updates.
        relax: `EXACT`, or `smooth(temperature)`. What times change with the numbers of
            tiers, crossbars and tiles is declared straight-through: `Relax.secant`.

    Returns:
        `Cost` of one batch, with `period_s`, `feasible` and `violation`, and `area_m2` of
        all tiers together, vertical links left out. `breakdown`:
        `conv_stage_s`, `crossbars`, `copies`, `mvm_energy_j` over conv and dense ops,
        `bn_stage_s`, `bn_elements`, `gpu_energy_j` over norms, and scalars
        `slowest_conv_s`, `slowest_bn_s`, `crossbars_needed` (one copy of all weights and
        the activations), `crossbars_used` (with copies), `crossbars_budget` and
        `num_stages`.
    """
    matrix, norm = workload.select(*MATRIX_KINDS), workload.select("norm")
    storage = _storage(spec, matrix, relax)
    budget = spec.num_reram_tiers * spec.crossbars_per_tier
    # The first layer has no error to send back, so only its forward map counts.
    errors = jnp.where(_is_first(matrix), 0.0, matrix.num_input_windows)
    windows = jnp.maximum(matrix.num_windows, errors)
    instructions = norm.elements * spec.bn_instructions_per_element  # [C]
    num_tiles = spec.num_gpu_tiers * spec.gpu_tiles_per_tier
    stages = functools.partial(_stages, spec, storage, windows, instructions)
    # A pair of tiers and what each holds counts by its product alone.
    period_s, stages = relax.secant(stages, budget, num_tiles)

    kept = _num_kept(norm)
    num_stages = 2 * matrix.num_ops + 1 + 2 * kept
    mvm_energy_j = _num_mvms(matrix, storage) * spec.crossbar.mvm_energy_j  # [L]
    gpu_energy_j = instructions * spec.gpu_instruction_energy_j  # [C]

    needed = jnp.sum(storage["weights"]) + storage["activations"]
    crossbars_used = jnp.sum(stages["copies"] * storage["weights"])
    crossbars_used += storage["activations"]
    feasible = needed <= budget
    violation = relax.max(needed / budget, jnp.ones(())) - 1
    if spec.dedicated_tiles and norm.num_ops:
        feasible &= kept <= num_tiles
        violation += relax.max(kept / num_tiles, jnp.ones(())) - 1
    reram_m2 = budget * spec.crossbar.area_m2
    return Cost(
        latency_s=(batch_size + num_stages - 1) * period_s,
        area_m2=reram_m2 + num_tiles * spec.gpu_tile_area_m2,
        energy_j=batch_size * (jnp.sum(mvm_energy_j) + jnp.sum(gpu_energy_j)),
        period_s=period_s,
        feasible=feasible,
        violation=violation,
        breakdown=dict(
            **stages,
            crossbars=storage["weights"],
            mvm_energy_j=mvm_energy_j,
            bn_elements=norm.elements,
            gpu_energy_j=gpu_energy_j,
            crossbars_needed=needed,
            crossbars_used=crossbars_used,
            crossbars_budget=jnp.asarray(budget),
            num_stages=num_stages,
        ),
    )


def _stages(
    spec: ReramGpuSpec,
    storage: dict[str, Array],
    windows: Array,
    instructions: Array,
    relax: Relax,
    num_crossbars: Scalar,
    num_tiles: Scalar,
) -> tuple[Array, dict[str, Array]]:
    """Returns the period [] and its stages, from the crossbars and the GPU's tiles."""
    spare = num_crossbars - storage["activations"]
    num_copies, steps = replication.copies(
        windows, storage["weights"], spare, relax=relax
    )
    mvm_time_s = spec.crossbar.mvm_time_s
    conv_stage_s = relax.ceil(windows / num_copies) * mvm_time_s  # [L]
    slowest_conv_s = steps * mvm_time_s

    tile_rate = (
        spec.gpu_instructions_per_cycle * spec.gpu_utilisation * spec.gpu_clock_hz
    )
    bn_stage_s = instructions / (num_tiles * tile_rate)  # [C] if it had all tiles
    if spec.dedicated_tiles and len(instructions):
        one_each = jnp.ones_like(instructions)
        share = replication.slowest_share(
            instructions, one_each, num_tiles, relax=relax
        )
        slowest_bn_s = share / tile_rate
    else:
        slowest_bn_s = jnp.sum(bn_stage_s)
    return relax.max(slowest_conv_s, slowest_bn_s), dict(
        conv_stage_s=conv_stage_s,
        copies=num_copies,
        bn_stage_s=bn_stage_s,
        slowest_conv_s=slowest_conv_s,
        slowest_bn_s=slowest_bn_s,
    )


def _storage(spec: ReramGpuSpec, matrix: Workload, relax: Relax) -> dict[str, Array]:
    """Crossbars of each layer's matrices [L], and of all stored activations []."""
    xbar = spec.crossbar
    groups = _groups(matrix)
    fan_out = matrix.fan_out / groups  # of one group, as `fan_in` and the kernel's are
    forward = num_block_crossbars(xbar, matrix.fan_in, fan_out, groups, relax=relax)
    # Errors of C_out channels are convolved to C_in; the kernel area stays in the rows.
    area = matrix.weights / (matrix.fan_out * _channels_in(matrix))
    backward = num_block_crossbars(
        xbar, area * fan_out, _channels_in(matrix), groups, relax=relax
    )
    backward = jnp.where(_is_first(matrix), 0.0, backward)
    depth = jnp.arange(matrix.num_ops, 0, -1, dtype=jnp.float32) - 1  # L - l
    values = jnp.sum((2 * depth + 1) * matrix.elements)
    activations = relax.ceil(values * xbar.cells_per_value / xbar.num_cells)
    gradient = num_crossbars(xbar, matrix.num_windows, matrix.fan_in, relax=relax)
    return dict(
        forward=forward,
        backward=backward,
        gradient=gradient,
        weights=forward + backward,
        activations=activations,
    )


def _num_mvms(matrix: Workload, storage: dict[str, Array]) -> Array:
    """[L] crossbar-MVMs of one example: forward, error and weight gradient."""
    forward = matrix.num_windows * storage["forward"]
    backward = matrix.num_input_windows * storage["backward"]
    return forward + backward + matrix.fan_out * storage["gradient"]


def _groups(matrix: Workload) -> Array:
    """[L] channel groups of each convolution that do not see each other; else 1."""
    return jnp.array(
        [
            op.input_shape[-1] // op.weight_shape[-2] if op.kind == "conv" else 1
            for op in matrix.ops
        ],
        jnp.float32,
    )


def _channels_in(matrix: Workload) -> Array:
    """[L] of one group."""
    return jnp.array([shape[-2] for shape in matrix.weight_shapes], jnp.float32)


def _is_first(matrix: Workload) -> Array:
    fed = {end for _, end in matrix.edges}
    return jnp.array([op not in fed for op in range(matrix.num_ops)])


def _num_kept(norm: Workload) -> Array:
    """[] kept norms: by how much a mask has scaled each one's elements."""
    full = jnp.array([math.prod(shape) for shape in norm.output_shapes], jnp.float32)
    return jnp.sum(norm.elements / full)
