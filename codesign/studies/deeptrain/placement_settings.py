"""Settings of a placement search, and the presets."""

import dataclasses
import math

from codesign import data, models
from codesign.hardware import reram_gpu
from codesign.training import TrainConfig


@dataclasses.dataclass(frozen=True)
class PlacementConfig:
    """Settings of one search; `PRESETS` has named ones.

    Attributes:
        preset: Name that the results carry.
        seed: Root of every random key.
        networks: Names of `models.NETWORKS`, searched one after the other.
        dataset: Name of `data.DATASETS`.
        width: Channel multiplier.
        image_size: Height and width that images are brought to, at least 8.
        initialisation: `pytorch`, `xavier` or `kaiming`.
        num_train, num_validation, num_test: Sizes of stratified subsets; None for all.
        train: Hyperparameters of every run.
        num_evaluations: Placements trained in the search, All-BN, No-BN and
            `num_initial` random ones included.
        num_initial: Random placements before the surrogate proposes; at most half of
            those that follow All-BN and No-BN.
        sparsity_penalty: Lambda: accuracy that one more batch norm must be worth.
        least_health: A placement is not trained if, before any training, the mean
            gradient of one of its kernels is a smaller part of its mean weight; 0 trains
            all. The default is where DeepTrain sees gradients vanish (Fig. 1: 0.02 to
            0.04 %).
        warm_start: Journal of another search over the same sites, such as one on
            another data set; its three best placements are trained first.
        num_reram_tiers, num_gpu_tiers: R and G of the stack.
        num_seeds: Runs behind each accuracy of the final table.
        checkpoint_every_s: Least time between two checkpoints of a run.
    """

    preset: str = "default"
    seed: int = 0
    networks: tuple[str, ...] = ("vgg11",)
    dataset: str = "digits"
    width: float = 0.25
    image_size: int = 32
    initialisation: str = "pytorch"
    num_train: int | None = None
    num_validation: int | None = None
    num_test: int | None = None
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    num_evaluations: int = 16
    num_initial: int = 5
    sparsity_penalty: float = 0.005
    least_health: float = 4e-4
    warm_start: str | None = None
    num_reram_tiers: int = 3
    num_gpu_tiers: int = 1
    num_seeds: int = 3
    checkpoint_every_s: float = 10.0

    @property
    def num_random(self) -> int:
        """Random placements of the search."""
        return min(self.num_initial, (self.num_evaluations - 2) // 2)

    def checked(self) -> "PlacementConfig":
        """Validates what needs no data; returns self.

        Raises:
            ValueError: Names the field, its value, the rule and the way out.
        """
        for name in ("num_evaluations", "num_seeds"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be >= 1, got {getattr(self, name)}.")
        if self.num_evaluations < 3:
            raise ValueError(
                f"`num_evaluations` (={self.num_evaluations}) must be at least 3: "
                "All-BN, No-BN and one candidate."
            )
        if not 0 <= self.seed <= 2**32 - self.num_seeds:
            raise ValueError(
                f"`seed` must lie in 0..2**32 - `num_seeds`, got {self.seed}; runs "
                "take the seeds that follow it."
            )
        if self.num_initial < 0:
            raise ValueError(f"`num_initial` must be >= 0, got {self.num_initial}.")
        if not 0 <= self.sparsity_penalty < math.inf:
            raise ValueError(
                "`sparsity_penalty` (lambda) must be >= 0 and finite, got "
                f"{self.sparsity_penalty}."
            )
        if not 0 <= self.least_health < math.inf:
            raise ValueError(
                "`least_health` must be >= 0 and finite, got "
                f"{self.least_health}; 0 trains every placement."
            )
        if not self.networks:
            raise ValueError(f"`networks` is empty; name some of {models.NETWORKS}.")
        for name in self.networks:
            models.create(
                name,
                image_shape=(self.image_size, self.image_size, 1),
                width=self.width,
                initialisation=self.initialisation,
            )
        if self.dataset not in data.DATASETS:
            raise ValueError(
                f"`dataset` (={self.dataset!r}) must be one of {list(data.DATASETS)}."
            )
        reram_gpu.deeptrain(self.num_reram_tiers, self.num_gpu_tiers)
        self.train.checked()
        return self


_CIFAR_TRAIN = TrainConfig(epochs=8, learning_rate=0.05, weight_decay=5e-4)
PRESETS = {
    "smoke": PlacementConfig(
        preset="smoke",
        width=0.125,
        train=TrainConfig(epochs=4, learning_rate=0.1),
        num_evaluations=8,
        num_initial=2,
        num_seeds=2,
        checkpoint_every_s=1.0,
    ),
    "default": PlacementConfig(),
    "cifar10": PlacementConfig(
        preset="cifar10",
        dataset="cifar10",
        num_train=10_000,
        num_validation=2_000,
        train=_CIFAR_TRAIN,
        num_evaluations=12,
    ),
    "paper": PlacementConfig(
        preset="paper",
        networks=("vgg11", "vgg16", "vgg19", "resnet18"),
        dataset="cifar10",
        width=1.0,
        train=dataclasses.replace(_CIFAR_TRAIN, epochs=50, batch_size=128),
        num_evaluations=50,
        sparsity_penalty=0.002,
    ),
}
