"""Settings of duplex training: networks, data, ways to train, and their presets."""

import dataclasses
from typing import Any

from codesign import data
from codesign.models.duplex import ALGORITHMS
from codesign.models.pairs import PAIRS
from codesign.numerics import formats
from codesign.records.settings import setting
from codesign.studies import frame
from codesign.studies.camel.variants import Variant, parse
from codesign.training import TrainConfig

Unit = tuple[str, str, int]  # pair, variant or `BACKBONE`, seed
BACKBONE = "backbone"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairConfig(frame.Config):
    """Settings of one comparison, whatever its pairs read."""

    pairs: tuple[str, ...] = setting(
        ("branch4-resnet18",),
        "Branch and backbone.",
        one_of=tuple(PAIRS),
        distinct=True,
    )
    variants: tuple[str, ...] = setting(
        tuple(ALGORITHMS),
        "Ways to train a branch: duplex, irreversible, chain, branch_only, each with "
        "options such as +float32, +norms, +double, +errors0.01, +unrefreshed.",
        distinct=True,
    )
    number_format: str = setting(
        "bfp5", "Number format of all products; float32 for none.", flag="format"
    )
    width: float = setting(0.25, "Channel multiplier of a backbone.", above=0, most=100)
    channels: int | None = setting(
        None, "Channels of a branch; none for the widest map's.", least=1
    )
    dataset: str = setting(
        "digits", f"Data set: {', '.join(data.DATASETS)}.", flag="data"
    )
    num_train: int | None = setting(None, "Training examples; none for all.", least=1)
    num_pretrain: int | None = setting(None, "Likewise of backbones.", least=1)
    train: TrainConfig = setting(TrainConfig(), "Hyperparameters of every branch.")
    pretrain: TrainConfig = setting(
        TrainConfig(), "Hyperparameters of backbones.", flag="pretrain"
    )
    kept_life: float = setting(
        100.0,
        "Retention times that an activation of the last block of an irreversible branch "
        "waits, without a refresh; of the l-th from the end l times as long (assumed).",
        above=0,
    )
    num_seeds: int = setting(
        3, "Runs of each variant.", least=1, grows=True, flag="seeds"
    )
    checkpoint_every_s: float = setting(
        10.0, "Least seconds between two checkpoints of a run.", least=0, free=True
    )

    def check(self) -> None:
        for name in self.variants:
            try:
                parse(name)
            except ValueError as error:
                raise ValueError(f"`variants`: {error}") from None
        try:
            formats.by_name(self.number_format)
        except ValueError as error:
            raise ValueError(f"`number_format`: {error}") from None

    def backbone_settings(self) -> dict[str, Any]:
        """Those of a backbone that not all have."""
        return {}

    def branch_settings(self, chosen: Variant) -> dict[str, Any]:
        """Those of `Duplex` that not all pairs have."""
        return {}

    def learnt(self, *, first: bool = False) -> str:
        """Words for what branches learn; with `first`, backbones before them."""
        number = self.num_pretrain if first else self.num_train
        return f"{number:,} examples of {self.dataset}" if number else self.dataset


@dataclasses.dataclass(frozen=True, kw_only=True)
class DuplexConfig(PairConfig):
    """Settings of one comparison on images."""

    side: int = setting(4, "Side that maps are pooled to.", least=1, most=64)
    classes: tuple[int, ...] | None = setting(None, "Classes of it; none for all.")
    pretrain_dataset: str = setting("digits", "Data set that backbones learn first.")
    pretrain_classes: tuple[int, ...] | None = setting(
        None, "Classes of it; none for all."
    )
    image_size: int = setting(32, "Height and width of images.", least=8, most=4096)

    def branch_settings(self, chosen: Variant) -> dict[str, Any]:
        return {"side": self.side * chosen.side_factor}

    def learnt(self, *, first: bool = False) -> str:
        name = self.pretrain_dataset if first else self.dataset
        classes = self.pretrain_classes if first else self.classes
        number = self.num_pretrain if first else self.num_train
        text = f"{number:,} examples of {name}" if number else name
        return f"{text}, classes {', '.join(map(str, classes))}" if classes else text


_ABLATIONS = (
    *("duplex+float32", "duplex+norms", "duplex+double"),
    *("duplex+errors0.001", "duplex+errors0.01"),
    "irreversible+unrefreshed",
)
PRESETS = {
    "quick": DuplexConfig(
        preset="quick",
        variants=(*ALGORITHMS, *_ABLATIONS),
        width=0.125,
        channels=32,  # fewer parameters than the backbone, as the paper has it
        classes=(5, 6, 7, 8, 9),
        pretrain_classes=(0, 1, 2, 3, 4),
        image_size=16,
        train=TrainConfig(epochs=8, learning_rate=0.02),
        pretrain=TrainConfig(epochs=8),
    ),
    "smoke": DuplexConfig(
        preset="smoke",
        variants=("duplex", "branch_only"),
        width=0.0625,
        side=2,
        classes=(5, 6, 7, 8, 9),
        pretrain_classes=(0, 1, 2, 3, 4),
        image_size=8,
        train=TrainConfig(epochs=2, learning_rate=0.02),
        pretrain=TrainConfig(epochs=2),
        num_seeds=1,
        checkpoint_every_s=1.0,
    ),
    "cifar": DuplexConfig(
        preset="cifar",
        variants=(*ALGORITHMS, *_ABLATIONS, "duplex+spared0.01", "duplex+concatenate"),
        channels=64,
        dataset="cifar10",
        pretrain_dataset="cifar100",
        num_train=5_000,
        num_pretrain=20_000,
        train=TrainConfig(epochs=8, learning_rate=0.02, weight_decay=5e-4),
        pretrain=TrainConfig(epochs=10, weight_decay=5e-4),
    ),
    "paper": DuplexConfig(
        preset="paper",
        pairs=tuple(name for name, pair in PAIRS.items() if pair.backbone != "bert12"),
        variants=(*ALGORITHMS, *_ABLATIONS),
        width=1.0,
        channels=256,
        dataset="cifar10",
        pretrain_dataset="cifar100",
        # Section VI-B: batches of 64 for 20 epochs; backbones 90 epochs in batches of
        # 512 at 1e-3, a tenth of it from epoch 30 and from 60: here from 45 and from 68.
        train=TrainConfig(epochs=20, learning_rate=0.02, weight_decay=5e-4),
        pretrain=TrainConfig(
            epochs=90,
            batch_size=512,
            learning_rate=1e-3,
            weight_decay=5e-4,
            schedule="step",
        ),
    ),
}
