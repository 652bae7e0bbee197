"""Random numbers that no version of NumPy changes."""

import numpy as np
from scipy import special


class Draws:
    """A stream of its own for each name and seed.

    `Generator` and its methods may change their streams; the raw bits of PCG64 may not,
    and all else is computed from them here.
    """

    def __init__(self, name: str, seed: int):
        """Starts the stream of `name`; those of different names are independent."""
        self._bits = np.random.PCG64([*name.encode(), seed])

    def uniform(self, *shape: int) -> np.ndarray:
        """Multiples of 2^-53 in [0, 1)."""
        raw = self._bits.random_raw(int(np.prod(shape, dtype=int)))
        return (np.asarray(raw) >> np.uint64(11)).reshape(shape) * 2.0**-53

    def normal(self, *shape: int) -> np.ndarray:
        """Standard normal, by inversion."""
        return special.ndtri(self.uniform(*shape) + 2.0**-54)

    def beta(self, b: float, *shape: int) -> np.ndarray:
        """Beta(1, b), by inversion: P(X > x) = (1 - x)^b."""
        return 1 - (1 - self.uniform(*shape)) ** (1 / b)

    def signs(self, *shape: int) -> np.ndarray:
        """-1.0 or 1.0."""
        return np.where(self.uniform(*shape) < 0.5, -1.0, 1.0)

    def bits(self, *shape: int) -> np.ndarray:
        """0 or 1, int8."""
        return (self.uniform(*shape) < 0.5).astype(np.int8)

    def permutation(self, n: int) -> np.ndarray:
        return np.argsort(self.uniform(n), kind="stable")

    def below(self, n: int) -> int:
        return int(n * self.uniform())
