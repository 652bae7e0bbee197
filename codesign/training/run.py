"""A training run under way: what its checkpoints hold, and the design that it moves."""

import hashlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from codesign.hardware.chip import check_spec
from codesign.numerics import bfp
from codesign.training.checkpoint import CheckpointStore
from codesign.training.state import TrainState


class Run:
    """A run under way: what its checkpoints hold, and when the last one was written."""

    def __init__(
        self,
        seed: int,
        state: TrainState,
        design: Any,
        store: CheckpointStore | None,
        every_s: float,
        settings: dict[str, Any],
    ):
        """Begins at `state` and `design`, or goes on where `store` left the run.

        Args:
            seed: Root of every random key.
            state, design: At the start.
            store: Where to keep checkpoints, or None.
            every_s: Least time between two of them.
            settings: What else makes the run what it is, in JSON's types.

        Raises:
            ValueError: If `store` is of a run of another placement, chip, seed, or of
                other settings; names what differs.
        """
        self.seed, self.state, self.design = seed, state, design
        start = b"".join(np.asarray(x).tobytes() for x in jax.tree.leaves(design))
        self._of = {
            "placement": np.asarray(design.bn_mask).tolist(),
            "seed": seed,
            "start": hashlib.sha256(start).hexdigest(),
            **settings,
        }
        self.history: list[dict[str, float]] = []
        self._store, self._every_s, self._earlier_s = store, every_s, 0.0
        if store and (restored := store.restore((state, design))):
            (self.state, self.design), meta = restored
            differ = [
                f"`{name}` {meta.get(name)!r}, not {ours!r}"
                for name, ours in self._of.items()
                if meta.get(name) != ours
            ]
            if differ:
                raise ValueError(
                    f"`store` ({store}) holds another run, of {'; '.join(differ)}; use "
                    "another store for each run, or delete it."
                )
            self.history, self._earlier_s = meta["history"], meta["seconds"]
        self._start = self._last_saved = time.monotonic()

    @property
    def seconds(self) -> float:
        """Wall time, of all processes that worked on the run."""
        return self._earlier_s + time.monotonic() - self._start

    @property
    def has_bad_step(self) -> bool:
        """Whether a loss or gradient was not finite; waits for the device."""
        return int(self.state.bad_step) >= 0

    def save(self, *, now: bool = False) -> None:
        """Writes a checkpoint if the last one is old enough, or else if `now`."""
        if not now and time.monotonic() - self._last_saved <= self._every_s:
            return
        if self._store:
            meta = {"history": self.history, "seconds": self.seconds, **self._of}
            content = (self.state, self.design)
            self._store.save(int(self.state.step), content, meta)
        self._last_saved = time.monotonic()


def like(design: Any, moved: Any) -> Any:
    """What a hook returned, as float32 arrays of the design's own shapes."""
    moved = jax.tree.map(jnp.float32, moved)
    if jax.tree.map(jnp.shape, moved) != jax.tree.map(jnp.shape, design):
        raise ValueError(
            "`on_step` must return a design like the one that it was given, got "
            f"{jax.tree.map(jnp.shape, moved)}."
        )
    return checked_design(moved)


def checked_design(design: Any) -> Any:
    """Refuses a mask or widths out of range, and a chip with a number not finite."""
    mask = design.bn_mask
    if jnp.ndim(mask) != 1 or not np.all((mask >= 0) & (mask <= 1)):
        raise ValueError(
            f"`design.bn_mask` must be [C] within [0, 1], got {mask}; a hook that moves "
            "it must clip it."
        )
    if (chip := getattr(design, "chip", None)) is not None:
        check_spec(chip)
    if (bits := getattr(design, "mantissa_bits", None)) is not None:
        most = bfp.MAX_MANTISSA_BITS
        if jnp.shape(bits) not in ((), (2,)) or not np.all(
            (bits >= 1) & (bits <= most)
        ):
            raise ValueError(
                f"`design.mantissa_bits` must be one number, or one for weights and one "
                f"for activations, from 1 to {most}, got {bits}; a hook that moves it "
                "must clip it."
            )
    return design
