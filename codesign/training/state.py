"""Everything that one training run carries from step to step."""

import jax
import jax.numpy as jnp
import optax
from flax import struct

from codesign.models.network import Network
from codesign.types import Array, PyTree


@struct.dataclass(kw_only=True)
class TrainState:
    """A run's state: restoring it and going on gives the same bits as never stopping."""

    step: Array  # [] int32, steps taken
    seed: Array  # [] uint32, root of this run's random keys
    params: PyTree
    batch_stats: PyTree
    opt_state: PyTree
    bad_step: Array  # [] int32, first step with a non-finite loss or gradient, or -1
    # [3, K] of a step's loss and, with a chip, of all that it says of its design: of the
    # last step, summed over the current epoch, and the mean of the last whole one
    observed: Array

    def key(self) -> Array:
        """Key of the current step."""
        return jax.random.fold_in(jax.random.key(self.seed), self.step)


def init_state(
    network: Network,
    optimizer: optax.GradientTransformation,
    seed: Array | int,
) -> TrainState:
    """Fresh parameters and statistics drawn from `seed`."""
    # Steps fold in 0, 1, ...: the initial draw takes the last number.
    key = jax.random.fold_in(jax.random.key(seed), 2**32 - 1)
    variables = network.init(key)
    return TrainState(
        step=jnp.int32(0),
        seed=jnp.uint32(seed),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=optimizer.init(variables["params"]),
        bad_step=jnp.int32(-1),
        observed=jnp.zeros((3, 1), jnp.float32),
    )
