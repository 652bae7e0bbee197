"""ReRAM crossbars that hold matrices and multiply by them bit by bit."""

import jax
import jax.numpy as jnp
from flax import struct

from codesign.numerics.relax import EXACT, Relax
from codesign.types import Array, Scalar


@struct.dataclass(kw_only=True)
class CrossbarSpec:
    """A crossbar with its share of a tile, after ISAAC (Shafiee et al., ISCA 2016)."""

    read_time_s: Scalar  # [] one read of all wordlines
    power_w: Scalar  # [] of one crossbar with its share of DACs, ADCs and buffers
    area_m2: Scalar  # [] likewise
    rows: int = struct.field(pytree_node=False, default=128)  # wordlines
    cols: int = struct.field(pytree_node=False, default=128)  # bitlines
    cell_bits: int = struct.field(pytree_node=False, default=2)
    weight_bits: int = struct.field(pytree_node=False, default=16)
    input_bits: int = struct.field(pytree_node=False, default=16)  # 1 a read

    @property
    def cells_per_value(self) -> int:
        """Cells that hold one stored value."""
        return -(-self.weight_bits // self.cell_bits)

    @property
    def num_cells(self) -> int:
        """Cells of one crossbar."""
        return self.rows * self.cols

    @property
    def mvm_time_s(self) -> Scalar:
        """[] One matrix-vector product: a read for every input bit."""
        return self.input_bits * self.read_time_s

    @property
    def mvm_energy_j(self) -> Scalar:
        """[] Energy of one crossbar during one matrix-vector product."""
        return self.power_w * self.mvm_time_s


def num_crossbars(
    spec: CrossbarSpec, rows: Array, cols: Array, *, relax: Relax = EXACT
) -> Array:
    """Crossbars that hold `[rows, cols]` matrices, any shape [L].

    ceil(rows / crossbar rows) * ceil(cols * cells per value / crossbar columns).
    """
    down = relax.ceil(rows / spec.rows)
    across = relax.ceil(cols * spec.cells_per_value / spec.cols)
    return down * across


def num_block_crossbars(
    spec: CrossbarSpec, rows: Array, cols: Array, blocks: Array, *, relax: Relax = EXACT
) -> Array:
    """Crossbars that hold block-diagonal matrices: `blocks` [L] of `[rows, cols]` each.

    The matrix of a grouped convolution: a group sees its own inputs only, so blocks share
    neither wordlines nor bitlines. Of blocks smaller than a crossbar

        p = min(floor(crossbar rows / rows), floor(crossbar columns / cells))

    lie on the diagonal of one: ceil(blocks / p). Larger ones take `num_crossbars` each.
    One block is a dense matrix.
    """
    cells = cols * spec.cells_per_value
    packed = jnp.minimum(jnp.floor(spec.rows / rows), jnp.floor(spec.cols / cells))
    packed = jnp.maximum(jax.lax.stop_gradient(packed), 1.0)
    each = num_crossbars(spec, rows, cols, relax=relax)
    return jnp.where(blocks > 1, relax.ceil(blocks / packed) * each, each)
