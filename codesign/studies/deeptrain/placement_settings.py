"""Settings of a placement search, and the presets."""

import dataclasses
import pathlib

from codesign import data, models
from codesign.hardware import chips
from codesign.models.layers import INITIALISATIONS
from codesign.records.settings import setting
from codesign.studies import frame
from codesign.training import TrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlacementConfig(frame.Config):
    """Settings of one search; `PRESETS` has named ones.

    Runs take the seeds `seed`, `seed` + 1, ... All-BN, No-BN and `num_random` random
    placements come before the surrogate proposes. The default of `least_health` is where
    DeepTrain sees gradients vanish (Fig. 1: 0.02 to 0.04 %).
    """

    networks: tuple[str, ...] = setting(
        ("vgg11",), "Networks, searched in turn.", distinct=True, flag="network"
    )
    dataset: str = setting(
        "digits", f"Data set: {', '.join(data.DATASETS)}.", flag="data"
    )
    width: float = setting(0.25, "Channel multiplier.", above=0, most=100)
    image_size: int = setting(32, "Height and width of images.", least=8, most=4096)
    initialisation: str = setting(
        "pytorch", "Of the weights.", one_of=tuple(INITIALISATIONS)
    )
    num_train: int | None = setting(None, "Training images; none for all.", least=1)
    num_validation: int | None = setting(None, "Likewise, validation.", least=1)
    num_test: int | None = setting(None, "Likewise, test.", least=1)
    train: TrainConfig = setting(TrainConfig(), "Hyperparameters of every run.")
    num_evaluations: int = setting(
        16, "Placements trained in the search.", grows=True, flag="evaluations"
    )
    num_initial: int = setting(
        5, "Random placements, at most half of the search.", least=0
    )
    sparsity_penalty: float = setting(
        0.005,
        "Accuracy that one more batch norm must be worth.",
        least=0,
        flag="lambda",
    )
    least_health: float = setting(
        4e-4,
        "Gradient over weight before training, below which nothing is trained; 0 for "
        "all.",
        least=0,
    )
    warm_start: str | None = setting(
        None, "journal.jsonl of another search, whose three best come first."
    )
    chip: str = setting(
        "deeptrain:3R1G",
        "Chip: `deeptrain:3R1G`, `roofline:Titan Xp`, `memory:A100`, ...",
    )
    brought: str | None = setting(
        None, "Digests of a caller's own network, data and chip.", flag=None
    )
    num_seeds: int = setting(
        3, "Least runs behind each final accuracy.", least=1, grows=True, flag="seeds"
    )
    max_seeds: int = setting(
        6,
        "Runs of All-BN and BO-N where fewer leave the claim on them open.",
        least=1,
        grows=True,
    )
    beside: tuple[str, ...] | None = setting(
        None,
        "Workdirs of the same search from other seeds or on other numbers of cores, to "
        "be compared.",
        distinct=True,
        free=True,
    )
    checkpoint_every_s: float = setting(
        10.0, "Least seconds between two checkpoints of a run.", least=0, free=True
    )

    @property
    def num_random(self) -> int:
        """Random placements of the search."""
        return min(self.num_initial, (self.num_evaluations - 2) // 2)

    def folder(self, workdir: pathlib.Path, network: str) -> pathlib.Path:
        """Where a network's journal and checkpoints are."""
        return workdir / network if len(self.networks) > 1 else workdir

    def check(self) -> None:
        if self.num_evaluations < 3:
            raise ValueError(
                f"`num_evaluations` must be >= 3, got {self.num_evaluations}: All-BN, "
                "No-BN and one candidate."
            )
        if self.max_seeds < self.num_seeds:
            raise ValueError(
                f"`max_seeds` (={self.max_seeds}) must be at least `num_seeds` "
                f"(={self.num_seeds}); raise it, too."
            )
        brought = self.brought or ""
        if "dataset" not in brought and self.dataset not in data.DATASETS:
            raise ValueError(
                f"`dataset` (={self.dataset!r}) must be one of {list(data.DATASETS)}."
            )
        if "chip" not in brought:
            chips.by_name(self.chip)
        if "network" in brought:
            return
        for name in self.networks:
            models.create(
                name,
                image_shape=(self.image_size, self.image_size, 1),
                width=self.width,
                initialisation=self.initialisation,
            )


_CIFAR_TRAIN = TrainConfig(epochs=8, learning_rate=0.05, weight_decay=5e-4)
PRESETS = {
    "default": PlacementConfig(preset="default"),
    "smoke": PlacementConfig(
        preset="smoke",
        width=0.125,
        train=TrainConfig(epochs=4, learning_rate=0.1),
        num_evaluations=8,
        num_initial=2,
        num_seeds=2,  # they decide no claim
        max_seeds=2,
        checkpoint_every_s=1.0,
    ),
    "cifar10": PlacementConfig(
        preset="cifar10",
        dataset="cifar10",
        num_train=10_000,
        num_validation=2_000,
        train=_CIFAR_TRAIN,
        num_evaluations=12,
        max_seeds=5,
    ),
    "paper": PlacementConfig(
        preset="paper",
        networks=("vgg11", "vgg16", "vgg19", "resnet18"),
        dataset="cifar10",
        width=1.0,
        train=dataclasses.replace(_CIFAR_TRAIN, epochs=50, batch_size=128),
        num_evaluations=50,
        sparsity_penalty=0.002,
        max_seeds=10,
    ),
}
