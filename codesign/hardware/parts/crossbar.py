"""ReRAM crossbars that hold matrices and multiply by them bit by bit."""

from flax import struct

from codesign.numerics.relax import EXACT, Relax
from codesign.types import Array, Scalar


@struct.dataclass(kw_only=True)
class CrossbarSpec:
    """A crossbar with its share of a tile, after ISAAC (Shafiee et al., ISCA 2016)."""

    read_time_s: Scalar  # [] one read of all wordlines
    power_w: Scalar  # [] of one crossbar with its share of DACs, ADCs and buffers
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
