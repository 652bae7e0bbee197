"""Settings of the whole suite: strict shapes, and no more threads than the cores shared."""

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
